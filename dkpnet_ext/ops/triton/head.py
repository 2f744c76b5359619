"""The attended head's tail in Triton: a program takes a tile of pixels through both hidden layers (`ops/head.py` says
what it computes; csrc/cuda/head.cu is the compiled version)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..backend import TRITON_INTERPRETED
from . import device_guard

PIXELS = 64  # of a tile
PART = 512  # pixels whose parameter gradients make one partial sum
DEPTH = 32  # channels of the fine branch at a time
COLUMNS = 16  # of a downsampled row
_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
# Of products; the interpreter's tl.dot takes bfloat16 for integers.
_DOT_TYPES = dict.fromkeys(_TYPES, tl.float32) if TRITON_INTERPRETED else _TYPES


@triton.jit
def _tap(position, size_in, size_out):
    """bilinear_tap of csrc/math/head.h: output reads (1 - weight) * source[low] + weight * source[high]."""
    shifted = tl.maximum((2 * position + 1) * size_in - size_out, 0)
    step = 2 * size_out
    low = shifted // step
    weight = (shifted - low * step).to(tl.float32) / tl.full([], step, tl.float32)
    return low, tl.minimum(low + 1, size_in - 1), weight


@triton.jit
def _weight(position, source, size_in, size_out):
    """bilinear_weight of csrc/math/head.h: with which output ``position`` reads ``source``."""
    low, high, weight = _tap(position, size_in, size_out)
    return tl.where(low == source, 1.0 - weight, 0.0) + tl.where(high == source, weight, 0.0)


@triton.jit
def _reach(source, size_in, size_out):
    """First output position that may read ``source``, and one past the last."""
    begin = tl.where(source == 0, 0, tl.maximum(size_out * (2 * source - 1) // (2 * size_in) - 1, 0))
    last = tl.where(source == size_in - 1, size_out - 1, size_out * (2 * source + 3) // (2 * size_in))
    return begin, tl.minimum(last + 1, size_out)


@triton.jit
def _relu(x):
    return tl.where(x < 0, 0.0, x)  # keeps NaN


@triton.jit
def _hidden(
    image, pixel, fine, fine_channel, fine_pixel, fine_weight, fine_weight_batch, products, heights, widths, bias,
    weight2, bias2, channels, height, width, H1: tl.constexpr, H2: tl.constexpr, DEPTH: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Both hidden layers of a tile of pixels of one image: [PIXELS, H1] rounded to DOT, [PIXELS, H2] float32."""
    pixels = height * width
    inside = (pixel < pixels)[:, None]
    across = tl.arange(0, H1)[None, :]
    sum1 = tl.zeros([pixel.shape[0], H1], tl.float32) + tl.load(bias + image * H1 + across)
    for j in tl.static_range(len(products)):
        top, bottom, down = _tap(pixel // width, heights[j], height)
        left, right, over = _tap(pixel % width, widths[j], width)
        top = (image * heights[j] + top) * widths[j]
        bottom = (image * heights[j] + bottom) * widths[j]
        data = products[j] + across
        sum1 += ((1 - down) * (1 - over))[:, None] * tl.load(data + (top + left)[:, None] * H1, inside, 0.0)
        sum1 += ((1 - down) * over)[:, None] * tl.load(data + (top + right)[:, None] * H1, inside, 0.0)
        sum1 += (down * (1 - over))[:, None] * tl.load(data + (bottom + left)[:, None] * H1, inside, 0.0)
        sum1 += (down * over)[:, None] * tl.load(data + (bottom + right)[:, None] * H1, inside, 0.0)
    for start in range(0, channels, DEPTH):
        channel = start + tl.arange(0, DEPTH)
        here = fine + image * channels * pixels + pixel.to(tl.int64)[:, None] * fine_pixel
        here += channel.to(tl.int64)[None, :] * fine_channel
        values = tl.load(here, inside & (channel < channels)[None, :], 0.0)
        rows = fine_weight + image * fine_weight_batch + channel[:, None] * H1 + across
        weights = tl.load(rows, (channel < channels)[:, None], 0.0)
        sum1 = tl.dot(values.to(DOT), weights.to(DOT), sum1, input_precision="ieee")
    hidden1 = _relu(sum1).to(DOT)
    along = tl.arange(0, H2)[None, :]
    transposed = tl.load(weight2 + along * H1 + tl.arange(0, H1)[:, None])
    sum2 = tl.zeros([pixel.shape[0], H2], tl.float32) + tl.load(bias2 + along)
    return hidden1, _relu(tl.dot(hidden1, transposed.to(DOT), sum2, input_precision="ieee"))


@triton.jit
def forward_kernel(
    density, fine, fine_channel, fine_pixel, fine_weight, fine_weight_batch, products, heights, widths, bias, weight2,
    bias2, weight3, bias3, channels, height, width, H1: tl.constexpr, H2: tl.constexpr, PIXELS: tl.constexpr,
    DEPTH: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    pixels = height * width
    tiles = tl.cdiv(pixels, PIXELS)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * PIXELS + tl.arange(0, PIXELS)
    _, hidden2 = _hidden(
        image, pixel, fine, fine_channel, fine_pixel, fine_weight, fine_weight_batch, products, heights, widths, bias,
        weight2, bias2, channels, height, width, H1, H2, DEPTH, DOT,
    )  # fmt: skip
    out = tl.sum(hidden2 * tl.load(weight3 + tl.arange(0, H2))[None, :], axis=1) + tl.load(bias3)
    tl.store(density + image * pixels + pixel, out, pixel < pixels)


@triton.jit
def backward_kernel(
    grad_density, grad_hidden, partials, fine, fine_channel, fine_pixel, fine_weight, fine_weight_batch, products,
    heights, widths, bias, weight2, bias2, weight3, channels, height, width, H1: tl.constexpr, H2: tl.constexpr,
    PIXELS: tl.constexpr, PART: tl.constexpr, DEPTH: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    pixels = height * width
    parts = tl.cdiv(pixels, PART)
    image = (tl.program_id(0) // parts).to(tl.int64)
    begin = tl.program_id(0) % parts * PART
    column1, column2 = tl.arange(0, H1), tl.arange(0, H2)
    place2 = column2[:, None] * H1 + column1[None, :]
    weight2_sum = tl.zeros([H2, H1], tl.float32)
    bias2_sum = tl.zeros([H2], tl.float32)
    weight3_sum = tl.zeros([H2], tl.float32)
    bias_sum = tl.zeros([H1], tl.float32)
    bias3_sum = tl.zeros([PIXELS], tl.float32)
    for first in range(begin, tl.minimum(begin + PART, pixels), PIXELS):
        pixel = first + tl.arange(0, PIXELS)
        hidden1, hidden2 = _hidden(
            image, pixel, fine, fine_channel, fine_pixel, fine_weight, fine_weight_batch, products, heights, widths,
            bias, weight2, bias2, channels, height, width, H1, H2, DEPTH, DOT,
        )  # fmt: skip
        grad = tl.load(grad_density + image * pixels + pixel, pixel < pixels, 0.0).to(tl.float32)
        grad2 = tl.where(hidden2 <= 0, 0.0, grad[:, None] * tl.load(weight3 + column2)[None, :])
        bias3_sum += grad
        weight3_sum += tl.sum(grad[:, None] * hidden2, axis=0)
        bias2_sum += tl.sum(grad2, axis=0)
        grad2 = grad2.to(DOT)
        grad1 = tl.dot(grad2, tl.load(weight2 + place2).to(DOT), input_precision="ieee")
        grad1 = tl.where(hidden1 <= 0, 0.0, grad1)
        bias_sum += tl.sum(grad1, axis=0)
        weight2_sum = tl.dot(tl.trans(grad2), hidden1, weight2_sum, input_precision="ieee")
        here = grad_hidden + (image * pixels + pixel)[:, None] * H1 + column1[None, :]
        tl.store(here, grad1, (pixel < pixels)[:, None])
    partial = partials + tl.program_id(0).to(tl.int64) * (H2 * H1 + 2 * H2 + H1 + 1)
    tl.store(partial + place2, weight2_sum)
    tl.store(partial + H2 * H1 + column2, bias2_sum)
    tl.store(partial + H2 * H1 + H2 + column2, weight3_sum)
    tl.store(partial + H2 * H1 + 2 * H2 + column1, bias_sum)
    tl.store(partial + H2 * H1 + 2 * H2 + H1, tl.sum(bias3_sum, axis=0))


@triton.jit
def downsample_kernel(grad, out, height, width, rows, columns, longest, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr):
    blocks = tl.cdiv(columns, COLUMNS)
    column = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(0) // blocks % rows
    image = (tl.program_id(0) // (blocks * rows)).to(tl.int64)
    channel = tl.arange(0, CHANNELS)[None, :]
    first_row, end_row = _reach(row, rows, height)
    first_column, end_column = _reach(column, columns, width)
    total = tl.zeros([COLUMNS, CHANNELS], tl.float32)
    for y in range(first_row, end_row):
        by_row = _weight(y, row, rows, height)
        for step in range(longest):
            x = first_column + step
            reads = (x < end_column) & (column < columns)
            weight = tl.where(reads, by_row * _weight(x, column, columns, width), 0.0)
            here = grad + ((image * height + y) * width + x)[:, None] * CHANNELS + channel
            total += weight[:, None] * tl.load(here, reads[:, None], 0.0)
    here = out + ((image * rows + row) * columns + column)[:, None] * CHANNELS + channel
    tl.store(here, total, (column < columns)[:, None])


def _arguments(fine: Tensor, fine_weight: Tensor, products: list[Tensor]) -> tuple:
    pixels = fine.shape[2] * fine.shape[3]
    by_channel, by_pixel = (pixels, 1) if fine.is_contiguous() else (1, fine.shape[1])
    heights, widths = tuple(p.shape[1] for p in products), tuple(p.shape[2] for p in products)
    return fine, by_channel, by_pixel, fine_weight, fine_weight.stride(0), tuple(products), heights, widths


@device_guard
def forward(fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height: int, width: int) -> Tensor:
    """See `dkpnet_ext/ops/head.py`."""
    batch, channels = fine.shape[:2]
    hidden2, hidden1 = weight2.shape
    density = fine.new_empty((batch, 1, height, width))
    if batch > 0:
        forward_kernel[(batch * triton.cdiv(height * width, PIXELS),)](
            density, *_arguments(fine, fine_weight, products), bias, weight2, bias2, weight3, bias3, channels, height,
            width, hidden1, hidden2, PIXELS, DEPTH, _DOT_TYPES[fine.dtype],
        )  # fmt: skip
    return density


@device_guard
def backward(
    grad, fine, fine_weight, products, bias, weight2, bias2, weight3, bias3, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """See `dkpnet_ext/ops/head.py`."""
    batch, channels = fine.shape[:2]
    hidden2, hidden1 = weight2.shape
    parts = triton.cdiv(height * width, PART)
    grad_hidden = fine.new_empty((batch, height, width, hidden1))
    size = hidden2 * hidden1 + 2 * hidden2 + hidden1 + 1
    partials = fine.new_empty((batch, parts, size), dtype=torch.float32)
    if batch > 0:
        backward_kernel[(batch * parts,)](
            grad, grad_hidden, partials, *_arguments(fine, fine_weight, products), bias, weight2, bias2, weight3,
            channels, height, width, hidden1, hidden2, PIXELS, PART, DEPTH, _DOT_TYPES[fine.dtype],
        )  # fmt: skip
    return grad_hidden, partials


@device_guard
def downsample(grad: Tensor, rows: int, columns: int) -> Tensor:
    """See `dkpnet_ext/ops/head.py`."""
    batch, height, width, channels = grad.shape
    out = grad.new_empty((batch, rows, columns, channels))
    if batch > 0:
        longest = 2 * width // columns + 4  # columns that one source column reaches, at most
        downsample_kernel[(batch * rows * triton.cdiv(columns, COLUMNS),)](
            grad, out, height, width, rows, columns, longest, channels, COLUMNS
        )
    return out
