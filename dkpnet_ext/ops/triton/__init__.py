"""Triton kernels, one module per operator; imported only when the triton backend runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def device_guard(launch: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``launch(tensor, ...)`` with the tensor's device current: Triton launches on the current one otherwise."""

    @functools.wraps(launch)
    def guarded(tensor: Tensor, *args: Any) -> Any:
        with torch.cuda.device_of(tensor):
            return launch(tensor, *args)

    return guarded
