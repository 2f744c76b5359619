"""Metrics against hand-computed figures."""

import math

import pytest

from dkpnet_ext.evaluation.metrics import Metrics, markdown_table, summarize


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


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="shapes"):
        summarize([1.0], [1, 2])


def test_markdown_table():
    table = markdown_table({"A": Metrics(2, 1.234, 2.0, 0.5), "empty": Metrics(1, 2.0, 2.0, math.nan)})
    assert table.splitlines() == [
        "| Data | Images | MAE | RMSE (papers: MSE) | NAE |",
        "|---|---:|---:|---:|---:|",
        "| A | 2 | 1.23 | 2.00 | 0.500 |",
        "| empty | 1 | 2.00 | 2.00 | - |",
    ]
