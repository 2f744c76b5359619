"""CVAT (github.com/cvat-ai/cvat): "CVAT for images 1.1", a task's backup, or the export "Datumaro".

    annotations.xml                             <image name="1.jpg"><points points="x,y;x,y"/><box xtl= ytl= .../></image>
    annotations.xml of a video                  <track><points frame="0" .../></track>; pictures frame_000000.png ...
    annotations.json + data/manifest.jsonl      a backup: shapes with frame, type, points; names in the manifest
    annotations/default.json                    Datumaro: items with annotations of type points or bbox

Every pair of a ``points`` element is a head, a box or an ellipse its centre, a polygon or mask the centre of its extent, a
skeleton its points called head, nose, eye or ear, else the centre of its extent. What an attribute called iscrowd, is_crowd, crowd
or ignore marks (true, yes, 1) is an area. Heads marked by lines or cuboids, and a
backup's tracks, of which only key frames are stored, are refused. Sources: docs.cvat.ai (XML annotation format 1.1), cvat-ai/cvat
(backup.py), datumaro (data_formats/cvat, data_formats/datumaro).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, contents
from .marks import is_group
from .tree import (
    FACE,
    PEEKED,
    Labelled,
    Pictures,
    Shape,
    annotation_files,
    from_shapes,
    json_files,
    outlined,
    peek_json,
    peek_lines,
    picture_root,
    read_json_lines,
    split_of,
    split_of_file,
    surrounding,
)

_NO_SHAPES = ("tag", "label", "caption")


def _is_backup(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(part, dict) and "shapes" in part for part in content)


def _is_datumaro(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("items"), list) and "categories" in content


def _files(root: Path, most: int | None = None) -> Iterator[Path]:
    """The XML files, then the JSON files; only the first ``most`` of each kind are looked into."""
    xml = annotation_files(root, ".xml")[:most]
    yield from (path for path in xml if "<annotations>" in " ".join(peek_lines(path, 5)))
    yield from json_files(root, lambda content: _is_backup(content) or _is_datumaro(content), most)


def _recognise(root: Path) -> bool:
    return any(_files(root, PEEKED))


def shapes_of(label: str, kind: str, numbers: list[float]) -> Iterator[Shape]:
    """The heads of one element: ``numbers`` are x, y, x, y ..."""
    pairs = np.array(numbers, float).reshape(-1, 2).tolist()
    if kind == "points":
        yield from (Shape(label, pair) for pair in pairs)
    elif kind == "ellipse":
        yield Shape(label, pairs[0])
    elif kind in ("box", "rectangle", "polygon", "bbox"):
        yield outlined(label, pairs)
    elif kind not in _NO_SHAPES:
        yield Shape(label, ())


def _xml(path: Path) -> Iterator[tuple[str, str | None, list[Shape]]]:
    content = contents(path)
    if b"<!ENTITY" in content:  # entities that grow without end; CVAT writes none
        raise BadFile(path, "it defines XML entities")
    tree = ElementTree.fromstring(content)
    for image in tree.iter("image"):
        shapes = [shape for element in image for shape in _shapes(element, element.get("label", ""))]
        yield image.get("name", ""), image.get("subset"), shapes
    frames: dict[int, list[Shape]] = {}
    for track in tree.iter("track"):
        for element in track:
            shown = [] if element.get("outside") == "1" else _shapes(element, track.get("label", ""))
            frames.setdefault(int(element.get("frame", "")), []).extend(shown)
    yield from ((f"frame_{number:06d}", None, frames[number]) for number in sorted(frames))


def _shapes(element: ElementTree.Element, label: str) -> list[Shape]:
    crowd = is_group({own.get("name", ""): own.text for own in element.findall("attribute")})
    return [shape._replace(group=crowd) for shape in _marked(element, label)]


def _marked(element: ElementTree.Element, label: str) -> Iterator[Shape]:
    get = element.get
    if element.tag == "skeleton":
        return _skeleton(element, label)
    if element.tag == "mask":
        left, top, width, height = (float(get(key, "")) for key in ("left", "top", "width", "height"))
        return shapes_of(label, "box", [left, top, left + width, top + height])
    if element.tag == "box":
        numbers = [float(get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr")]
    elif element.tag == "ellipse":
        numbers = [float(get("cx", "")), float(get("cy", ""))]
    else:
        numbers = [float(number) for number in get("points", "").replace(";", ",").split(",") if number]
    return shapes_of(label, element.tag, numbers)


def _skeleton(element: ElementTree.Element, label: str) -> Iterator[Shape]:
    seen = [point for point in element if point.tag == "points" and point.get("outside") != "1"]
    face = [point for point in seen if point.get("label", "").lower().replace(" ", "_") in FACE]
    pairs = [[float(number) for number in point.get("points", "").split(",")] for point in face or seen]
    if face:
        yield Shape(label, np.mean(pairs, axis=0).tolist())
    elif pairs:
        yield Shape(label, surrounding(pairs))


def _backup(path: Path, content: Any) -> Iterator[tuple[str, str | None, list[Shape]]]:
    manifest = next(
        (p for p in (path.parent / "data/manifest.jsonl", path.parent / "manifest.jsonl") if p.exists()), None
    )
    if manifest is None:
        raise BadFile(path, "a backup of CVAT without its manifest.jsonl, which names the pictures")
    if any(part.get("tracks") for part in content):
        raise BadFile(
            path, "a backup of CVAT with tracks, of which it holds key frames only: export CVAT for video 1.1"
        )
    names = [row["name"] + row["extension"] for _, row in read_json_lines(manifest) if "name" in row]
    shapes: list[list[Shape]] = [[] for _ in names]
    for shape in (shape for part in content for shape in part.get("shapes", [])):
        if not shape.get("outside"):
            crowd = is_group({str(own.get("name")): own.get("value") for own in shape.get("attributes", [])})
            found = shapes_of(str(shape.get("label", "")), shape["type"], shape["points"])
            shapes[shape["frame"]] += [own._replace(group=crowd) for own in found]
    yield from ((name, None, mine) for name, mine in zip(names, shapes, strict=True))


def _datumaro(content: Any) -> Iterator[tuple[str, str | None, list[Shape]]]:
    labels = [label["name"] for label in content["categories"].get("label", {}).get("labels", [])]
    for item in content["items"]:
        shapes: list[Shape] = []
        for mark in item["annotations"]:
            label = labels[mark["label_id"]] if labels and mark.get("label_id") is not None else ""
            if mark["type"] == "bbox":
                x, y, width, height = mark["bbox"]
                found = shapes_of(label, "bbox", [x, y, x + width, y + height])
            else:
                found = shapes_of(label, mark["type"], mark.get("points", []))
            crowd = is_group(mark.get("attributes", {}))
            shapes += [shape._replace(group=crowd) for shape in found]
        yield item.get("image", {}).get("path") or item["id"], None, shapes


def _rows(path: Path) -> Iterator[Labelled]:
    content, pictures = peek_json(path) if path.suffix.lower() == ".json" else None, Pictures(picture_root(path))
    read = _xml(path) if content is None else _backup(path, content) if _is_backup(content) else _datumaro(content)
    try:
        for name, subset, shapes in read:
            split = split_of(subset or "") or split_of_file(path)
            yield Labelled(split, name, pictures.find(name, split), path, shapes)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ElementTree.ParseError) as error:
        raise BadFile(path, f"not as CVAT's files are ({type(error).__name__}: {error})") from None


def _entries(root: Path) -> Iterator[Entry]:
    found = list(_files(root))
    xml = [path for path in found if path.suffix.lower() == ".xml"]
    yield from from_shapes(row for path in xml or found for row in _rows(path))


LAYOUT = Layout("cvat", _recognise, _entries, upright_points=True)
