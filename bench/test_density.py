"""Density targets of 32 crops of 400x400 with 500 heads each, against what a user would write instead.

The error of a row is the largest error of a crop's count: the sum of the map minus the heads in the crop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from measure import backends
from scipy.ndimage import convolve1d, gaussian_filter
from scipy.spatial import cKDTree
from torch import Tensor

from dkpnet_ext.ops import density, knn_sigma, use_backend

CROPS, SIDE, HEADS, STRIDE, RADIUS, SIGMA = 32, 400, 500, 4, 7, 4.0
AXIS = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2).astype(np.float32)
AXIS /= AXIS.sum()


@pytest.fixture(scope="module")
def crowd():
    points = torch.rand(CROPS * HEADS, 2, generator=torch.Generator().manual_seed(0)) * SIDE
    return points, torch.arange(CROPS + 1) * HEADS


def pooled(canvas: np.ndarray) -> np.ndarray:
    return canvas.reshape(*canvas.shape[:-2], SIDE // STRIDE, STRIDE, SIDE // STRIDE, STRIDE).sum((-3, -1))


def dots(points: Tensor) -> Tensor:
    """[CROPS, SIDE, SIDE], heads per pixel."""
    column, row = points.long().unbind(1)
    crop = torch.arange(len(points), device=points.device) // HEADS
    return (
        torch.bincount((crop * SIDE + row) * SIDE + column, minlength=CROPS * SIDE * SIDE).view(-1, SIDE, SIDE).float()
    )


def stamp_loop(points: Tensor) -> np.ndarray:
    """A 15x15 stamp per head, cut at the border and renormalised there."""
    stamp = np.outer(AXIS, AXIS)
    canvas = np.zeros((CROPS, SIDE, SIDE), np.float32)
    for i, (x, y) in enumerate(points.long().tolist()):
        top, left = max(y - RADIUS, 0), max(x - RADIUS, 0)
        bottom, right = min(y + RADIUS + 1, SIDE), min(x + RADIUS + 1, SIDE)
        patch = stamp
        if bottom - top < 2 * RADIUS + 1 or right - left < 2 * RADIUS + 1:
            patch = stamp[top - y + RADIUS : bottom - y + RADIUS, left - x + RADIUS : right - x + RADIUS]
            patch = patch / patch.sum()
        canvas[i // HEADS, top:bottom, left:right] += patch
    return pooled(canvas)


def convolution_torch(points: Tensor) -> Tensor:
    """Dot maps and two one-dimensional convolutions of the whole batch; what crosses the border is lost."""
    axis = torch.from_numpy(AXIS).to(points.device)
    blurred = F.conv2d(dots(points)[:, None], axis.view(1, 1, -1, 1), padding=(RADIUS, 0))
    blurred = F.conv2d(blurred, axis.view(1, 1, 1, -1), padding=(0, RADIUS))
    return (F.avg_pool2d(blurred, STRIDE) * STRIDE**2).squeeze(1)


def convolution_scipy(points: Tensor) -> np.ndarray:
    """The same with scipy; reflecting what crosses the border keeps the count but moves the mass."""
    blurred = convolve1d(dots(points).numpy(), AXIS, axis=1, mode="reflect")
    return pooled(convolve1d(blurred, AXIS, axis=2, mode="reflect"))


def count_error(maps: np.ndarray) -> float:
    return float(np.abs(maps.reshape(CROPS, -1).sum(1, dtype=np.float64) - HEADS).max())


def ours(backend: str, points: Tensor, offsets: Tensor, adaptive: bool = False) -> Callable[[], Tensor]:
    def run():
        with use_backend(backend):
            if not adaptive:
                return density(points, offsets, (SIDE, SIDE), stride=STRIDE)
            return density(points, offsets, (SIDE, SIDE), stride=STRIDE, sigma=knn_sigma(points, offsets), truncate=4.0)

    return run


def test_density(compare, device, crowd):
    points, offsets = crowd
    loop, convolution = "loop of 15x15 NumPy stamps", "dot map + separable convolution (torch)"
    there = points.to(device), offsets.to(device)
    plain = {
        loop: lambda: stamp_loop(points),
        convolution: lambda: convolution_torch(there[0]),
        "dot map + separable convolution (scipy)": lambda: convolution_scipy(points),
    }
    own = {name: ours(name, *there) for name in backends(device)}
    columns = {}
    for name, run in (own | plain).items():
        maps = run()
        maps = maps if isinstance(maps, np.ndarray) else maps.squeeze(1).cpu().numpy()
        columns[name] = {"error": count_error(maps)}
        if name in own:  # exact: the loop's map, too, not its sum alone
            np.testing.assert_allclose(maps, stamp_loop(points), rtol=1e-4, atol=1e-6)
    compare(
        "density targets",
        f"{CROPS} crops of {SIDE} x {SIDE}, {HEADS} heads each, stride {STRIDE}, sigma {SIGMA:g}; error: of a crop's count",
        own,
        plain,
        device=device,
        columns=columns,
        aims=[(backends(device)[0], loop, 5), (backends(device)[0], convolution, 2)],
        rounds=7,
        graph_baselines=False,
    )


def adaptive_script(points: np.ndarray, sample: int) -> np.ndarray:
    """The usual geometry-adaptive script, one full-image filter per head, on the first ``sample`` heads of a crop."""
    distances, _ = cKDTree(points, leafsize=2048).query(points, k=4)
    canvas = np.zeros((SIDE, SIDE), np.float32)
    for (x, y), distance in zip(points[:sample].astype(int), distances, strict=False):
        dot = np.zeros((SIDE, SIDE), np.float32)
        dot[y, x] = 1.0
        canvas += gaussian_filter(dot, distance[1:].sum() * 0.1, mode="constant")
    return canvas


def test_density_with_adaptive_sigma(compare, device, crowd):
    """The script runs on some of the 16,000 heads, its cost being proportional to their number."""
    points, offsets = crowd
    first, sample = points[:HEADS].numpy(), 20
    own = {
        name: ours(name, points.to(device), offsets.to(device), adaptive=True)
        for name in backends(device)
        if name != "reference"
    }
    columns = {name: {"error": count_error(run().cpu().numpy())} for name, run in own.items()}
    script = f"adaptive scipy script, {sample} of {len(points)} heads"
    scripts_error = abs(float(adaptive_script(first, sample).sum(dtype=np.float64)) - sample)
    compare(
        "density targets, adaptive sigma",
        f"{CROPS} crops of {SIDE} x {SIDE}, {HEADS} heads each, 3 nearest neighbours; the script's ratio is to be multiplied"
        f" by {len(points) // sample}; error: of a crop's count (of the script: of its {sample} heads)",
        own,
        {script: lambda: adaptive_script(first, sample)},
        device=device,
        columns=columns | {script: {"error": scripts_error}},
        aims=[(backends(device)[0], script, 1000 * sample / len(points))],
        rounds=5,
        graph_baselines=False,
    )
