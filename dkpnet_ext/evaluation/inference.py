"""Counts and attention vectors of whole images, one image at a time, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ..data.images import to_tensor

if TYPE_CHECKING:
    from ..data.prepare import Item
    from ..models import CrowdCounter

Precision = Literal["fp32", "bf16", "fp16"]


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager:
    """The mixed precision that a run's name stands for; fp32 switches it off."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=precision != "fp32")


def predict_counts(
    model: CrowdCounter,
    items: Sequence[Item],
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    progress: bool = False,
) -> np.ndarray:
    """Predicted count of every item, float64 [n]; the model is moved to ``device`` and keeps its mode."""
    model.to(device)
    counts = []
    with autocast(device, precision):
        for item in _shown(items, "counting", progress):
            counts.append(model.count(to_tensor(np.load(item.image, mmap_mode="r"))))
    return np.array(counts, np.float64)


def attention_vectors(
    model: CrowdCounter,
    items: Sequence[Item],
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    progress: bool = False,
) -> np.ndarray:
    """Attention y of every item as a whole image in evaluation mode, float32 [n, K].

    Raises:
        ValueError: a model without attention.
    """
    model.to(device)
    vectors = []
    with autocast(device, precision):
        for item in _shown(items, "attention", progress):
            vectors.append(model.attend(to_tensor(np.load(item.image, mmap_mode="r"))).cpu().numpy())
    return np.array(vectors, np.float32)


def _shown(items: Sequence, what: str, progress: bool) -> Iterable:
    from tqdm.auto import tqdm

    return tqdm(items, desc=what, unit="image", leave=False, disable=not progress)
