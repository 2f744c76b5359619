"""Counts of whole images, shared among the processes, and the validation error that chooses the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from ..data import Item
from ..device import Precision
from ..evaluation.inference import predict_counts
from ..evaluation.metrics import summarize
from ..models import CrowdCounter


def predict_all(fabric: Fabric, model: CrowdCounter, items: Sequence[Item], precision: Precision) -> np.ndarray:
    """Predicted counts of whole images, float64 [n]; every process counts a part and gets all."""
    own = predict_counts(
        model, items[fabric.global_rank :: fabric.world_size], device=fabric.device, precision=precision
    )
    if fabric.world_size == 1:
        return own
    parts: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(parts, own)
    counts = np.empty(len(items))
    for rank, part in enumerate(parts):
        counts[rank :: fabric.world_size] = part
    return counts


def validate(fabric: Fabric, model: CrowdCounter, val: Sequence[Item], precision: Precision) -> dict[str, float]:
    """MAE of each data set as ``val/NAME``, and under ``val`` the mean over the data sets of MAE over mean count.

    Data sets without people have no part in ``val``.
    """
    counts = predict_all(fabric, model, val, precision)
    result: dict[str, float] = {}
    relative = []
    for domain in dict.fromkeys(item.domain for item in val):
        mine = [i for i, item in enumerate(val) if item.domain == domain]
        annotated = np.array([val[i].count for i in mine])
        mae = summarize(counts[mine], annotated).mae
        result[f"val/{domain}"] = mae
        if annotated.any():
            relative.append(mae / max(float(annotated.mean()), 1.0))
    return {"val": float(np.mean(relative)), **result}
