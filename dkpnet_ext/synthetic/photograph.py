"""From a scene to a picture: figures painted from back to front, then exposure, colours, noise and JPEG of a camera."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from .figures import STEP, sprite
from .places import Scene
from .textures import noise_tables


def paint(scene: Scene, counted: dict[str, bool]) -> np.ndarray:
    """Stamp the things from back to front onto the canvas, in place; the heads [N, 2] that count and can be seen."""
    canvas, (height, width) = scene.canvas, scene.canvas.shape[:2]
    owner = np.full((height, width), -1, np.int32)
    heads = []
    for number, thing in enumerate(sorted(scene.things, key=lambda thing: -thing.depth)):
        level = round(math.log(thing.size, STEP))
        figure = sprite(thing.shape, thing.variant, thing.body, thing.seated, scene.mirror, level)
        h, w = figure.solid.shape
        x, y = round(thing.u - figure.anchor[0]), round(thing.v - figure.anchor[1])
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if x0 >= x1 or y0 >= y1:
            continue
        inner = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        patch = canvas[y0:y1, x0:x1]
        patch *= figure.clear[inner]
        patch += (figure.parts @ thing.palette).reshape(h, w, 3)[inner]
        owner[y0:y1, x0:x1][figure.solid[inner]] = number
        if counted.get(thing.kind, False):
            heads.append((x + figure.anchor[0], y + figure.anchor[1], thing.size, number))
    table = np.array(heads, float).reshape(-1, 4)
    inside = (table[:, :2] >= 0).all(1) & (table[:, :2] < (width, height)).all(1)
    px, py, size, index = table[inside].T
    offset = np.array([-0.28, 0.0, 0.28])  # nine samples of each head
    column = np.clip(px[:, None, None] + offset[None, None, :] * size[:, None, None], 0, width - 1).astype(int)
    row = np.clip(py[:, None, None] + offset[None, :, None] * size[:, None, None], 0, height - 1).astype(int)
    shown = (owner[row, column] == index[:, None, None]).mean((1, 2)) > 0.3
    return np.stack([px, py], 1)[shown].astype(np.float32)


class Look(NamedTuple):
    """How a domain's cameras develop a picture: (low, high) of each quantity."""

    exposure: tuple[float, float]
    contrast: tuple[float, float]
    saturation: tuple[float, float]
    cast: tuple[float, float]  # gain of each colour
    vignette: tuple[float, float]  # darkening of the corners
    blur: tuple[float, float]  # pixels
    noise: tuple[float, float]
    jpeg: tuple[float, float]  # quality


LOOKS: dict[str, Look] = {
    "square": Look((0.7, 1.2), (0.75, 1.15), (0.6, 1.1), (0.95, 1.05), (0, 0.3), (0.3, 0.8), (0.005, 0.03), (60, 96)),
    "street": Look((0.8, 1.2), (0.9, 1.3), (0.9, 1.4), (0.93, 1.07), (0, 0.4), (0.2, 0.8), (0.003, 0.025), (75, 97)),
    "stadium": Look((0.8, 1.3), (0.9, 1.4), (0.8, 1.5), (0.9, 1.1), (0, 0.3), (0.3, 0.8), (0.01, 0.045), (45, 80)),
    "station": Look((0.7, 1.1), (0.45, 0.7), (0.0, 0.15), (0.97, 1.03), (0.3, 0.9), (0.6, 0.8), (0.02, 0.05), (35, 70)),
}


def develop(canvas: np.ndarray, rng: Generator, look: Look) -> np.ndarray:
    """Light of the scene float32 [H, W, 3] -> the camera's picture, uint8."""
    drawn = (look.exposure, look.contrast, look.saturation, look.vignette, look.blur, look.noise, look.jpeg)
    exposure, contrast, saturation, vignette, blur, noise, quality = (rng.uniform(*limits) for limits in drawn)
    colour = saturation * np.eye(3) + (1 - saturation) / 3  # towards gray
    colour = exposure * contrast * rng.uniform(*look.cast, (3, 1)) * colour
    shift = 255 * 0.4 * (1 - contrast)
    matrix = np.concatenate([colour, np.full((3, 1), shift)], 1)
    image = Image.fromarray((np.clip(canvas, 0, 1) * 255).astype(np.uint8)).convert("RGB", tuple(matrix.ravel()))
    image = image.point([round(255 * (i / 255) ** 0.8) for i in range(256)] * 3)
    side = min(blur**2 / 2, 1 / 3)  # three taps of this variance
    taps = np.array([side, 1 - 2 * side, side])
    picture = np.asarray(image.filter(ImageFilter.Kernel((3, 3), np.outer(taps, taps).ravel().tolist(), 1)), np.float32)
    height, width = canvas.shape[:2]
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    picture *= (1 - np.float32(vignette / 2) * (x * x + y * y))[..., None]
    grain, starts = noise_tables()[2], rng.integers(0, 500, (4, 2))
    gray, *colours = (grain[i : i + height, j : j + width] for i, j in starts)
    picture += np.float32(255 * noise) * (0.7 * gray[..., None] + 0.5 * np.stack(colours, -1))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=round(quality))
    return np.asarray(Image.open(buffer))
