"""FSC-147 (Ranjan et al., CVPR 2021): objects of many kinds, three of each image with boxes.

    annotation_FSC147_384.json   Train_Test_Val_FSC_147.json   images_384_VarV2/2.jpg

``{image: {points, box_examples_coordinates, ...}}``; the other file lists the images of train, val and test. Counted
is what its points mark; the boxes are examples, not further objects. The points are in pixels of the pictures of
images_384_VarV2. Source: Verg-Avesta/CounTR (util/FSC147.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .base import Entry, Layout, as_points, fail, files, read_json
from .tree import Pictures, peek_json


def _is_annotation(content: Any) -> bool:
    first = next(iter(content.values()), None) if isinstance(content, dict) else None
    return isinstance(first, dict) and "points" in first and "box_examples_coordinates" in first


def _is_split(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(split), list) for split in ("train", "test"))


def _find(root: Path) -> tuple[Path | None, Path | None]:
    found = files(root, "*.json") if root.is_dir() else []
    return (
        next((path for path in found if _is_annotation(peek_json(path))), None),
        next((path for path in found if _is_split(peek_json(path))), None),
    )


def _entries(root: Path) -> Iterator[Entry]:
    annotation, listing = _find(root)
    if annotation is None:
        return
    content, pictures = read_json(annotation), Pictures(root)
    splits = read_json(listing) if listing else {"train": list(content)}
    for split in ("train", "val", "test"):
        for name in splits.get(split, []):
            if not isinstance(content.get(name), dict) or "points" not in content[name]:
                yield Entry(split, str(name), annotation, partial(fail, annotation, f"no points of {name} in it"))
                continue
            yield Entry(split, name, pictures.find(name), partial(as_points, content[name]["points"], annotation))


LAYOUT = Layout("fsc-147", lambda root: _find(root)[0] is not None, _entries)
