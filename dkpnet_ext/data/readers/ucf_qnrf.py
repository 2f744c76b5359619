"""UCF-QNRF (Idrees et al., ECCV 2018).

    Train/img_0001.jpg     Train/img_0001_ann.mat     Test/...

``annPoints`` is [N, 2] (x, y).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .base import Entry, Layout, files, pairs, read_mat


def _entries(root: Path) -> Iterator[Entry]:
    for split, folder in (("train", root / "Train"), ("test", root / "Test")):
        yield from pairs(split, folder, folder, "*_ann.mat", partial(read_mat, key="annPoints"))


LAYOUT = Layout("ucf-qnrf", lambda root: any(files(root, "Train/*_ann.mat") + files(root, "Test/*_ann.mat")), _entries)
