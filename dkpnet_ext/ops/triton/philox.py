"""The noise of dkpnet_ext/ops/philox.py inside Triton kernels: the same bits, the normals within 2 ulp.

Triton's own `tl.philox` is the same generator; what is ours is the mapping from elements to counters and words.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def words(seed, element, STREAM: tl.constexpr):
    """The block of four words (uint32 each) of every element (int64), and the element's lane in it."""
    block = element >> 2
    low = (block & 0xFFFFFFFF).to(tl.uint32)
    high = (block >> 32).to(tl.uint32)
    zero = low * 0
    w0, w1, w2, w3 = tl.philox(seed.to(tl.uint64, bitcast=True), low, high, zero + STREAM, zero)
    return w0, w1, w2, w3, (element & 3).to(tl.int32)


@triton.jit
def word(seed, element, STREAM: tl.constexpr):
    """The 32-bit word of each element."""
    w0, w1, w2, w3, lane = words(seed, element, STREAM)
    return tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))


@triton.jit
def normal(seed, element):
    """Standard normal of each element by Box-Muller, float32 (stream 0)."""
    w0, w1, w2, w3, lane = words(seed, element, 0)
    first = tl.where(lane < 2, w0, w2)
    second = tl.where(lane < 2, w1, w3)
    uniform = ((first >> 8) + 1).to(tl.float32) * 5.9604644775390625e-08  # 2^-24, in (0, 1], exact
    radius = tl.sqrt(-2.0 * tl.log(uniform))
    # cos and sin of 2 pi times a fraction of 24 bits: taken to the nearest quarter turn in integers, exactly, so that
    # the float angle is at most pi / 4 and small where the result is small.
    turn = (second >> 8).to(tl.int32)
    quarter = (turn + 0x200000) >> 22
    angle = (turn - (quarter << 22)).to(tl.float32) * 3.7450702829238413e-07  # 2 pi * 2^-24
    quarter += (lane & 1) * 3  # sin(t) = cos(t - quarter turn)
    cosine, sine = tl.cos(angle), tl.sin(angle)
    # cos(angle + quarter * pi / 2)
    value = tl.where((quarter & 1) == 0, cosine, sine)
    negative = ((quarter + 1) & 2) != 0
    return radius * tl.where(negative, -value, value)
