"""Supervisely (docs.supervisely.com, project structure).

    meta.json     DATASET/img/1.jpg     DATASET/ann/1.jpg.json

``objects`` with ``classTitle``, ``geometryType`` and ``points.exterior``: a point is a head, a rectangle or polygon the
centre of its extent; a head marked otherwise (bitmap, line, graph) is refused. A data set's folder gives the split. Source:
developer.supervisely.com (annotation format).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..images import BadFile
from .base import Layout, files, read_json
from .cvat import shapes_of
from .tree import Labelled, Shape, from_shapes, peek_json, split_of


def _folders(root: Path) -> list[Path]:
    """Those that hold img and ann."""
    candidates = [root, *(path for path in files(root) if path.is_dir())] if root.is_dir() else []
    return [path for path in candidates if (path / "img").is_dir() and (path / "ann").is_dir()]


def _recognise(root: Path) -> bool:
    first = (files(folder / "ann", "*.json")[:1] for folder in _folders(root))
    contents = (peek_json(path) for paths in first for path in paths)
    return any(isinstance(content, dict) and "objects" in content for content in contents)


def _shapes(path: Path) -> list[Shape] | BadFile:
    try:
        shapes: list[Shape] = []
        for mark in read_json(path)["objects"]:
            kind = "points" if mark["geometryType"] == "point" else mark["geometryType"]
            numbers = [number for pair in mark.get("points", {}).get("exterior", []) for number in pair]
            shapes += shapes_of(str(mark["classTitle"]), kind if numbers else "bitmap", numbers)
        return shapes
    except BadFile as bad:
        return bad
    except (KeyError, TypeError, ValueError, AttributeError):
        return BadFile(
            path, "not as Supervisely's files are: objects with classTitle, geometryType and points.exterior"
        )


def _rows(root: Path) -> Iterator[Labelled]:
    for folder in _folders(root):
        for path in files(folder / "ann", "*.json"):
            image = folder / "img" / path.stem
            yield Labelled(split_of(folder.name) or "train", image.name, image, path, _shapes(path))


LAYOUT = Layout("supervisely", _recognise, lambda root: from_shapes(_rows(root)), upright_points=True)
