"""JHU-Crowd++ (Sindagi et al., PAMI 2020).

    train/images/0001.jpg     train/gt/0001.txt     val/...     test/...

A head per line: ``x y w h occlusion blur``, x and y its centre, w and h its size, occlusion 1 to 3, blur 0 or 1. Sources: the
set's publication, taohan10200/IIM (prepare_JHU.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..images import BadFile
from .base import Entry, Heads, Layout, as_points, files, has, pairs, read_text
from .tree import PEEKED, peek_lines


def read_jhu_text(path: Path) -> Heads:
    """Heads of a ``gt/0001.txt``. Raises `BadFile`."""
    points, sizes = [], []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if fields := line.split():
            try:
                x, y, width, height, occlusion, blur = (float(field) for field in fields)
            except ValueError:
                raise BadFile(path, f"line {number} is not 'x y w h occlusion blur'") from None
            if occlusion not in (0, 1, 2, 3) or blur not in (0, 1):  # a detector's 'class x y w h confidence'
                reason = f"line {number} is not 'x y w h occlusion blur': occlusion is 1 to 3, blur 0 or 1"
                raise BadFile(path, reason)
            points.append((x, y))
            sizes.append((width, height))
    return Heads(as_points(points, path), sizes=np.abs(as_points(sizes, path)))


def _entries(root: Path) -> Iterator[Entry]:
    for split in ("train", "val", "test"):
        yield from pairs(split, root / split / "images", root / split / "gt", "*.txt", read_jhu_text)


def _recognise(root: Path) -> bool:
    """Text files in gt, but not those with a line 'x y' per head."""
    if not has(root, "train/gt", "val/gt", "test/gt"):
        return False
    some = [path for split in ("train", "val", "test") for path in files(root / split / "gt", "*.txt")[:PEEKED]]
    lines = [line for path in some for line in peek_lines(path, 1)]
    return not lines or any(len(line.split()) > 3 for line in lines)


LAYOUT = Layout("jhu-crowd", _recognise, _entries)
