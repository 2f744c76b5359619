"""Density targets in Triton: the gather form of csrc/cuda/density.cu, where the sum over heads is a matrix product.

A program owns a tile of output cells of one image. Every head adds rows[i] * columns[j] to cell (i, j), so a block of
heads adds rows^T @ columns. Heads are taken in order: the same bits every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import device_guard

TILE = 32  # output cells per side
HEADS = 16  # heads per product, the least that tl.dot takes


@triton.jit
def _axis_shares(center, radius, scale, inside, length, cell0, stride, CELLS: tl.constexpr):
    """Share of each head's mass in each of CELLS output cells along one axis: [HEADS, CELLS]."""
    first = tl.maximum(center - radius, 0)
    last = tl.minimum(center + radius, length - 1)
    mass = tl.zeros_like(scale)
    longest = tl.max(radius, axis=0)
    for distance in range(-longest, longest + 1):
        pixel = center + distance
        t = distance * scale
        mass += tl.where((pixel >= first) & (pixel <= last), tl.exp(-0.5 * t * t), 0.0)
    shares = tl.zeros([center.shape[0], CELLS], tl.float32)
    cells = cell0 + tl.arange(0, CELLS)
    for step in range(stride):
        pixel = (cells * stride + step)[None, :]
        t = (pixel - center[:, None]) * scale[:, None]
        reached = (pixel >= first[:, None]) & (pixel <= last[:, None]) & inside[:, None]
        shares += tl.where(reached, tl.exp(-0.5 * t * t), 0.0)
    return shares / tl.where(inside, mass, 1.0)[:, None]


@triton.jit
def density_kernel(
    points,  # [M, 2] float32, (x, y) in pixels
    offsets,  # [B + 1] int64
    sigmas,  # [M] float32, or None
    out,  # [B, rows, columns] float32
    num_points,
    height,
    width,
    sigma,
    truncate,
    stride,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
):
    rows, columns = tl.cdiv(height, stride), tl.cdiv(width, stride)
    tiles_down, tiles_across = tl.cdiv(rows, TILE), tl.cdiv(columns, TILE)
    program = tl.program_id(0)
    column0 = (program % tiles_across) * TILE
    row0 = (program // tiles_across % tiles_down) * TILE
    image = (program // (tiles_across * tiles_down)).to(tl.int64)
    # Offsets live on the device: whatever they hold, never read outside the points.
    begin = tl.maximum(tl.load(offsets + image), 0)
    end = tl.minimum(tl.load(offsets + image + 1), num_points)

    total = tl.zeros([TILE, TILE], tl.float32)
    lost = tl.zeros([TILE, TILE], tl.float32)
    for chunk in range(begin, end, HEADS):
        index = chunk + tl.arange(0, HEADS)
        valid = index < end
        x = tl.load(points + 2 * index, mask=valid, other=-1.0)
        y = tl.load(points + 2 * index + 1, mask=valid, other=-1.0)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # false for NaN, too
        center_x = tl.where(inside, x, 0.0).to(tl.int32)
        center_y = tl.where(inside, y, 0.0).to(tl.int32)
        if sigmas is None:
            spread = tl.full([HEADS], sigma, tl.float32)
        else:
            spread = tl.load(sigmas + index, mask=valid, other=0.0)
        # The product of two float32 is exact in float64: the radius of every backend (csrc/math/density.h).
        cut = tl.full([HEADS], truncate, tl.float32)
        reach = spread.to(tl.float64) * cut.to(tl.float64) + 0.5
        wide = inside & (reach >= 1)  # false for a sigma of 0, below 0 or NaN: all mass on one pixel
        limit = tl.maximum(height, width)
        radius = tl.where(wide, tl.minimum(tl.where(wide, reach, 0.0), limit), 0.0).to(tl.int32)
        scale = tl.where(wide, 1.0 / tl.where(wide, spread, 1.0), 0.0)

        touches = inside & (center_x + radius >= column0 * stride)
        touches = touches & (center_x - radius < (column0 + TILE) * stride)
        touches = touches & (center_y + radius >= row0 * stride)
        touches = touches & (center_y - radius < (row0 + TILE) * stride)
        if tl.max(touches.to(tl.int32), axis=0) > 0:
            by_row = _axis_shares(center_y, radius, scale, touches, height, row0, stride, TILE)
            by_column = _axis_shares(center_x, radius, scale, touches, width, column0, stride, TILE)
            # Kahan, as in csrc/math/density.h: thousands of heads may share a cell.
            value = tl.dot(tl.trans(by_row), by_column, input_precision="ieee") - lost
            update = total + value
            lost = (update - total) - value
            total = update

    row, column = row0 + tl.arange(0, TILE)[:, None], column0 + tl.arange(0, TILE)[None, :]
    here = out + (image * rows + row) * columns + column
    tl.store(here, total, mask=(row < rows) & (column < columns))


@device_guard
def forward(points, offsets, sigmas, sigma: float, truncate: float, height: int, width: int, stride: int) -> Tensor:
    """See `dkpnet_ext/ops/density.py`."""
    batch = len(offsets) - 1
    rows, columns = -(-height // stride), -(-width // stride)
    out = torch.empty(batch, 1, rows, columns, dtype=torch.float32, device=points.device)
    grid = (batch * triton.cdiv(rows, TILE) * triton.cdiv(columns, TILE),)
    if out.numel() > 0:
        density_kernel[grid](
            points, offsets, sigmas, out, len(points), height, width, sigma, truncate, stride, TILE, HEADS
        )
    return out
