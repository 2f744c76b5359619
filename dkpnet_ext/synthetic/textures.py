"""Ground, houses and sky of the synthetic scenes: noise, textures in metres, and the ray caster that paints them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image

from .camera import Camera


@functools.cache
def noise_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Periodic noise: white in [0, 1) [512, 512, 3]; smooth of deviation 1 [512, 512]; normal [1024, 1280]."""
    rng = np.random.default_rng(2020)
    white = rng.random((512, 512, 3), dtype=np.float32)
    smooth = np.zeros((512, 512), np.float32)
    for octave in range(1, 7):
        layer = np.pad(rng.standard_normal((512 >> octave,) * 2, dtype=np.float32), 2, mode="wrap")
        pad = 2 << octave
        layer = np.asarray(Image.fromarray(layer).resize((512 + 2 * pad,) * 2, Image.Resampling.BICUBIC))
        smooth += layer[pad : pad + 512, pad : pad + 512] * 2.0 ** (octave - 6)
    return white, smooth / smooth.std(), rng.standard_normal((1024, 1280), dtype=np.float32)


def lookup(table: np.ndarray, x: np.ndarray, y: np.ndarray | int) -> np.ndarray:
    """``table`` [512, 512, ...] at whole numbers (x, y), periodically."""
    return table[np.asarray(y).astype(np.int32) & 511, x.astype(np.int32) & 511]


def smooth(x: np.ndarray, y: np.ndarray, period: float, rng: Generator) -> np.ndarray:
    """Smooth noise whose features are about ``period`` metres."""
    scale, (dx, dy) = 16 / period, rng.uniform(600, 1100, 2)
    return lookup(noise_tables()[1], x * scale + dx + 512, y * scale + dy + 512)


def joints(x: np.ndarray, period: float, pixel: np.ndarray, width: float = 0.04) -> np.ndarray:
    """Coverage of lines every ``period`` metres: at least a pixel wide, but fainter then, so that nothing aliases."""
    fade = np.clip(period / (3 * pixel) - 0.3, 0, 1) * np.minimum(1, width / pixel)
    return (np.mod(x, period) < np.maximum(width, pixel)) * fade


def ground_colour(x: np.ndarray, z: np.ndarray, pixel: np.ndarray, rng: Generator, style: str) -> np.ndarray:
    """Colour [H, W, 3] of the floor at ``x``, ``z`` metres; ``pixel`` is a pixel's extent there."""
    tone, grain, period = {
        "slabs": (rng.uniform(0.38, 0.68), 0.03, rng.uniform(0.5, 1.6)),
        "cobbles": (rng.uniform(0.25, 0.5), 0.06, rng.uniform(0.25, 0.4)),
        "asphalt": (rng.uniform(0.2, 0.42), 0.05, 0.0),
        "grass": (rng.uniform(0.28, 0.42), 0.13, 0.0),
        "tiles": (rng.uniform(0.45, 0.7), 0.03, rng.uniform(0.6, 1.2)),
    }[style]
    tint = np.array([0.8, 1.05, 0.5]) if style == "grass" else 1 + rng.uniform(-0.07, 0.07, 3)
    light = 1 + rng.uniform(0.03, 0.1) * smooth(x, z, 6.0, rng)
    light += grain * rng.uniform(0.6, 1.6) * np.clip(0.15 / pixel, 0.25, 1) * smooth(x, z, 0.5, rng)
    if period:
        row = np.floor(z / period)
        shifted = x + 256 * period + (0.5 * period * (row % 2) if style != "tiles" else 0)
        stone = lookup(noise_tables()[0][..., 0], shifted / period, row)
        light += rng.uniform(0.05, 0.3) * (stone - 0.5) * np.clip(period / (2 * pixel) - 0.3, 0, 1)
        line = np.maximum(joints(z, period, pixel), joints(shifted, period, pixel))
        light *= 1 - rng.uniform(0.1, 0.45) * line
    return (light * tone)[..., None] * tint.astype(np.float32)


FACADES = 8  # number of textures
FACADE_LENGTH, FACADE_HEIGHT = 72.0, 20.0  # metres
FACADE_SCALE = 20.0  # pixels per metre


@functools.cache
def facade(variant: int) -> np.ndarray:
    """A row of houses seen squarely, uint8 [height, length, 4], shops at the bottom; the 4th channel is presence."""
    rng = np.random.default_rng([21, variant])
    white = noise_tables()[0]
    s = np.arange(FACADE_LENGTH * FACADE_SCALE, dtype=np.float32)[None, :] / FACADE_SCALE
    h = np.arange(FACADE_HEIGHT * FACADE_SCALE, dtype=np.float32)[:, None] / FACADE_SCALE
    houses, storey = int(rng.integers(5, 10)), rng.uniform(2.9, 3.8)
    wide = FACADE_LENGTH / houses
    pane = wide / int(rng.integers(3, 7))
    own = rng.random((houses, 3), dtype=np.float32)[np.floor(s / wide).astype(np.int32) % houses]  # of each house
    bricks = np.array([[0.62, 0.5, 0.4], [0.6, 0.58, 0.52], [0.42, 0.3, 0.25], [0.5, 0.52, 0.55]], np.float32)
    colour = bricks[(own[..., 0] * 4).astype(np.int32)] * (0.75 + 0.5 * own[..., 1:2])
    colour = colour * (1 + 0.06 * smooth(s, h, 1.5, rng))[..., None]
    across, floor = s / pane, h / storey
    room = lookup(white, across + variant * 31, floor)
    across, floor = across % 1, floor % 1
    shop = h < storey
    window = (across > 0.28) & (across < 0.75) & (floor > 0.3) & (floor < 0.82)
    glass = np.where(shop, (across > 0.08) & (h > 0.5) & (floor < 0.78), window)
    light = (0.08 + 0.4 * room[..., 0] ** 3) * np.where((np.abs(across - 0.515) < 0.02) & ~shop, 2.0, 1.0)
    goods = 0.18 + 0.1 * smooth(s, h, 1.0, rng) + 0.15 * room[..., 0]
    light = np.where(shop, goods, light)[..., None] * (0.7 + 0.6 * room)
    sign = (np.abs(h - 0.88 * storey) < 0.25) & (across > 0.05)
    colour = np.where(glass[..., None], light, np.where(sign[..., None], 0.1 + 0.5 * own, colour))
    there = h < 5 + 14 * own[..., 2]
    return np.dstack([np.clip(colour, 0, 1) * 255, there * 255]).astype(np.uint8)


def sky(cam: Camera, rng: Generator) -> np.ndarray:
    a, dy, _ = cam.rays()
    blue = np.array([0.45, 0.6, 0.85]) * rng.uniform(0.75, 1.1)
    top = (blue + (0.75 - blue) * rng.random()).astype(np.float32)
    rise = np.clip(dy * 2.2, 0, 1)[..., None]
    canvas = np.repeat(0.86 * (1 - rise) + top * rise, cam.width, axis=1)
    rows = int((dy > 0).sum())  # the horizon and what is above it
    canvas[:rows] += 0.06 * np.clip(smooth(a + 2, dy[:rows] * 2.5, 0.5, rng), -1, 2)[..., None]
    return canvas


@dataclass(frozen=True)
class Walls:
    """Rows of houses around the scene: ``back`` at that z, ``left``/``right`` at those x (None = open), in metres."""

    back: float
    left: float | None = None
    right: float | None = None
    inside: bool = False  # a hall: the walls go up to the ceiling


def world(
    cam: Camera, rng: Generator, floor: str, walls: Walls
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ray-cast picture float32 [H, W, 3] of floor, walls and sky; the floor's x [H, W], z [H, 1] and mask [H, W]."""
    a, dy, dz = cam.rays()
    far = np.float32(500)
    t_floor = np.where(dy < -1e-3, cam.up / np.maximum(-dy, 1e-3), far).astype(np.float32)
    canvas = sky(cam, rng)
    nearest = np.full(canvas.shape[:2], far, np.float32)
    planes = [(walls.back / dz + 0 * a, 0)]
    for x in (walls.left, walls.right):
        if x is not None:
            planes.append((np.where(a * x > 1e-3, x / np.where(a == 0, 1, a), far).astype(np.float32) + 0 * dy, 1))
    for t, side in planes:
        hit = (t < nearest) & (t < t_floor) & (cam.up + t * dy > 0) & (t < 300)
        if not hit.any():
            continue
        rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
        cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))  # all that is worth painting
        t, hit = t[cut], hit[cut]
        up = (cam.up + t * dy[cut[0]]) * FACADE_SCALE
        along = t * (dz[cut[0]] if side else a[:, cut[1]]) * FACADE_SCALE + rng.uniform(20e3, 30e3)
        texture = facade(int(rng.integers(FACADES)))
        row = np.clip(up, 0, texture.shape[0] - 1).astype(np.int32)
        pixels = texture.view(np.uint32)[..., 0][row, along.astype(np.int32) % texture.shape[1]]
        pixels = pixels[..., None].view(np.uint8)
        if not walls.inside:
            hit &= pixels[..., 3] > 0
        tint = rng.uniform(0.75, 1.15) * rng.uniform(0.92, 1.08, 3) * (0.85 if side else 1.0) / 255
        canvas[cut][hit] = pixels[hit][:, :3] * tint.astype(np.float32)
        nearest[cut][hit] = t[hit]
    on_floor = t_floor < np.minimum(nearest, far)
    ground = slice(int(np.argmax(on_floor.any(1))), None)
    x, z = t_floor * a, t_floor * dz
    pixel = np.maximum(t_floor / cam.focal, 0.7 * t_floor**2 / (cam.focal * cam.up))[ground]
    colour = ground_colour(np.clip(x[ground], -200, 200), np.clip(z[ground], 0, 200), pixel, rng, floor)
    canvas[ground] = np.where(on_floor[ground, :, None], colour, canvas[ground])
    return canvas, x, z, on_floor
