"""Sphinx configuration: `sphinx-build -W docs build/site` makes the documentation site."""

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
