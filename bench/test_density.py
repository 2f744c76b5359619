"""Density targets of 32 crops of 400x400 with 500 heads each, against what a user would write instead.

    pytest bench/test_density.py --benchmark-json=density.json

Interleaved: before every round of ours, which pytest-benchmark times, each baseline is run and timed once. Per baseline
`extra_info` holds its median seconds, how many times ours is faster (ratio of medians), and the largest error of a
crop's count, the correctness beside the speed.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import convolve1d, gaussian_filter
from scipy.spatial import cKDTree

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


def dots(points: torch.Tensor) -> torch.Tensor:
    """[CROPS, SIDE, SIDE], heads per pixel."""
    column, row = points.long().unbind(1)
    crop = torch.arange(len(points)) // HEADS
    return (
        torch.bincount((crop * SIDE + row) * SIDE + column, minlength=CROPS * SIDE * SIDE).view(-1, SIDE, SIDE).float()
    )


def stamp_loop(points: torch.Tensor) -> np.ndarray:
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


def convolution_torch(points: torch.Tensor) -> np.ndarray:
    """Dot maps and two one-dimensional convolutions of the whole batch; what crosses the border is lost."""
    axis = torch.from_numpy(AXIS)
    blurred = F.conv2d(dots(points)[:, None], axis.view(1, 1, -1, 1), padding=(RADIUS, 0))
    blurred = F.conv2d(blurred, axis.view(1, 1, 1, -1), padding=(0, RADIUS))
    return (F.avg_pool2d(blurred, STRIDE) * STRIDE**2).squeeze(1).numpy()


def convolution_scipy(points: torch.Tensor) -> np.ndarray:
    """The same with scipy; reflecting what crosses the border keeps the count but moves the mass."""
    blurred = convolve1d(dots(points).numpy(), AXIS, axis=1, mode="reflect")
    return pooled(convolve1d(blurred, AXIS, axis=2, mode="reflect"))


def count_error(maps: np.ndarray) -> float:
    return float(np.abs(maps.reshape(CROPS, -1).sum(1, dtype=np.float64) - HEADS).max())


def interleaved(benchmark, ours, baselines, rounds):
    """Time ``ours`` with pytest-benchmark, and each of ``baselines`` (name -> function) once before every round."""
    seconds = {name: [] for name in baselines}

    def baselines_first():
        for name, baseline in baselines.items():
            start = time.perf_counter()
            baseline()
            seconds[name].append(time.perf_counter() - start)

    ours()  # warm: lazy imports, first-touch allocations
    benchmark.pedantic(ours, setup=baselines_first, rounds=rounds)
    mine = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info["threads"] = torch.get_num_threads()
    return mine, {name: statistics.median(values) for name, values in seconds.items()}


@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_fixed_sigma(benchmark, crowd, backend):
    points, offsets = crowd
    functions = {
        "loop of 15x15 NumPy stamps": stamp_loop,
        "dot map + separable convolution (torch)": convolution_torch,
        "dot map + separable convolution (scipy)": convolution_scipy,
    }

    def ours():
        with use_backend(backend):
            return density(points, offsets, (SIDE, SIDE), stride=STRIDE)

    maps = ours().squeeze(1).numpy()
    np.testing.assert_allclose(maps, stamp_loop(points), rtol=1e-4, atol=1e-6)
    baselines = {name: lambda function=function: function(points) for name, function in functions.items()}
    mine, theirs = interleaved(benchmark, ours, baselines, rounds=7)
    benchmark.extra_info["count error"] = count_error(maps)
    for name, function in functions.items():
        benchmark.extra_info[name] = {
            "seconds": theirs[name],
            "ours is faster": theirs[name] / mine,
            "count error": count_error(function(points)),
        }


def adaptive_script(points: np.ndarray, sample: int) -> np.ndarray:
    """The usual geometry-adaptive script, one full-image filter per head, on the first ``sample`` heads of a crop."""
    distances, _ = cKDTree(points, leafsize=2048).query(points, k=4)
    canvas = np.zeros((SIDE, SIDE), np.float32)
    for (x, y), distance in zip(points[:sample].astype(int), distances, strict=False):
        dot = np.zeros((SIDE, SIDE), np.float32)
        dot[y, x] = 1.0
        canvas += gaussian_filter(dot, distance[1:].sum() * 0.1, mode="constant")
    return canvas


def test_adaptive_sigma(benchmark, crowd):
    """The script is run on `sample` of the 16,000 heads (its cost is proportional to their number) and scaled up."""
    points, offsets = crowd
    first, sample = points[:HEADS].numpy(), 20

    def ours():
        with use_backend("cpp"):
            return density(points, offsets, (SIDE, SIDE), stride=STRIDE, sigma=knn_sigma(points, offsets), truncate=4.0)

    name = "adaptive scipy script"
    mine, theirs = interleaved(benchmark, ours, {name: lambda: adaptive_script(first, sample)}, rounds=5)
    benchmark.extra_info["count error"] = count_error(ours().numpy())
    benchmark.extra_info[name] = {
        "seconds of the sample": theirs[name],
        "heads in the sample": sample,
        "seconds, scaled to all heads": theirs[name] * len(points) / sample,
        "ours is faster": theirs[name] * len(points) / sample / mine,
        "count error of the sample": abs(float(adaptive_script(first, sample).sum(dtype=np.float64)) - sample),
    }
