"""Beijing-BRT (Ding et al., IEEE TITS 2018).

    train/frame/1-20160620091221.jpg     train/ground_truth/1-20160620091221.mat     test/...

``loc`` is [N, 2] (x, y).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .base import Entry, Layout, has, pairs, read_mat


def _entries(root: Path) -> Iterator[Entry]:
    for split in ("train", "test"):
        folder = root / split
        yield from pairs(split, folder / "frame", folder / "ground_truth", "*.mat", partial(read_mat, key="loc"))


LAYOUT = Layout("beijing-brt", lambda root: has(root, "train/frame", "test/frame"), _entries)
