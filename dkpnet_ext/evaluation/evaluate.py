"""Evaluating a model on data sets: the table, and what was predicted for every image."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..device import Precision
from ..errors import UserError
from ..files import output_folder, writing
from .inference import predict_counts
from .metrics import Metrics, markdown_table, summarize
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
    progress: bool = False,
) -> dict[str, Metrics]:
    """Metrics per domain; writes ``metrics.json``, ``table.md`` and ``counts.csv`` (a line per image) into ``output``.

    Raises:
        UserError: no domain has images in this split; an output that cannot be written.
    """
    chosen = {d.name: getattr(d, split) for d in domains if getattr(d, split)}
    if not chosen:
        raise UserError(f"no {split} images in {', '.join(d.name for d in domains)}; choose another --split")
    output_folder(output)
    counts = {
        name: predict_counts(model, items, device=device, precision=precision, nine_patch=nine_patch, progress=progress)
        for name, items in chosen.items()
    }
    rows = {name: summarize(counts[name], [item.count for item in items]) for name, items in chosen.items()}
    write_counts(output / "counts.csv", chosen, counts)
    with writing(output):
        (output / "table.md").write_text(markdown_table(rows) + "\n", encoding="utf-8")
        metrics = {name: row._asdict() for name, row in rows.items()}
        (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return rows


def write_counts(path: Path, items: Mapping[str, Sequence[Item]], counts: Mapping[str, np.ndarray]) -> None:
    """Write a CSV with a line per image; ``items`` and their predicted ``counts`` by domain."""
    with writing(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["domain", "image", "height", "width", "annotated", "predicted"])
        for name, mine in items.items():
            for item, count in zip(mine, counts[name], strict=True):
                writer.writerow([name, item.source.name, *item.size, item.count, f"{count:.3f}"])


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
