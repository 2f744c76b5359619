"""The noise of dkpnet_ext/ops/philox.py inside Triton kernels: the same bits, the normals within 2 ulp.

Triton's own `tl.philox` is the same generator; what is ours is the mapping from elements to counters and words.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _block(seed, element, STREAM: tl.constexpr):
    """The four words (uint32) of every element's block, and the element's lane in it."""
    quotient = element >> 2
    low = (quotient & 0xFFFFFFFF).to(tl.uint32)
    high = (quotient >> 32).to(tl.uint32)
    zero = low * 0
    w0, w1, w2, w3 = tl.philox(seed.to(tl.uint64), low, high, zero + STREAM, zero)
    return w0, w1, w2, w3, (element & 3).to(tl.int32)


@triton.jit
def word(seed, element, STREAM: tl.constexpr):
    """The 32-bit word of each element (int64)."""
    w0, w1, w2, w3, lane = _block(seed, element, STREAM)
    return tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))


@triton.jit
def normal(seed, element):
    """Standard normal of each element (int64) by Box-Muller, float32 (stream 0).

    In float64, rounded once: float32 cosines near a zero and logarithms near 1 would be several ulp off, and a batch
    has so few normals that the price does not show.
    """
    w0, w1, w2, w3, lane = _block(seed, element, 0)
    first = (tl.where(lane < 2, w0, w2) >> 8) + 1
    second = tl.where(lane < 2, w1, w3) >> 8
    radius = tl.sqrt(-2.0 * tl.log(first.to(tl.float64) * 5.9604644775390625e-08))  # 2^-24: in (0, 1]
    # The angle 2 pi second / 2^24 is taken to the nearest quarter turn in integers: what remains is within +-pi / 4,
    # where short Taylor series are exact to 1e-11.
    turn = second.to(tl.int32)
    quarter = (turn + 0x200000) >> 22
    angle = (turn - (quarter << 22)).to(tl.float64) * 3.7450702829239286e-07  # 2 pi 2^-24
    square = angle * angle
    sine = -1 / 5040 + square * (1 / 362880 - square * (1 / 39916800))
    sine = 1.0 + square * (-1 / 6 + square * (1 / 120 + square * sine))
    cosine = 1 / 40320 + square * (-1 / 3628800 + square * (1 / 479001600))
    cosine = 1.0 + square * (-1 / 2 + square * (1 / 24 + square * (-1 / 720 + square * cosine)))
    quarter += (lane & 1) * 3  # sin(t) = cos(t - a quarter turn)
    value = tl.where((quarter & 1) == 0, cosine, angle * sine)  # of cos(angle + quarter * pi / 2), without its sign
    return (radius * tl.where(((quarter + 1) & 2) != 0, -value, value)).to(tl.float32)
