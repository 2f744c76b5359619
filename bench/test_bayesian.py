"""Bayesian loss, forward + backward, against the usual code, which stores the posteriors of heads x cells."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from heads import SIZES, STRIDE, both_ways, crowd, images_of, one_by_one, one_thread  # noqa: F401
from measure import backends, both_errors
from torch import Tensor

from dkpnet_ext.ops import bayesian, use_backend

SIGMA, SIDE, RATIO = 8.0, 768.0, 1.0


def usual(points: Tensor, density: Tensor) -> Tensor:
    """Squared distances by -2 xy + x^2 + y^2, a background, a softmax over heads x cells; the form of 2021."""
    cells = density.shape[-1]
    axis = torch.arange(cells, dtype=density.dtype, device=density.device) * STRIDE + STRIDE / 2
    x, y = points.to(density.dtype)[:, :1], points.to(density.dtype)[:, 1:]
    dx, dy = (-2 * x * axis + x * x + axis * axis), (-2 * y * axis + y * y + axis * axis)
    distance = (dy[:, :, None] + dx[:, None]).flatten(1)
    nearest = distance.amin(0, keepdim=True).clamp_min(0)
    distance = torch.cat([distance, (SIDE * RATIO) ** 2 / (nearest + 1e-5)])
    posterior = torch.softmax(-distance / (2 * SIGMA**2), 0)
    expected = (density.view(1, -1) * posterior).sum(1)
    target = torch.ones_like(expected)
    target[-1] = 0
    return (target - expected).abs().sum()


def ours(backend: str, points: Tensor, offsets: Tensor) -> Callable[[Tensor], Tensor]:
    def run(density: Tensor) -> Tensor:
        with use_backend(backend):
            return bayesian(density, points, offsets, SIDE, stride=STRIDE, sigma=SIGMA, form="2021", ratio=RATIO)

    return run


@pytest.mark.parametrize(("heads", "cells"), SIZES)
def test_bayesian(compare, device, tiny, heads, cells):
    if tiny:
        heads, cells = min(heads, 3), 8
    density, points, offsets = crowd(heads, cells, device)
    own = {name: both_ways(ours(name, points, offsets), density) for name in backends(device, triton=False)}
    plain = {"the usual code": one_by_one(usual, points)}
    if (heads, cells) == SIZES[0]:
        plain["the usual code, torch.compile"] = one_by_one(torch.compile(usual, dynamic=False), points)
    plain = {name: both_ways(run, density) for name, run in plain.items()}
    truth = both_ways(one_by_one(usual, points), density.double())()
    first = backends(device)[0]
    compare(
        "bayesian",
        f"{images_of(device)} image(s), {heads} heads each, "
        f"{cells} x {cells} cells of {STRIDE} px, form of 2021, float32, one thread; error: of the loss and "
        "its gradient against the usual code in float64",
        own,
        plain,
        device=device,
        columns={name: both_errors(run(), truth, 1) for name, run in (own | plain).items()},
        aims=[(first, "the usual code", 5)] if (heads, cells) == SIZES[0] else [],
        graph_calls=0,
        rounds=5,
        tiny=tiny,
    )
