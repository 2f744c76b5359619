"""Zooniverse's classification export (zooniverse.org), of a project in which volunteers mark heads.

    my-project-classifications.csv     pictures anywhere below

A line per volunteer and picture: ``annotations`` (JSON) holds tasks, whose ``value`` lists marks {x, y, tool_label, frame, ...}, in
pixels of the picture as Zooniverse has it: where its size is known of every picture (``subject_dimensions`` in ``metadata``), they
are taken as shares of it. ``subject_data`` is {id: {"Filename": "1.jpg", ...}}; without a file's name the picture is ``id.jpg``. A
circle and an ellipse give their centre, lines are refused. Of several volunteers the one with the median number of marks is taken.
Workflows in which nothing is marked are left out, as are marks of further frames. Sources: zooniverse/Data-digging (an export,
flatten_class_drawing_demo.py), PmasonFF/Zooniverse-data-digging (subject_downloader.py), help.zooniverse.org (data exports).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..images import IMAGE_SUFFIXES, BadFile
from .base import MALFORMED, Entry, Layout, is_file, read_rows
from .csv_heads import IMAGE
from .tree import (
    Labelled,
    Pictures,
    Shape,
    annotation_files,
    from_shapes,
    outlined,
    peek_lines,
    picture_root,
    split_of_file,
)

_COLUMNS = ("annotations", "subject_data", "workflow_id")
_PLACES = {"x", "x1", "x_center", "points", "pathX"}


class Classification(NamedTuple):
    """What one volunteer marked on a picture."""

    workflow: str
    subject: str
    named: dict[str, Any]  # what is known of the picture
    size: tuple[float, ...] | None  # (width, height)
    shapes: list[Shape]


def _files(root: Path) -> list[Path]:
    headers = ((path, "".join(peek_lines(path, 1)).split(",")) for path in annotation_files(root, ".csv"))
    return [path for path, names in headers if set(_COLUMNS) <= {name.strip() for name in names}]


def _marks(tasks: Any) -> Iterator[dict[str, Any]]:
    """The marks of the first frame; a task may hold others, and an answer no place."""
    for task in tasks:
        for mark in task["value"] if isinstance(task.get("value"), list) else ():
            if isinstance(mark, dict) and "task" in mark:
                yield from _marks([mark])
            elif isinstance(mark, dict) and _PLACES & mark.keys() and not mark.get("frame"):
                yield mark


def _shape(mark: dict[str, Any]) -> Shape:
    label = str(mark.get("tool_label", mark.get("tool", "")))
    if "points" in mark:
        return outlined(label, [(point["x"], point["y"]) for point in mark["points"]])
    x, y = (mark.get(f"{axis}_center", mark.get(axis)) for axis in "xy")
    if x is None or y is None:  # of a line
        return Shape(label, ())
    width, height = mark.get("width", 0), mark.get("height", 0)
    corner = (x - width / 2, y - height / 2) if "x_center" in mark else (x, y)
    return Shape(label, (*corner, corner[0] + width, corner[1] + height) if width and height else (x, y))


def _read(path: Path) -> Iterator[Classification]:
    for number, row in read_rows(path, _COLUMNS):
        try:
            subject, named = next(iter(json.loads(row["subject_data"]).items()))
            sizes = json.loads(row.get("metadata") or "{}").get("subject_dimensions") or [None]
            size = tuple(float(sizes[0][f"natural{side}"]) for side in ("Width", "Height")) if sizes[0] else ()
            marks = [mark for mark in _marks(json.loads(row["annotations"])) if mark.get("x", 0) is not None]
            known = size if size and min(size) > 0 else None
            yield Classification(row["workflow_id"], subject, dict(named), known, list(map(_shape, marks)))
        except (*MALFORMED, StopIteration):
            raise BadFile(path, f"line {number} is not as Zooniverse writes it") from None


def _name(subject: str, named: dict[str, Any], pictures: Pictures) -> str:
    """The picture's, of fields that may name others, too."""
    files = {
        key: own for key, own in named.items() if isinstance(own, str) and Path(own).suffix.lower() in IMAGE_SUFFIXES
    }
    told = [own for key, own in files.items() if re.sub(r"[^a-z]", "", key.lower()) in IMAGE]
    there = {own for own in told[:1] or files.values() if is_file(pictures.find(own))}
    if len(there) > 1:
        raise BadFile(pictures.root, f"subject {subject} names {' and '.join(sorted(there)[:2])}")
    return next(iter(there), (told or [*files.values(), f"{subject}.jpg"])[0])


def _as_shares(shape: Shape, size: Any) -> Shape:
    share = shape._replace(corners=(np.asarray(shape.corners, float) / [*size, *size][: len(shape.corners)]).tolist())
    return share._replace(rings=[(np.asarray(ring, float) / size).tolist() for ring in shape.rings])


def _rows(path: Path, every: list[Classification], shares: bool) -> Iterator[Labelled]:
    split, pictures = split_of_file(path), Pictures(picture_root(path))
    drawn = {own.workflow for own in every if own.shapes}
    subjects: dict[str, list[Classification]] = {}
    for own in every:
        if own.workflow in drawn or not drawn:
            subjects.setdefault(own.subject, []).append(own)
    for subject, several in subjects.items():
        chosen = sorted(several, key=lambda own: len(own.shapes))[(len(several) - 1) // 2]
        size = next((own.size for own in several if own.size), None)
        try:
            name = _name(subject, chosen.named, pictures)
            shapes = [_as_shares(shape, size) for shape in chosen.shapes] if shares else chosen.shapes
            yield Labelled(split, name, pictures.find(name, split), path, shapes)
        except BadFile as bad:
            yield Labelled(split, f"subject {subject}", path, path, bad)


def _entries(root: Path) -> Iterator[Entry]:
    files = {path: list(_read(path)) for path in _files(root)}
    every = [(path, own) for path, rows in files.items() for own in rows]
    shares = {(path, own.subject) for path, own in every} == {(path, own.subject) for path, own in every if own.size}
    yield from from_shapes((row for path in files for row in _rows(path, files[path], shares)), fractions=shares)


LAYOUT = Layout(
    "zooniverse", lambda root: bool(_files(root)), _entries, upright_points=True,
    says="of several volunteers the one with the median number of marks",
)  # fmt: skip
