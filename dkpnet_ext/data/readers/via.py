"""VGG Image Annotator (robots.ox.ac.uk/~vgg/software/via), and sets that were labelled with it (FDST).

    via_region_data.json (or .csv, or a project)        pictures anywhere below
    train_data/1/001.jpg   train_data/1/001.json        FDST (Fang et al., ICME 2019): a JSON per frame

``{key: {filename, regions: [{shape_attributes: {name, ...}}]}}``: a point is a head, a rectangle, circle or ellipse its
centre, a polygon the centre of its extent. Sources: strickvl/panlabel's samples (VIA 2), the loaders of FDST in
SKKUAutoLab/ETSS-05-Congestion (a rectangle per head).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..images import BadFile
from .base import Entry, Layout, is_file, read_json, read_rows
from .tree import (
    PEEKED,
    Labelled,
    Pictures,
    Shape,
    annotation_files,
    from_shapes,
    peek_json,
    peek_lines,
    picture_root,
    relative,
    split_folders,
    split_of,
    split_of_file,
    walk,
)

COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


def _content(path: Path) -> Any:
    """A JSON file's content, or that of a CSV export in the same form."""
    if path.suffix.lower() != ".csv":
        return read_json(path)
    images: dict[str, dict[str, Any]] = {}
    for _, row in read_rows(path, COLUMNS):
        image = images.setdefault(row["filename"], {"filename": row["filename"], "regions": []})
        shape, attributes = json.loads(row[COLUMNS[1]]), json.loads(row[COLUMNS[2]])
        if shape:
            image["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
    return images


def _images(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)
    values = list(content.values()) if isinstance(content, dict) else []
    return values if all(isinstance(v, dict) and "filename" in v and "regions" in v for v in values) else []


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and all(name in "".join(peek_lines(path, 1)) for name in COLUMNS)


def _files(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, its folder, JSON file)."""
    if root.is_file():
        return [(split_of(root.stem) or "train", root.parent, root)]
    tables = [(split_of_file(path), root, path) for path in annotation_files(root, ".csv") if _is_csv(path)]
    if tables:
        return tables
    found = [(s, folder, p) for s, folder in split_folders(root) for p in walk(folder) if p.suffix.lower() == ".json"]
    return [(split_of(path.stem) or split, folder, path) for split, folder, path in found]


def _recognise(root: Path) -> bool:
    if root.is_file() and root.suffix.lower() not in (".json", ".csv"):
        return False
    return any(_is_csv(path) or _images(peek_json(path)) for _, _, path in _files(root)[:PEEKED])


def _shape(region: dict[str, Any]) -> Shape:
    shape = region["shape_attributes"]
    attributes = region.get("region_attributes") or {}
    label = next((value for value in attributes.values() if isinstance(value, str)), "")
    if "all_points_x" in shape:
        x, y = shape["all_points_x"], shape["all_points_y"]
        return Shape(label, (min(x), min(y), max(x), max(y)))
    if shape["name"] == "rect":
        x, y = shape["x"], shape["y"]
        return Shape(label, (x, y, x + shape["width"], y + shape["height"]))
    return Shape(label, (shape["cx"], shape["cy"]))


def _rows(root: Path) -> Iterator[Labelled]:
    known: dict[Path, Pictures] = {}
    for split, folder, path in _files(root):
        try:
            images = _images(_content(path))
            for image in images:
                regions = image["regions"]
                regions = list(regions.values()) if isinstance(regions, dict) else regions  # of version 1
                picture = path.parent / image["filename"]  # where an URL or a subfolder may stand
                if not is_file(picture):
                    base = picture_root(path)
                    picture = known.setdefault(base, Pictures(base)).find(image["filename"], split)
                yield Labelled(split, relative(picture, folder), picture, path, [_shape(region) for region in regions])
        except (KeyError, TypeError, ValueError, AttributeError):
            yield Labelled(split, path.name, path, path, BadFile(path, "not as VIA's files are"))
        except BadFile as bad:
            yield Labelled(split, path.name, path, path, bad)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))


LAYOUT = Layout("via", _recognise, _entries, upright_points=True, deep=True)
