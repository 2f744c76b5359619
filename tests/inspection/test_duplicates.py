"""Near-duplicates between training and test images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dkpnet_ext.data import Domain, Item, load_domains
from dkpnet_ext.inspection.duplicates import find_near_duplicates


def scene(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((480, 360), Image.Resampling.BICUBIC)


def test_twins(tmp_path):
    """The same picture smaller, compressed, brighter, gray or mirrored is found; others are not."""
    twins = {
        "smaller.png": scene(0).resize((320, 240)),
        "compressed.jpg": scene(1),
        "brighter.png": scene(2).point(lambda value: min(255, value * 0.8 + 40)),
        "gray.png": scene(3).convert("L"),
        "mirrored.png": scene(4).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }
    others = {f"other{i}.png": scene(100 + i) for i in range(20)}
    for i in range(20):
        scene(i).save(tmp_path / f"train{i}.png")
    for name, image in (twins | others).items():
        image.save(tmp_path / name, **({"quality": 20} if name.endswith(".jpg") else {}))
    (tmp_path / "train.csv").write_text("image,points\n" + "".join(f"train{i}.png,[]\n" for i in range(20)))
    (tmp_path / "test.csv").write_text("image,points\n" + "".join(f"{name},[]\n" for name in twins | others))
    (domain,) = load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", progress=False)
    pairs = find_near_duplicates(domain.train, domain.test)
    found = {pair.test.source.name: (pair.train.source.name, pair.mirrored) for pair in pairs}
    assert len(pairs) == 5
    assert found == {name: (f"train{i}.png", name == "mirrored.png") for i, name in enumerate(twins)}
    assert [pair.distance for pair in pairs] == sorted(pair.distance for pair in pairs)


def test_pictures_of_one_colour_and_of_one_camera():
    """Nobody looks for the first; of the second each test image has one line, whatever the number of training images."""

    def items(split: str, pictures: list[np.ndarray]) -> list[Item]:
        return Domain.from_arrays("X", **{"train": [], split: [(picture, []) for picture in pictures]}).__dict__[split]

    plain = [np.full((48, 64, 3), value, np.uint8) for value in (0, 128, 255)]
    assert find_near_duplicates(items("train", plain), items("test", plain)) == []
    view = [np.asarray(scene(0).point(lambda value, n=n: value * (1 - n / 100))) for n in range(6)]
    pairs = find_near_duplicates(items("train", view[:4]), items("test", view[4:]))
    assert [pair.test.source.name for pair in pairs] == ["00000", "00001"]


def test_nothing_to_compare():
    assert find_near_duplicates([], []) == []


@pytest.mark.skipif("DKPNET_TEST_DATA" not in os.environ, reason="DKPNET_TEST_DATA is not set")
def test_shanghaitech_a(tmp_path):
    """Of the twins that are known, the odd half of the test images holds two: 173 and 181."""
    root = Path(os.environ["DKPNET_TEST_DATA"]) / "data" / "ShanghaiTech" / "part_A"
    (domain,) = load_domains([f"SHA={root}"], cache=tmp_path, min_side=64, max_side=256, progress=False)
    pairs = find_near_duplicates(domain.train, domain.test)
    names = {(pair.train.source.name, pair.test.source.name) for pair in pairs}
    assert names == {("IMG_2.jpg", "IMG_173.jpg"), ("IMG_154.jpg", "IMG_181.jpg")}
    assert len(find_near_duplicates(domain.train, domain.test, max_distance=10)) == 2  # a wide gap
