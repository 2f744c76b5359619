"""Channel re-weighting, out = x * y: one pass forward, one pass backward for both gradients.

Every backend (this file's native calls, `ops/triton/reweight.py`) has

    forward(x, attention) -> out
    backward(grad, x, attention) -> (dx, dattention)

with x, grad, out, dx [B, K, H, W] of one dtype and one dense layout: all contiguous or all channels_last (these
functions see to that before they call), attention, dattention [B, K] contiguous and of x's dtype. dattention is
accumulated in float32 (float64 for float64). B, K, H or W may be 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import native, reference, triton
from .backend import check_tensor, choose, dense_layout, forbid_double_backward, register_autograd, require_kernel

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define("reweight(Tensor x, Tensor attention, str backend) -> Tensor")
_library.define("reweight_backward(Tensor grad, Tensor x, Tensor attention, str backend) -> (Tensor, Tensor)")


def reweight(x: Tensor, attention: Tensor) -> Tensor:
    """Multiply every channel of every image by its weight.

    Args:
        x: [B, K, H, W], float32, bfloat16, float16 or float64; contiguous and channels_last run as they are, another
            layout is copied first.
        attention: [B, K], converted to x's dtype.

    Returns:
        [B, K, H, W], dtype and memory format of x (channels_last also where x is a slice of a channels_last tensor).

    Raises:
        ValueError, TypeError: shapes, devices or dtypes that do not fit.
    """
    _check(x, attention)
    attention = attention.to(x.dtype)
    backend = choose("reweight", x.device, x.dtype)
    if backend == "reference":
        return reference.reweight(x, attention)
    return torch.ops.dkpnet.reweight.default(x, attention, backend)


def _check(x: Tensor, attention: Tensor) -> None:
    if x.dim() != 4 or attention.shape != x.shape[:2]:
        raise ValueError(
            f"reweight: needs x [B, K, H, W] and attention [B, K], got {list(x.shape)} and {list(attention.shape)}"
        )
    if x.device != attention.device:
        raise ValueError(f"reweight: x is on {x.device}, attention on {attention.device}")
    if not (x.is_floating_point() and attention.is_floating_point()):
        raise TypeError(f"reweight: needs floating point tensors, got {x.dtype} and {attention.dtype}")


def _check_kernel(x: Tensor, attention: Tensor, backend: str, grad: Tensor | None = None) -> None:
    """What the raw operators promise their kernels."""
    _check(x, attention)
    check_tensor("reweight", "attention", attention, x.shape[:2], x.dtype, x.device)
    check_tensor("reweight", "grad", x if grad is None else grad, x.shape, x.dtype, x.device)
    require_kernel(backend, "reweight", x.device, x.dtype)


@torch.library.impl("dkpnet::reweight", ("cpu", "cuda"), lib=_library)
def _forward(x: Tensor, attention: Tensor, backend: str) -> Tensor:
    _check_kernel(x, attention, backend)
    layout = dense_layout(x)
    x, attention = x.contiguous(memory_format=layout), attention.contiguous()
    if backend == "triton":
        return triton.kernels("reweight").forward(x, attention)
    out = torch.empty_like(x)
    native.run("reweight_forward", x, **_problem(x, attention, layout), out=out)
    return out


@torch.library.impl("dkpnet::reweight_backward", ("cpu", "cuda"), lib=_library)
def _backward(grad: Tensor, x: Tensor, attention: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    _check_kernel(x, attention, backend, grad)
    layout = dense_layout(x)
    x, attention = x.contiguous(memory_format=layout), attention.contiguous()
    grad = grad.contiguous(memory_format=layout)
    if backend == "triton":
        return triton.kernels("reweight").backward(grad, x, attention)
    problem = _problem(x, attention, layout)
    dx, dattention, workspace = torch.empty_like(x), torch.empty_like(attention), None
    if x.is_cuda and problem["channels_last"]:
        splits = native.module.reweight_splits(problem["pixels"])
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        workspace = x.new_empty((x.shape[0], splits, x.shape[1]), dtype=wide)
    native.run("reweight_backward", x, **problem, grad=grad, dx=dx, dattention=dattention, workspace=workspace)
    return dx, dattention


def _problem(x: Tensor, attention: Tensor, layout: torch.memory_format) -> dict[str, Any]:
    batch, channels, height, width = x.shape
    return {
        "dtype": x.dtype, "batch": batch, "channels": channels, "pixels": height * width,
        "channels_last": layout is torch.channels_last, "x": x, "attention": attention,
    }  # fmt: skip


@torch.library.register_fake("dkpnet::reweight", lib=_library)
def _(x: Tensor, attention: Tensor, backend: str) -> Tensor:
    return torch.empty_like(x, memory_format=dense_layout(x))


@torch.library.register_fake("dkpnet::reweight_backward", lib=_library)
def _(grad: Tensor, x: Tensor, attention: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=dense_layout(x)), attention.new_empty(attention.shape)


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.backend = inputs[2]


def _grad(ctx, grad: Tensor):
    x, attention = ctx.saved_tensors
    if not ctx.needs_input_grad[1]:  # x is not read
        return torch.ops.dkpnet.reweight.default(grad, attention, ctx.backend), None, None
    return *torch.ops.dkpnet.reweight_backward.default(grad, x, attention, ctx.backend), None


register_autograd(_library, "reweight", _grad, _setup)
forbid_double_backward(_library, "reweight_backward")
