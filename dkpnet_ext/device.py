"""Device and precision of a model: what `auto` means on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
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


@contextmanager
def free_cores() -> Iterator[None]:
    """Inside, the calling thread computes with as many threads as cores are free, at most those that PyTorch has.

    Threads share every layer and wait for each other at its end. Where another process takes a core, one of two threads is
    stopped again and again, and two are slower than one: 228 against 95 ms for a picture (bench/results/engines.md).
    """
    import torch

    wanted = torch.get_num_threads()
    free = (os.cpu_count() or wanted) - _busy_cores() if wanted > 1 else wanted
    if free >= wanted:
        yield
        return
    torch.set_num_threads(max(1, free))
    try:
        yield
    finally:
        torch.set_num_threads(wanted)


def _busy_cores(proc: Path = Path("/proc")) -> int:
    """How many threads of other processes run or wait for a core; 0 where the system does not say.

    What is there only for a moment, as the kernel's own threads are, does not count: it is the least of three looks.
    """
    busy = 0
    for look in range(3):
        if look:
            time.sleep(5e-4)
        found = 0
        with suppress(OSError, ValueError, IndexError):
            running = int((proc / "loadavg").read_text().split()[3].partition("/")[0])
            if running > 1:  # the calling thread is one of them; its process may have more
                tasks = (task / "stat" for task in (proc / "self/task").iterdir())
                states = [task.read_text().rpartition(")")[2].split()[0] for task in tasks]
                found = max(0, running - states.count("R"))
        if not found:
            return 0
        busy = min(busy, found) if look else found
    return busy
