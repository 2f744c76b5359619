"""All layouts, in the order in which they are tried, and the search for the one that fits a folder."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...errors import UserError, printable
from ..images import IMAGE_SUFFIXES, BadFile
from . import (
    beijing_brt,
    beside,
    carpk,
    cclabeler,
    city_persons,
    coco,
    crowdhuman,
    csv_heads,
    cvat,
    dot_images,
    fsc147,
    gcc,
    imglab,
    jhu_crowd,
    json_each,
    json_pictures,
    label_studio,
    labelme,
    lists,
    mall,
    mot,
    moving_drone_crowd,
    nwpu,
    path_lists,
    rgbt_cc,
    shanghaitech,
    supervisely,
    text_boxes,
    text_pictures,
    ucf_cc_50,
    ucf_qnrf,
    ucsd,
    unity,
    via,
    visdrone,
    voc,
    vscrowd,
    wider_person,
    worldexpo,
    yolo,
    zooniverse,
)
from .base import MALFORMED, Layout, files
from .tree import peek_json, peek_lines, walk

# Sets with a tree of their own come before files that may lie anywhere; `beside` fits most and comes last.
LAYOUTS: dict[str, Layout] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (
        *(shanghaitech, ucf_qnrf, beijing_brt, jhu_crowd, nwpu, ucf_cc_50, worldexpo, mall, ucsd, visdrone, carpk, mot),
        *(gcc, moving_drone_crowd),
        *(
            rgbt_cc,
            crowdhuman,
            fsc147,
            vscrowd,
            wider_person,
            city_persons,
            coco,
            imglab,
            voc,
            cvat,
            label_studio,
            via,
            labelme,
            cclabeler,
            supervisely,
            yolo,
            text_boxes,
            zooniverse,
            csv_heads,
            path_lists,
            text_pictures,
        ),
        *(lists, json_pictures, dot_images, unity, beside, json_each),
    )
}
_DENSITIES = re.compile(r"(^|_)(den|dens|density)(_|$)")  # in a folder's name: csv_den_maps_k15_s4, density_maps
DEPTH = 2  # folders below the given one in which a data set is looked for


def _levels(path: Path) -> Iterator[list[Path]]:
    level = [path]
    for _ in range(DEPTH + 1):
        yield level
        level = [child for folder in level if folder.is_dir() for child in files(folder) if child.is_dir()]


def _fitting(root: Path, rows: list[Layout]) -> Layout | None:
    """The first of the layouts that recognises ``root``; content of a form that it does not expect is not its own."""
    for row in rows:
        try:
            if row.recognise(root):
                return row
        except (*MALFORMED, BadFile, OSError):
            continue
    return None


def find_layout(path: Path, layout: str | None = None) -> tuple[Path, Layout]:
    """The folder that holds the data (``path``, or the only one that does, up to two below) and its layout.

    Raises `UserError` when nothing or more than one thing is recognised.
    """
    known = ", ".join(LAYOUTS)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if layout is not None:
        if layout not in LAYOUTS:
            raise UserError(f"'{layout}' is not a layout (known: {known})")
        return path, LAYOUTS[layout]
    if path.is_file():
        if row := _fitting(path, list(LAYOUTS.values())):
            return path, row
        raise UserError(f"{path}: not a file of a known layout ({known})")
    for deep, level in itertools.product((False, True), _levels(path)):
        rows = [row for row in LAYOUTS.values() if row.deep == deep]
        tried = ((root, _fitting(root, rows)) for root in level)
        found = [(root, row) for root, row in tried if row is not None]
        if len(found) > 1:
            names = ", ".join(str(root) for root, _ in found)
            raise UserError(f"{path}: several data sets here, name one of them: {names}")
        if found:
            return found[0]
    raise UserError(
        f"{path}: no known data set layout here: {_contents(path)}. Known: {known}. For own pictures write train.csv "
        "with the columns image,points (points in quotes, [] for none)"
    )


def _contents(path: Path) -> str:
    """What lies in a folder without points, in words."""
    everything = [path] if path.is_file() else list(walk(path))
    kinds = Counter(file.suffix.lower() or "no suffix" for file in everything)
    held = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "nothing"
    tables = [file for file in everything if file.suffix.lower() in (".csv", ".txt")]
    first = [line.split(",") for file in tables[:5] for line in peek_lines(file, 1)]
    maps = any(len(fields) > 4 and all(re.fullmatch(r"[\s\d.e+-]+", field) for field in fields) for fields in first)
    folders = {part.lower() for file in everything for part in file.relative_to(path).parts[:-1]}
    maps |= any(_DENSITIES.search(folder) for folder in folders)
    if maps or kinds[".h5"] or kinds[".npy"] or kinds[".npz"]:
        return f"it holds density maps, not points: heads cannot be told from them ({held})"
    unread = [kind for kind in kinds if kind in (".parquet", ".xlsx", ".xls", ".pkl", ".pickle", ".tfrecord", ".db")]
    if unread:
        return f"{', '.join(unread)} is not read, write it as CSV or JSON ({held})"
    if any("count" in field.lower() for fields in first for field in fields):
        return f"it holds counts, not points: where the heads are is not in it ({held})"
    names = [file.stem.lower() for file in everything if file.suffix.lower() in IMAGE_SUFFIXES]
    if folders & {"mask", "masks", "seg", "segmentation"} or any(name.endswith("mask") for name in names):
        return f"it holds masks, not points: people who touch cannot be told apart in them ({held})"
    return f"{_unknown_json(everything)}it holds {held}"


def _unknown_json(everything: list[Path]) -> str:
    """Of which tool a JSON file may be, by its keys."""
    found = ((file, peek_json(file)) for file in everything[:100] if file.suffix.lower() == ".json")
    rows = ((file, own[0] if isinstance(own, list) and own else own) for file, own in found)
    named = next(((file, row) for file, row in rows if isinstance(row, dict)), None)
    if named is None:
        return ""
    keys = printable(", ".join(str(key)[:30] for key in list(named[1])[:4]))
    return f"{printable(named[0].name)} is of no known tool (its keys: {keys}), export COCO or CVAT XML from there; "
