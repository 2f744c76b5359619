"""Checks of constructor arguments: each raises `ValueError` with one line that names the argument."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = True) -> None:
    """Refuse anything but a number from ``low`` to ``high``: NaN, True and "100" as well."""
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (fits and low <= value <= high):  # type: ignore[operator]  # a number by now
        raise ValueError(f"{name} is {value!r}; a {'whole ' if whole else ''}number from {low} to {high} is expected")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is none of the choices (True is not 1)."""
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        raise ValueError(f"{name} is {value!r}; {', '.join(map(str, choices))} are possible")


def check_names(name: str, value: object) -> None:
    """Refuse anything but a list of different texts; one text is a list of letters, and refused as well."""
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"{name} is {value!r}; a list of names is expected")
    if len(set(value)) < len(value):
        raise ValueError(f"{name} is {list(value)!r}; each name may stand there once")


def check_labels(labels: Tensor, domains: int) -> Tensor:
    """The labels, int64 [B], each of which must be a domain: -1 would be the last one."""
    if not torch.compiler.is_compiling() and labels.numel():
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high >= domains:
            raise ValueError(f"labels range from {low} to {high}; the domains are 0 to {domains - 1}")
    return labels
