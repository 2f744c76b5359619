"""Philox-4x32-10 in plain PyTorch: the noise every backend must reproduce.

A counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps
(seed, element index) to bits, so the backward pass can regenerate the noise and every backend draws the same one.
The counter of element e is (q low, q high, stream, 0) with q = e >> 2; the element takes word e & 3 of the block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # round multipliers
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # key increments (golden ratio, sqrt(3) - 1)

NORMAL_STREAM = 0
DROPOUT_STREAM = 1


def philox_blocks(seed: Tensor, blocks: Tensor, stream: int) -> Tensor:
    """The four 32-bit words of each block.

    Args:
        seed: int64 [1], any value.
        blocks: int64 [n], block numbers q >= 0.
        stream: which of the independent streams.

    Returns:
        int64 [n, 4], each in [0, 2**32).
    """
    c0, c1 = blocks & _MASK, (blocks >> 32) & _MASK
    c2, c3 = torch.full_like(blocks, stream), torch.zeros_like(blocks)
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        # The 64-bit products wrap as two's complement; masking after the shift recovers the unsigned high word.
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return torch.stack([c0, c1, c2, c3], dim=-1)


def words(seed: Tensor, elements: Tensor, stream: int) -> Tensor:
    """The 32-bit word of each element: int64 of the same shape as ``elements``, in [0, 2**32)."""
    block = philox_blocks(seed, elements.flatten() >> 2, stream)
    return block.gather(1, (elements.flatten() & 3).unsqueeze(1)).view(elements.shape)


def normals(seed: Tensor, elements: Tensor) -> Tensor:
    """Standard normal of each element by Box-Muller, float32 of the shape of ``elements``.

    The two uniforms are the top 24 bits of two words, exact in float32; the transform runs in float64 and is
    rounded once, so that every float32 backend can be held to 2 ulp of it.
    """
    block = philox_blocks(seed, elements.flatten() >> 2, NORMAL_STREAM)
    lane = elements.flatten() & 3
    first = block.gather(1, (lane & 2).unsqueeze(1)).squeeze(1)
    second = block.gather(1, ((lane & 2) + 1).unsqueeze(1)).squeeze(1)
    radius = torch.sqrt(-2.0 * torch.log(((first >> 8) + 1).double() * 2.0**-24))
    angle = 2.0 * math.pi * ((second >> 8).double() * 2.0**-24)
    value = radius * torch.where((lane & 1) == 0, torch.cos(angle), torch.sin(angle))
    return value.float().view(elements.shape)
