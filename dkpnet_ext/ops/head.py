"""The attended head: from the backbone's branches to the density map without the K channels in between.

The neck (1x1, K channels, bias), the attention and the first convolution of the head are linear and act on each pixel
alone, so they fold into one matrix per image, E_b = W1 diag(y_b) Wn with bias W1 diag(y_b) bn + b1 (MATH.md, "The
attended head never needs x"; Wn, bn the neck's), which commutes with bilinear upsampling. What remains per pixel:

    hidden1 = ReLU(E_b0 f_0 + sum_j upsample(P_j) + bias_b),  P_j = E_bj f_j at the branch's own size
    density = W3 ReLU(W2 hidden1 + b2) + b3

Count for the usual case, branches of 40, 80, 160 channels at 1, 1/4, 1/16 of N output pixels, K = 512, 64-32-1, in
values read or written and multiply-adds:

    literal   (40+20+10) N read, 280 N, 512 N, 512 N, 64 N, 32 N written and read again     178 000 N
    here      70 N read, (16+4) N of P_j written and read again, N written                   7 800 N

The P_j (matrix products that torch.bmm does best) are 2600 of the 7800 and all that is stored; the rest is one kernel
that keeps a tile of pixels in registers or the cache. The backward pass recomputes the hidden layers (4600 N), writes
one array of 64 N (the gradient before hidden1's ReLU, which every linear gradient is a product of) and sums parameter
gradients over fixed runs of pixels: the same bits every run.

Every backend (this file's native calls, `ops/triton/head.py`) has

    forward(fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width) -> density
    backward(grad, <the same>) -> (grad_hidden, partials)
    downsample(grad_hidden, rows, columns) -> the adjoint of bilinear upsampling from rows x columns

with fine [B, C0, H, W] (C0 = 0 where no branch has the output's size) contiguous or channels_last; fine_weight
[B, C0, hidden1], rows contiguous; products: list of [B, Hj, Wj, hidden1], contiguous; density [B, 1, H, W]; grad_hidden
[B, H, W, hidden1]: all in the features' dtype. Parameters are float32 and contiguous: bias [B, hidden1], weight2
[hidden2, hidden1], bias2, weight3, bias3. partials [B, parts, n] float32 holds sums over runs of pixels of the gradients
of weight2 | bias2 | weight3 | bias | bias3.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native, reference, triton
from .backend import check_tensor, choose, dense_layout, forbid_double_backward, require_kernel

_library = torch.library.Library("dkpnet", "FRAGMENT")
_ARGUMENTS = (
    "Tensor fine, Tensor fine_weight, Tensor[] products, Tensor bias, Tensor weight2, Tensor bias2, Tensor weight3, "
    "Tensor bias3, SymInt height, SymInt width, str backend"
)
_library.define(f"head({_ARGUMENTS}) -> Tensor")
_library.define(
    f"head_backward(Tensor grad, {_ARGUMENTS}) -> (Tensor grad_hidden, Tensor grad_bias, Tensor grad_weight2, "
    "Tensor grad_bias2, Tensor grad_weight3, Tensor grad_bias3)"
)
_library.define("head_downsample(Tensor grad, SymInt rows, SymInt columns, str backend) -> Tensor")

_LARGEST = 32767  # pixels per side: bilinear positions are exact in 32-bit integers
_MAX_PRODUCTS = 8  # kMaxProducts of csrc/math/head.h


def head(
    branches: Sequence[Tensor],
    attention: Tensor | None,
    neck_weight: Tensor,
    neck_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    weight3: Tensor,
    bias3: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """Density map from the backbone's branches; equal to upsampling (bilinear, align_corners=False) and concatenating
    them, then neck, attention, and 1x1 convolutions with ReLU between them, none after the last.

    Differentiable with respect to every tensor, once; twice under ``use_backend("reference")``. The features' dtype
    decides, under autocast too: parameters and attention of another dtype are converted, in float32 up to the effective
    weights. Compiled and Triton kernels take float32, bfloat16 and float16; float64 runs on the reference.

    Args:
        branches: N >= 1 tensors [B, C_j, H_j, W_j] of one dtype, contiguous or channels_last (both run as they are,
            another layout is copied). The first one of the output's size is never resampled nor multiplied at full size.
        attention: [B, K] channel weights, or None for ones.
        neck_weight: [K, sum C_j]; neck_bias: [K].
        weight1: [D1, K]; bias1: [D1]; weight2: [D2, D1]; bias2: [D2]; weight3: [1, D2]; bias3: [1]. D1 = 64, D2 = 32
            run on every backend; cpp takes multiples of 16 up to 128, triton powers of two from 16 to 128.
        size: (H, W) of the output.

    Returns:
        [B, 1, H, W] in the features' dtype.

    Raises:
        ValueError, TypeError: shapes, devices or dtypes that do not fit.
    """
    parameters = (neck_weight, neck_bias, weight1, bias1, weight2, bias2, weight3, bias3)
    _check(branches, attention, parameters, size)
    first, (height, width) = branches[0], size
    device = first.device.type
    fine = next((j for j, branch in enumerate(branches) if tuple(branch.shape[2:]) == tuple(size)), None)
    coarse = len(branches) - (fine is not None)
    largest = max(*size, *(side for branch in branches for side in branch.shape[2:]))
    limit = partial(_limit, first.dtype, weight2.shape, coarse, largest)
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
        backend = choose("head", first.device, first.dtype, limit)
        if backend == "reference":
            return reference.head(branches, attention, *parameters, size)
        weights, bias = _fold(branches, attention, *parameters[:4])
        products = [
            torch.bmm(branch.flatten(2).transpose(1, 2), weight).unflatten(1, branch.shape[2:])
            for j, (branch, weight) in enumerate(zip(branches, weights, strict=True))
            if j != fine
        ]
        if fine is None:
            fine_branch, fine_weight = first.new_empty((first.shape[0], 0, height, width)), weights[0][:, :0]
        else:
            fine_branch, fine_weight = branches[fine], weights[fine]
        tail = (t.float() for t in (weight2, bias2, weight3, bias3))
        return torch.ops.dkpnet.head(fine_branch, fine_weight, products, bias, *tail, height, width, backend)


attended_head = head
"""An earlier name of `head`."""


def _fold(
    branches: Sequence[Tensor], attention: Tensor | None, neck_weight: Tensor, neck_bias: Tensor, weight1: Tensor,
    bias1: Tensor,
) -> tuple[tuple[Tensor, ...], Tensor]:  # fmt: skip
    """Every branch's part of E_b, transposed: [B, C_j, D1] in the features' dtype; and the bias [B, D1], float32."""
    batch = branches[0].shape[0]
    scaled, scaled_bias = weight1.float().unsqueeze(0), neck_bias.float().unsqueeze(0)
    if attention is not None:
        scaled = scaled * attention.float().unsqueeze(1)  # [B, D1, K]
        scaled_bias = scaled_bias * attention.float()
    effective = (scaled @ neck_weight.float()).transpose(1, 2).to(branches[0].dtype).contiguous()
    bias = F.linear(scaled_bias, weight1.float(), bias1.float())
    parts = effective.expand(batch, -1, -1).split([branch.shape[1] for branch in branches], dim=1)
    return parts, bias.expand(batch, -1)


def _check(branches: Sequence[Tensor], attention: Tensor | None, parameters: tuple[Tensor, ...], size) -> None:
    if not branches:
        raise ValueError("head: needs at least one branch")
    first = branches[0]
    for j, branch in enumerate(branches):
        if branch.dim() != 4 or branch.shape[0] != first.shape[0] or 0 in branch.shape[1:]:
            raise ValueError(
                f"head: branches must be [B, C, H, W] of one B, no C, H or W of 0; branch {j} is "
                f"{list(branch.shape)}, branch 0 is {list(first.shape)}"
            )
        if branch.dtype != first.dtype or not branch.is_floating_point():
            raise TypeError(
                f"head: branches must share one floating point dtype; branch {j} is {branch.dtype}, branch 0 "
                f"is {first.dtype}"
            )
    if len(size) != 2 or size[0] < 1 or size[1] < 1:
        raise ValueError(f"head: size must be (H, W), both at least 1, got {tuple(size)}")
    neck_weight, _, weight1, _, weight2, *_ = parameters
    channels = sum(branch.shape[1] for branch in branches)
    if any(weight.dim() != 2 for weight in (neck_weight, weight1, weight2)):
        raise ValueError("head: neck_weight, weight1 and weight2 must be matrices [out, in]")
    width, hidden1, hidden2 = neck_weight.shape[0], weight1.shape[0], weight2.shape[0]
    shapes = {
        "neck_weight": (width, channels), "neck_bias": (width,), "weight1": (hidden1, width), "bias1": (hidden1,),
        "weight2": (hidden2, hidden1), "bias2": (hidden2,), "weight3": (1, hidden2), "bias3": (1,),
    }  # fmt: skip
    named = dict(zip(shapes, parameters, strict=True))
    if attention is not None:
        shapes["attention"], named["attention"] = (first.shape[0], width), attention
    for name, shape in shapes.items():
        if tuple(named[name].shape) != shape:
            raise ValueError(f"head: {name} must be {list(shape)}, got {list(named[name].shape)}")
        if not named[name].is_floating_point():
            raise TypeError(f"head: {name} must be floating point, got {named[name].dtype}")
    for name, tensor in (*named.items(), *((f"branch {j}", branch) for j, branch in enumerate(branches))):
        if tensor.device != first.device:
            raise ValueError(f"head: {name} is on {tensor.device}, branch 0 on {first.device}")


def _limit(dtype: torch.dtype, widths: Sequence[int], products: int, largest: int, backend: str) -> str | None:
    """Why a backend's kernels cannot take these arguments."""
    hidden2, hidden1 = widths
    if dtype == torch.float64:
        return "its kernels have no float64"
    if products > _MAX_PRODUCTS:
        return f"its kernels take {_MAX_PRODUCTS} branches that are resampled, not {products}"
    if largest > _LARGEST:
        return f"its kernels take up to {_LARGEST} pixels per side, not {largest}"
    if backend == "cuda" and tuple(widths) != (32, 64):
        return f"its kernels are compiled for hidden layers of 64 and 32 channels, not {hidden1} and {hidden2}"
    if backend == "cpp" and any(w % 16 or not 0 < w <= 128 for w in widths):
        return f"its loops take hidden layers of 16, 32 ... 128 channels, not {hidden1} and {hidden2}"
    if backend == "triton" and any(w not in (16, 32, 64, 128) for w in widths):
        return f"its kernels take hidden layers of 16, 32, 64 or 128 channels, not {hidden1} and {hidden2}"
    return None


def _prepare(
    fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width, backend, grad=None
) -> tuple:
    """What the raw operators promise their kernels: arguments that fit, which are returned in the layouts that they read."""
    if weight2.dim() != 2 or fine.dim() != 4 or any(p.dim() != 4 for p in products):
        raise ValueError("head: needs weight2 [D2, D1], fine [B, C, H, W] and products [B, H, W, D1]")
    (batch, channels), (hidden2, hidden1) = fine.shape[:2], weight2.shape
    if height < 1 or width < 1 or any(0 in p.shape[1:3] for p in products):
        raise ValueError("head: every height and width must be at least 1")
    features = {
        "fine": (fine, (batch, channels, height, width)), "fine_weight": (fine_weight, (batch, channels, hidden1)),
        **{f"product {j}": (p, (batch, *p.shape[1:3], hidden1)) for j, p in enumerate(products)},
    }  # fmt: skip
    if grad is not None:
        features["grad"] = grad, (batch, 1, height, width)
    parameters = {
        "bias": (bias, (batch, hidden1)), "weight2": (weight2, (hidden2, hidden1)), "bias2": (bias2, (hidden2,)),
        "weight3": (weight3, (1, hidden2)), "bias3": (bias3, (1,)),
    }  # fmt: skip
    for names, dtype in ((features, fine.dtype), (parameters, torch.float32)):
        for name, (t, shape) in names.items():
            check_tensor("head", name, t, shape, dtype, fine.device)
    largest = max(height, width, *(side for p in products for side in p.shape[1:3]))
    limit = partial(_limit, fine.dtype, weight2.shape, len(products), largest)
    require_kernel(backend, "head", fine.device, fine.dtype, limit)
    if fine_weight.stride()[1:] != (fine_weight.shape[2], 1):
        fine_weight = fine_weight.contiguous()
    rest = (_aligned(t.contiguous()) for t in (bias, weight2, bias2, weight3, bias3))
    products = [_aligned(p.contiguous()) for p in products]
    fine = fine.contiguous(memory_format=dense_layout(fine))
    return fine, _aligned(fine_weight), products, *rest, height, width


def _aligned(t: Tensor) -> Tensor:
    """A tensor that may be read 16 bytes at a time on a GPU; a view may begin anywhere."""
    return t.clone() if t.is_cuda and t.data_ptr() % 16 else t


def _problem(fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width) -> dict[str, Any]:
    channels, pixels = fine.shape[1], height * width
    channels_last = not fine.is_contiguous()
    return {
        "dtype": fine.dtype, "batch": fine.shape[0], "height": height, "width": width, "channels": channels,
        "hidden1": weight2.shape[1], "hidden2": weight2.shape[0], "fine": fine, "fine_batch": channels * pixels,
        "fine_channel": 1 if channels_last else pixels, "fine_pixel": channels if channels_last else 1,
        "fine_weight": fine_weight, "fine_weight_batch": fine_weight.stride(0),
        "products": [(p.data_ptr(), p.shape[1], p.shape[2]) for p in products],
        "bias": bias, "weight2": weight2, "bias2": bias2, "weight3": weight3, "bias3": bias3,
    }  # fmt: skip


@torch.library.impl("dkpnet::head", ("cpu", "cuda"), lib=_library)
def _forward(fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width, backend):
    arguments = _prepare(fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width, backend)
    if backend == "triton":
        return triton.kernels("head").forward(*arguments)
    density = fine.new_empty((fine.shape[0], 1, height, width))
    native.run("head_forward", fine, **_problem(*arguments), density=density)
    return density


@torch.library.impl("dkpnet::head_backward", ("cpu", "cuda"), lib=_library)
def _backward(grad, fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width, backend):
    arguments = _prepare(
        fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width, backend, grad
    )
    grad, (hidden2, hidden1) = grad.contiguous(), weight2.shape
    sizes = (hidden2 * hidden1, hidden2, hidden2, hidden1, 1)
    if backend == "triton":
        grad_hidden, partials = triton.kernels("head").backward(grad, *arguments)
    else:
        grad_hidden = fine.new_empty((fine.shape[0], height, width, hidden1))
        parts = -(-height * width // native.module.HEAD_PART)
        partials = fine.new_empty((fine.shape[0], parts, sum(sizes)), dtype=torch.float32)
        native.run(
            "head_backward", fine, **_problem(*arguments), grad_density=grad, grad_hidden=grad_hidden, partials=partials
        )
    by_image = partials.sum(1, dtype=torch.float64)
    grad_bias = by_image[:, -1 - hidden1 : -1].float()
    total = by_image.sum(0).float()
    grad_weight2, grad_bias2, grad_weight3, _, grad_bias3 = (part.clone() for part in total.split(sizes))
    return (
        grad_hidden, grad_bias, grad_weight2.view_as(weight2), grad_bias2, grad_weight3.view_as(weight3), grad_bias3
    )  # fmt: skip


@torch.library.impl("dkpnet::head_downsample", ("cpu", "cuda"), lib=_library)
def _downsample(grad, rows, columns, backend):
    if grad.dim() != 4 or 0 in grad.shape[1:] or rows < 1 or columns < 1:
        raise ValueError(
            f"head: downsample needs [B, H, W, C] of sizes of at least 1, got {list(grad.shape)} to {rows} x {columns}"
        )
    batch, height, width, channels = grad.shape
    limit = partial(_limit, grad.dtype, (32, 64), 1, max(height, width, rows, columns))
    require_kernel(backend, "head", grad.device, grad.dtype, limit)
    if channels % 16:
        raise ValueError(f"head: downsample takes a multiple of 16 channels, not {channels}")
    grad = _aligned(grad.contiguous())
    if backend == "triton":
        return triton.kernels("head").downsample(grad, rows, columns)
    out = grad.new_empty((batch, rows, columns, channels))
    native.run(
        "head_downsample", grad, dtype=grad.dtype, batch=batch, channels=channels, height=height, width=width,
        rows=rows, columns=columns, grad=grad, out=out,
    )  # fmt: skip
    return out


@torch.library.register_fake("dkpnet::head", lib=_library)
def _(fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width, backend):
    return fine.new_empty((fine.shape[0], 1, height, width))


@torch.library.register_fake("dkpnet::head_backward", lib=_library)
def _(grad, fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width, backend):
    grads = (t.new_empty(t.shape) for t in (bias, weight2, bias2, weight3, bias3))
    return fine.new_empty((fine.shape[0], height, width, weight2.shape[1])), *grads


@torch.library.register_fake("dkpnet::head_downsample", lib=_library)
def _(grad, rows, columns, backend):
    return grad.new_empty((grad.shape[0], rows, columns, grad.shape[3]))


def _setup(ctx, inputs, output) -> None:
    fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height, width, backend = inputs
    ctx.save_for_backward(fine, fine_weight, bias, weight2, bias2, weight3, bias3, *products)
    ctx.rest = height, width, backend


def _grad(ctx, grad):
    fine, fine_weight, bias, weight2, bias2, weight3, bias3, *products = ctx.saved_tensors
    height, width, backend = ctx.rest
    grad_hidden, *grads = torch.ops.dkpnet.head_backward(
        grad, fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, *ctx.rest
    )
    # A frozen backbone or neck needs no gradient, so its products are left out.
    need_fine, need_fine_weight, need_products, *_ = ctx.needs_input_grad
    by_pixel = grad_hidden.flatten(1, 2)  # [B, H * W, D1]
    grad_fine_weight = torch.bmm(fine.flatten(2), by_pixel) if need_fine_weight else None
    grad_fine = None
    if need_fine and dense_layout(fine) is torch.contiguous_format:
        grad_fine = torch.bmm(fine_weight, by_pixel.transpose(1, 2)).unflatten(2, (height, width))
    elif need_fine:
        grad_fine = torch.bmm(by_pixel, fine_weight.transpose(1, 2)).unflatten(1, (height, width)).permute(0, 3, 1, 2)
    grad_products = [
        torch.ops.dkpnet.head_downsample(grad_hidden, *p.shape[1:3], backend) if needed else None
        for p, needed in zip(products, need_products, strict=True)
    ]
    return grad_fine, grad_fine_weight, grad_products, *grads, None, None, None


torch.library.register_autograd("dkpnet::head", _grad, setup_context=_setup, lib=_library)
forbid_double_backward(_library, "head_backward")
forbid_double_backward(_library, "head_downsample")
