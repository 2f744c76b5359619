"""Near-duplicates between training and test images, found by a perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..data.domains import Item

_BITS = 64  # of `imagehash.phash`
_ONE_COLOUR = 2  # gray levels by which the pixels of a picture of one colour differ at most (standard deviation)


class NearDuplicate(NamedTuple):
    train: Item
    test: Item
    distance: int  # hash bits of 64 that differ: 0 to 2 for the same picture at another size or compression
    mirrored: bool


def find_near_duplicates(train: Sequence[Item], test: Sequence[Item], max_distance: int = 6) -> list[NearDuplicate]:
    """Test images that show (almost) the same picture as a training image, perhaps mirrored, with the nearest one.

    The nearest pairs come first. In ShanghaiTech A the pairs found differ by at most 2 bits and all others by at least 14.
    Frames of one fixed camera are found, too: whether such a pair matters is for a person to judge. Pictures of one colour
    have no hash.
    """
    if not train or not test:
        return []
    ours = _hashes(train).reshape(-1, _BITS)
    found = []
    for image, theirs in zip(test, _hashes(test)[:, 0], strict=True):
        distances = (_BITS - ours @ theirs) / 2  # of each training image, and of its mirror image
        nearest = int(distances.argmin())
        if distances[nearest] <= max_distance:
            found.append(NearDuplicate(train[nearest // 2], image, int(distances[nearest]), bool(nearest % 2)))
    return sorted(found, key=lambda pair: (pair.distance, pair.test.name, pair.train.name))


def _hashes(items: Sequence[Item]) -> np.ndarray:
    """Bits [n, 2, 64] as -1 and 1 of each image's perceptual hash and of its mirror image's; 0 of one colour."""
    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(_hash, items)), np.float32)


def _hash(item: Item) -> list[np.ndarray]:
    import imagehash

    gray = Image.fromarray(item.read()).convert("L")
    if np.std(np.asarray(gray)) < _ONE_COLOUR:
        return [np.zeros(_BITS)] * 2
    small = gray.resize((32, 32), Image.Resampling.LANCZOS)  # as `phash` does, but once
    pictures = (small, small.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    return [np.where(imagehash.phash(picture).hash.ravel(), 1, -1) for picture in pictures]
