"""CrowdHuman (Shao et al., 2018).

    annotation_train.odgt   annotation_val.odgt     Images/<ID>.jpg anywhere below

A JSON per line: ``ID`` and ``gtboxes``, each with ``tag`` and ``hbox`` [x, y, w, h], the box of the head, of which the
centre is counted. Boxes of the tag mask (groups, reflections, likenesses; ``fbox``), and heads marked ``ignore``, are areas in
which only who is marked singly is counted. The labels end with val. Source: crowdhuman.org/download.html (annotation format).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..images import BadFile
from .base import Entry, Layout
from .tree import Labelled, Pictures, Shape, annotation_files, from_shapes, picture_root, read_json_lines, split_of_file


def _heads(boxes: list[dict[str, Any]]) -> Iterator[Shape]:
    for box in boxes:
        whole = box.get("tag") != "person" or (box.get("extra") or {}).get("ignore")
        x, y, width, height = box["fbox" if whole and "fbox" in box else "hbox"]
        ignored = bool(whole or (box.get("head_attr") or {}).get("ignore"))
        yield Shape("head", (x, y, x + width, y + height), ignored)


def _rows(path: Path) -> Iterator[Labelled]:
    split, pictures = split_of_file(path), Pictures(picture_root(path))
    for where, row in read_json_lines(path):
        try:
            image = pictures.find(str(row["ID"]), split)
            yield Labelled(split, image.name, image, path, list(_heads(row["gtboxes"])))
        except (KeyError, TypeError, ValueError, AttributeError):
            reason = BadFile(path, f"{where} has no ID and gtboxes with hbox")
            yield Labelled(split, where, path, path, reason)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(row for path in annotation_files(root, ".odgt") for row in _rows(path))


LAYOUT = Layout(
    "crowdhuman",
    lambda root: bool(annotation_files(root, ".odgt")),
    _entries,
    says="groups and heads marked ignore are no heads",
)
