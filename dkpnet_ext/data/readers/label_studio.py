"""Label Studio (labelstud.io), the exports JSON, JSON-MIN, CSV and TSV.

    project-1-at-2026-01-01.json     pictures anywhere below

A task per image: ``data.image`` and ``annotations[0].result`` with ``keypointlabels``, ``rectanglelabels`` and others; values are
per cent of the picture, of a rectangle its top left corner, about which ``rotation`` (degrees) turns it, of an ellipse its
centre. A polygon gives the centre of its extent; brushes are refused. Predictions and cancelled annotations are left out; a task
without others is unlabelled. Uploads
are called ``1a2b3c4d-1.jpg``: the part before the hyphen is left out if need be. Source: HumanSignal/label-studio-sdk (converter).
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..images import BadFile
from .base import Entry, Layout, is_file, read_json, read_text
from .tree import (
    PEEKED,
    Labelled,
    Pictures,
    Shape,
    annotation_files,
    from_shapes,
    json_files,
    outlined,
    peek_lines,
    picture_root,
    split_of_file,
)

_KINDS = ("keypointlabels", "rectanglelabels", "ellipselabels", "brushlabels", "polygonlabels", "labels")


def _is_label_studio(content: Any) -> bool:
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    task = content[0]
    full = isinstance(task.get("data"), dict) and ("annotations" in task or "completions" in task)
    return full or ("annotator" in task and "annotation_id" in task)


def _tables(root: Path) -> list[Path]:
    """The exports as CSV or TSV."""
    found = [(path, "".join(peek_lines(path, 1))) for path in annotation_files(root, ".csv", ".tsv")]
    return [path for path, first in found if "annotation_id" in first and "annotator" in first]


def _recognise(root: Path) -> bool:
    return any(json_files(root, _is_label_studio, PEEKED)) or bool(_tables(root))


def _tasks(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".json":
        return read_json(path)
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
    return [{k: json.loads(v) if v and v.startswith("[{") else v for k, v in row.items()} for row in rows]


def _name(task: dict[str, Any]) -> str:
    data = task.get("data", task)
    value = next(v for k, v in data.items() if k in ("image", "img", "picture", "url") or str(v).startswith("/data/"))
    return unquote(str(value)).split("?d=")[-1].split("?")[0]


def _values(task: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The values of a task's first annotation; None: it has none."""
    if "data" in task:
        done = task.get("annotations") or task.get("completions") or []
        done = [annotation for annotation in done if not annotation.get("was_cancelled")]
        if not done:
            return None
        regions: dict[Any, dict[str, Any]] = {}  # of one region a mark, its label and answers about it may stand apart
        for number, result in enumerate(done[0]["result"]):
            if "value" in result:
                regions.setdefault(result.get("id") or number, {}).update(result | result["value"])
        values = list(regions.values())
    else:
        lists = [value for value in task.values() if isinstance(value, list)]
        values = [value for values in lists for value in values if isinstance(value, dict)]
    return [value for value in values if {"x", "points", "rle"} & value.keys()]  # the others are answers


def _shape(value: dict[str, Any]) -> Shape:
    label = str(next((value[kind] for kind in _KINDS if value.get(kind)), [""])[0])
    if isinstance(value.get("points"), list):
        return outlined(label, [(x / 100, y / 100) for x, y in value["points"]])
    if "x" not in value:  # of a brush
        return Shape(label, ())
    x, y = value["x"] / 100, value["y"] / 100
    if "height" not in value:
        return Shape(label, (x, y))
    width, height = value["width"] / 100, value["height"] / 100
    if turn := math.radians(value.get("rotation") or 0):  # in pixels, about the corner
        sides = (value.get("original_width") or 1, value.get("original_height") or 1)
        a, b = width / 2 * sides[0], height / 2 * sides[1]
        x += (a * math.cos(turn) - b * math.sin(turn)) / sides[0] - width / 2
        y += (a * math.sin(turn) + b * math.cos(turn)) / sides[1] - height / 2
    return Shape(label, (x, y, x + width, y + height))


def _rows(path: Path) -> Iterator[Labelled]:
    split, pictures = split_of_file(path), Pictures(picture_root(path))
    try:
        for task in _tasks(path):
            name = _name(task)
            short = re.sub(r"^[0-9a-f]{8}-", "", name.split("/")[-1])
            image = pictures.find(name, split)
            image = image if is_file(image) else pictures.find(short, split)
            values = _values(task)
            yield Labelled(split, short, image, path, None if values is None else list(map(_shape, values)))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise BadFile(path, f"not as Label Studio's files are ({type(error).__name__}: {error})") from None


def _entries(root: Path) -> Iterator[Entry]:
    found = [*json_files(root, _is_label_studio), *_tables(root)]
    yield from from_shapes((row for path in found for row in _rows(path)), fractions=True)


LAYOUT = Layout("label-studio", _recognise, _entries, upright_points=True)
