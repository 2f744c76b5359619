"""A data set made in Python: no folder, no cache."""

from __future__ import annotations

import layouts
import numpy as np
import pytest
import torch
from PIL import Image

from dkpnet_ext.data import CrowdDataset, Domain, TrainTransform
from dkpnet_ext.errors import UserError
from dkpnet_ext.evaluation.evaluate import evaluate_domains

POINTS = [[3.5, 4.25], [59.0, 40.0]]


def test_every_kind_of_image(tmp_path):
    path = layouts.picture(tmp_path / "a.png")
    pixels = np.asarray(Image.open(path))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    pairs = [(image, POINTS) for image in (path, str(path.with_name("b.png")), Image.open(path), pixels, tensor)]
    layouts.picture(tmp_path / "b.png")
    domain = Domain.from_arrays("mine", train=pairs, test=[(pixels[:, :, 0], [])], min_side=48)
    assert (domain.name, len(domain.train), len(domain.val), len(domain.test)) == ("mine", 5, 0, 1)
    for index in (0, 2, 3, 4):
        item = domain.train[index]
        assert np.array_equal(item.read(), pixels)
        assert item.size == (48, 64) and item.scale == 1
        assert item.points.dtype == np.float32 and item.points.tolist() == POINTS
    assert domain.test[0].count == 0 and domain.test[0].read().shape == (48, 64, 3)
    assert len({item.name for item in domain.train}) == 5
    assert domain.report.heads == {"train": [2] * 5, "test": [0]}


def test_resized_like_a_folder(tmp_path):
    """Paths and arrays are brought to the sizes, and the points to the places, that the cache gives."""
    path = layouts.picture(tmp_path / "a.png")
    domain = Domain.from_arrays("mine", train=[(path, POINTS), (np.asarray(Image.open(path)), POINTS)])
    expected = np.asarray(Image.open(path).resize((555, 416), Image.Resampling.BICUBIC))
    for item in domain.train:
        assert item.size == (416, 555) and np.array_equal(item.read(), expected)
        np.testing.assert_allclose(item.points, np.array(POINTS) * [555 / 64, 416 / 48], rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "points", "message"),
    [
        ("nowhere.png", [], r"mine: train image 0 \(nowhere.png\): no such image"),
        (np.zeros((48, 64, 3)), [], "image array is float64; uint8 is expected"),
        (np.zeros((8, 64, 3), np.uint8), [], "64x8 px is too small"),
        (np.zeros((48, 64, 3), np.uint8), [[1, 2, 3]], r"points have shape \[1, 3\]"),
        (np.zeros((48, 64, 3), np.uint8), [[1, np.nan]], "NaN"),
        (np.zeros((48, 64, 3), np.uint8), [[1000, 2]], "1 of 1 points lie far outside the 64x48 image"),
    ],
)
def test_what_cannot_be_used(image, points, message):
    with pytest.raises(UserError, match=message) as error:
        Domain.from_arrays("mine", train=[(image, points)])
    assert "\n" not in str(error.value)


def test_one_file_twice(tmp_path):
    path = layouts.picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="mine: train holds an image file twice"):
        Domain.from_arrays("mine", train=[(path, []), (path, [])])


def test_training_examples_and_evaluation(tmp_path, model):
    """What training and evaluation take: the same crops and counts as from a folder."""
    path = layouts.picture(tmp_path / "a.png", (96, 80))
    pixels = np.asarray(Image.open(path))
    domain = Domain.from_arrays("A", train=[(pixels, POINTS)], test=[(pixels, POINTS), (path, POINTS)], min_side=64)
    example = CrowdDataset(domain.train, [0], TrainTransform(48))[0]
    assert example.image.shape == (3, 48, 48)
    results = evaluate_domains(model, [domain], tmp_path / "out", device=torch.device("cpu"), precision="fp32")
    assert results
    rows = (tmp_path / "out" / "counts.csv").read_text().splitlines()
    assert len(rows) == 3 and rows[1].split(",")[-1] == rows[2].split(",")[-1]
