"""From a cached image and its points to a training crop, or to the whole image.

A head belongs to the pixel (floor x, floor y). Every step keeps that exactly: a head is inside a crop when
its pixel is, and a mirrored head lies in its mirrored pixel.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageStat
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from .boxes import Window


class TrainTransform:
    """Random crop, horizontal flip and colour jitter; draws from torch's default generator.

    An image smaller than the crop gives a square of its shortest side, scaled up to the crop.

    Args:
        crop: side of the crop in pixels.
        flip: probability of a horizontal flip.
        jitter: range of brightness, contrast, saturation and hue alike, see `recolour`; 0 leaves the colours alone.
    """

    def __init__(self, crop: int = 400, flip: float = 0.5, jitter: float = 0.2) -> None:
        self.crop, self.jitter = crop, jitter
        self.scale_up = v2.Resize((crop, crop))
        self.augment = v2.RandomHorizontalFlip(flip)

    def __call__(self, image: np.ndarray, points: np.ndarray) -> tuple[Tensor, Tensor]:
        """uint8 [H, W, 3], memory-mapped or not, [N, 2] -> uint8 [3, crop, crop], float32 [n, 2] in it."""
        return self.placed(image, points)[:2]

    def placed(self, image: np.ndarray, points: np.ndarray) -> tuple[Tensor, Tensor, Window]:
        """As a call, and where the crop lies in the picture."""
        height, width = image.shape[:2]
        side = min(self.crop, height, width)
        top = int(torch.randint(height - side + 1, ()))
        left = int(torch.randint(width - side + 1, ()))
        # Cut first: of a memory-mapped image only the crop's pages are ever read.
        pixels = Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
        points = points.astype(np.float32) - np.array([left, top], np.float32)
        points = points[((points >= 0) & (points < side)).all(axis=1)]

        heads = tv_tensors.KeyPoints(torch.from_numpy(points), canvas_size=(side, side))
        if side < self.crop:
            pixels, heads = self.scale_up(pixels, heads)
        # v2 mirrors pixel indices (x -> W - 1 - x), so it gets the indices; the fractions travel beside them,
        # kept from rounding up to the next pixel.
        heads = heads.clamp(0, np.nextafter(np.float32(self.crop), np.float32(0)))
        cells = heads.floor()
        fractions = (heads - cells).clamp(max=1 - 2**-10)
        first = cells.new_zeros(1, 2)  # the upper left pixel goes along: it shows whether the crop was mirrored
        cells = tv_tensors.KeyPoints(torch.cat([first, cells]), canvas_size=(self.crop, self.crop))
        pixels, cells = self.augment(pixels, cells)
        if self.jitter:
            pixels = recolour(pixels, self.jitter)
        window = Window(left, top, side, side, (self.crop / side, self.crop / side), bool(cells[0, 0] > 0))
        return v2.functional.pil_to_tensor(pixels), (cells[1:] + fractions).as_subclass(Tensor), window


_LUMA = np.array([0.299, 0.587, 0.114])
_ACROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # the vector product with gray's direction


def recolour(picture: Image.Image, strength: float) -> Image.Image:
    """Change brightness, contrast, saturation and hue at random, in random order; draws from torch's generator.

    As torchvision's ``ColorJitter(strength, strength, strength, strength)``, but that all four are one affine map of the
    colours, in one pass: the hue is a rotation about the gray axis, not in HSV, and colours are cut to 0 to 255 once, at the
    end. It takes a sixth of the time; the statistics are compared in bench/results/speed.md.

    Args:
        picture: RGB; strength: brightness, contrast and saturation are multiplied by 1 - strength to 1 + strength, the hue
            moves by at most this part of the circle.
    """
    matrix, shift = np.eye(3), np.zeros(3)  # of a colour: matrix @ colour + shift
    mean = np.array(ImageStat.Stat(picture).mean)
    low, high = max(0.0, 1 - strength), 1 + strength
    for change in torch.randperm(4).tolist():
        factor = low + (high - low) * float(torch.rand(()))
        if change == 0:  # brightness
            matrix, shift = factor * matrix, factor * shift
        elif change == 1:  # contrast, about the luma of the mean colour
            pivot = _LUMA @ (matrix @ mean + shift)
            matrix, shift = factor * matrix, factor * shift + (1 - factor) * pivot
        else:  # saturation: towards the gray of the same luma, or away from it; hue
            step = factor * np.eye(3) + (1 - factor) * _LUMA if change == 2 else _rotation(factor - 1)
            matrix, shift = step @ matrix, step @ shift
    return picture.convert("RGB", tuple(np.column_stack([matrix, shift]).ravel().tolist()))


def _rotation(part: float) -> np.ndarray:
    """Colours turned about the gray axis by a part of the circle, as red towards green: [3, 3]."""
    cos, sin = math.cos(2 * math.pi * part), math.sin(2 * math.pi * part)
    return cos * np.eye(3) + (1 - cos) / 3 + sin * _ACROSS
