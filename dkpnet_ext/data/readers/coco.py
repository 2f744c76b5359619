"""COCO detection or keypoints (cocodataset.org/#format-data).

    instances_train.json (or annotations/instances_val2017.json ...)     pictures anywhere below

``images`` (id, file_name), ``annotations`` (image_id, category_id, bbox [x, y, w, h], keypoints), ``categories``. A
head is the mean of the visible keypoints of the face, else the centre of its box (of a person's: of its top edge).
What ``iscrowd`` or ``ignore`` (TinyPerson, CrowdHuman in this form) marks is an area, no head: its polygons, the extent of its
mask (RLE) column by column, or its box. An image
without annotations has no people. Of several files of one split those with keypoints are read, else those with boxes; an image
in two of them is refused. Roboflow's first category is the project and has no boxes. Sources: cocodataset.org/#format-data,
the samples of datumaro (coco, roboflow).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, as_points, read_json
from .tree import (
    FACE,
    PEEKED,
    Labelled,
    Pictures,
    Shape,
    from_shapes,
    json_files,
    peek_json,
    picture_root,
    split_of_file,
)

MOST_PIXELS = 1 << 16  # of a mask's side


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(k), list) for k in ("images", "annotations"))


def _recognise(root: Path) -> bool:
    return any(json_files(root, _is_coco, PEEKED))


def _shape(annotation: dict[str, Any], label: str, names: list[str], path: Path) -> Shape:
    values = annotation.get("keypoints") or []
    triples = [values[i : i + 3] for i in range(0, len(values), 3)]
    face = [p[:2] for p, name in zip(triples, names, strict=False) if str(name).lower() in FACE and p[2] > 0]
    if not names and len(triples) == 1:  # a tool with one keypoint only: the person's head
        face = [triples[0][:2]]
    if face:
        return Shape(label, as_points(face, path).mean(axis=0), rings=_box_ring(annotation))
    x, y, width, height = annotation["bbox"]
    return Shape(label, (x, y, x + width, y + height) if width or height else (x, y))


def _box_ring(annotation: dict[str, Any]) -> list[list[tuple[float, float]]]:
    """The box as a polygon, where there is one."""
    if not annotation.get("bbox"):
        return []
    x, y, width, height = annotation["bbox"]
    return [[(x, y), (x + width, y), (x + width, y + height), (x, y + height)]] if width and height else []


def _area(annotation: dict[str, Any], label: str) -> Shape:
    mask = annotation.get("segmentation")
    if isinstance(mask, dict) and mask.get("counts"):
        rings: list[Any] = [rle_outline(mask["counts"], *mask["size"])]
    elif isinstance(mask, list) and mask and all(isinstance(ring, list) and len(ring) >= 6 for ring in mask):
        rings = [list(zip(ring[::2], ring[1::2], strict=True)) for ring in mask]
    else:
        rings = _box_ring(annotation)
    return Shape(label, (), True, [ring for ring in rings if len(ring)])


def rle_outline(counts: list[int] | str, height: int, width: int, step: int = 8) -> list[tuple[float, float]]:
    """COCO's run lengths (of columns, off and on in turn; a list, or packed) -> a polygon: in each ``step`` columns from the first
    to the last row of the mask. Raises ValueError.
    """
    if not (0 < height <= MOST_PIXELS and 0 < width <= MOST_PIXELS):
        raise ValueError(f"a mask of {width}x{height} px")
    ends = np.cumsum(counts if isinstance(counts, list) else _unpacked(counts)).clip(0, height * width)
    top: dict[int, int] = {}
    bottom: dict[int, int] = {}
    for first, end in zip(ends[::2].tolist(), ends[1::2].tolist(), strict=False):
        for column in range(first // height, (end - 1) // height + 1) if end > first else ():
            rows = max(first - column * height, 0), min(end - column * height, height)
            top[column // step] = min(rows[0], top.get(column // step, height))
            bottom[column // step] = max(rows[1], bottom.get(column // step, 0))
    strips = range(min(top, default=0), max(top, default=-1) + 1)  # one in between without the mask has no height
    edges = [
        [(float((s + side) * step), float(rows.get(s, 0))) for s in strips for side in (0, 1)] for rows in (top, bottom)
    ]
    return edges[0] + edges[1][::-1]


def _unpacked(text: str) -> list[int]:
    """Run lengths of COCO's packed form: five bits a letter, from the third on the difference to the one before the last."""
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        code = ord(letter) - 48
        number |= (code & 31) << shift
        shift += 5
        if shift > 60:
            raise ValueError("a mask's run length of more than 60 bits")
        if not code & 32:
            number -= (1 << shift) if code & 16 else 0
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    return counts


def _rows(path: Path) -> tuple[list[Labelled], list[str]]:
    content, split, pictures = read_json(path), split_of_file(path), Pictures(picture_root(path))
    rows: list[Labelled] = []
    shapes: dict[Any, list[Shape]] = {}
    try:
        categories = {c["id"]: c for c in content.get("categories", [])}
        for annotation in content["annotations"]:
            category = categories.get(annotation.get("category_id"), {})
            label = str(category.get("name", ""))
            if annotation.get("iscrowd") or annotation.get("ignore"):
                shape = _area(annotation, label)
            else:
                shape = _shape(annotation, label, category.get("keypoints") or [], path)
            shapes.setdefault(annotation["image_id"], []).append(shape)
        for image in content["images"]:
            name, mine = str(image["file_name"]), shapes.get(image["id"], [])
            try:
                rows.append(Labelled(split, name, pictures.find(name, split), path, mine))
            except BadFile as bad:
                rows.append(Labelled(split, name, path, path, bad))
        used = {annotation.get("category_id") for annotation in content["annotations"]}
        above = {category.get("supercategory") for category in categories.values()}  # Roboflow's project is one
        names = [
            str(c.get("name", "")) for number, c in categories.items() if number in used or c.get("name") not in above
        ]
        return rows, names
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadFile(path, f"not as COCO's files are ({type(error).__name__}: {error})") from None


def _marking(path: Path) -> int:
    """What a file marks: 2 keypoints, 1 boxes, 0 nothing (captions)."""
    marks = peek_json(path)["annotations"]
    return max((2 if "keypoints" in mark else 1 if "bbox" in mark else 0 for mark in marks[:1]), default=1)


def _entries(root: Path) -> Iterator[Entry]:
    by_split: dict[str, list[Path]] = {}
    for path in json_files(root, _is_coco):
        by_split.setdefault(split_of_file(path), []).append(path)
    rows, labels = [], set()
    for paths in by_split.values():
        marking = {path: _marking(path) for path in paths}
        most = max(marking.values())
        for path in paths:
            if marking[path] == most:
                more, names = _rows(path)
                rows += more
                labels |= set(names)
    yield from from_shapes(rows, labels=labels)


LAYOUT = Layout("coco", _recognise, _entries, upright_points=True)
