"""Device and precision of a model: what `auto` means on this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from .errors import UserError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def pick_device(device: DeviceName, precision: Precision = "fp32") -> torch.device:
    """The device that a command should use.

    Raises:
        UserError: a GPU that is not there; fp16 without one.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: this machine has no usable GPU; use --device cpu")
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if precision == "fp16" and name == "cpu":
        raise UserError("precision fp16: needs a GPU; use bf16 or fp32 on the CPU")
    return torch.device(name)


def pick_precision(precision: Precision, device: torch.device | str) -> Precision:
    """What ``auto`` stands for: bf16 where the device multiplies it faster than fp32, else fp32."""
    import torch

    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public one before 2.11
    return "bf16" if any(getattr(torch.cpu, probe, bool)() for probe in probes) else "fp32"


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager:
    """The mixed precision that a precision's name stands for; fp32 switches it off."""
    import torch

    precision = pick_precision(precision, device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=precision != "fp32")
