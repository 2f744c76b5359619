"""Optimal transport between density maps and heads, the OT term of DM-Count (Wang et al., NeurIPS 2020).

The usual code builds a matrix of heads x cells and passes over it 200 times. That matrix is a product of one factor per
axis, and in pixels, with regularisation 10, it is nothing beyond 32 px: at stride 8 a head meets 8 x 8 cells. The CPU
form keeps the two factors of each head's window and takes an iteration in two passes over the heads and one over the cells;
a larger reach (other coordinates, another regularisation) makes the window larger, at most the whole map. Its iterations
are float32, in which nothing is subtracted and the heads' share is exact: see csrc/cpu/transport.cpp. Heads are added in
one order: the same bits every run.

On a GPU one launch has a block per image: a warp gathers K v of a head, a thread K^T u of a cell, from the heads whose windows
hold it (listed by their first row); no atomics. CUDA and not Triton: windows of any size, lists and barriers between passes.

    forward(density, points, offsets, stride, regularisation, iterations, unit) -> (objective, potential)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import native, reference
from .backend import choose, forced, register_autograd, require
from .density import check_heads, check_offsets

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define(
    "transport(Tensor density, Tensor points, Tensor offsets, int stride, float regularisation, int iterations, "
    "bool unit, str backend) -> (Tensor, Tensor)"
)


class TransportOutput(NamedTuple):
    """What `transport` returns."""

    objective: Tensor  # [B], differentiable with respect to the density
    potential: Tensor  # [B, 1, h, w], beta; not differentiable


def transport(
    density: Tensor,
    points: Tensor,
    offsets: Tensor,
    *,
    stride: int = 8,
    regularisation: float = 10.0,
    iterations: int = 100,
    unit_coordinates: bool = False,
) -> TransportOutput:
    """Entropic optimal transport from every density map, b = D / (sum D + 1e-6), to its image's heads, a = 1 / N each.

    The cost is the squared distance from a head to a cell's centre, K = exp(-cost / regularisation). From u = 1 / N, per
    iteration v = b / (K^T u + 1e-16), then u = a / (K v + 1e-16); every 10 it ends if sum (b - v K^T u)^2 <= 1e-9.
    The potential is regularisation * ln(v + 1e-16), the objective sum b * potential. With S = sum D its gradient is
    taken as S / (S^2 + 1e-8) * potential - sum(D * potential) / (S^2 + 1e-8), the potential held constant, as DM-Count
    does: 100 iterations are far from convergence, so their number and order and the 1e-16 belong to the definition.

    Args:
        density: [B, 1, h, w], heads per cell, not negative; float64 computes in plain PyTorch, other dtypes are taken as
            float32. A GPU and plain PyTorch iterate in float64, the CPU's loops in float32.
        points: [M, 2] float32, (x, y) in pixels of the image, image after image, finite.
        offsets: [B + 1] int64; image b owns points[offsets[b]:offsets[b + 1]].
        stride: pixels per side of a cell.
        regularisation: of the entropy, in units of the cost.
        iterations: at most.
        unit_coordinates: the cost is measured in [-1, 1] along both sides instead of in pixels.

    Returns:
        `TransportOutput`; an image without heads has objective and potential 0, and no gradient.

    Raises:
        ValueError, TypeError: shapes, devices, dtypes or values that do not fit.
    """
    _check(density, points, offsets, stride, regularisation, iterations)
    density = wide(density)
    return TransportOutput(
        *torch.ops.dkpnet.transport.default(
            density, points.detach(), offsets, stride, float(regularisation), iterations, unit_coordinates,
            chosen("transport", density),
        )
    )  # fmt: skip


def _check(
    density: Tensor, points: Tensor, offsets: Tensor, stride: int, regularisation: float, iterations: int
) -> None:
    check_heads(points, offsets, "transport")
    check_map(density, offsets, "transport")
    if not (math.isfinite(regularisation) and regularisation > 0):
        raise ValueError(f"transport: regularisation must be a number > 0, got {regularisation}")
    if stride < 1 or iterations < 1:
        raise ValueError(f"transport: stride and iterations must be at least 1, got {stride} and {iterations}")


def check_map(density: Tensor, offsets: Tensor, op: str) -> None:
    """Raises what does not fit a map of heads per cell for the images of ``offsets``."""
    if density.dim() != 4 or density.shape[:2] != (len(offsets) - 1, 1) or 0 in density.shape[2:]:
        raise ValueError(f"{op}: needs a density [{len(offsets) - 1}, 1, h, w], got {list(density.shape)}")
    if not density.is_floating_point():
        raise TypeError(f"{op}: density must be floating point, got {density.dtype}")
    if density.device != offsets.device:
        raise ValueError(f"{op}: density is on {density.device}, offsets on {offsets.device}")


def check_values(points: Tensor, offsets: Tensor, op: str) -> None:
    """Raises if the offsets do not share out the points, or a point is no finite number; waits for a GPU."""
    check_offsets(points, offsets, op)
    if not points.isfinite().all():
        raise ValueError(f"{op}: points must be finite numbers")


def wide(density: Tensor) -> Tensor:
    """The density in float64 or float32."""
    return density if density.dtype == torch.float64 else density.float()


def limit(dtype: torch.dtype) -> Callable[[str], str | None]:
    """Why a backend cannot run an operator that has compiled forms for float32 and nothing else."""

    def reason(backend: str) -> str | None:
        if backend == "triton":
            return "there is no such form of it"
        if backend in ("cpp", "cuda") and dtype != torch.float32:
            return f"its kernels take float32, not {dtype}"
        return None

    return reason


def chosen(op: str, density: Tensor) -> str:
    """The backend of such an operator: plain PyTorch for float64, without a warning.

    Raises:
        RuntimeError: under the transforms of torch.func: its gradient is a formula of its own, not that of its steps.
    """
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"dkpnet_ext: {op} does not run under torch.func; take its gradient with torch.autograd.grad"
        )
    if not forced() and density.dtype != torch.float32:
        return "reference"
    return choose(op, density.device, density.dtype, limit(density.dtype))


def _forward(density, points, offsets, stride, regularisation, iterations, unit, backend):
    _check(density, points, offsets, stride, regularisation, iterations)
    require(backend, "transport", density.device, density.dtype, limit(density.dtype))
    check_values(points, offsets, "transport")
    height, width = density.shape[2:]
    scale_x, scale_y = (2 / (width * stride), 2 / (height * stride)) if unit else (1.0, 1.0)
    if backend == "reference":
        scale = (scale_x, scale_y)
        return reference.transport(density, points, offsets, stride, scale, regularisation, iterations)
    density, points, offsets = density.contiguous(), points.contiguous(), offsets.contiguous()
    batch, heads = len(density), len(points)
    objective, potential = density.new_empty(batch), torch.empty_like(density)
    size = native.module.transport_workspace(
        batch, heads, height, width, stride, scale_x, scale_y, regularisation
    )  # fmt: skip
    size = size if density.is_cuda else size // 2 + 1  # the CPU's loops keep floats in it
    native.run(
        "transport_forward", density, density=density, points=points, offsets=offsets, batch=batch, num_points=heads,
        height=height, width=width, stride=stride, scale_x=scale_x, scale_y=scale_y, regularisation=regularisation,
        iterations=iterations, objective=objective, potential=potential,
        workspace=density.new_empty(size, dtype=torch.float64),
    )  # fmt: skip
    return objective, potential


_library.impl("transport", _forward, "CPU")
_library.impl("transport", _forward, "CUDA")


@torch.library.register_fake("dkpnet::transport", lib=_library)
def _(density, points, offsets, stride, regularisation, iterations, unit, backend):
    return density.new_empty(density.shape[0]), torch.empty_like(density, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.mark_non_differentiable(output[1])


@once_differentiable
def _gradient(ctx, grad: Tensor, _: Tensor):
    density, potential = (saved.double() for saved in ctx.saved_tensors)
    mass, moment = (x.sum((1, 2, 3), keepdim=True) for x in (density, density * potential))
    factor = grad.double()[:, None, None, None] / (mass.square() + 1e-8)
    return torch.addcmul(-factor * moment, factor * mass, potential).to(grad.dtype), *(None,) * 7


register_autograd(_library, "transport", _gradient, _setup)
