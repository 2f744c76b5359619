"""imglab, the labelling tool of dlib (dlib.net).

    labels.xml (training.xml, testing.xml)     pictures anywhere below

``dataset/images``: an ``image`` with its ``file`` for each picture, in it a ``box`` with top, left, width, height and perhaps a
``label``. Boxes that are marked ``ignore`` are areas. Source: davisking/dlib (data_io/image_dataset_metadata.cpp).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..images import BadFile
from .base import Entry, Layout, read_xml
from .tree import Labelled, Pictures, Shape, annotation_files, from_shapes, peek_lines, picture_root, split_of_file


def _files(root: Path) -> list[Path]:
    found = [(path, " ".join(peek_lines(path, 30))) for path in annotation_files(root, ".xml")]
    return [path for path, text in found if "<dataset" in text and "<images" in text]


def _rows(path: Path) -> Iterator[Labelled]:
    split, pictures = split_of_file(path), Pictures(picture_root(path))
    for number, image in enumerate(read_xml(path).iter("image")):
        name = image.get("file", "")
        try:
            shapes = []
            for box in image.iter("box"):
                x, y, width, height = (float(box.get(key, "")) for key in ("left", "top", "width", "height"))
                corners, ignored = (x, y, x + width, y + height), box.get("ignore", "0") == "1"
                shapes.append(Shape((box.findtext("label") or "").strip(), corners, ignored))
            yield Labelled(split, name, pictures.find(name, split), path, shapes)
        except BadFile as bad:
            yield Labelled(split, f"picture {number}", path, path, bad)
        except ValueError:
            reason = BadFile(path, f"picture {number} ({name}) has a box without left, top, width and height")
            yield Labelled(split, name or f"picture {number}", path, path, reason)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(row for path in _files(root) for row in _rows(path))


LAYOUT = Layout("imglab", lambda root: bool(_files(root)), _entries, upright_points=True)
