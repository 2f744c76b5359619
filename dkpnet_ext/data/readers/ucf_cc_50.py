"""UCF_CC_50 (Idrees et al., CVPR 2013).

    1.jpg     1_ann.mat     ...     50.jpg     50_ann.mat

``annPoints`` is [N, 2] (x, y). The set has no split; papers cross-validate over five folds of ten. ``test`` is the
fifth fold in the order of the numbers (41 to 50), ``train`` the other four. A folder with other numbers than 1 to 50
is not this set.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .base import Entry, Layout, files, pairs, read_mat


def _recognise(root: Path) -> bool:
    numbers = [path.name.removesuffix("_ann.mat") for path in files(root, "*_ann.mat")]
    return bool(numbers) and all(number.isdecimal() and 1 <= int(number) <= 50 for number in numbers)


def _entries(root: Path) -> Iterator[Entry]:
    for entry in pairs("train", root, root, "*_ann.mat", partial(read_mat, key="annPoints")):
        number = entry.image.name.split(".")[0].split("_")[0]
        yield entry._replace(split="test" if number.isdecimal() and int(number) > 40 else "train")


LAYOUT = Layout("ucf-cc-50", _recognise, _entries, says="by their numbers, 41 to 50 are the test")
