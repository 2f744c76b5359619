"""Training crops that show every part of a picture equally often, at random scales and in random colours."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import Window

NATIVE = 0.5
"""Share of crops at scale 1. Whole pictures are counted unresized: a network that sees every crop resized is less at home
there (measured: crops of ShanghaiTech B counted 6 % too low at scale 1, 2 % too high over all scales)."""
FILLING = torch.tensor([124, 116, 104], dtype=torch.uint8)
"""Colour beyond a picture's edge: ImageNet's mean, which the network's zeros are."""
_LUMA = torch.tensor([0.299, 0.587, 0.114])


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def covering_start(length: int, side: int) -> int:
    """Where a crop of ``side`` pixels starts along an axis of ``length`` pixels.

    A start that is uniform over the places where the crop fits shows the outermost pixels far less often than the
    middle ones: of ShanghaiTech B, whose heads mostly lie in the top quarter, a crop of 256 holds 7.0 heads where its
    share of the area holds 10.25, and whole pictures are then counted wrongly. Here the crop may hang over the edge by
    its whole side but a pixel and is pushed back inside. The outermost pixel is then shown exactly as often as one in the middle
    (those between the two up to twice as often; the random scale evens that out).
    """
    start = int(torch.randint(1 - side, length, ()))
    return min(max(start, 0), length - side)


def colour_change(strength: float, gray: float) -> tuple[Tensor, Tensor, float]:
    """Random brightness, contrast and saturation (1 +- ``strength``) and gains of the three colours (a quarter of that).

    Args:
        strength: see above; gray: probability of no saturation at all.

    Returns:
        matrix [3, 3] of the colours, gains [3] and the contrast, see `CoveringCrops.recolour`.
    """
    brightness, contrast, saturation = (_uniform(1 - strength, 1 + strength) for _ in range(3))
    if float(torch.rand(())) < gray:
        saturation = 0.0
    gains = brightness * (1 + strength / 4 * (2 * torch.rand(3) - 1))
    mix = saturation * torch.eye(3) + (1 - saturation) * _LUMA.repeat(3, 1)
    return mix * gains[:, None], gains, contrast


class CoveringCrops:
    """A square of random size and place, resized to ``crop``, mirrored and recoloured. Draws from torch's generator.

    A picture without people stays one at any scale and in any colour, so its scale goes down to half the lowest, and its
    colours change twice as much: fine coloured specks are what a counter mistakes for heads the longest.

    Args:
        crop: side of the result in pixels.
        flip: probability of a mirror image.
        jitter: strength of the colour change; 0 leaves the colours alone.
        scale: lowest and highest magnification, log-uniform between them; half of the crops stay at 1 (`NATIVE`).
        gray: probability of a picture without colour.
    """

    def __init__(
        self,
        crop: int = 256,
        flip: float = 0.5,
        jitter: float = 0.2,
        scale: tuple[float, float] = (0.6, 1.7),
        gray: float = 0.1,
    ) -> None:
        self.crop, self.flip, self.jitter, self.scale, self.gray = crop, flip, jitter, scale, gray

    def __call__(self, image: np.ndarray, points: np.ndarray) -> tuple[Tensor, Tensor]:
        """uint8 [H, W, 3], memory-mapped or not, [N, 2] -> uint8 [3, crop, crop], float32 [n, 2] in it."""
        return self.placed(image, points)[:2]

    def placed(self, image: np.ndarray, points: np.ndarray) -> tuple[Tensor, Tensor, Window]:
        """As a call, and where the crop lies in the picture."""
        height, width = image.shape[:2]
        empty = len(points) == 0
        lowest, highest = self.scale[0] / (2 if empty else 1), self.scale[1]
        zoom = math.exp(_uniform(math.log(lowest), math.log(highest)))
        if self.scale != (1, 1) and float(torch.rand(())) < NATIVE:
            zoom = 1.0
        # A picture smaller than the square is not enlarged to fill it, which would show its heads at another scale than
        # counting does: it is filled up on the right and below, as the network fills up whole pictures.
        side = round(self.crop / zoom)
        rows, columns = min(side, height), min(side, width)
        top, left = covering_start(height, rows), covering_start(width, columns)
        pixels = torch.from_numpy(np.array(image[top : top + rows, left : left + columns])).permute(2, 0, 1)
        points = points.astype(np.float32) - np.array([left, top], np.float32)
        points = points[((points >= 0) & (points < (columns, rows))).all(axis=1)]
        size = (max(round(rows * self.crop / side), 1), max(round(columns * self.crop / side), 1))
        if size != (rows, columns):
            pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
            points = points * np.array([size[1] / columns, size[0] / rows], np.float32)
        heads = torch.from_numpy(points)
        mirrored = float(torch.rand(())) < self.flip
        if mirrored:
            pixels = pixels.flip(2)
            # A little less, so that a head on the left edge of its pixel, as whole numbers are, stays in that pixel.
            across = torch.nextafter(size[1] - heads[:, 0], torch.zeros(()))
            heads = torch.stack((across, heads[:, 1]), 1)
        if self.jitter:
            pixels = self.recolour(pixels, min(self.jitter * (2 if empty else 1), 1.0))
        if size != (self.crop, self.crop):
            filled = FILLING.view(3, 1, 1).repeat(1, self.crop, self.crop)
            filled[:, : size[0], : size[1]] = pixels
            pixels = filled
        # A head on the far edge, by mirroring or rounding, belongs to the last pixel.
        limits = torch.from_numpy(np.nextafter(np.array([size[1], size[0]], np.float32), np.float32(0)))
        window = Window(left, top, columns, rows, (size[1] / columns, size[0] / rows), mirrored)
        return pixels, heads.clamp(min=0).minimum(limits), window

    def recolour(self, pixels: Tensor, strength: float) -> Tensor:
        """uint8 [3, H, W] -> the same after a `colour_change`; contrast is about the crop's mean."""
        matrix, gains, contrast = colour_change(strength, self.gray)
        flat = pixels.contiguous().float().view(3, -1)  # colour planes: a product of [3, 3] with rows, not columns
        pivot = flat.mean() * gains * (1 - contrast)
        flat = torch.addmm(pivot[:, None], matrix * contrast, flat).round_().clamp_(0, 255)
        return flat.to(torch.uint8).view(pixels.shape)
