"""Covering crops: every part of a picture is shown as often, heads stay on their pixels, colours change."""

import numpy as np
import pytest
import torch

from dkpnet_ext.data.crops import FILLING, CoveringCrops, colour_change, covering_start


def test_the_outermost_pixel_is_shown_as_often_as_the_middle_and_none_less():
    torch.manual_seed(0)
    length, side, draws = 1000, 200, 20_000
    shown = np.zeros(length)
    for _ in range(draws):
        start = covering_start(length, side)
        assert 0 <= start <= length - side
        shown[start : start + side] += 1
    middle = shown[side:-side].mean()
    assert shown[[0, -1]] == pytest.approx([middle, middle], rel=0.05)
    assert shown.min() > 0.9 * middle
    assert shown.max() < 2.1 * middle


def test_a_head_stays_on_its_pixel_whatever_the_crop():
    # A white pixel block on black marks the head; after scaling and mirroring the head must lie inside it.
    torch.manual_seed(0)
    image = np.zeros((300, 400, 3), np.uint8)
    image[120:136, 200:216] = 255
    points, seen = np.array([[208.0, 128.0]]), 0
    crops = CoveringCrops(96, jitter=0.0, scale=(0.6, 1.7))
    for _ in range(400):
        pixels, heads = crops(image, points)
        assert pixels.shape == (3, 96, 96)
        assert pixels.dtype == torch.uint8
        for x, y in heads.long().tolist():
            inside = 4 < x < 91 and 4 < y < 91  # else the block is cut
            seen += inside
            assert not inside or pixels[0, y, x] > 200
    assert seen > 5


def test_scale_one_shows_the_share_of_heads_that_its_area_is():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image = np.zeros((768, 1024, 3), np.uint8)
    points = rng.uniform(0, 1, (400, 2)) * [1024, 190]  # all in the top quarter
    crops = CoveringCrops(256, jitter=0.0, scale=(1.0, 1.0))
    mean = np.mean([len(crops(image, points)[1]) for _ in range(1500)])
    assert mean == pytest.approx(400 * 256 * 256 / (768 * 1024), rel=0.1)


def test_a_picture_smaller_than_the_crop_keeps_its_scale_and_is_filled_up():
    image = np.full((60, 50, 3), 7, np.uint8)
    pixels, heads = CoveringCrops(128, flip=1.0, jitter=0.0, scale=(1.0, 1.0))(image, np.array([[10.0, 30.0]]))
    assert pixels.shape == (3, 128, 128)
    assert bool((pixels[:, :60, :50] == 7).all())
    assert bool((pixels[:, 60:] == FILLING.view(3, 1, 1)).all())
    assert bool((pixels[:, :, 50:] == FILLING.view(3, 1, 1)).all())
    assert heads.tolist() == [[pytest.approx(40, rel=1e-6), 30.0]]
    assert int(heads[0, 0]) == 39, "pixel 10, mirrored; at commit 3418349 the head lay in the next one"
    torch.manual_seed(0)
    crops = CoveringCrops(128, flip=0.0, jitter=0.2, scale=(2.0, 2.0 + 1e-9))
    shown = {tuple(crops(image, np.array([[10.0, 30.0]]))[1].flatten().tolist()) for _ in range(20)}
    assert (20.0, 60.0) in shown
    assert (10.0, 30.0) in shown


def test_a_head_on_the_far_edge_belongs_to_the_last_pixel():
    image = np.zeros((64, 64, 3), np.uint8)
    heads = CoveringCrops(64, flip=1.0, jitter=0.0, scale=(1.0, 1.0))(image, np.array([[0.0, 5.0]]))[1]
    assert heads.shape == (1, 2)
    assert 63.9 < float(heads[0, 0]) < 64


def test_colours_without_strength_stay_and_gray_has_no_colour():
    matrix, gains, contrast = colour_change(0.0, 0.0)
    torch.testing.assert_close(matrix, torch.eye(3))
    assert gains.tolist() == [1, 1, 1]
    assert contrast == 1
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    crops = CoveringCrops(64, flip=0.0, jitter=0.001, scale=(1.0, 1.0), gray=1.0)
    pixels = crops(image, np.array([[1.0, 1.0]]))[0].int()
    assert (pixels[0] - pixels[2]).abs().max() <= 1


def test_the_same_seed_gives_the_same_crop():
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(CoveringCrops(96)(image, np.array([[150.0, 100.0]])))
    assert all(torch.equal(a, b) for a, b in zip(*results))
