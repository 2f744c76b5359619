"""Pointwise (1x1) convolution on the CPU, with its activation: matrix products over channels_last pixels.

Forward one product of [B H W, C], backward two, all by torch (oneDNN); between them one pass of ours that applies the
activation's mask, read off the saved output, and sums the bias' gradient, over runs of rows first: the same bits every run.
Without an activation that pass only reads. On a GPU cuDNN does this well, so there is no GPU form: there, and where the
compiled module is missing, plain PyTorch runs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native, reference
from .backend import choose, forbid_double_backward, register_autograd, require_kernel
from .depthwise import ACTIVATIONS, DTYPES, autocast, check_convolution, fused, fuses, runs_plain

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define("pointwise(Tensor x, Tensor weight, Tensor bias, str activation, str backend) -> Tensor")
_library.define(
    "pointwise_backward(Tensor grad, Tensor x, Tensor out, Tensor weight, bool need_input, bool need_parameters, "
    "str activation, str backend) -> (Tensor, Tensor, Tensor)"
)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """act(conv2d(x, weight, bias)) with a kernel of 1.

    Differentiable with respect to x, weight and bias, once; twice under ``use_backend("reference")``. The features' dtype
    decides (under autocast, autocast's); a float32 weight is rounded to it for the products. oneDNN's activations make a NaN
    0, here as under torch.compile.

    Args:
        x: [B, C, H, W]; channels_last runs as it is, another layout is copied to it. The compiled loops take float32 and
            bfloat16.
        weight: [D, C, 1, 1]; bias: [D] or None.
        activation: "none", "relu" or "relu6".

    Returns:
        [B, D, H, W] in x's dtype, channels_last where the compiled loops ran.

    Raises:
        ValueError, TypeError: shapes, devices, dtypes or names that do not fit.
    """
    x = autocast(x)
    if x.dim() != 4 or weight.dim() != 4 or weight.shape[1:] != (x.shape[1], 1, 1):
        raise ValueError(
            f"pointwise: needs x [B, C, H, W] and weight [D, C, 1, 1], got {list(x.shape)} and {list(weight.shape)}"
        )
    bias = check_convolution("pointwise", x, weight, bias, activation)
    backend = "reference" if runs_plain(x) else choose("pointwise", "cpu", x.dtype, _limit(x))
    if backend == "reference":
        return reference.pointwise(x, weight, bias, activation)
    weight, bias = weight.float(), bias.float()
    return torch.ops.dkpnet.pointwise.default(x, weight, bias, activation, backend)


def _limit(x: Tensor):
    """Why a backend cannot take these arguments."""

    def limit(backend: str) -> str | None:
        if backend != "cpp":
            return "there is no such form of it: cuDNN does this well"
        return None if x.dtype in DTYPES else f"its loops take float32 and bfloat16, not {x.dtype}"

    return limit


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B H W, C], a view if x is channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _image(rows: Tensor, x: Tensor) -> Tensor:
    """[B H W, D] -> [B, D, H, W], channels_last, of x's batch and size."""
    return rows.view(x.shape[0], *x.shape[2:], rows.shape[1]).permute(0, 3, 1, 2)


def _forward(x, weight, bias, activation, backend):
    require_kernel(backend, "pointwise", "cpu", x.dtype, _limit(x))
    x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    if x.numel() and fuses(x.dtype):
        out = fused(x, weight, bias, 0, 1, 1, activation)
    else:
        out = F.conv2d(x, weight, bias)
        out = out if activation == "none" else out.clamp_(0, 6 if activation == "relu6" else None)
    return out.contiguous(memory_format=torch.channels_last)  # a copy where x has one channel or pixel


def _backward(grad, x, out, weight, need_input, need_parameters, activation, backend):
    require_kernel(backend, "pointwise", "cpu", x.dtype, _limit(x))
    grad, out, source = _rows(grad).contiguous(), _rows(out).contiguous(), _rows(x)
    before = torch.empty_like(grad) if activation != "none" else grad
    channels = grad.shape[1]
    # As many rows side by side as make a whole number of vectors.
    repeats = native.module.POINTWISE_UNIT // math.gcd(channels, native.module.POINTWISE_UNIT)
    part = native.module.POINTWISE_ROWS * repeats
    partials = weight.new_empty((-(-grad.shape[0] // part), repeats, channels))
    native.run(
        "pointwise_mask", x, dtype=x.dtype, count=grad.numel(), width=repeats * channels,
        activation=ACTIVATIONS.index(activation), grad_out=grad, out=out, grad=before, partials=partials,
    )  # fmt: skip
    dx = _image(before @ weight.flatten(1).to(x.dtype), x) if need_input else x.new_empty(0)
    if not need_parameters:
        return dx, weight.new_empty(0), weight.new_empty(0)
    # oneDNN is faster where the result is wide rather than tall.
    wide = before.t() @ source if channels <= x.shape[1] else (source.t() @ before).t()
    # In the weight's own strides, which DistributedDataParallel compares.
    return dx, torch.empty_like(weight).copy_(wide.view_as(weight)), partials.sum((0, 1))


_library.impl("pointwise", _forward, "CPU")
_library.impl("pointwise_backward", _backward, "CPU")


@torch.library.register_fake("dkpnet::pointwise", lib=_library)
def _(x, weight, bias, activation, backend):
    return x.new_empty((x.shape[0], *x.shape[2:], weight.shape[0])).permute(0, 3, 1, 2)


@torch.library.register_fake("dkpnet::pointwise_backward", lib=_library)
def _(grad, x, out, weight, need_input, need_parameters, activation, backend):
    dx = x.new_empty((x.shape[0], *x.shape[2:], x.shape[1])).permute(0, 3, 1, 2) if need_input else x.new_empty(0)
    if not need_parameters:
        return dx, weight.new_empty(0), weight.new_empty(0)
    return dx, torch.empty_like(weight), weight.new_empty(weight.shape[0])


def _setup(ctx, inputs, output) -> None:
    # Without an activation the output is not needed, and what follows may change it in place.
    ctx.save_for_backward(inputs[0], None if inputs[3] == "none" else output, inputs[1])
    ctx.rest = inputs[3:]


def _grad(ctx, grad: Tensor):
    need_input, need_parameters = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
    x, out, weight = ctx.saved_tensors
    dx, dweight, dbias = torch.ops.dkpnet.pointwise_backward.default(
        grad, x, grad if out is None else out, weight, need_input, need_parameters, *ctx.rest
    )
    parameters = (dweight, dbias) if need_parameters else (None, None)
    return dx if need_input else None, *parameters, None, None


register_autograd(_library, "pointwise", _grad, _setup)
forbid_double_backward(_library, "pointwise_backward")
