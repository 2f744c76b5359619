"""The Bayesian loss (Ma et al., ICCV 2019) of density maps against heads, and its gradient, without a heads x cells matrix.

The usual code builds a softmax over heads x cells. The CPU form goes over that product in passes: a cell's nearest head and
the sum of its weights, then a head's expected count, then a cell's gradient; it looks only at pairs that can weigh anything,
and keeps a few numbers per cell, and per head a factor per row and column. Arithmetic is float64. Every sum has one order:
the same bits every run.

On a GPU one launch has a block per image and takes the same passes, a thread per cell and a warp per head.

    forward(density, points, offsets, targets, sides, stride, sigma, form, ratio) -> (loss, slope)
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import native, reference
from .backend import register_autograd, require
from .density import check_heads
from .transport import check_map, check_values, chosen, limit, wide

Form = Literal["paper", "2021"]
FORMS: tuple[Form, ...] = get_args(Form)  # the order of dkpnet::BayesianForm
_RATIOS = {"paper": 0.15, "2021": 1.0}

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define(
    "bayesian(Tensor density, Tensor points, Tensor offsets, Tensor? targets, Tensor sides, int stride, float sigma, "
    "str form, float ratio, str backend) -> (Tensor, Tensor)"
)


def bayesian(
    density: Tensor,
    points: Tensor,
    offsets: Tensor,
    side: float | Tensor,
    *,
    targets: Tensor | None = None,
    stride: int = 8,
    sigma: float = 8.0,
    form: Form = "paper",
    ratio: float | None = None,
) -> Tensor:
    """The Bayesian loss of every image: sum over its heads of abs(t_n - e_n), plus abs(e_background).

    A cell m with centre x_m belongs to head n with posterior p_nm, the softmax over the heads and a background of
    -norm(x_m - z_n)^2 / (2 sigma^2), and e_n = sum_m p_nm D_m. With d_m the distance to the nearest head and S the side, the
    background's squared distance is (ratio S - d_m)^2 in the form "paper", and (ratio S)^2 / (d_m^2 + 1e-5) in the form
    "2021", that of the authors' code since July 2021. An image without heads has the loss abs(sum D).

    Args:
        density: [B, 1, h, w], heads per cell; float64 computes in plain PyTorch, other dtypes are taken as float32.
        points: [M, 2] float32, (x, y) in pixels of the image, image after image, finite.
        offsets: [B + 1] int64; image b owns points[offsets[b]:offsets[b + 1]].
        side: pixels, or [B] float32: the shortest side of the picture (of a crop: of the picture that it is from).
        targets: [M] float32, the count that is expected of a head (less than 1 where a border cuts it); None: 1.
        stride: pixels per side of a cell.
        sigma: pixels.
        form: of the background.
        ratio: None: 0.15 for "paper", 1 for "2021".

    Returns:
        [B], float32 or float64 as the density; differentiable once with respect to the density.

    Raises:
        ValueError, TypeError: shapes, devices, dtypes or values that do not fit.
    """
    if form not in FORMS:
        raise ValueError(f"bayesian: unknown form {form!r}: choose one of {', '.join(FORMS)}")
    ratio = _RATIOS[form] if ratio is None else ratio
    density = wide(density)
    sides = side if isinstance(side, Tensor) else density.new_full((len(density),), side, dtype=torch.float32)
    _check(density, points, offsets, targets, sides, stride, sigma, form, ratio)
    loss, _ = torch.ops.dkpnet.bayesian.default(
        density, points.detach(), offsets, None if targets is None else targets.detach(), sides.detach(), stride,
        float(sigma), form, float(ratio), chosen("bayesian", density),
    )  # fmt: skip
    return loss


def _check(
    density: Tensor, points: Tensor, offsets: Tensor, targets: Tensor | None, sides: Tensor, stride: int, sigma: float,
    form: str, ratio: float,
) -> None:  # fmt: skip
    check_heads(points, offsets, "bayesian")
    check_map(density, offsets, "bayesian")
    if form not in FORMS:
        raise ValueError(f"bayesian: unknown form {form!r}: choose one of {', '.join(FORMS)}")
    if not (math.isfinite(sigma) and sigma > 0 and math.isfinite(ratio) and ratio >= 0) or stride < 1:
        raise ValueError(
            f"bayesian: needs sigma > 0, ratio >= 0 and a stride of at least 1, got {sigma}, {ratio}, {stride}"
        )
    for name, tensor, length in (("side", sides, len(density)), ("targets", targets, len(points))):
        if tensor is not None and (
            tensor.shape != (length,) or tensor.dtype != torch.float32 or tensor.device != density.device
        ):
            raise ValueError(
                f"bayesian: {name} must be float32 [{length}] on {density.device}, "
                f"got {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
            )


def _forward(density, points, offsets, targets, sides, stride, sigma, form, ratio, backend):
    _check(density, points, offsets, targets, sides, stride, sigma, form, ratio)
    require(backend, "bayesian", density.device, density.dtype, limit(density.dtype))
    check_values(points, offsets, "bayesian")
    if backend == "reference":
        return reference.bayesian(density, points, offsets, targets, sides, stride, sigma, form, ratio)
    density, points, offsets, sides = (t.contiguous() for t in (density, points, offsets, sides))
    targets = None if targets is None else targets.contiguous()
    loss, slope, (height, width) = density.new_empty(len(density)), torch.empty_like(density), density.shape[2:]
    size = native.module.bayesian_workspace(len(density) if backend == "cuda" else 1, len(points), height, width)
    native.run(
        "bayesian_forward", density, density=density, points=points, offsets=offsets, targets=targets, sides=sides,
        batch=len(density), num_points=len(points), height=height, width=width, stride=stride, sigma=sigma, ratio=ratio,
        form=FORMS.index(form), loss=loss, slope=slope, workspace=density.new_empty(size, dtype=torch.float64),
    )  # fmt: skip
    return loss, slope


_library.impl("bayesian", _forward, "CPU")
_library.impl("bayesian", _forward, "CUDA")


@torch.library.register_fake("dkpnet::bayesian", lib=_library)
def _(density, points, offsets, targets, sides, stride, sigma, form, ratio, backend):
    return density.new_empty(density.shape[0]), torch.empty_like(density, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


@once_differentiable
def _gradient(ctx, grad: Tensor, _: Tensor):
    (slope,) = ctx.saved_tensors
    return grad[:, None, None, None] * slope, *(None,) * 9


register_autograd(_library, "bayesian", _gradient, _setup)
