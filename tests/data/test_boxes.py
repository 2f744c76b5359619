"""Heads at a crop's border: boxes, shares and places against plain formulas."""

import math

import numpy as np
import pytest
import torch

from dkpnet_ext.data.boxes import RULES, Window, at_border, box_sides
from dkpnet_ext.data.crops import CoveringCrops
from dkpnet_ext.data.dataset import Example, collate
from dkpnet_ext.data.transforms import TrainTransform


def plain_side(points, n, factor, smallest, largest):
    """The mean distance to the three nearest others, times a factor, between two limits."""
    distances = sorted(math.dist(points[n], other) for m, other in enumerate(points) if m != n)[:3]
    if not distances:
        return largest
    return min(max(factor * sum(distances) / len(distances), smallest), largest)


def plain_share(point, side, window):
    """Area of the box inside the window over the area of the box."""
    share = 1.0
    for coordinate, low, size in zip(point, window[:2], window[2:4], strict=True):
        first, last = max(coordinate - side / 2, low), min(coordinate + side / 2, low + size)
        share *= max(last - first, 0) / side
    return share


@pytest.mark.parametrize("count", [1, 2, 3, 4, 60])
@pytest.mark.parametrize("border, numbers", [("half", (0.8, 4, 40, 0.5)), ("fraction", (1.0, 4, 128, 0.3))])
def test_heads_of_a_crop_are_the_formulas(border, numbers, count):
    points = np.random.default_rng(count).uniform(0, 200, (count, 2))
    points[-1] = points[0]  # two at one place: the smallest box
    window = Window(40, 60, 80, 90)
    expected = []
    for n, point in enumerate(points):
        side = plain_side(points.tolist(), n, *numbers[:3])
        share = plain_share(point, side, window)
        if share >= numbers[3]:
            expected.append((point[0] - 40, point[1] - 60, 1.0 if border == "half" else share))
    places, targets = at_border(points, window, border)
    np.testing.assert_allclose(np.column_stack([places, targets]), np.reshape(expected, (-1, 3)), rtol=1e-5)
    assert tuple(RULES[border]) == numbers and places.dtype == targets.dtype == np.float32


def test_heads_outside_of_a_crop_are_kept_by_their_share():
    """A lone head's box has 128 pixels: 40 % of it lies in the crop although the head does not."""
    places, targets = at_border(np.array([[-12.8, 50.0]]), Window(0, 0, 200, 200), "fraction")
    np.testing.assert_allclose(targets, [0.4 * 114 / 128], rtol=1e-6)
    assert places[0, 0] < 0
    assert len(at_border(np.array([[-12.8, 50.0]]), Window(0, 0, 200, 200), "half")[0]) == 0
    assert at_border(np.empty((0, 2)), Window(0, 0, 9, 9), "fraction")[0].shape == (0, 2)


def test_dense_heads_have_small_boxes():
    points = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2)
    assert set(box_sides(points, RULES["half"])) == {4.0}


@pytest.mark.parametrize("transform", [TrainTransform(64, 0.5, 0.0), CoveringCrops(64, 0.5, 0.0, (0.5, 2.0))])
def test_places_are_the_transforms(transform):
    """Inside the crop the window puts heads where the transform does, mirrored or not, to a pixel."""
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(20):
        shape = (90, 120) if seed % 2 else (50, 40)  # the smaller one is enlarged, or filled up
        points = rng.uniform(0, shape[::-1], (30, 2))
        torch.manual_seed(seed)
        image, heads, window = transform.placed(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), points)
        inside = (points >= window[:2]) & (points < np.add(window[:2], window[2:4]))
        own = window.place(points[inside.all(1)])
        assert len(own) == len(heads)
        np.testing.assert_allclose(own, heads.numpy(), atol=1.001)
        torch.manual_seed(seed)
        assert len(transform(image.permute(1, 2, 0).numpy(), points[:0])) == 2
        seen.add(window.mirrored)
    assert seen == {True, False}


def test_a_batch_has_the_targets_of_its_heads():
    parts = [
        Example(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(n, 2), 0, "x", 9, torch.full((n,), float(n)))
        for n in (2, 0, 1)
    ]
    batch = collate(parts)
    assert batch.targets.tolist() == [2, 2, 1] and len(batch.points) == 3
    assert collate([part._replace(targets=None) for part in parts]).targets is None
