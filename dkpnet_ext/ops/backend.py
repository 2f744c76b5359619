"""Which implementation of an operator runs: compiled CUDA, Triton, compiled CPU loops, or plain PyTorch.

`DKPNET_BACKEND=<name>` or `with use_backend(<name>):` forces one for the whole process; what is forced and cannot run
is an error that says why. Otherwise the first of `ORDER` that can run is taken, and if that is not the first of all,
one warning says so.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import UserError
from . import native

BACKENDS = ("cuda", "triton", "cpp", "reference")
ORDER = {"cuda": ("cuda", "triton", "reference"), "cpu": ("cpp", "reference")}

# An operator's own limits: limit(backend) -> why it cannot take these arguments, or None. Plain PyTorch takes all.
Limit = Callable[[str], str | None]

_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
_NATIVE_DTYPES = tuple(native.DTYPES)
_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_warned: set[tuple[str, str, str]] = set()


def _known(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    return name


_forced = os.environ.get("DKPNET_BACKEND", "")


def forced() -> str:
    """The backend that is forced at present, "" for the automatic choice.

    Raises:
        UserError: DKPNET_BACKEND names no backend (asked for here, so that a command can say it in one line).
    """
    if _forced and _forced not in BACKENDS:
        raise UserError(f"DKPNET_BACKEND: unknown backend {_forced!r}: choose one of {', '.join(BACKENDS)}")
    return _forced


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force the backend ``name`` ("cuda", "triton", "cpp" or "reference") inside the block, in every thread."""
    global _forced
    before, _forced = _forced, _known(name)
    try:
        yield
    finally:
        _forced = before


def can_run(backend: str, op: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> str | None:
    """Why ``backend`` cannot run operator ``op`` on tensors of this device and dtype; None if it can.

    Depends on nothing but its arguments, the installation, and the machine.
    """
    kind, index = (device, None) if isinstance(device, str) else (device.type, device.index)
    if _known(backend) == "reference":
        return None
    if backend == "triton":
        if not _TRITON_INSTALLED:
            return "the package triton is not installed"
        if dtype not in _TRITON_DTYPES:
            return f"the Triton kernels have no {dtype}"
        if kind == "cpu":
            return None if TRITON_INTERPRETED else "on the CPU Triton needs TRITON_INTERPRET=1 set before Python starts"
        return None if kind == "cuda" else f"Triton kernels run on cuda, not on {kind}"
    needed = "cuda" if backend == "cuda" else "cpu"
    if kind != needed:
        return f"it runs on {needed} tensors, not on {kind}"
    if dtype not in _NATIVE_DTYPES:
        return f"the compiled kernels have no {dtype}"
    return native.cuda_refusal(index) if backend == "cuda" else native.missing


def _refusal(backend: str, op: str, device: torch.device | str, dtype: torch.dtype, limit: Limit | None) -> str | None:
    reason = can_run(backend, op, device, dtype)
    return limit(backend) if reason is None and limit is not None and backend != "reference" else reason


class BackendRefused(UserError, RuntimeError):
    """The backend that was asked for cannot run an operator on such tensors; the message says why."""


def require(backend: str, op: str, device: torch.device | str, dtype: torch.dtype, limit: Limit | None = None) -> None:
    """Raise `BackendRefused`, a RuntimeError, where ``backend`` cannot run ``op`` on such tensors."""
    if reason := _refusal(backend, op, device, dtype, limit):
        hint = "; unset DKPNET_BACKEND" if os.environ.get("DKPNET_BACKEND") == backend == _forced else ""
        raise BackendRefused(f"dkpnet_ext: {op} cannot run on the backend {backend!r}: {reason}{hint}")


def require_kernel(
    backend: str, op: str, device: torch.device | str, dtype: torch.dtype, limit: Limit | None = None
) -> None:
    """The same for the raw operators ``torch.ops.dkpnet.<op>``, which have no plain PyTorch version."""
    if backend == "reference":
        raise RuntimeError(
            f"dkpnet_ext: torch.ops.dkpnet.{op} runs kernels; call dkpnet_ext.ops.{op} for the backend 'reference'"
        )
    require(backend, op, device, dtype, limit)


def choose(op: str, device: torch.device | str, dtype: torch.dtype, limit: Limit | None = None) -> str:
    """The backend that runs ``op``: the forced one, else the first of `ORDER` that can.

    The public function of an operator asks once; forward and backward pass get the answer. Under the transforms of
    torch.func it is plain PyTorch.

    Raises:
        RuntimeError: the forced backend cannot run; the message says why.
    """
    name = forced()
    if not torch.compiler.is_compiling() and _transformed():
        if name not in ("", "reference"):
            raise RuntimeError(f"dkpnet_ext: {op} runs on 'reference' only under torch.func, not on {name!r}")
        return "reference"
    if name:
        require(name, op, device, dtype, limit)
        return name
    kind = device if isinstance(device, str) else device.type
    skipped = ""
    for name in ORDER.get(kind, ("reference",)):
        reason = _refusal(name, op, device, dtype, limit)
        if reason is None:
            break
        skipped += f" {name}: {reason}."
    if skipped and not torch.compiler.is_compiling() and (op, kind, name) not in _warned:
        _warned.add((op, kind, name))
        warnings.warn(f"dkpnet_ext: {op} on {kind} runs on {name!r}.{skipped}", stacklevel=3)
    return name


def _transformed() -> bool:
    """Whether torch.func (grad, vmap ...) or forward-mode differentiation looks at the calls: PyTorch does not let the one
    through the autograd of a registered operator, and a compiled loop would lose the other's tangents."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def repeatable(x: Tensor) -> bool:
    """Whether what was checked and chosen for a call may be kept for the next one like it: nothing looks at the calls (a
    compiler, torch.func, autograd), and no backend is forced."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and not (_forced or torch.is_grad_enabled() or _transformed())
    )


def check_tensor(op: str, name: str, t: Tensor, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
    """Raise what is wrong with an operator's argument in one line: TypeError for the dtype, else ValueError."""
    if tuple(t.shape) != tuple(shape) or t.dtype != dtype or t.device != device:
        raise (ValueError if t.dtype == dtype else TypeError)(
            f"{op}: {name} must be {dtype} {list(shape)} on {device}, got {t.dtype} {list(t.shape)} on {t.device}"
        )


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums of this dtype are kept in: `wide_t` of csrc/math/common.h."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dense_layout(x: Tensor) -> torch.memory_format:
    """The dense layout that x [B, C, H, W] has, or is copied to: a slice of a channels_last tensor stays channels_last."""
    if x.is_contiguous():
        return torch.contiguous_format
    last = x.is_contiguous(memory_format=torch.channels_last) or (x.stride(1) == 1 and x.shape[1] > 1)
    return torch.channels_last if last else torch.contiguous_format


def register_autograd(library: torch.library.Library, op: str, gradient: Callable, setup: Callable) -> None:
    """`torch.library.register_autograd` for operators of tensors and numbers, at less cost per call.

    What it does beside for keyword arguments, defaults and lists of tensors took 60 of `variational`'s 310 us (32 images).
    """

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            with torch._C._AutoDispatchBelowAutograd():
                output = call(*inputs)
            setup(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx, *grads):
            return gradient(ctx, *grads)

    Differentiable.__name__ = Differentiable.__qualname__ = op
    call = getattr(torch.ops.dkpnet, op).default
    library.impl(op, Differentiable.apply, "Autograd")


def forbid_double_backward(library: torch.library.Library, op: str) -> None:
    """Makes differentiating ``dkpnet::<op>`` one clear error: the compiled and Triton backward passes have no gradient."""

    def grad(ctx, *grads):
        raise RuntimeError(
            f"dkpnet_ext: {op} has no second derivative; run the forward pass under use_backend('reference') for it"
        )

    torch.library.register_autograd(f"dkpnet::{op}", grad, lib=library)
