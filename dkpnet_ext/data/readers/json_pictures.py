"""One JSON file, or JSON Lines, of pictures with marks on them.

    labels.json (train.json, train/metadata.jsonl, export.ndjson, mine.pnt ...)     pictures anywhere below

- ``{"file_name": "1.jpg", "objects": {"bbox": [[x, y, w, h], ...]}}``: Hugging Face's imagefolder
- ``{"name": "1.jpg", "labels": [{"category", "box2d"}, ...]}``: BDD100K, Scalabel
- ``{"image": "1.jpg", "annotations": [{"label", "coordinates"}, ...]}``: CreateML; and own files, also of pairs [x, y]
- ``{"data_row": {"external_id": "1.jpg"}, "projects": ...}``: Labelbox's export
- ``{"labels": {"1": [{"bounding_box": fractions}, ...]}}``: FiftyOne; ``{"points": {"1.jpg": {"head": [{x, y}]}}}``: DotDotGoose
- ``{"1.jpg": {"points": [...]}, ...}``: own files
- VoTT, Hasty, Vertex AI, SageMaker Ground Truth (output.manifest), Prodigy, Scale, Encord, FiftyOneDataset, LabelU, Segments.ai,
  OpenLABEL, Edge Impulse: see `wrapped`

Sources: persts/DotDotGoose (doc/schema.md), strickvl/panlabel's samples of CreateML, Labelbox and BDD100K.

The forms of a mark are in `marks`. A picture without marks has nobody on it; one of which the tool says that it is not labelled yet
is unlabelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..images import IMAGE_SUFFIXES, BadFile
from .base import MALFORMED, Entry, Layout, is_file, read_json
from .lists import IMAGE_KEYS
from .marks import MARKS, shapes_of
from .tree import (
    PEEKED,
    Labelled,
    Pictures,
    annotation_files,
    from_shapes,
    peek_json,
    peek_lines,
    picture_root,
    read_json_lines,
    split_of,
    split_of_file,
)
from .wrapped import Row, fractional, unwrap

SUFFIXES = (".json", ".jsonl", ".ndjson", ".pnt", ".manifest", ".labels")
_NAMES = (*IMAGE_KEYS, "name", "external_id", "image_id")


def _named(row: Any) -> Row | None:
    """One picture of a list."""
    if not isinstance(row, dict):
        return None
    if isinstance(row.get("data_row"), dict) and isinstance(row.get("projects"), dict):
        labels = [label for project in row["projects"].values() for label in project["labels"][:1]]
        marks = [mark for label in labels for mark in label["annotations"]["objects"]]
        return Row(str(row["data_row"].get("external_id", "")), marks if labels else None)
    name = next((row[key] for key in _NAMES if isinstance(row.get(key), str)), "")
    found: Any = next((row[key] for key in MARKS if isinstance(row.get(key), list | dict)), None)
    named = Path(name.replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES
    return Row(name, found) if named and found is not None else None


def _rows(content: Any) -> list[Row | None]:
    """The pictures of a file; none if it is not such a file."""
    if (wrapped := unwrap(content)) is not None:
        return list(wrapped)
    if isinstance(content, list):
        points = isinstance(content[0], dict) and "points" in content[0] if content else False
        return [] if points else [_named(row) for row in content]  # with points it is the layout list
    if isinstance(content, dict) and "classes" in content and isinstance(content.get("points"), dict):
        return [Row(name, marks) for name, marks in content["points"].items()]
    if isinstance(content, dict) and content and all(isinstance(own, dict) for own in content.values()):
        return [_named({"image": name} | own) for name, own in content.items()]
    return []


def _read(path: Path, first: bool = False) -> Any:
    """A file's content; ``first``: enough of it to recognise it."""
    if path.suffix.lower() in (".json", ".pnt", ".labels"):
        return peek_json(path) if first else read_json(path)
    import json

    lines = peek_lines(path, 1) if first else []
    return [json.loads(lines[0])] if lines else [row for _, row in read_json_lines(path)]


def _files(root: Path, most: int | None = None) -> list[Path]:
    """Those whose first picture can be read."""
    found = []
    for path in annotation_files(root, *SUFFIXES)[:most]:
        try:
            rows = _rows(_read(path, first=True))
            if rows and rows[0] is not None:
                shapes_of(rows[0].marks or [])
                found.append(path)
        except MALFORMED:
            continue
    return found


def _find(row: Row, pictures: Pictures, split: str) -> tuple[str, Path]:
    """A picture's name and file. LabelU's first versions put eight digits before a name."""
    image, short = pictures.find(row.name, row.split or split), re.sub(r"(^|/)[0-9a-f]{8}-", r"\1", row.name)
    if short != row.name and not is_file(image) and is_file(found := pictures.find(short, row.split or split)):
        return short, found
    return row.name, image


def _labelled(path: Path) -> Iterator[Labelled]:
    split, pictures = split_of_file(path), Pictures(picture_root(path))
    for number, row in enumerate(_rows(_read(path))):
        where = f"picture {number}"
        try:
            if row is None:
                raise BadFile(path, f"{where} has no name and marks")
            if row.bad:
                raise BadFile(path, f"{where} {row.bad}")
            name, image = _find(row, pictures, split)
            own = split_of(image.parent.name) if split == "train" and is_file(image) else None
            shapes = None if row.marks is None else shapes_of(row.marks)
            yield Labelled(row.split or own or split, name, image, path, shapes)
        except BadFile as bad:
            yield Labelled(split, where, path, path, bad)
        except MALFORMED:
            yield Labelled(split, where, path, path, BadFile(path, f"{where} has a mark without x and y, or a box"))


def _entries(root: Path) -> Iterator[Entry]:
    found = _files(root)
    first = _read(found[0], first=True) if found else None
    yield from from_shapes((row for path in found for row in _labelled(path)), fractions=fractional(first))


LAYOUT = Layout("json-pictures", lambda root: bool(_files(root, PEEKED)), _entries, upright_points=True)
