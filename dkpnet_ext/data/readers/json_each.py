"""A JSON for each picture: V7 Darwin, SuperAnnotate, Dataloop, GeoJSON, Cityscapes, or points alone.

    images/1.jpg     annotations/1.json (releases/latest/annotations/1.json)     or  1.jpg  1.json (1.jpg.json, 1.geojson)

Darwin 2.0 (docs.v7labs.com) has ``item.name`` and ``annotations``, SuperAnnotate (doc.superannotate.com) ``metadata.name`` and
``instances``, GeoJSON (QuPath's too) a FeatureCollection in pixels, of Points, MultiPoints and Polygons; own files have
``points`` or are a list of [x, y] or {x, y}. Of EuroCity Persons pedestrians, riders and those who ride along are counted, of
which none is a ``depiction`` or ``reflection``; groups are areas. Of Cityscapes (gtFine/train/CITY/X_gtFine_polygons.json,
leftImg8bit/train/CITY/X_leftImg8bit.png) the boxes of CityPersons are read where they are, else the fine polygons, else the
coarse ones. The forms of a mark are in `marks`. A picture without a file is unlabelled. Sources: v7labs/darwin-py,
superannotateai/superannotate-python-sdk (samples), qupath/qupath-docs, the evaluation code of EuroCity Persons,
mcordts/cityscapesScripts' labels, Dataloop's annotation format (dtlpy's documentation).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..images import BadFile
from .base import MALFORMED, Entry, Layout, is_file, read_json
from .marks import MARKS, shapes_of
from .tree import (
    PEEKED,
    Labelled,
    Pictures,
    Shape,
    from_shapes,
    others,
    outlined,
    peek_json,
    relative,
    split_of,
    walk,
)

SUFFIXES = (".json", ".geojson")
_PERSONS = ("pedestrian", "rider", "co-rider")
_CITYSCAPES = ("_gtBboxCityPersons", "_gtFine_polygons", "_gtCoarse_polygons")  # of one picture, the first counts
_EMPTY = {"ego vehicle", "out of roi", "rectification border"}  # what is marked on Cityscapes' test pictures


def _files(root: Path) -> list[Path]:
    found = [path for path in walk(root) if path.suffix.lower() in SUFFIXES] if root.is_dir() else []
    kinds = ([path for path in found if path.stem.endswith(kind)] for kind in _CITYSCAPES)
    return next((paths for paths in kinds if paths), found)


def _marks(content: Any) -> list[Shape] | None:
    """The shapes of a picture; None if nobody has labelled it yet (SuperAnnotate)."""
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        return [shape for feature in content["features"] for shape in _feature(feature)]
    if isinstance(content, dict) and content.get("identity") == "frame":
        return list(_eurocity(content))
    if isinstance(content, dict) and not any(isinstance(content.get(key), list) for key in MARKS):
        raise TypeError("no marks")
    if isinstance(content, dict) and "imgHeight" in content and {own["label"] for own in content["objects"]} <= _EMPTY:
        return None
    told = content.get("metadata") if isinstance(content, dict) else None
    unseen = isinstance(told, dict) and told.get("status") in ("NotStarted", "Skipped")
    return shapes_of(content) or (None if unseen else [])


def _feature(feature: dict[str, Any]) -> list[Shape]:
    """The heads of one feature of GeoJSON; of QuPath its classification is the label."""
    kind, places = feature["geometry"]["type"], feature["geometry"]["coordinates"]
    called = (feature.get("properties") or {}).get("classification") or {}
    label = str(called.get("name", "")) if isinstance(called, dict) else ""
    if kind == "Polygon":
        return [outlined(label, places[0])]
    if kind not in ("Point", "MultiPoint"):
        return [Shape(label, ())]
    return [Shape(label, tuple(place[:2])) for place in ([places] if kind == "Point" else places)]


def _eurocity(frame: dict[str, Any]) -> Iterator[Shape]:
    for mark in frame.get("children", []):
        if not {"depiction", "reflection"} & set(mark.get("tags", [])):
            called = str(mark.get("identity"))
            if called in _PERSONS or "group" in called:
                label = "person" if called in _PERSONS else "person group"
                yield Shape(label, [mark[key] for key in ("x0", "y0", "x1", "y1")])
            yield from _eurocity(mark)


def _image(path: Path, content: Any, pictures: Pictures, split: str) -> Path | None:
    """The picture that a file names, or of its own name; None: no picture's file."""
    named = [content[key] for key in ("item", "metadata") if isinstance(content, dict) and key in content]
    names = [own["name"] for own in named if isinstance(own, dict) and isinstance(own.get("name"), str)]
    stem = re.sub("|".join(f"{kind}$" for kind in _CITYSCAPES), "_leftImg8bit", path.stem)
    found = [pictures.find(name, split, path.parent) for name in (*names, stem) if name.strip()]
    return next((image for image in found if is_file(image)), found[0] if names else None)


def _rows(root: Path) -> Iterator[Labelled]:
    pictures = Pictures(root)
    for path in _files(root):
        split = split_of(path.relative_to(root).parent.as_posix()) or "train"
        try:
            content = read_json(path)
            image = _image(path, content, pictures, split)
            if image is not None:
                yield Labelled(split, relative(image, root), image, path, _marks(content))
        except BadFile as bad:
            yield Labelled(split, path.name, path, path, bad)
        except MALFORMED:
            reason = BadFile(path, "its marks are neither points [x, y] or {x, y} nor boxes of a known form")
            yield Labelled(split, path.name, path, path, reason)


def _recognise(root: Path) -> bool:
    pictures = Pictures(root)
    for path in _files(root)[:PEEKED]:
        try:
            content = peek_json(path)
            if content is not None and _image(path, content, pictures, "train"):
                _marks(content)
                return True
        except (*MALFORMED, BadFile):
            continue
    return False


def _entries(root: Path) -> Iterator[Entry]:
    rows = list(_rows(root))
    yield from from_shapes(rows)
    yield from others(root, rows)


LAYOUT = Layout("json-each", _recognise, _entries, upright_points=True, deep=True)
