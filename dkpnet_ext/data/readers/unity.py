"""Unity Perception (com.unity.perception): rendered pictures, in the form SOLO or the one before it.

    sequence.0/step0.frame_data.json    sequence.0/step0.camera.png                     SOLO
    Dataset<id>/captures_000.json       RGB<id>/rgb_2.png                               Perception 0.x

``captures`` with ``filename`` and ``annotations``, of which those with boxes in the picture count: values with ``labelName``,
``origin`` and ``dimension``, or ``label_name``, ``x``, ``y``, ``width`` and ``height``. A capture without such an annotation is
unlabelled. Sources: Unity-Technologies/com.unity.perception (Schema/SoloSchema.md, Features/BoundingBox2DLabeler.md),
strickvl/panlabel's sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..images import BadFile
from .base import MALFORMED, Layout, is_file, read_json
from .tree import Labelled, Pictures, Shape, from_shapes, split_of, walk

_NAME = re.compile(r"captures_\d+\.json|.*frame(_data)?\.json")


def _files(root: Path) -> list[Path]:
    return [path for path in walk(root) if _NAME.fullmatch(path.name)] if root.is_dir() else []


def _recognise(root: Path) -> bool:
    return any(isinstance(read_json(path).get("captures"), list) for path in _files(root)[:1])


def _shapes(capture: dict[str, Any]) -> list[Shape] | None:
    boxes = [own["values"] for own in capture.get("annotations") or [] if _marks_boxes(own)]
    shapes = []
    for value in (value for values in boxes for value in values):
        x, y = value["origin"] if "origin" in value else (value["x"], value["y"])
        width, height = value["dimension"] if "origin" in value else (value["width"], value["height"])
        label = str(value.get("labelName", value.get("label_name", "")))
        shapes.append(Shape(label, (x, y, x + width, y + height)))
    return shapes if boxes else None


def _marks_boxes(annotation: dict[str, Any]) -> bool:
    """By its type, or, in the old form, by its values: of nobody there are none."""
    values = annotation.get("values")
    if "@type" in annotation:
        return "BoundingBox2D" in annotation["@type"] and isinstance(values, list)
    return isinstance(values, list) and all("width" in value and "x" in value for value in values)


def _rows(root: Path) -> Iterator[Labelled]:
    pictures = Pictures(root)
    for path in _files(root):
        split = split_of(path.relative_to(root).parent.as_posix()) or "train"
        try:
            for capture in read_json(path)["captures"]:
                own = path.parent / capture["filename"]
                image = own if is_file(own) else pictures.find(capture["filename"], split)
                name = image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name
                yield Labelled(split, name, image, path, _shapes(capture))
        except BadFile as bad:
            yield Labelled(split, path.name, path, path, bad)
        except MALFORMED:
            reason = BadFile(path, "not as Unity Perception's files are: captures with filename and annotations")
            yield Labelled(split, path.name, path, path, reason)


LAYOUT = Layout("unity", _recognise, lambda root: from_shapes(_rows(root)), upright_points=True, deep=True)
