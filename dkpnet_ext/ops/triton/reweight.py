"""Channel re-weighting in Triton, forward and backward (both gradients in one pass), both dense layouts.

Internal signatures as in `dkpnet_ext/ops/reweight.py`. A program owns some channels of one image and walks over a part
of its pixels; the parts of dattention are then added in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import device_guard


@triton.jit
def _place(channels, pixels, part, CHANNELS: tl.constexpr):
    """Image (int64), channels [CHANNELS, 1] and part of the pixels of this program: the grid's first axis alone is long."""
    program, parts = tl.program_id(0), tl.cdiv(pixels, part)
    groups = tl.cdiv(channels, CHANNELS)
    c = program // parts % groups * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    return (program // (parts * groups)).to(tl.int64), c, program % parts


@triton.jit
def forward_kernel(
    x,  # [B, K, P], element (b, c, p) at b * K * P + c * channel_step + p * pixel_step
    attention,  # [B, K]
    out,  # as x
    channels,
    pixels,
    channel_step,
    pixel_step,
    part,  # pixels per program
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    b, c, p = _place(channels, pixels, part, CHANNELS)
    begin = p * part
    y = tl.load(attention + b * channels + c, mask=c < channels, other=0.0).to(tl.float32)
    for start in range(begin, tl.minimum(begin + part, pixels), PIXELS):
        pixel = start + tl.arange(0, PIXELS)[None, :]
        at = b * channels * pixels + c.to(tl.int64) * channel_step + pixel.to(tl.int64) * pixel_step
        inside = (c < channels) & (pixel < pixels)
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * y
        tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    grad,  # as x
    x,
    attention,
    dx,  # out, as x
    partial,  # out [parts, B, K] float32: each part's share of dattention
    batch,
    channels,
    pixels,
    channel_step,
    pixel_step,
    part,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    b, c, p = _place(channels, pixels, part, CHANNELS)
    begin = p * part
    y = tl.load(attention + b * channels + c, mask=c < channels, other=0.0).to(tl.float32)
    shares = tl.zeros([CHANNELS, PIXELS], tl.float32)
    for start in range(begin, tl.minimum(begin + part, pixels), PIXELS):
        pixel = start + tl.arange(0, PIXELS)[None, :]
        at = b * channels * pixels + c.to(tl.int64) * channel_step + pixel.to(tl.int64) * pixel_step
        inside = (c < channels) & (pixel < pixels)
        upstream = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        shares += upstream * tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + at, (upstream * y).to(dx.dtype.element_ty), mask=inside)
    total = tl.sum(shares, axis=1)[:, None]
    tl.store(partial + (p * batch + b) * channels + c, total, mask=c < channels)


def _plan(x: Tensor) -> tuple[tuple[int], int, tuple[int, ...]]:
    """The launch grid, parts of the pixels, and what both kernels take after the sizes: steps, pixels per part, tile."""
    batch, channels, height, width = x.shape
    pixels = height * width
    if x.is_contiguous():  # a program reads one channel from end to end
        steps, part, tile = (pixels, 1), pixels, (1, 1024)
    else:  # channels_last: a program reads whole 64-channel segments of 512 pixels
        steps, part, tile = (1, channels), 512, (64, 16)
    parts = triton.cdiv(pixels, part)
    return (batch * triton.cdiv(channels, tile[0]) * parts,), parts, (*steps, part, *tile)


@device_guard
def forward(x: Tensor, attention: Tensor) -> Tensor:
    """out; see `dkpnet_ext/ops/reweight.py`."""
    out = torch.empty_like(x)
    if x.numel() > 0:
        grid, _, plan = _plan(x)
        forward_kernel[grid](x, attention, out, x.shape[1], x.shape[2] * x.shape[3], *plan)
    return out


@device_guard
def backward(grad: Tensor, x: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """(dx, dattention); see `dkpnet_ext/ops/reweight.py`."""
    dx = torch.empty_like(x)
    if x.numel() == 0:
        return dx, torch.zeros_like(attention)
    grid, parts, plan = _plan(x)
    partial = torch.empty(parts, *attention.shape, dtype=torch.float32, device=x.device)
    backward_kernel[grid](grad, x, attention, dx, partial, x.shape[0], x.shape[1], x.shape[2] * x.shape[3], *plan)
    return dx, partial.sum(0).to(x.dtype)
