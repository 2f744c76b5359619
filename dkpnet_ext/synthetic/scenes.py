"""Four synthetic crowd domains: the data that a newcomer trains on before owning any.

Every picture is a small 3-D world seen by a pinhole camera (height, tilt, focal length). Ground, houses and sky are
ray-cast; people and objects are figures (`dkpnet_ext.synthetic.figures`) whose size and foreshortening follow from where
they stand, painted from back to front; the picture is then developed like a photograph (exposure, contrast, colour
cast, vignette, blur, sensor noise, JPEG).

The domains differ as the data sets of the DKPNet paper's Fig. 1 do, and are of unequal size. Heads per image are the
median and the range of the default training images (seed 0).

=======  ==========  ==============  =========  ==================================================================
domain   train/test  heads/image     head size  camera
=======  ==========  ==============  =========  ==================================================================
square   130 / 30    116 (14-565)    5-16 px    7-13 m up, tilted 18-32 degrees, daylight, haze
street   100 / 26    22 (2-93)       9-50 px    1.7-3 m up, almost level, saturated and sharp, landscape or portrait
stadium  80 / 22     263 (47-1000)   5-9 px     a long lens on a stand of seats, floodlight, noise, strong JPEG
station  60 / 20     19 (2-112)      7-30 px    CCTV 4-6 m up, tilted 22-34 degrees: nearly gray, low contrast, noisy
=======  ==========  ==============  =========  ==================================================================

**Conflict between the domains.** As between real data sets, the labelling habits differ, so that the same local patch
means different counts. Four kinds of things are drawn by the same code with the same distribution of colours wherever
they occur, and `COUNTED` says what each is worth:

- ``ball``, a dark round ball of a head's size: in *stadium* the back of a head above a seat, which counts; in *square*
  and *street* a stone bollard, which does not.
- ``umbrella``: in *square* it hides a person and counts once, at the dome's centre; in *street* it is a cafe's parasol
  and does not count.
- ``silhouette``, a uniformly dark figure: in *station* a traveller against the light, who counts; in *square* and
  *street* a bronze statue or a shop's dummy, which does not.
- ``far``, an ordinary figure whose head is about 5 px: in *square* everybody counts (as ``person``); the labellers of
  *street* leave out the passers-by at its far end, who stand behind a clear gap in depth.

How many of them a picture holds depends on the domain (bollards, parasols and statues come regardless of the crowd; a
random share of the crowd in *stadium*, *square* and *station* sits with its back to us, carries an umbrella or stands
against the light). Only the look of the picture as a whole tells which habit applies. In every domain a head that is
hidden behind something is not annotated.

Everything follows from ``np.random.default_rng([seed, domain, split, index])``: the same versions of NumPy and Pillow
give the same bytes (another processor's arithmetic may round a pixel differently).
``python -m dkpnet_ext.synthetic.scenes OUT`` writes the folders and a contact sheet to look at.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from dkpnet_ext.cli import run_command
from dkpnet_ext.errors import UserError

from .figures import STANDING, STEP, VARIANTS, balls, clothes, forget, objects, people, silhouettes, sprite, trees

VERSION = 4  # part of the folder's name: raise it with every change of what is rendered

DOMAINS: tuple[str, ...] = ("square", "street", "stadium", "station")
SPLITS: tuple[str, ...] = ("train", "test")
SIZES: dict[str, tuple[int, int]] = {  # images (train, test)
    "square": (130, 30),
    "street": (100, 26),
    "stadium": (80, 22),
    "station": (60, 20),
}
COUNTED: dict[str, dict[str, bool]] = {  # the labelling habit of each domain, see the module's docstring
    "square": {"person": True, "umbrella": True, "ball": False, "silhouette": False},
    "street": {"person": True, "far": False, "umbrella": False, "ball": False, "silhouette": False},
    "stadium": {"person": True, "ball": True},
    "station": {"person": True, "silhouette": True},
}

HEAD = 0.28  # metres across, hair included: the unit in which figures are drawn
EYE = 1.6  # metres from the ground to the centre of a standing person's head


# ----------------------------------------------------------------------------------------------------- camera
@dataclass(frozen=True)
class Camera:
    """A pinhole ``up`` metres above the origin, looking along +z, ``tilt`` radians down; ``focal`` in pixels."""

    width: int
    height: int
    focal: float
    tilt: float
    up: float

    def project(self, x: np.ndarray, h: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World metres (right, height, ahead) -> pixel column, pixel row, depth along the axis."""
        sin, cos = np.sin(self.tilt), np.cos(self.tilt)
        depth = (self.up - h) * sin + z * cos
        down = (self.up - h) * cos - z * sin
        safe = np.maximum(depth, 0.1)
        return self.width / 2 + self.focal * x / safe, self.height / 2 + self.focal * down / safe, depth

    def rays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions at unit depth: x [1, W], height [H, 1], z [H, 1] (a row of pixels shares the latter two)."""
        a = ((np.arange(self.width) + 0.5 - self.width / 2) / self.focal).astype(np.float32)[None, :]
        b = ((np.arange(self.height) + 0.5 - self.height / 2) / self.focal).astype(np.float32)[:, None]
        sin, cos = np.float32(np.sin(self.tilt)), np.float32(np.cos(self.tilt))
        return a, -sin - b * cos, cos - b * sin


# --------------------------------------------------------------------------------------------------- textures
@functools.cache
def _noise_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _lookup(table: np.ndarray, x: np.ndarray, y: np.ndarray | int) -> np.ndarray:
    """``table`` [512, 512, ...] at whole numbers (x, y), periodically."""
    return table[np.asarray(y).astype(np.int32) & 511, x.astype(np.int32) & 511]


def _smooth(x: np.ndarray, y: np.ndarray, period: float, rng: Generator) -> np.ndarray:
    """Smooth noise whose features are about ``period`` metres."""
    scale, (dx, dy) = 16 / period, rng.uniform(600, 1100, 2)
    return _lookup(_noise_tables()[1], x * scale + dx + 512, y * scale + dy + 512)


def _joints(x: np.ndarray, period: float, pixel: np.ndarray, width: float = 0.04) -> np.ndarray:
    """Coverage of lines every ``period`` metres: at least a pixel wide, but fainter then, so that nothing aliases."""
    fade = np.clip(period / (3 * pixel) - 0.3, 0, 1) * np.minimum(1, width / pixel)
    return (np.mod(x, period) < np.maximum(width, pixel)) * fade


def _ground(x: np.ndarray, z: np.ndarray, pixel: np.ndarray, rng: Generator, style: str) -> np.ndarray:
    """Colour [H, W, 3] of the floor at ``x``, ``z`` metres; ``pixel`` is a pixel's extent there."""
    tone, grain, period = {
        "slabs": (rng.uniform(0.38, 0.68), 0.03, rng.uniform(0.5, 1.6)),
        "cobbles": (rng.uniform(0.25, 0.5), 0.06, rng.uniform(0.25, 0.4)),
        "asphalt": (rng.uniform(0.2, 0.42), 0.05, 0.0),
        "grass": (rng.uniform(0.28, 0.42), 0.13, 0.0),
        "tiles": (rng.uniform(0.45, 0.7), 0.03, rng.uniform(0.6, 1.2)),
    }[style]
    tint = np.array([0.8, 1.05, 0.5]) if style == "grass" else 1 + rng.uniform(-0.07, 0.07, 3)
    light = 1 + rng.uniform(0.03, 0.1) * _smooth(x, z, 6.0, rng)
    light += grain * rng.uniform(0.6, 1.6) * np.clip(0.15 / pixel, 0.25, 1) * _smooth(x, z, 0.5, rng)
    if period:
        row = np.floor(z / period)
        shifted = x + 256 * period + (0.5 * period * (row % 2) if style != "tiles" else 0)
        stone = _lookup(_noise_tables()[0][..., 0], shifted / period, row)
        light += rng.uniform(0.05, 0.3) * (stone - 0.5) * np.clip(period / (2 * pixel) - 0.3, 0, 1)
        line = np.maximum(_joints(z, period, pixel), _joints(shifted, period, pixel))
        light *= 1 - rng.uniform(0.1, 0.45) * line
    return (light * tone)[..., None] * tint.astype(np.float32)


FACADES, FACADE_LENGTH, FACADE_HEIGHT, FACADE_SCALE = (
    8,
    72.0,
    20.0,
    20.0,
)  # number, metres, metres, pixels per metre


@functools.cache
def _facade(variant: int) -> np.ndarray:
    """A row of houses seen squarely, uint8 [height, length, 4], shops at the bottom; the 4th channel is presence."""
    rng = np.random.default_rng([21, variant])
    white = _noise_tables()[0]
    s = np.arange(FACADE_LENGTH * FACADE_SCALE, dtype=np.float32)[None, :] / FACADE_SCALE
    h = np.arange(FACADE_HEIGHT * FACADE_SCALE, dtype=np.float32)[:, None] / FACADE_SCALE
    houses, storey = int(rng.integers(5, 10)), rng.uniform(2.9, 3.8)
    wide = FACADE_LENGTH / houses
    pane = wide / int(rng.integers(3, 7))
    own = rng.random((houses, 3), dtype=np.float32)[np.floor(s / wide).astype(np.int32) % houses]  # of each house
    bricks = np.array([[0.62, 0.5, 0.4], [0.6, 0.58, 0.52], [0.42, 0.3, 0.25], [0.5, 0.52, 0.55]], np.float32)
    colour = bricks[(own[..., 0] * 4).astype(np.int32)] * (0.75 + 0.5 * own[..., 1:2])
    colour = colour * (1 + 0.06 * _smooth(s, h, 1.5, rng))[..., None]
    across, floor = s / pane, h / storey
    room = _lookup(white, across + variant * 31, floor)
    across, floor = across % 1, floor % 1
    shop = h < storey
    window = (across > 0.28) & (across < 0.75) & (floor > 0.3) & (floor < 0.82)
    glass = np.where(shop, (across > 0.08) & (h > 0.5) & (floor < 0.78), window)
    light = (0.08 + 0.4 * room[..., 0] ** 3) * np.where((np.abs(across - 0.515) < 0.02) & ~shop, 2.0, 1.0)
    goods = 0.18 + 0.1 * _smooth(s, h, 1.0, rng) + 0.15 * room[..., 0]
    light = np.where(shop, goods, light)[..., None] * (0.7 + 0.6 * room)
    sign = (np.abs(h - 0.88 * storey) < 0.25) & (across > 0.05)
    colour = np.where(glass[..., None], light, np.where(sign[..., None], 0.1 + 0.5 * own, colour))
    there = h < 5 + 14 * own[..., 2]
    return np.dstack([np.clip(colour, 0, 1) * 255, there * 255]).astype(np.uint8)


def _sky(cam: Camera, rng: Generator) -> np.ndarray:
    a, dy, _ = cam.rays()
    blue = np.array([0.45, 0.6, 0.85]) * rng.uniform(0.75, 1.1)
    top = (blue + (0.75 - blue) * rng.random()).astype(np.float32)
    rise = np.clip(dy * 2.2, 0, 1)[..., None]
    canvas = np.repeat(0.86 * (1 - rise) + top * rise, cam.width, axis=1)
    rows = int((dy > 0).sum())  # the horizon and what is above it
    canvas[:rows] += 0.06 * np.clip(_smooth(a + 2, dy[:rows] * 2.5, 0.5, rng), -1, 2)[..., None]
    return canvas


@dataclass(frozen=True)
class Walls:
    """Rows of houses around the scene: ``back`` at that z, ``left``/``right`` at those x (None = open), in metres."""

    back: float
    left: float | None = None
    right: float | None = None
    inside: bool = False  # a hall: the walls go up to the ceiling


def _world(
    cam: Camera, rng: Generator, floor: str, walls: Walls
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ray-cast picture float32 [H, W, 3] of floor, walls and sky; the floor's x [H, W], z [H, 1] and mask [H, W]."""
    a, dy, dz = cam.rays()
    far = np.float32(500)
    t_floor = np.where(dy < -1e-3, cam.up / np.maximum(-dy, 1e-3), far).astype(np.float32)
    canvas = _sky(cam, rng)
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
        texture = _facade(int(rng.integers(FACADES)))
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
    colour = _ground(np.clip(x[ground], -200, 200), np.clip(z[ground], 0, 200), pixel, rng, floor)
    canvas[ground] = np.where(on_floor[ground, :, None], colour, canvas[ground])
    return canvas, x, z, on_floor


# ----------------------------------------------------------------------------------------------------- scenes
class Thing(NamedTuple):
    """One figure in the picture: what `COUNTED` calls it, its look, and where it is."""

    kind: str
    shape: str
    variant: int
    body: int  # visible length in heads
    seated: bool
    palette: np.ndarray  # [6, 3] float32
    u: float  # pixels
    v: float
    size: float  # pixels per head
    depth: float  # metres


@dataclass
class Scene:
    """A background and what stands before it."""

    cam: Camera
    canvas: np.ndarray
    things: list[Thing] = field(default_factory=list)
    haze: float = 0.0  # its share per 100 m
    mirror: bool = False  # lit from the right

    def add(
        self,
        rng: Generator,
        kind: str,
        shape: str,
        x: np.ndarray,
        z: np.ndarray,
        palette: np.ndarray,
        *,
        centre: float = 0.0,
        base: np.ndarray | float = 0.0,
        seated: bool = False,
    ) -> None:
        """Put figures at ``x``, ``z`` metres on ground of height ``base``, their anchor ``centre`` metres above it."""
        n = len(x)
        ground = np.zeros(n) + base
        walks = shape == "person" and not seated
        u, v, depth = self.cam.project(x, ground + centre * (rng.uniform(0.9, 1.07, n) if walks else 1.0), z)
        feet = self.cam.project(x, ground, z)[1]
        size = self.cam.focal * HEAD / np.maximum(depth, 0.1)
        body = (
            (feet - v) / size if walks else STANDING * np.cos(self.cam.tilt) + 0 * v
        )  # shortened when seen from above
        body = np.clip(np.round(body), 2, 6).astype(int)
        far = np.minimum(0.6, self.haze * depth / 100)[:, None, None]
        palette = (palette * (1 - far) + 0.75 * far).astype(np.float32)
        variant = rng.integers(0, VARIANTS, n)
        for i in np.flatnonzero(depth > 0.5):
            look = (kind, shape, int(variant[i]), int(body[i]), seated, palette[i])
            self.things.append(Thing(*look, float(u[i]), float(v[i]), float(size[i]), float(depth[i])))

    def spots(
        self,
        rng: Generator,
        n: int,
        area: tuple[float, float, float, float],
        *,
        pitch: float = 0.45,
        clump: float = 1.5,
        patch: float = 5.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """At most ``n`` places (x, z) in ``area`` (left, right, near, far) whose heads lie in the picture.

        They keep ``pitch`` metres apart and crowd in patches of ``patch`` metres, the more the larger ``clump`` is.
        """
        left, right, near, far = area
        z, x = np.meshgrid(np.arange(near, far, pitch), np.arange(left, right, pitch), indexing="ij")
        x, z = x.ravel(), z.ravel()
        u, v, depth = self.cam.project(x, np.full_like(x, EYE), z)
        seen = (u > 2) & (u < self.cam.width - 2) & (v > 2) & (v < self.cam.height - 2) & (depth > 0.5)
        x, z, depth = x[seen], z[seen], depth[seen]
        n = min(n, int(0.7 * len(x)))
        if not n:
            return x[:0], z[:0]
        # the far ground holds many more square metres per row of pixels: thin it out to fill the picture evenly
        weight = np.exp(clump * np.clip(_smooth(x, z, patch, rng), -2, 2)) / depth
        chosen = rng.choice(len(x), n, replace=False, p=weight / weight.sum())
        dx, dz = rng.uniform(-0.4, 0.4, (2, n)) * pitch
        return x[chosen] + dx, z[chosen] + dz

    def bollards(self, rng: Generator, chains: int, half: float, near: float, far: float) -> None:
        """Chains of stone balls along lines on the ground."""
        for _ in range(chains):
            angle = rng.choice([0.0, np.pi / 2]) + rng.uniform(-0.2, 0.2)
            along = rng.uniform(0.8, 1.9) * np.arange(rng.integers(4, 13))
            x = 0.6 * rng.uniform(-half, half) + along * np.cos(angle)
            z = rng.uniform(near, far) + along * np.sin(angle)
            keep = (z > near) & (z < far) & (np.abs(x) < half)
            self.add(rng, "ball", "ball", x[keep], z[keep], balls(rng, int(keep.sum())), centre=0.16)

    def clutter(self, rng: Generator, most: dict[str, int], area: tuple[float, float, float, float]) -> None:
        """Up to ``most`` things of each shape."""
        for shape, limit in most.items():
            x, z = self.spots(rng, int(rng.integers(0, limit + 1)), area, pitch=2.5)
            self.add(rng, shape, shape, x, z, (trees if shape == "tree" else objects)(rng, len(x)))


def _long_tail(rng: Generator, median: float, spread: float, low: int, high: int) -> int:
    return int(np.clip(round(median * np.exp(spread * rng.standard_normal())), low, high))


def _square(rng: Generator) -> Scene:
    """A dense crowd on a square, seen from a balcony or a crane."""
    cam = Camera(512, 384, rng.uniform(470, 640), np.radians(rng.uniform(18, 32)), rng.uniform(7, 13))
    far = cam.focal * HEAD / 4.8 / np.cos(cam.tilt) - cam.up * np.tan(cam.tilt)  # heads shrink to 4.8 px there
    floor = rng.choice(["slabs", "cobbles", "asphalt", "grass"], p=[0.4, 0.3, 0.15, 0.15])
    canvas, x, z, on_floor = _world(cam, rng, floor, Walls(far * rng.uniform(0.95, 1.1)))
    if rng.random() < 0.35:  # the shadow of a building across the square
        angle = rng.uniform(-0.6, 0.6)
        canvas[on_floor & (z * np.cos(angle) + x * np.sin(angle) > far * rng.uniform(0.3, 0.8))] *= 0.6
    scene = Scene(cam, canvas, haze=rng.uniform(0, 0.5), mirror=rng.random() < 0.5)
    half = 0.6 * cam.width / cam.focal * far + 2
    x, z = scene.spots(
        rng,
        _long_tail(rng, 130, 0.85, 15, 620),
        (-half, half, 2.0, far - 0.5),
        clump=rng.uniform(0.5, 2.2),
        patch=rng.uniform(3, 9),
    )
    dry = rng.random(len(x)) > (rng.uniform(0.15, 0.45) if rng.random() < 0.3 else rng.uniform(0, 0.04))  # 30 %: rain
    scene.add(rng, "umbrella", "umbrella", x[~dry], z[~dry], objects(rng, int((~dry).sum())), centre=1.9)
    scene.add(rng, "person", "person", x[dry], z[dry], people(rng, int(dry.sum())), centre=EYE)
    x, z = scene.spots(rng, int(rng.integers(0, 8)), (-half, half, 2.0, far - 0.5), pitch=1.2, clump=2.0)
    scene.add(rng, "silhouette", "person", x, z, silhouettes(rng, len(x)), centre=EYE)
    scene.bollards(rng, int(rng.integers(0, 6)), half, 3, far - 1)
    scene.clutter(rng, {"lamp": 5, "kiosk": 3}, (-half, half, 0.35 * far, far))
    scene.clutter(rng, {"tree": 4, "car": 3}, (-half, half, 0.65 * far, far))
    return scene


def _street(rng: Generator) -> Scene:
    """Few, large people in a street of shops, photographed from eye level."""
    width, height = (512, 384) if rng.random() < 0.65 else (384, 512)
    cam = Camera(width, height, rng.uniform(440, 580), np.radians(rng.uniform(1, 7)), rng.uniform(1.7, 3.0))
    left, right = -rng.uniform(4, 8), rng.uniform(4, 8)
    end = cam.focal * HEAD / 4.6  # heads shrink to 4.6 px there
    houses = rng.random(2) < 0.85
    floor = rng.choice(["slabs", "cobbles", "asphalt"], p=[0.45, 0.25, 0.3])
    canvas, x, z, on_floor = _world(
        cam, rng, floor, Walls(end + 2, left if houses[0] else None, right if houses[1] else None)
    )
    if rng.random() < 0.4:  # a zebra crossing
        start = rng.uniform(5, 12)
        canvas[on_floor & (z > start) & (z < start + 3) & (np.mod(x, 1.0) < 0.5)] = 0.75
    if rng.random() < 0.5:  # one side lies in the shade
        canvas[on_floor & (x * rng.choice([-1, 1]) > rng.uniform(-2, 3))] *= 0.65
    scene = Scene(cam, canvas, haze=rng.uniform(0, 0.3), mirror=rng.random() < 0.5)
    left, right = left + 0.5, right - 0.5
    area = (left, right, 3.2, rng.uniform(15, 18))  # the annotated part
    x, z = scene.spots(rng, _long_tail(rng, 24, 0.9, 1, 110), area, pitch=0.6, clump=rng.uniform(0.3, 1.5), patch=3.0)
    scene.add(rng, "person", "person", x, z, people(rng, len(x)), centre=EYE)
    x, z = scene.spots(rng, _long_tail(rng, 6, 0.8, 0, 25), (left, right, 0.87 * end, end + 1), pitch=0.5)
    scene.add(rng, "far", "person", x, z, people(rng, len(x)), centre=EYE)
    x, z = scene.spots(rng, int(rng.integers(0, 7)), (left, right, 4, 26), pitch=2.0)
    scene.add(rng, "umbrella", "umbrella", x, z, objects(rng, len(x)), centre=1.9)
    x, z = scene.spots(rng, int(rng.integers(0, 6)), (left, right, 3.5, 13), pitch=1.0)
    scene.add(rng, "silhouette", "person", x, z, silhouettes(rng, len(x)), centre=EYE)
    scene.bollards(rng, int(rng.integers(0, 4)), right, 3.5, 27)
    scene.clutter(rng, {"tree": 2, "car": 3, "lamp": 4, "kiosk": 2}, (left, right, 10, 22))
    return scene


def _stadium(rng: Generator) -> Scene:
    """A stand of seats through a long lens: hundreds of small heads, a part of them seen from behind."""
    slope, start, deep = rng.uniform(0.42, 0.62), rng.uniform(30, 40), rng.uniform(12, 22)
    up, middle = rng.uniform(5, 14), start + deep * rng.uniform(0.4, 0.6)
    tilt = np.arctan2(up - slope * (middle - start), middle)
    cam = Camera(576, 384, rng.uniform(4.9, 6.3) * (start + deep) / HEAD, tilt, up)
    white = _noise_tables()[0]
    row_pitch, seat_pitch = 0.8, 0.52
    aisle_every, aisle_at = rng.uniform(8, 14), rng.uniform(0, 8)
    a, dy, dz = cam.rays()
    t = ((up + slope * start) / np.maximum(slope * dz - dy, 1e-3)).astype(np.float32)  # where the stand's slope is hit
    x, z = t * a, t * dz - start
    row, pixel = z / row_pitch, 1.3 * t / cam.focal
    # seats above concrete, stairs between the blocks
    seat = (0.1 + 0.75 * clothes(rng, 1)[0]).astype(np.float32)
    light = 0.85 + 0.3 * _lookup(white[..., 0], x / seat_pitch + 512, np.floor(row) + 64)
    light *= 1 - 0.6 * _joints(x, seat_pitch, pixel, 0.08)
    concrete = 0.3 + 0.02 * _smooth(x + 100, z + 50, 0.6, rng)[..., None]
    canvas = np.where((row % 1 > 0.45)[..., None], seat * light[..., None], concrete)
    stairs = np.where(z % 0.4 > 0.2, 0.54, 0.42)[..., None]
    canvas = np.where((np.mod(x - aisle_at, aisle_every) < 1.1)[..., None], stairs, canvas).astype(np.float32)
    # below the roof; in front of it all the boards and the pitch
    top, bottom = int((z > deep).sum()), int((z > 0).sum())
    canvas[:top] = (rng.uniform(0.08, 0.3) * (1 + 0.4 * (np.mod(x[:top], 4) < 0.3)))[..., None]
    if bottom < cam.height:
        t_pitch = np.where(dy < -1e-3, up / np.maximum(-dy, 1e-3), 100).astype(np.float32)[bottom:]
        ground = (np.clip(t_pitch * a, -100, 100), np.clip(t_pitch * dz[bottom:], 0, 100), pixel[bottom:])
        canvas[bottom:] = _ground(*ground, rng, "grass")
        below = slope * z[bottom:] + 0 * a
        advert = 0.15 + 0.6 * _lookup(white, x[bottom:] / 5 + 256, 31)
        letters = (_lookup(white[..., 0], x[bottom:] * 4 + 256, 17) > 0.5) & (below < -0.3) & (below > -0.7)
        board = np.where(letters[..., None], 0.9, advert)
        canvas[bottom:] = np.where((below > -1.0)[..., None], board, canvas[bottom:])
    scene = Scene(cam, canvas, mirror=rng.random() < 0.5)
    # the seats in the picture, taken block by block
    rows, columns = np.meshgrid(np.arange(int(deep / row_pitch)), np.arange(-60, 60), indexing="ij")
    x, z, base = (
        (columns.ravel() + 0.5) * seat_pitch,
        start + (rows.ravel() + 0.6) * row_pitch,
        rows.ravel() * row_pitch * slope,
    )
    u, v, _ = cam.project(x, base + 1.2, z)
    free = (u > 2) & (u < cam.width - 2) & (v > 2) & (v < cam.height - 2) & (np.mod(x - aisle_at, aisle_every) > 1.3)
    x, z, base = x[free], z[free], base[free]
    n = min(_long_tail(rng, 260, 0.75, 40, 1000), int(0.95 * len(x)))
    weight = np.exp(rng.uniform(0.5, 2.5) * np.clip(_smooth(x + 100, z, rng.uniform(4, 10), rng), -2, 2))
    taken = rng.choice(len(x), n, replace=False, p=weight / weight.sum())
    x, z, base = x[taken] + rng.uniform(-0.1, 0.1, n), z[taken], base[taken]
    back = rng.random(n) < rng.uniform(0.05, 0.6)
    scene.add(rng, "ball", "ball", x[back], z[back], balls(rng, int(back.sum())), centre=1.1, base=base[back])
    fans = people(rng, int((~back).sum()), team=clothes(rng, 1)[0])
    scene.add(rng, "person", "person", x[~back], z[~back], fans, centre=1.2, base=base[~back], seated=True)
    return scene


def _station(rng: Generator) -> Scene:
    """A hall under a surveillance camera."""
    cam = Camera(480, 384, rng.uniform(330, 430), np.radians(rng.uniform(22, 34)), rng.uniform(4.0, 6.0))
    back, left, right = rng.uniform(13, 17), -rng.uniform(5, 9), rng.uniform(5, 9)
    floor = rng.choice(["tiles", "slabs", "asphalt"], p=[0.6, 0.25, 0.15])
    canvas, x, z, on_floor = _world(cam, rng, floor, Walls(back, left, right, inside=True))
    lamp_x, lamp_z = rng.uniform(-4, 4), rng.uniform(5, back)
    glare = rng.uniform(0.1, 0.5) * np.exp(-(((x - lamp_x) / 3) ** 2) - ((z - lamp_z) / 4) ** 2)
    canvas += (glare * on_floor)[..., None].astype(np.float32)
    scene = Scene(cam, canvas, mirror=rng.random() < 0.5)
    area = (left + 0.4, right - 0.4, 1.5, back - 0.6)
    n = _long_tail(rng, 22, 0.85, 2, 120)
    x, z = scene.spots(rng, n, area, clump=rng.uniform(0.4, 1.8), patch=rng.uniform(2, 5))
    dark = rng.random(len(x)) < rng.uniform(0, 0.6)
    scene.add(rng, "silhouette", "person", x[dark], z[dark], silhouettes(rng, int(dark.sum())), centre=EYE)
    scene.add(rng, "person", "person", x[~dark], z[~dark], people(rng, int((~dark).sum())), centre=EYE)
    scene.clutter(rng, {"kiosk": 5}, (left + 0.4, right - 0.4, 6.0, back))
    return scene


# ------------------------------------------------------------------------------------------ paint and develop
def _paint(scene: Scene, counted: dict[str, bool]) -> np.ndarray:
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


def _develop(canvas: np.ndarray, rng: Generator, look: Look) -> np.ndarray:
    """Light of the scene float32 [H, W, 3] -> the camera's picture, uint8."""
    exposure, contrast, saturation, vignette, blur, noise, quality = (
        rng.uniform(*pair)
        for pair in (
            look.exposure,
            look.contrast,
            look.saturation,
            look.vignette,
            look.blur,
            look.noise,
            look.jpeg,
        )
    )
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
    grain, starts = _noise_tables()[2], rng.integers(0, 500, (4, 2))
    gray, *colours = (grain[i : i + height, j : j + width] for i, j in starts)
    picture += np.float32(255 * noise) * (0.7 * gray[..., None] + 0.5 * np.stack(colours, -1))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=round(quality))
    return np.asarray(Image.open(buffer))


SCENES: dict[str, Callable[[Generator], Scene]] = {
    "square": _square,
    "street": _street,
    "stadium": _stadium,
    "station": _station,
}


# ----------------------------------------------------------------------------------------------------- public
def render(domain: str, split: str, index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One picture of a domain.

    Args:
        domain: one of `DOMAINS`.
        split: ``train`` or ``test``.
        index: any number from 0; `ensure` writes the first ``SIZES[domain]``.
        seed: from 0; another seed is another data set.

    Returns:
        The picture, uint8 [H, W, 3] RGB, and the annotated heads' centres, float32 [N, 2] as (x, y) pixels inside it.

    Raises:
        UserError: an unknown domain or split, or a negative index or seed.
    """
    if domain not in SCENES:
        raise UserError(f"unknown synthetic domain {domain!r}: choose from {', '.join(DOMAINS)}")
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r} of the synthetic data: choose from {', '.join(SPLITS)}")
    if index < 0 or seed < 0:
        raise UserError(f"synthetic data needs index and seed from 0, got index {index}, seed {seed}")
    rng = np.random.default_rng([seed, DOMAINS.index(domain), SPLITS.index(split), index])
    scene = SCENES[domain](rng)
    points = _paint(scene, COUNTED[domain])
    return _develop(scene.canvas, rng, LOOKS[domain]), points


def ensure(root: Path, seed: int = 0, progress: bool = True) -> dict[str, Path]:
    """Write the data set below ``root`` unless it is there; domain name -> its folder.

    A folder ``synthetic-v<VERSION>-seed<seed>/<domain>`` holds ``images/*.jpg``, ``train.csv`` and ``test.csv`` with
    the header ``image,points`` (a path relative to the folder; JSON ``[[x, y], ...]`` in pixels). It appears complete
    or not at all; ``progress`` reports on stderr.

    Raises:
        UserError: ``root`` cannot be written.
    """
    root = Path(root)
    final = root / f"synthetic-v{VERSION}-seed{seed}"
    if not final.is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=root))
        except OSError as error:
            raise UserError(
                f"cannot write the synthetic data to {root}: {error.strerror}; give another folder"
            ) from error
        try:
            work.chmod(0o755)
            for domain in DOMAINS:
                _write(work / domain, domain, seed, progress)
            try:
                os.rename(work, final)
            except OSError:
                if not final.is_dir():  # otherwise another process was faster: its files are the same
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
            forget()
    return {domain: final / domain for domain in DOMAINS}


def _write(folder: Path, domain: str, seed: int, progress: bool) -> None:
    begin = time.perf_counter()
    (folder / "images").mkdir(parents=True)
    for split, n in zip(SPLITS, SIZES[domain], strict=True):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "points"])
            for index in range(n):
                picture, points = render(domain, split, index, seed)
                name = f"images/{split}_{index:04d}.jpg"
                Image.fromarray(picture).save(folder / name, quality=92)
                table.writerow([name, json.dumps([[round(float(x), 2), round(float(y), 2)] for x, y in points])])
    if progress:
        print(
            f"synthetic {domain}: {sum(SIZES[domain])} images in {time.perf_counter() - begin:.1f} s",
            file=sys.stderr,
        )


def contact_sheet(seed: int = 0, split: str = "train", columns: int = 5, pool: int = 30) -> Image.Image:
    """A picture of all domains, one row each, from sparse to dense; the last column shows the annotation as dots."""
    cell = (400, 300)
    sheet = Image.new("RGB", (columns * cell[0], len(DOMAINS) * cell[1]), "white")
    for row, domain in enumerate(DOMAINS):
        scenes = sorted((render(domain, split, index, seed) for index in range(pool)), key=lambda scene: len(scene[1]))
        chosen = [scenes[round(i * (pool - 1) / (columns - 2))] for i in range(columns - 1)]
        chosen.append(scenes[pool // 2])
        for column, (picture, points) in enumerate(chosen):
            image = Image.fromarray(picture)
            draw = ImageDraw.Draw(image)
            if column == columns - 1:
                for x, y in points:
                    draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=(255, 40, 40))
            image.thumbnail((cell[0] - 4, cell[1] - 4))
            draw = ImageDraw.Draw(image)
            text = f"{domain}: {len(points)}"
            draw.rectangle([0, 0, 6 * len(text) + 8, 14], fill="black")
            draw.text((4, 2), text, fill="white")
            sheet.paste(image, (column * cell[0] + (cell[0] - image.width) // 2, row * cell[1] + 2))
    return sheet


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise UserError(
            "usage: python -m dkpnet_ext.synthetic.scenes OUT (writes the synthetic data and a contact sheet there)"
        )
    out = Path(sys.argv[1])
    for domain, folder in ensure(out).items():
        print(f"{domain}={folder}")
    contact_sheet().save(out / "contact_sheet.png")
    print(f"look at {out / 'contact_sheet.png'}")


if __name__ == "__main__":
    run_command(main)
