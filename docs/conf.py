"""Sphinx configuration: `sphinx-build -W docs build/site` makes the documentation site."""

import re
from pathlib import Path

from dkpnet_ext import __version__

project = "dkpnet_ext"
author = "the dkpnet_ext authors"
release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a notebook runs again when its code has changed
nb_execution_timeout = 300  # seconds a cell
nb_execution_raise_on_error = True
nb_merge_streams = True  # one box for all that a cell prints

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_preprocess_types = False

exclude_patterns = ["_build"]
suppress_warnings = [
    "misc.highlighting_failure",  # `csv` has no highlighter
    "mystnb.unknown_mime_type",
]

html_theme = "furo"
html_title = "dkpnet_ext"
html_show_copyright = False


def link_outside_as_downloads(app, docname, source):
    """Turn links to Markdown files outside of docs/ (results, model card) into downloads: Sphinx cannot render those."""
    folder = Path(app.srcdir, docname).parent

    def download(match):
        target = (folder / match[2]).resolve()
        outside = app.srcdir not in target.parents
        return f"{{download}}`{match[1]} <{match[2]}>`" if outside and target.suffix == ".md" else match[0]

    source[0] = re.sub(r"\[([^\]\[]+)\]\((\.\./[^)#]+)(?:#[^)]*)?\)", download, source[0])


def setup(app):
    app.connect("source-read", link_outside_as_downloads)
