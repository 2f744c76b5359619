"""Evaluating a model on data sets: the table, and what was predicted for every image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..device import Precision
from ..errors import UserError
from ..files import output_folder, write_atomically
from .baselines import MEAN, RIDGE, mean_baseline, ridge_baseline
from .inference import predict_counts, predict_items
from .metrics import (
    BOX_RADII,
    RADII,
    Coverage,
    Localisation,
    Metrics,
    coverage,
    intervals_table,
    localisation,
    markdown_table,
    points_table,
    summarize,
)
from .submission import write_submission

if TYPE_CHECKING:
    import torch

    from ..data import Domain, Item
    from ..models import CrowdCounter

Split = Literal["train", "val", "test"]


def evaluate_domains(
    model: CrowdCounter,
    domains: Sequence[Domain],
    output: Path,
    *,
    split: Split = "test",
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    nine_patch: bool = False,
    points: bool = False,
    progress: bool = False,
) -> dict[str, Metrics]:
    """Metrics per domain; writes ``metrics.json``, ``table.md`` and ``counts.csv`` (a line per image) into ``output``.

    Args:
        split: part of each domain; output: created; the others: see `predict_items`.

    Raises:
        UserError: no domain has images in this split; an output that cannot be written.
    """
    chosen = {d.name: getattr(d, split) for d in domains if getattr(d, split)}
    if not chosen:
        raise UserError(f"no {split} images in {', '.join(d.name for d in domains)}; choose another --split")
    output_folder(output)
    found = {}
    for name, items in chosen.items():
        found[name] = predict_items(
            model, items, device=device, precision=precision, nine_patch=nine_patch, points=points,
            assess=not nine_patch, progress=progress,
        )  # fmt: skip
    counts = {name: predicted.counts for name, predicted in found.items()}
    rows = score(
        chosen,
        counts,
        game=None if nine_patch else {name: predicted.game for name, predicted in found.items()},
        matched={name: predicted.matched for name, predicted in found.items()} if points else None,
    )
    for name, predicted in found.items():
        if predicted.assessed:
            annotated = [item.count for item in chosen[name]]
            rows[name] = rows[name]._replace(intervals=coverage(predicted.assessed, predicted.counts, annotated))
    write_counts(output / "counts.csv", chosen, counts)
    write_atomically(output / "table.md", "\n\n".join(tables(rows)) + "\n")
    metrics = {name: _plain(row) for name, row in rows.items()}
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return rows


def tables(rows: Mapping[str, Metrics]) -> list[str]:
    """Markdown tables of all that is known: of counts, and of points where they were located, of intervals where there are any."""
    return [table for table in (markdown_table(rows), points_table(rows), intervals_table(rows)) if table]


def _plain(row: Metrics | Localisation | Coverage) -> dict[str, Any]:
    """For JSON, which has no NaN: a figure that is not defined is null."""
    values = {name: None if value != value else value for name, value in row._asdict().items()}
    if isinstance(row, Metrics):
        for name in ("points", "intervals"):
            values[name] = [_plain(found) for found in getattr(row, name)]
    return values


def score(
    items: Mapping[str, Sequence[Item]],
    counts: Mapping[str, np.ndarray],
    train: Mapping[str, Sequence[Item]] | None = None,
    game: Mapping[str, np.ndarray] | None = None,
    matched: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Metrics]:
    """Errors of the predicted ``counts`` of ``items``, both by domain.

    Args:
        train: training images by domain; with them also the errors of the two counters that look at no person.
        game: GAME errors of each image, [n, levels], by domain (see `predict_items`).
        matched: heads found at their place in each image, [n, RADII and BOX_RADII], by domain.
    """
    rows: dict[str, Metrics] = {}
    for name, mine in items.items():
        annotated = [item.count for item in mine]
        rows[name] = summarize(counts[name], annotated, None if game is None else game[name])
        if matched is not None:
            rows[name] = rows[name]._replace(points=_located(matched[name], counts[name], annotated))
        if train is not None:
            rows[name + MEAN] = summarize(mean_baseline(train[name], mine), annotated)
            rows[name + RIDGE] = summarize(ridge_baseline(train[name], mine), annotated)
    return rows


def _located(matched: np.ndarray, counts: np.ndarray, annotated: Sequence[int]) -> tuple[Localisation, ...]:
    """Of a data set, for every radius that all of its images have."""
    located = sum(round(float(count)) for count in counts)
    radii: tuple[float | str, ...] = (*RADII, *BOX_RADII)
    return tuple(
        localisation(own.sum(), located, sum(annotated), radius)
        for own, radius in zip(matched.T, radii, strict=True)
        if not np.isnan(own).any()
    )


def write_counts(path: Path, items: Mapping[str, Sequence[Item]], counts: Mapping[str, np.ndarray]) -> None:
    """Write a CSV with a line per image; ``items`` and their predicted ``counts`` by domain."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["domain", "image", "height", "width", "annotated", "predicted"])
    for name, mine in items.items():
        for item, count in zip(mine, counts[name], strict=True):
            writer.writerow([name, item.source.name, *item.size, item.count, f"{count:.3f}"])
    write_atomically(path, file.getvalue().encode("utf-8", "surrogateescape"))


def submit(
    model: CrowdCounter,
    domains: Sequence[Domain],
    path: Path,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    nine_patch: bool = False,
    progress: bool = False,
) -> None:
    """Count the unlabelled images (NWPU-Crowd's test set) into a submission file, see `write_submission`."""
    items = [item for domain in domains for item in domain.unlabelled]
    if not items:
        raise UserError("submission: none of the data sets has unlabelled images; name NWPU-Crowd's folder with --data")
    counts = predict_counts(model, items, device=device, precision=precision, nine_patch=nine_patch, progress=progress)
    write_submission(path, items, counts)
