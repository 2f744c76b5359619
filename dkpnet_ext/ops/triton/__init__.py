"""Triton kernels, one module per operator; each is imported only when the triton backend runs."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def kernels(op: str) -> ModuleType:
    """The module of operator ``op``, imported where it runs: the package triton may be missing, and takes a while."""
    return importlib.import_module(f".{op}", __name__)


def device_guard(launch: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``launch(tensor, ...)`` with the tensor's device current: Triton launches on the current one otherwise."""

    @functools.wraps(launch)
    def guarded(tensor: Tensor, *args: Any) -> Any:
        with torch.cuda.device_of(tensor):
            return launch(tensor, *args)

    return guarded
