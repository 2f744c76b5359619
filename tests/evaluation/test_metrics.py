"""Metrics against hand-computed figures."""

import math

import numpy as np
import pytest

from dkpnet_ext.evaluation.metrics import (
    Localisation,
    Metrics,
    game_errors,
    localisation,
    markdown_table,
    matched_points,
    points_table,
    summarize,
)


def test_summarize_by_hand():
    metrics = summarize([10.0, 0.0, 7.0], [13, 4, 0])
    assert metrics.images == 3
    assert metrics.mae == pytest.approx((3 + 4 + 7) / 3)
    assert metrics.rmse == pytest.approx(math.sqrt((9 + 16 + 49) / 3))
    assert metrics.nae == pytest.approx((3 / 13 + 4 / 4) / 2)  # the empty image has no relative error


def test_undefined_figures_are_nan():
    assert math.isnan(summarize([], []).mae)
    only_empty = summarize([2.0], [0])
    assert only_empty.mae == 2 and math.isnan(only_empty.nae)


def test_points_are_matched_one_to_one():
    annotated = [[0, 0], [10, 0], [50, 50]]
    assert matched_points([[1, 0], [2, 0], [11, 0]], annotated, 4) == 2  # the first head is found once
    assert matched_points(annotated, annotated, 4) == 3  # also at a distance of zero
    # Greedily the nearest pair (5 and 6) would leave the others alone.
    assert matched_points([[0, 0], [6, 0]], [[-4, 0], [5, 0]], 5.1) == 2
    assert matched_points([[0, 0], [6, 0]], [[5, 0], [10, 0]], 5.1) == 2
    assert matched_points([[1, 0], [12, 0], [58, 50]], annotated, [0.5, 2, 8]) == 2  # a radius for each
    assert matched_points([], annotated, 4) == matched_points(annotated, np.zeros((0, 2)), 4) == 0


def test_precision_recall_and_f1_by_hand():
    assert localisation(3, 4, 6, 8.0) == Localisation(8.0, 3 / 4, 3 / 6, 6 / 10)
    assert math.isnan(localisation(0, 0, 5, 8.0).precision) and localisation(0, 0, 5, 8.0).f1 == 0
    rows = {"A": Metrics(1, 1.0, 1.0, 1.0, points=(localisation(3, 4, 6, 8.0), localisation(0, 0, 0, 4.0)))}
    assert points_table(rows).splitlines()[2:] == ["| A | 8 | 0.750 | 0.500 | 0.600 |", "| A | 4 | - | - | - |"]
    assert points_table({"A": Metrics(1, 1.0, 1.0, 1.0)}) == ""


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="shapes"):
        summarize([1.0], [1, 2])


def test_markdown_table():
    table = markdown_table({"A": Metrics(2, 1.234, 2.0, 0.5), "empty": Metrics(1, 2.0, 2.0, math.nan, 2.0)})
    assert table.splitlines() == [
        "| Data | Images | MAE | RMSE (papers: MSE) | NAE | False count |",
        "|---|---:|---:|---:|---:|---:|",
        "| A | 2 | 1.23 | 2.00 | 0.500 | - |",
        "| empty | 1 | 2.00 | 2.00 | - | 2.00 |",
    ]
    table = markdown_table({"A": Metrics(2, 1.2, 2.0, 0.5, 1.0, (1.2, 2.5, 3.0)), "mean": Metrics(2, 3.0, 3.0, 1.0)})
    assert [line.split("|")[-4:-1] for line in table.splitlines()] == [
        [" False count ", " GAME(1) ", " GAME(2) "], ["---:"] * 3, [" 1.00 ", " 2.50 ", " 3.00 "],
        [" - ", " - ", " - "],
    ]  # fmt: skip


def test_images_without_heads_have_a_figure_of_their_own():
    metrics = summarize([10.0, 586.0, 14.0], [10, 0, 0])
    assert metrics.false_count == 300
    assert math.isnan(summarize([10.0], [10]).false_count)


def test_game_of_a_density_of_whole_pixels():
    """The figures are counted by hand: heads at pixels, in 4^L parts of 240 x 320 px."""
    rng = np.random.default_rng(7)
    points, found = (rng.uniform(0, 1, (n, 2)) * [320, 240] for n in (37, 41))
    truth, density = np.zeros((240, 320)), np.zeros((240, 320))
    for heads, target in ((points, truth), (found, density)):
        np.add.at(target, (heads[:, 1].astype(int), heads[:, 0].astype(int)), 1.0)
    expected = []
    for parts in (1, 2, 4, 8):
        blocks = (density - truth).reshape(parts, 240 // parts, parts, 320 // parts)
        expected.append(np.abs(blocks.sum((1, 3))).sum())
    assert expected[0] == 4 and expected[3] > expected[1] > 4
    np.testing.assert_allclose(game_errors(density, points, (240, 320), 1), expected, atol=1e-9)


def test_game_shares_cells_on_a_border_and_keeps_the_sum():
    density = np.random.default_rng(0).random((10, 13))  # 37 x 50 px at stride 4
    errors = game_errors(density, [], (37, 50), 4)
    np.testing.assert_allclose(errors, density.sum())  # without heads each part's error is its count
    single = np.zeros((2, 2))
    single[0, 0] = 8.0  # of its 4 x 4 px, half the width is left of the middle of 4 px
    np.testing.assert_allclose(game_errors(single[:, :1], [[0.5, 0.5]], (8, 4), 4, 2), [7, 3 + 4])
    outside = game_errors(np.zeros((2, 2)), [[-5.0, 99.0]], (8, 8), 4, 2)
    np.testing.assert_allclose(outside, [1, 1])
