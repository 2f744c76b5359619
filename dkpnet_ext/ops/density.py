"""Exact density targets from head points, one launch per batch (the equations: csrc/math/density.h).

A head's Gaussian stamp and the sum-pool to the output stride are both separable, so a head adds an outer product of
two short vectors, one per axis, each of which sums to 1: nothing is computed or stored at pixel resolution, and the
mass of a head inside the image is 1 up to rounding wherever it lies. Heads are added in their order: the same bits
every run.

Every backend (this file's native calls, `ops/triton/density.py`) has

    forward(points, offsets, sigmas, sigma, truncate, height, width, stride) -> out

with contiguous tensors; `sigmas` [M] float32, or None and `sigma` holds for all.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from . import native, reference, triton
from .backend import check_tensor, choose, require

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define(
    "density(Tensor points, Tensor offsets, Tensor? sigmas, float sigma, float truncate, "
    "SymInt height, SymInt width, SymInt stride, str backend) -> Tensor"
)
_library.define("knn_sigma(Tensor points, Tensor offsets, int k, float beta, float default) -> Tensor")

_LARGEST = 2**24  # pixel indices must be exact in float32


def density(
    points: Tensor,
    offsets: Tensor,
    size: tuple[int, int],
    *,
    stride: int = 4,
    sigma: float | Tensor = 4.0,
    truncate: float = 1.75,
) -> Tensor:
    """Density targets of a batch: the sum of a map is the number of heads inside its image.

    A head adds exp(-distance^2 / (2 sigma^2)) to the pixels of a square of radius floor(truncate * sigma + 0.5) around
    the pixel (floor(x), floor(y)), normalised over those inside the image; the map is then sum-pooled. The defaults give
    the 15x15 kernel that is usual in crowd counting. Heads whose pixel lies outside the image are ignored, as are NaN and
    infinite ones.

    Args:
        points: [M, 2] float32, (x, y) in pixels, image after image.
        offsets: [B + 1] int64 on the same device; image b owns points[offsets[b]:offsets[b + 1]]. Checked on the CPU;
            on CUDA, where a check would wait for the device, bad offsets give wrong maps but touch no other memory.
        size: (H, W) of the images, pixels.
        stride: pixels per side of an output cell.
        sigma: pixels; or [M] float32, one per head, as `knn_sigma` returns (0, negative or NaN: all on one pixel).
        truncate: the stamp's radius in sigmas.

    Returns:
        [B, 1, ceil(H / stride), ceil(W / stride)] float32, heads per cell; not differentiable.

    Raises:
        ValueError, TypeError: shapes, devices, dtypes or values that do not fit.
    """
    height, width = size
    sigmas, sigma = (sigma.detach(), 0.0) if isinstance(sigma, Tensor) else (None, sigma)
    check_heads(points, offsets, "density")
    _check_stamps(points, sigmas, sigma, truncate, height, width, stride)
    backend = choose("density", points.device, points.dtype)
    return torch.ops.dkpnet.density(
        points.detach(), offsets, sigmas, float(sigma), float(truncate), height, width, stride, backend
    )


def knn_sigma(points: Tensor, offsets: Tensor, *, k: int = 3, beta: float = 0.3, default: float = 4.0) -> Tensor:
    """Geometry-adaptive sigmas: beta times the mean distance to the k nearest other heads of the same image.

    MCNN's rule (Zhang et al., CVPR 2016), beta 0.3 and k 3 there. With fewer than k other heads the mean is over those;
    heads that share all k neighbours' pixel get 0. Heads outside the image count as neighbours.

    Args:
        points, offsets: as for `density`.
        k: number of neighbours, at least 1.
        beta: sigma per mean distance.
        default: sigma (pixels) of a head that is alone in its image, and of NaN or infinite points, which are no
            neighbours either.

    Returns:
        [M] float32, pixels; not differentiable. On CUDA the cost grows with M^2 (no host sync); on the CPU a k-d tree
        per image is used.
    """
    return torch.ops.dkpnet.knn_sigma(points.detach(), offsets, k, float(beta), float(default))


def check_heads(points: Tensor, offsets: Tensor, op: str) -> None:
    """Raises what does not fit the heads of a batch, by shapes, dtypes and devices."""
    if points.dim() != 2 or points.shape[1] != 2 or offsets.dim() != 1 or len(offsets) < 1:
        raise ValueError(
            f"{op}: needs points [M, 2] and offsets [B + 1], got {list(points.shape)} and {list(offsets.shape)}"
        )
    if points.dtype != torch.float32 or offsets.dtype != torch.int64:
        raise TypeError(f"{op}: needs float32 points and int64 offsets, got {points.dtype} and {offsets.dtype}")
    if points.device != offsets.device:
        raise ValueError(f"{op}: points are on {points.device}, offsets on {offsets.device}")


def _check_stamps(
    points: Tensor, sigmas: Tensor | None, sigma: float, truncate: float, height: int, width: int, stride: int
) -> None:
    for name, value in (("height", height), ("width", width), ("stride", stride)):
        if not 1 <= value <= _LARGEST:
            raise ValueError(f"density: {name} must be from 1 to {_LARGEST}, got {value}")
    if not (math.isfinite(truncate) and truncate >= 0):
        raise ValueError(f"density: truncate must be a number >= 0, got {truncate}")
    if sigmas is None:
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"density: sigma must be a number > 0, got {sigma}")
    else:
        check_tensor("density", "sigma", sigmas, points.shape[:1], torch.float32, points.device)


def check_offsets(points: Tensor, offsets: Tensor, op: str) -> None:
    """Raises if the offsets do not share out the points; waits for a GPU."""
    ends = offsets.tolist()  # one transfer; comparing tensors takes ten times as long
    if ends[0] != 0 or ends[-1] != len(points) or any(begin > end for begin, end in pairwise(ends)):
        raise ValueError(f"{op}: offsets must rise from 0 to the number of points, {len(points)}; got {ends}")


def _cells(size: int, stride: int) -> int:
    return (size + stride - 1) // stride


@torch.library.impl("dkpnet::density", ("cpu", "cuda"), lib=_library)
def _density(points, offsets, sigmas, sigma, truncate, height, width, stride, backend) -> Tensor:
    check_heads(points, offsets, "density")
    _check_stamps(points, sigmas, sigma, truncate, height, width, stride)
    require(backend, "density", points.device, points.dtype)
    if not points.is_cuda:
        check_offsets(points, offsets, "density")
    if backend == "reference":
        spread = sigma if sigmas is None else sigmas
        return reference.density(points, offsets, (height, width), stride=stride, sigma=spread, truncate=truncate)
    points, offsets = points.contiguous(), offsets.contiguous()
    sigmas = None if sigmas is None else sigmas.contiguous()
    if backend == "triton":
        return triton.kernels("density").forward(points, offsets, sigmas, sigma, truncate, height, width, stride)
    batch, workspace = len(offsets) - 1, None
    out = points.new_empty(batch, 1, _cells(height, stride), _cells(width, stride))
    if not points.is_cuda:
        workspace = points.new_empty(batch, native.module.density_workspace(height, width, stride))
    native.run(
        "density_forward", points, points=points, offsets=offsets, sigmas=sigmas, sigma=sigma, truncate=truncate,
        batch=batch, num_points=len(points), height=height, width=width, stride=stride, out=out, workspace=workspace,
    )  # fmt: skip
    return out


@torch.library.impl("dkpnet::knn_sigma", ("cpu", "cuda"), lib=_library)
def _knn_sigma(points: Tensor, offsets: Tensor, k: int, beta: float, default: float) -> Tensor:
    check_heads(points, offsets, "knn_sigma")
    if k < 1:
        raise ValueError(f"knn_sigma: k must be at least 1, got {k}")
    if points.is_cuda:
        return reference.knn_sigma(points, offsets, k, beta, default)
    from scipy.spatial import cKDTree

    check_offsets(points, offsets, "knn_sigma")
    sigmas = torch.full((len(points),), default, dtype=torch.float32, device=points.device)
    finite = points.isfinite().all(1)
    bounds = offsets.tolist()
    for begin, end in pairwise(bounds):
        index = begin + finite[begin:end].nonzero().squeeze(1)
        if len(index) > 1:
            heads = points[index].double().numpy()
            distances, _ = cKDTree(heads).query(heads, k=min(k, len(heads) - 1) + 1)
            sigmas[index] = torch.from_numpy(beta * distances[:, 1:].mean(1)).float()  # column 0: the head itself
    return sigmas


@torch.library.register_fake("dkpnet::density", lib=_library)
def _(points, offsets, sigmas, sigma, truncate, height, width, stride, backend) -> Tensor:
    return points.new_empty(offsets.shape[0] - 1, 1, _cells(height, stride), _cells(width, stride))


@torch.library.register_fake("dkpnet::knn_sigma", lib=_library)
def _(points: Tensor, offsets: Tensor, k: int, beta: float, default: float) -> Tensor:
    return points.new_empty(points.shape[0])
