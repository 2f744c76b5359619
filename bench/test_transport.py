"""The OT term of DM-Count, forward + backward, against the usual code (a matrix of heads x cells) and its separable form.

100 iterations on every side: the stop criterion is not met by such densities.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from heads import SIZES, STRIDE, both_ways, crowd, images_of, one_by_one, one_thread  # noqa: F401
from measure import backends, both_errors
from torch import Tensor

from dkpnet_ext.ops import transport, use_backend

GUARD, ITERATIONS, REGULARISATION = 1e-16, 100, 10.0


def gradient(density: Tensor, beta: Tensor) -> Tensor:
    """The objective, whose gradient is DM-Count's."""
    mass = density.detach().sum()
    slope = (mass * beta - (density.detach()[0, 0] * beta).sum()) / (mass * mass + 1e-8)
    value = (density.detach()[0, 0] / (mass + 1e-6) * beta).sum()
    return value + (density[0, 0] * slope).sum() - (density.detach()[0, 0] * slope).sum()


def usual(points: Tensor, density: Tensor) -> Tensor:
    """Squared distances by -2 xy + x^2 + y^2, the matrix K of heads x cells, two products with it an iteration."""
    cells = density.shape[-1]
    axis = torch.arange(cells, dtype=density.dtype, device=density.device) * STRIDE + STRIDE / 2
    x, y = points.to(density.dtype)[:, :1], points.to(density.dtype)[:, 1:]
    dx, dy = (-2 * x * axis + x * x + axis * axis), (-2 * y * axis + y * y + axis * axis)
    k = torch.exp(-(dy[:, :, None] + dx[:, None]).flatten(1) / REGULARISATION)
    b = density.detach()[0, 0].flatten()
    b = b / (b.sum() + 1e-6)
    a = torch.full((len(points),), 1 / len(points), dtype=b.dtype, device=b.device)
    u, v = a, b
    for iteration in range(1, ITERATIONS + 1):
        v = b / (u @ k + GUARD)
        u = a / (k @ v + GUARD)
        if iteration % 10 == 0:
            ((u @ k) * v - b).square().sum()  # the usual code looks at it, too
    return gradient(density, (REGULARISATION * torch.log(v + GUARD)).view(cells, cells))


def iteration(down: Tensor, across: Tensor, b: Tensor, ktu: Tensor, a: float) -> tuple[Tensor, Tensor]:
    v = b / (ktu + GUARD)
    u = a / (((down @ v) * across).sum(1, keepdim=True) + GUARD)
    return v, down.T @ (u * across)


def separable(points: Tensor, density: Tensor, step: Callable = iteration) -> Tensor:
    """K as one factor per axis: a half iteration is a product of N x H with H x W and a row sum."""
    cells = density.shape[-1]
    axis = torch.arange(cells, dtype=density.dtype, device=density.device) * STRIDE + STRIDE / 2
    across, down = (torch.exp(-(c[:, None] - axis).square() / REGULARISATION) for c in points.to(density.dtype).T)
    v = b = density.detach()[0, 0] / (density.detach().sum() + 1e-6)
    a = 1 / len(points)
    ktu = down.T @ (a * across)
    for _ in range(ITERATIONS):
        v, ktu = step(down, across, b, ktu, a)
    return gradient(density, REGULARISATION * torch.log(v + GUARD))


def ours(backend: str, points: Tensor, offsets: Tensor) -> Callable[[Tensor], Tensor]:
    def run(density: Tensor) -> Tensor:
        with use_backend(backend):
            return transport(density, points, offsets, stride=STRIDE).objective

    return run


@pytest.mark.parametrize(("heads", "cells"), SIZES)
def test_transport(compare, device, tiny, heads, cells):
    if tiny:
        heads, cells = min(heads, 3), 8
    density, points, offsets = crowd(heads, cells, device)
    own = {name: both_ways(ours(name, points, offsets), density) for name in backends(device, triton=False)}
    plain = {"the usual code": one_by_one(usual, points), "separable": one_by_one(separable, points)}
    if (heads, cells) == SIZES[0]:
        step = torch.compile(iteration, dynamic=False)  # unrolling a hundred of them takes minutes
        plain["separable, torch.compile"] = one_by_one(partial(separable, step=step), points)
    plain = {name: both_ways(run, density) for name, run in plain.items()}
    truth = both_ways(one_by_one(usual, points), density.double())()
    first = backends(device)[0]
    compare(
        "transport",
        f"{images_of(device)} image(s), {heads} heads each, "
        f"{cells} x {cells} cells of {STRIDE} px, {ITERATIONS} iterations, float32, one thread; "
        "error: of the objective and its gradient against the usual code in float64",
        own,
        plain,
        device=device,
        columns={name: both_errors(run(), truth, 1) for name, run in (own | plain).items()},
        aims=[(first, "the usual code", 50), (first, "separable", 5)] if (heads, cells) == SIZES[0] else [],
        graph_calls=0,
        rounds=5,
        tiny=tiny,
    )
