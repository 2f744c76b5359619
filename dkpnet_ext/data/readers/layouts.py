"""All layouts, in the order in which they are tried, and the search for the one that fits a folder."""

from __future__ import annotations

from pathlib import Path

from ...errors import UserError
from . import beijing_brt, jhu_crowd, lists, nwpu, shanghaitech, ucf_cc_50, ucf_qnrf
from .base import Layout, files

LAYOUTS: dict[str, Layout] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (shanghaitech, beijing_brt, jhu_crowd, nwpu, ucf_qnrf, ucf_cc_50, lists)
}


def find_layout(path: Path, layout: str | None = None) -> tuple[Path, Layout]:
    """The folder that holds the data (``path``, or its only sub-folder that does) and its layout.

    Raises `UserError` when nothing or more than one thing is recognised.
    """
    known = ", ".join(LAYOUTS)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if layout is not None:
        if layout not in LAYOUTS:
            raise UserError(f"'{layout}' is not a layout (known: {known})")
        return path, LAYOUTS[layout]
    candidates = [path, *(child for child in files(path) if child.is_dir())]
    found = [(root, row) for root in candidates for row in LAYOUTS.values() if row.recognise(root)]
    if found and found[0][0] == path:
        return found[0]
    if not found:
        raise UserError(f"{path}: no known data set layout here (known: {known})")
    if len(found) > 1:
        raise UserError(
            f"{path}: several data sets here, name one of them: {', '.join(str(root) for root, _ in found)}"
        )
    return found[0]
