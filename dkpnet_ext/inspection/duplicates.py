"""Near-duplicates between training and test images, found by a perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..data.domains import Item


class NearDuplicate(NamedTuple):
    train: Item
    test: Item
    distance: int  # hash bits of 64 that differ: 0 to 2 for the same picture at another size or compression
    mirrored: bool


def find_near_duplicates(train: Sequence[Item], test: Sequence[Item], max_distance: int = 6) -> list[NearDuplicate]:
    """Pairs of a training and a test image that show (almost) the same picture, perhaps mirrored; nearest first.

    In ShanghaiTech A the pairs found differ by at most 2 bits and all others by at least 14. Frames of one fixed camera
    are found, too: whether such a pair matters is for a person to judge.
    """
    if not train or not test:
        return []
    ours, _ = _hashes(train)
    theirs, mirrored = _hashes(test)
    found = []
    for hashes, flipped in ((theirs, False), (mirrored, True)):
        distances = (ours.shape[1] - ours @ hashes.T) // 2
        for i, j in np.argwhere(distances <= max_distance):
            found.append(NearDuplicate(train[i], test[j], int(distances[i, j]), flipped))
    return sorted(found, key=lambda pair: (pair.distance, pair.test.name, pair.train.name))


def _hashes(items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """Bits [n, 64] as -1 and 1 of each image's perceptual hash, and those of its mirror image."""
    with ThreadPoolExecutor() as pool:
        both = np.array(list(pool.map(_hash, items)), np.int32)
    return both[:, 0], both[:, 1]


def _hash(item: Item) -> list[np.ndarray]:
    import imagehash

    gray = Image.fromarray(item.read()).convert("L")
    pictures = (gray, gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    return [np.where(imagehash.phash(picture).hash.ravel(), 1, -1) for picture in pictures]
