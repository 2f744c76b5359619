"""Four synthetic crowd domains: the data that a newcomer trains on before owning any.

Every picture is a small 3-D world seen by a pinhole camera (height, tilt, focal length): ground and walls are ray-cast,
people and objects are figures whose size follows from their depth, painted from back to front, and the picture is then
developed like a photograph (exposure, colour cast, vignette, blur, sensor noise, JPEG).

The domains differ as the data sets of the DKPNet paper's Fig. 1 do, and are of unequal size:

=========  ==========  =============  ==========================  =====================================================
domain     train/test  heads/image    head size                   camera
=========  ==========  =============  ==========================  =====================================================
square     130 / 30    tens-hundreds  5-14 px                     7-13 m up, tilted 18-32 degrees, daylight colour
street     100 / 26    a few-tens     9-45 px                     1.7-3 m up, level, saturated, sharp
stadium    80 / 22     hundreds       5-9 px                      long lens onto a stand of seats, floodlight, strong JPEG
station    60 / 20     a few-tens     8-26 px                     CCTV 4-6 m up: nearly gray, low contrast, noisy
=========  ==========  =============  ==========================  =====================================================

**Conflict between the domains.** As between real data sets, the labelling habits differ, so the same local patch means
different counts. Four kinds of things are painted by the same code with the same colours wherever they occur, and
`COUNTED` says what each is worth (absent = does not occur):

- ``ball``: a dark round ball of a head's size. In *stadium* it is the back of a head above a seat and counts; in *square*
  and *street* it is a stone bollard and does not.
- ``umbrella``: in *square* it hides a person and counts once, at the dome's centre; in *street* it is a cafe's parasol and
  does not count.
- ``silhouette``: a uniformly dark figure. In *station* it is a traveller against the light and counts; in *square* and
  *street* it is a bronze statue or a shop's dummy and does not.
- ``far``: an ordinary figure whose head is about 5 px. In *square* everybody counts; the labellers of *street* leave out
  the passers-by beyond the end of the street, behind a clear gap in depth.

How many of them a picture holds is drawn independently of how many ordinary people it holds. What distinguishes the
domains is the look of the picture as a whole. In every domain a head that is hidden behind something is not annotated.

Everything follows from ``np.random.default_rng([seed, domain, split, index])``: the same versions of NumPy and Pillow give
the same bytes. ``python -m dkpnet_ext.data.synthetic OUT`` writes the folders and a contact sheet to look at.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from dkpnet_ext.errors import UserError, run_command

VERSION = 1  # part of the folder's name: raise it with every change of what is rendered

DOMAINS: tuple[str, ...] = ("square", "street", "stadium", "station")
SPLITS: tuple[str, ...] = ("train", "test")
SIZES: dict[str, tuple[int, int]] = {  # images (train, test)
    "square": (130, 30),
    "street": (100, 26),
    "stadium": (80, 22),
    "station": (60, 20),
}
COUNTED: dict[str, dict[str, bool]] = {  # the labelling habit of each domain, see the module's docstring
    "square": {"person": True, "far": True, "umbrella": True, "ball": False, "silhouette": False},
    "street": {"person": True, "far": False, "umbrella": False, "ball": False, "silhouette": False},
    "stadium": {"person": True, "ball": True},
    "station": {"person": True, "silhouette": True},
}

HEAD = 0.28  # metres across, hair included: the unit in which figures are drawn
EYE = 1.6  # metres from the ground to the centre of a standing person's head


# ---------------------------------------------------------------------------------------------------------- camera
@dataclass(frozen=True)
class Camera:
    """A pinhole ``up`` metres above the origin, looking along +z, pitched down by ``tilt`` radians; ``focal`` in pixels."""

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


# --------------------------------------------------------------------------------------------------------- figures
# A figure is drawn once, large, as a map of parts; a resized copy keeps the shaded coverage of each part, so that any
# palette [6, 3] colours it with one small matrix product.
HAIR, SKIN, TOP, LEGS, DARK, ACCENT = range(1, 7)
SHADOW = 7
PART_SCALE = 170.0  # shading 1.0 as stored in 8 bits
VARIANTS = 24
STEP = 1.07  # ratio between neighbouring sizes in the cache


class Sprite(NamedTuple):
    """A figure at one size: opacity [h, w, 1], shaded coverage of the parts [h*w, 6], solid mask [h, w], anchor (x, y)."""

    alpha: np.ndarray
    parts: np.ndarray
    solid: np.ndarray
    anchor: tuple[float, float]


class Drawing(NamedTuple):
    """A figure drawn large: part indices uint8 [h, w], shading float32 [h, w], anchor and pixels per head."""

    index: np.ndarray
    shade: np.ndarray
    anchor: tuple[float, float]
    unit: float


def _grid(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]


def _person(variant: int, body: float, seated: bool, shadow: bool) -> Drawing:
    """A person whose feet are ``body`` heads below the head's centre in the picture (6 = seen level, less = from above)."""
    rng = np.random.default_rng([11, variant])
    unit = 40.0
    k = body / 5.7  # foreshortening of the body
    cx, cy = 2.1 * unit, 0.8 * unit
    reach = 2.6 if shadow else 0.0
    width, height = int((4.2 + reach) * unit), int((0.8 + body + 0.5) * unit)
    if seated:
        height = int((0.8 + 2.6 * max(k, 0.6) + 0.2) * unit)
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)

    def at(x: float, y: float) -> tuple[float, float]:  # heads from the head's centre -> pixels
        return cx + x * unit, cy + y * unit

    def ellipse(x: float, y: float, rx: float, ry: float, part: int) -> None:
        draw.ellipse([*at(x - rx, y - ry), *at(x + rx, y + ry)], fill=part)

    shoulder, hip, foot = 0.3 + 0.5 * k, max(2.9 * k, 1.2), body
    build = rng.uniform(0.85, 1.12)
    back = rng.random() < 0.45  # seen from behind
    lean = rng.uniform(-0.12, 0.12)
    if shadow and not seated:
        draw.polygon([at(-0.4, foot), at(0.4, foot + 0.15), at(4.3, foot - 0.5 * k - 0.3), at(3.9, foot - 0.9 * k - 0.3)], fill=SHADOW)
        ellipse(0.2, foot, 0.8, 0.28, SHADOW)
    elif not seated:
        ellipse(0, foot, 0.9, 0.3, SHADOW)
    if not seated:
        stance = rng.uniform(0.05, 0.55)
        lift = rng.uniform(0, 0.35) * k
        bare = rng.random() < 0.2
        for side, raised in ((-1, 0.0), (1, lift)):
            x = side * (0.18 + stance * 0.6)
            draw.polygon(
                [at(side * 0.02 + lean - 0.3, hip - 0.2), at(side * 0.02 + lean + 0.36, hip - 0.2),
                 at(x + 0.2, foot - raised), at(x - 0.2, foot - raised)],
                fill=SKIN if bare else LEGS,
            )  # fmt: skip
            ellipse(x + 0.05, foot - raised, 0.26, 0.14, DARK)
        if bare:  # shorts or a skirt
            spread = rng.uniform(0.55, 0.8)
            draw.polygon([at(-0.45 + lean, hip - 0.4), at(0.45 + lean, hip - 0.4), at(spread, hip + 1.2 * k), at(-spread, hip + 1.2 * k)], fill=LEGS)
    elif seated:
        draw.rectangle([*at(-0.75, hip - 0.1), *at(0.75, hip + 1.0)], fill=LEGS)
    wide = 0.92 * build
    ellipse(0, shoulder + 0.35 * k, wide, 0.42 * max(k, 0.7), TOP)
    draw.polygon([at(-wide, shoulder + 0.35 * k), at(wide, shoulder + 0.35 * k), at(0.62 * build + lean, hip + 0.15), at(-0.62 * build + lean, hip + 0.15)], fill=TOP)
    sleeve = TOP if rng.random() < 0.6 else SKIN
    for side in (-1, 1):
        pose = rng.random()
        if pose < 0.68:
            elbow, hand = (side * (wide + 0.12), shoulder + 1.3 * k), (side * (wide + rng.uniform(-0.1, 0.15)), shoulder + 2.3 * k)
        elif pose < 0.88:
            elbow, hand = (side * (wide + 0.18), shoulder + 1.25 * k), (side * 0.25, shoulder + 1.35 * k)
        else:
            elbow, hand = (side * (wide + 0.35), shoulder + 0.1 * k), (side * (wide + 0.25), shoulder - 1.1 * k)
        draw.line([at(side * (wide - 0.15), shoulder + 0.35 * k), at(*elbow)], fill=TOP, width=int(0.36 * unit))
        draw.line([at(*elbow), at(*hand)], fill=sleeve, width=int(0.28 * unit))
        ellipse(*hand, 0.15, 0.15, SKIN)
    extra = rng.random()
    if extra < 0.25 and back:
        draw.rounded_rectangle([*at(-0.5, shoulder + 0.25 * k), *at(0.5, shoulder + 1.7 * k)], radius=0.25 * unit, fill=ACCENT)
    elif extra < 0.4:
        draw.line([at(-0.6, shoulder + 0.2 * k), at(0.6, hip - 0.3)], fill=ACCENT, width=int(0.14 * unit))
    elif extra < 0.55:
        draw.rectangle([*at(-wide * 0.8, shoulder + 1.0 * k), *at(wide * 0.8, shoulder + 1.35 * k)], fill=ACCENT)
    if k > 0.5:
        draw.rectangle([*at(-0.17, 0.3), *at(0.17, shoulder + 0.15)], fill=SKIN)
    long = rng.random() < 0.35
    if long:
        draw.rounded_rectangle([*at(-0.47, -0.3), *at(0.47, 0.75 * max(k, 0.6))], radius=0.3 * unit, fill=HAIR)
    ellipse(0, 0, 0.42, 0.5, HAIR)
    if not back:
        ellipse(rng.uniform(-0.1, 0.1), 0.12 + 0.16 * (1 - k), 0.35, 0.36, SKIN)
        draw.line([at(-0.15, 0.08), at(0.17, 0.08)], fill=HAIR, width=3)
    if rng.random() < 0.15:
        draw.chord([*at(-0.48, -0.56), *at(0.48, 0.36)], 180, 360, fill=ACCENT)

    index = np.asarray(image)
    x, y = _grid(width, height)
    shade = 1.08 + 0.30 * np.clip(-(x - cx) / (1.1 * unit), -1, 1) + 0.06 * np.sin(x * 0.31 + y * 0.17 + variant)
    shade = shade * np.clip(1.1 - 0.1 * (y - cy) / (2.5 * unit), 0.7, 1.1)
    radius2 = ((x - cx) / (0.5 * unit)) ** 2 + ((y - cy) / (0.55 * unit)) ** 2
    sphere = 1.3 - 0.35 * ((x - cx + 0.2 * unit) ** 2 + (y - cy + 0.25 * unit) ** 2) / (0.5 * unit) ** 2
    shade = np.where(radius2 < 1.1, np.clip(sphere, 0.45, 1.3), shade)
    chin = ((x - cx) / (0.6 * unit)) ** 2 + ((y - cy - 0.75 * unit) / (0.35 * unit)) ** 2  # the head's shadow on the chest
    shade = np.where((radius2 >= 1.1) & (chin < 1), shade * 0.7, shade)
    rim = np.asarray(Image.fromarray(((index > 0) & (index < SHADOW)).astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(4)))
    return Drawing(index, (shade * (0.55 + 0.45 * rim / 255.0)).astype(np.float32), (cx, cy), unit)


def _ball(variant: int, body: float, seated: bool, shadow: bool) -> Drawing:
    """A dark round thing of a head's size."""
    unit = 40.0
    image = Image.new("L", (60, 60))
    ImageDraw.Draw(image).ellipse([13, 10, 47, 50], fill=HAIR)
    x, y = _grid(60, 60)
    shade = np.clip(1.4 - ((x - 24) ** 2 + (y - 22) ** 2) / 480.0, 0.4, 1.4) + 0.08 * np.sin(x * 0.5 + variant) * np.sin(y * 0.4)
    return Drawing(np.asarray(image), shade.astype(np.float32), (30.0, 30.0), unit)


def _umbrella(variant: int, body: float, seated: bool, shadow: bool) -> Drawing:
    """A dome of panels, 1.2 m across, on a short stick; seen flatter when the camera is low."""
    rng = np.random.default_rng([12, variant])
    unit, k = 24.0, body / 5.7
    rx, ry = 2.2 * unit, (1.05 + 0.9 * (1 - k)) * unit
    width, height = int(2 * rx + 8), int(2.3 * ry + 1.4 * unit)
    cx, cy = width / 2, ry + 4
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    draw.line([cx, cy, cx, height - 2], fill=DARK, width=4)
    draw.chord([cx - rx, cy - ry, cx + rx, cy + ry], 170, 370, fill=TOP)
    draw.chord([cx - rx, cy - 0.45 * ry * (1 - k), cx + rx, cy + 0.9 * ry * (1 - k) + 4], 0, 180, fill=TOP)
    index = np.asarray(image).copy()
    x, y = _grid(width, height)
    angle = np.arctan2(y - (cy - 0.75 * ry), (x - cx) * 0.8)
    panel = np.floor(angle / np.pi * 8 + rng.random()).astype(int) % 2
    index[(index == TOP) & (panel == 1) & (rng.random() < 0.5)] = ACCENT
    crease = np.abs((angle / np.pi * 8) % 1 - 0.5) * 0.4
    shade = 1.15 - 0.35 * (x - cx) / rx - 0.25 * np.clip((y - cy) / ry, -1, 1) - crease
    return Drawing(index, np.clip(shade, 0.3, 1.4).astype(np.float32), (cx, cy - 0.3 * ry), unit)


def _car(variant: int, body: float, seated: bool, shadow: bool) -> Drawing:
    rng = np.random.default_rng([13, variant])
    unit = 13.0
    length, tall = 15.5 * unit, rng.uniform(4.8, 7.0) * unit
    image = Image.new("L", (int(length + 10), int(tall + 12)))
    draw = ImageDraw.Draw(image)
    base = tall + 2
    draw.ellipse([0, base - 7, length + 9, base + 9], fill=SHADOW)
    draw.rounded_rectangle([5, base - 0.62 * tall, length + 3, base - 6], radius=14, fill=TOP)
    front, rear = rng.uniform(0.18, 0.3), rng.uniform(0.78, 0.95)
    draw.polygon([(front * length, base - 0.6 * tall), ((front + 0.12) * length, base - tall), ((rear - 0.07) * length, base - tall), (rear * length, base - 0.6 * tall)], fill=TOP)
    for a, b in ((front + 0.05, 0.5), (0.53, rear - 0.05)):
        draw.polygon([(a * length, base - 0.62 * tall), (max(a, front + 0.12) * length, base - 0.94 * tall), (min(b, rear - 0.09) * length, base - 0.94 * tall), (b * length, base - 0.62 * tall)], fill=DARK)
    for x in (0.2, 0.8):
        draw.ellipse([x * length - 16, base - 27, x * length + 16, base + 4], fill=DARK)
        draw.ellipse([x * length - 8, base - 19, x * length + 8, base - 4], fill=ACCENT)
    draw.rectangle([6, base - 0.5 * tall, 14, base - 0.4 * tall], fill=ACCENT)
    x, y = _grid(*image.size)
    shade = np.clip(1.35 - 0.7 * (y / base), 0.5, 1.3) + 0.05 * np.sin(x * 0.05 + variant)
    return Drawing(np.asarray(image), shade.astype(np.float32), (length / 2 + 5, base), unit)


def _tree(variant: int, body: float, seated: bool, shadow: bool) -> Drawing:
    rng = np.random.default_rng([14, variant])
    unit, size = 9.0, 170
    image = Image.new("L", (size, size + 60))
    draw = ImageDraw.Draw(image)
    base = size + 54
    draw.ellipse([50, base - 8, size - 30, base + 5], fill=SHADOW)
    draw.polygon([(size / 2 - 7, base), (size / 2 + 7, base), (size / 2 + 3, 90), (size / 2 - 3, 90)], fill=DARK)
    for _ in range(260):
        radius, angle, leaf = 66 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi), rng.uniform(4, 13)
        x, y = size / 2 + radius * np.cos(angle), 82 + 0.95 * radius * np.sin(angle)
        draw.ellipse([x - leaf, y - leaf, x + leaf, y + leaf], fill=int(rng.choice([TOP, TOP, LEGS, ACCENT])))
    x, y = _grid(size, size + 60)
    shade = 1.15 - 0.3 * (x - size / 2) / 80 - 0.35 * (y - 80) / 80 + rng.normal(0, 0.16, (size + 60, size))
    return Drawing(np.asarray(image), np.clip(shade, 0.25, 1.5).astype(np.float32), (size / 2, base), unit)


def _lamp(variant: int, body: float, seated: bool, shadow: bool) -> Drawing:
    """A street lamp or a sign on a pole: a round or square head-like thing, but high up."""
    rng = np.random.default_rng([15, variant])
    unit, tall = 12.0, int(rng.uniform(9, 15) * 12)
    image = Image.new("L", (64, tall + 44))
    draw = ImageDraw.Draw(image)
    base = tall + 38
    draw.ellipse([18, base - 3, 46, base + 5], fill=SHADOW)
    draw.rectangle([30, 20, 34, base], fill=DARK)
    if variant % 3 == 0:
        draw.rectangle([12, 4, 52, 34], fill=ACCENT)
        draw.rectangle([18, 10, 46, 14], fill=TOP)
        draw.rectangle([18, 20, 40, 24], fill=TOP)
    elif variant % 3 == 1:
        draw.ellipse([21, 8, 43, 30], fill=ACCENT)
    else:
        for x in (18, 46):
            draw.line([32, 34, x, 26], fill=DARK, width=3)
            draw.ellipse([x - 9, 8, x + 9, 26], fill=TOP)
    x, y = _grid(*image.size)
    return Drawing(np.asarray(image), np.clip(1.2 - 0.02 * (x - 26) + 0 * y, 0.6, 1.3).astype(np.float32), (32.0, base), unit)


def _box(variant: int, body: float, seated: bool, shadow: bool) -> Drawing:
    """A kiosk, ticket machine, pillar or bin: a lit top above a face with some panels."""
    rng = np.random.default_rng([16, variant])
    unit = 14.0
    wide, tall = [(60, 95), (34, 230), (30, 50), (120, 110), (90, 45), (44, 90)][variant % 6]
    top = int(wide * rng.uniform(0.15, 0.3))
    image = Image.new("L", (wide + 12, tall + top + 8))
    draw = ImageDraw.Draw(image)
    base = tall + top
    draw.ellipse([0, base - 6, wide + 11, base + 7], fill=SHADOW)
    draw.rectangle([5, 2, wide + 5, top + 2], fill=LEGS)
    draw.rectangle([5, top, wide + 5, base], fill=TOP)
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(8, wide * 0.6), rng.uniform(top + 4, top + tall * 0.5)
        draw.rectangle([x, y, x + rng.uniform(8, wide * 0.4), y + rng.uniform(6, tall * 0.3)], fill=int(rng.choice([DARK, ACCENT])))
    x, y = _grid(*image.size)
    return Drawing(np.asarray(image), (1.1 - 0.3 * x / wide - 0.15 * y / base).astype(np.float32), (wide / 2 + 5, base), unit)


DRAW: dict[str, Callable[[int, float, bool, bool], Drawing]] = {
    "person": _person, "ball": _ball, "umbrella": _umbrella, "car": _car, "tree": _tree, "lamp": _lamp, "box": _box,
}  # fmt: skip


@functools.cache
def _drawing(shape: str, variant: int, body: int, seated: bool, shadow: bool) -> Drawing:
    return DRAW[shape](variant, body / 2, seated, shadow)


@functools.cache
def _sprite(shape: str, variant: int, body: int, seated: bool, shadow: bool, mirror: bool, level: int) -> Sprite:
    """The figure at ``STEP ** level`` pixels per head; ``body`` in half heads."""
    drawing = _drawing(shape, variant, body, seated, shadow)
    scale = STEP**level / drawing.unit
    index, shade = drawing.index, drawing.shade
    height, width = index.shape
    new = (max(1, round(width * scale)), max(1, round(height * scale)))

    def shrink(plane: np.ndarray) -> np.ndarray:
        image = Image.fromarray(plane.astype(np.uint8)).resize(new, Image.Resampling.BOX)
        return np.asarray(image, np.float32)

    parts = np.stack([shrink(np.minimum((index == part) * shade * PART_SCALE, 255)) / PART_SCALE for part in range(1, 7)], -1)
    cover = shrink((index > 0) * np.where(index == SHADOW, 0.45, 1.0) * 255) / 255
    x, y = drawing.anchor[0] * new[0] / width, drawing.anchor[1] * new[1] / height
    if mirror:
        parts, cover, x = parts[:, ::-1], cover[:, ::-1], new[0] - x
    solid = cover > 0.5
    return Sprite(np.ascontiguousarray(cover)[..., None], np.ascontiguousarray(parts).reshape(-1, 6), solid, (x, y))


# --------------------------------------------------------------------------------------------------------- palettes
def _colours(rng: Generator, n: int, saturation: float = 1.0) -> np.ndarray:
    """Random colours [n, 3] as clothes have them: many dark, white and gray ones, some bright."""
    grey = rng.choice([0.06, 0.12, 0.2, 0.35, 0.55, 0.8], (n, 1)) * rng.uniform(0.8, 1.15, (n, 1))
    hue, bright = rng.random((n, 1)), rng.uniform(0.2, 0.85, (n, 1))
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - np.array([[0.0, 1 / 3, 2 / 3]])))
    depth = rng.uniform(0.2, 1.0, (n, 1)) * saturation
    return np.where(rng.random((n, 1)) < 0.55, grey, bright * (1 - depth + depth * wheel))


def _people(rng: Generator, n: int, team: np.ndarray | None = None) -> np.ndarray:
    """Palettes [n, 6, 3] of ordinary people; ``team`` colours a part of the tops."""
    palette = np.empty((n, 6, 3))
    hair = np.array([[0.05, 0.045, 0.04], [0.09, 0.065, 0.05], [0.2, 0.12, 0.07], [0.45, 0.33, 0.18], [0.42, 0.41, 0.4]])
    skin = np.array([[0.86, 0.66, 0.54], [0.78, 0.57, 0.44], [0.62, 0.42, 0.3], [0.36, 0.23, 0.16]])
    palette[:, 0] = hair[rng.choice(5, n, p=[0.4, 0.25, 0.17, 0.1, 0.08])]
    palette[:, 1] = skin[rng.integers(0, 4, n)] * rng.uniform(0.85, 1.1, (n, 1))
    palette[:, 2] = _colours(rng, n)
    denim = np.array([[0.12, 0.17, 0.28], [0.06, 0.06, 0.07], [0.4, 0.34, 0.26], [0.25, 0.25, 0.27]])
    palette[:, 3] = denim[rng.integers(0, 4, n)] * rng.uniform(0.8, 1.2, (n, 1))
    palette[:, 4] = rng.uniform(0.04, 0.15, (n, 1))
    palette[:, 5] = _colours(rng, n)
    if team is not None:
        fan = rng.random(n) < 0.6
        palette[fan, 2] = team * rng.uniform(0.8, 1.15, (int(fan.sum()), 1))
    return palette


def _balls(rng: Generator, n: int) -> np.ndarray:
    """Palettes of dark balls: the same in every domain (stone or hair)."""
    tone = rng.choice([0.06, 0.1, 0.15, 0.2], (n, 1, 1)) * rng.uniform(0.8, 1.2, (n, 1, 1))
    return np.broadcast_to(tone * np.array([1.0, 0.92, 0.85]), (n, 6, 3))


def _silhouettes(rng: Generator, n: int) -> np.ndarray:
    """Palettes of uniformly dark figures: the same in every domain (bronze, a dummy, or a person against the light)."""
    return np.broadcast_to(rng.uniform(0.1, 0.22, (n, 1, 1)), (n, 6, 3)) * rng.uniform(0.9, 1.1, (n, 6, 1))


def _objects(rng: Generator, n: int) -> np.ndarray:
    palette = np.stack([_colours(rng, n) for _ in range(6)], 1)
    palette[:, 4] = rng.uniform(0.05, 0.14, (n, 1))
    return palette


def _trees(rng: Generator, n: int) -> np.ndarray:
    green = np.array([0.2, 0.32, 0.12]) * rng.uniform(0.7, 1.3, (n, 1)) * rng.uniform(0.85, 1.15, (n, 3))
    palette = np.broadcast_to(green[:, None], (n, 6, 3)) * np.array([1, 1, 1, 0.7, 1, 1.3])[None, :, None]
    palette[:, 4] = [0.16, 0.12, 0.09]
    return palette


# --------------------------------------------------------------------------------------------------------- textures
@functools.cache
def _noise_tables() -> tuple[np.ndarray, np.ndarray]:
    """White noise in [0, 1) and smooth noise of mean 0 and deviation 1, both float32 [512, 512] and periodic."""
    rng = np.random.default_rng(2020)
    white = rng.random((512, 512), dtype=np.float32)
    smooth = np.zeros((512, 512), np.float32)
    for octave in range(1, 7):
        cells = 512 >> octave
        layer = rng.standard_normal((cells, cells), dtype=np.float32)
        tiled = Image.fromarray(np.pad(layer, 2, mode="wrap")).resize((512 + (4 << octave),) * 2, Image.Resampling.BICUBIC)
        pad = 2 << octave
        smooth += np.asarray(tiled)[pad : pad + 512, pad : pad + 512] * 2.0 ** (octave - 6)
    return white, smooth / smooth.std()


def _lookup(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return table[np.floor(y).astype(np.int32) & 511, np.floor(x).astype(np.int32) & 511]


def _smooth(x: np.ndarray, y: np.ndarray, period: float, rng: Generator) -> np.ndarray:
    """Smooth noise whose features are about ``period`` metres."""
    dx, dy = rng.uniform(0, 512, 2).astype(np.float32)
    scale = np.float32(16 / period)
    return _lookup(_noise_tables()[1], x * scale + dx, y * scale + dy)


def _joints(x: np.ndarray, period: float, width: float, pixel: np.ndarray) -> np.ndarray:
    """Coverage of lines every ``period`` metres: at least a pixel wide, but fainter then, so that nothing aliases."""
    fade = np.clip(period / (3 * pixel) - 0.3, 0, 1) * np.minimum(1, width / pixel)
    return (np.mod(x, period) < np.maximum(width, pixel)) * fade


def _ground(x: np.ndarray, z: np.ndarray, pixel: np.ndarray, rng: Generator, style: str) -> np.ndarray:
    """Colour [H, W, 3] of the floor at ``x``, ``z`` metres; ``pixel`` is a pixel's extent there."""
    white, _ = _noise_tables()
    tone = {
        "slabs": rng.uniform(0.38, 0.68), "cobbles": rng.uniform(0.25, 0.5), "asphalt": rng.uniform(0.2, 0.42),
        "grass": rng.uniform(0.28, 0.42), "tiles": rng.uniform(0.45, 0.7),
    }[style]  # fmt: skip
    tint = np.array([0.75, 1.05, 0.5]) if style == "grass" else 1 + rng.uniform(-0.07, 0.07, 3)
    light = 1 + rng.uniform(0.03, 0.1) * _smooth(x, z, 6.0, rng)
    grain = np.clip(0.15 / pixel, 0.25, 1)
    amount = {"grass": 0.13, "asphalt": 0.05, "cobbles": 0.06}.get(style, 0.03) * rng.uniform(0.6, 1.6)
    light = light + amount * grain * _smooth(x, z, 0.5, rng)
    if style in ("slabs", "cobbles", "tiles"):
        period = {"slabs": rng.uniform(0.5, 1.6), "cobbles": rng.uniform(0.25, 0.4), "tiles": rng.uniform(0.6, 1.2)}[style]
        row = np.floor(z / period)
        column = np.floor(x / period + 0.5 * (row % 2) * (style != "tiles"))
        visible = np.clip(period / (2 * pixel) - 0.3, 0, 1)
        light = light + rng.uniform(0.05, 0.3) * (_lookup(white, column, row) - 0.5) * visible
        depth = rng.uniform(0.1, 0.45)
        line = np.maximum(_joints(z, period, 0.04, pixel), _joints(x + 0.5 * period * (row % 2) * (style != "tiles"), period, 0.04, pixel))
        light = light * (1 - depth * line)
    return (tone * light)[..., None].astype(np.float32) * np.asarray(tint, np.float32)


def _facade(s: np.ndarray, h: np.ndarray, pixel: np.ndarray, rng: Generator, roofs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Colour [H, W, 3] and presence [H, W] of a row of houses along ``s`` metres, windows, shops and all."""
    white, _ = _noise_tables()
    wide, pane, storey = rng.uniform(7, 16), rng.uniform(1.5, 3.4), rng.uniform(2.9, 3.8)
    shift = int(rng.integers(0, 500))
    house = np.floor(s / wide) + shift
    roof = roofs[0] + (roofs[1] - roofs[0]) * _lookup(white, house, house * 0 + 3)
    hue = np.stack([_lookup(white, house, house * 0 + i) for i in (11, 12, 13)], -1)
    colour = (rng.uniform(0.3, 0.55) + 0.25 * hue) * np.array([1.08, 1.0, 0.9], np.float32)
    colour = colour * (1 + 0.05 * _smooth(s, h, 1.5, rng)[..., None])
    column, row = np.floor(s / pane), np.floor(h / storey)
    inside = (np.mod(s / pane, 1) > 0.28) & (np.mod(s / pane, 1) < 0.75) & (np.mod(h / storey, 1) > 0.3) & (np.mod(h / storey, 1) < 0.82)
    glass = 0.08 + 0.5 * _lookup(white, column + shift, row) ** 3
    visible = np.clip(pane / (3 * pixel) - 0.3, 0, 1)
    shop = h < storey
    window = np.where(shop, (np.mod(s / pane, 1) > 0.1) & (h > 0.5) & (h < storey * 0.75), inside) * visible
    pane_colour = glass[..., None] * np.array([0.85, 0.95, 1.1], np.float32)
    goods = np.stack([_lookup(white, column * 3 + np.floor(h * 2) + shift, house * 0 + i) for i in (21, 22, 23)], -1)
    pane_colour = np.where(shop[..., None], 0.12 + 0.45 * goods * _lookup(white, column, row + 9)[..., None], pane_colour)
    colour = colour + (pane_colour - colour) * window[..., None]
    return colour.astype(np.float32), h < roof


def _sky(cam: Camera, rng: Generator) -> np.ndarray:
    a, dy, _ = cam.rays()
    top = np.array([0.45, 0.6, 0.85]) * rng.uniform(0.75, 1.1)
    gray = rng.random()
    top = top + (0.75 - top) * gray
    rise = np.clip(dy * 2.2, 0, 1)[..., None]
    cloud = 0.06 * np.clip(_smooth(a + 0 * dy, dy * 2.5 + 0 * a, 0.5, rng), -1, 2)[..., None]
    return (0.86 * (1 - rise) + top * rise + cloud).astype(np.float32)


@dataclass(frozen=True)
class Walls:
    """Vertical planes around the scene: ``back`` at that z, ``left``/``right`` at those x (None = open)."""

    back: float
    left: float | None
    right: float | None
    roofs: tuple[float, float]


def _world(cam: Camera, rng: Generator, floor: str, walls: Walls) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ray-cast picture float32 [H, W, 3] of floor, walls and sky; also x, z and the mask of the floor's pixels."""
    a, dy, dz = cam.rays()
    far = np.float32(500)
    t_floor = np.where(dy < -1e-3, cam.up / np.maximum(-dy, 1e-3), far).astype(np.float32) + 0 * a
    x, z = np.clip(t_floor * a, -200, 200), np.clip(t_floor * dz, 0, 200)
    pixel = np.maximum(t_floor / cam.focal, t_floor**2 / (cam.focal * cam.up) * 0.7)
    canvas = _sky(cam, rng)
    nearest = np.full(canvas.shape[:2], far, np.float32)
    planes = [(walls.back / dz + 0 * a, 0)]
    if walls.left is not None:
        planes.append((np.where(a < -1e-3, walls.left / np.minimum(a, -1e-3), far).astype(np.float32) + 0 * dy, 1))
    if walls.right is not None:
        planes.append((np.where(a > 1e-3, walls.right / np.maximum(a, 1e-3), far).astype(np.float32) + 0 * dy, 1))
    for t, side in planes:
        h = cam.up + t * dy
        hit = (t < nearest) & (h > 0) & (t < 300)
        if not hit.any():
            continue
        along = np.clip(t * dz if side else t * a, -200, 200) + 57 * side
        # only the rows that hold this wall are worth painting
        rows = np.flatnonzero(hit.any(1))
        cut = slice(rows[0], rows[-1] + 1)
        colour, there = _facade(along[cut], np.clip(h[cut], 0, 100), t[cut] / cam.focal * (2.5 if side else 1), rng, walls.roofs)
        take = hit[cut] & there
        canvas[cut][take] = colour[take] * (0.85 if side else 1.0)
        nearest[cut][take] = t[cut][take]
    on_floor = (t_floor < nearest) & (t_floor < far)
    rows = np.flatnonzero(on_floor.any(1))
    cut = slice(rows[0], rows[-1] + 1)
    colour = _ground(x[cut], z[cut], pixel[cut], rng, floor)
    canvas[cut][on_floor[cut]] = colour[on_floor[cut]]
    return canvas, x, z, on_floor


# ----------------------------------------------------------------------------------------------------------- scenes
class Thing(NamedTuple):
    """One figure in the picture: what `COUNTED` calls it, its look, and where it is (pixels, depth in metres)."""

    kind: str
    shape: str
    variant: int
    body: int
    seated: bool
    palette: np.ndarray
    u: float
    v: float
    size: float
    depth: float


@dataclass
class Scene:
    cam: Camera
    canvas: np.ndarray
    things: list[Thing]
    haze: float = 0.0  # share of haze per 100 m
    sun: bool = False
    mirror: bool = False


def _add(scene: Scene, rng: Generator, kind: str, shape: str, x: np.ndarray, z: np.ndarray, palette: np.ndarray, *,
         centre: float = 0.0, base: np.ndarray | float = 0.0, seated: bool = False) -> None:  # fmt: skip
    """Put figures at ``x``, ``z`` metres on a ground of height ``base``; their anchor is ``centre`` metres above it."""
    n = len(x)
    ground = np.zeros(n) + base
    tall = centre * (rng.uniform(0.9, 1.07, n) if shape == "person" and not seated else 1.0)
    u, v, depth = scene.cam.project(x, ground + tall, z)
    _, feet, _ = scene.cam.project(x, ground, z)
    size = scene.cam.focal * HEAD / np.maximum(depth, 0.1)
    # what of the body is seen, in heads: the camera's elevation shortens it
    body = (feet - v) / size if shape == "person" and not seated else 5.7 * np.cos(scene.cam.tilt) + 0 * v
    body = np.clip(np.round(body * 2), 4, 13).astype(int)
    variant = rng.integers(0, VARIANTS, n)
    for i in np.flatnonzero(depth > 0.5):
        scene.things.append(
            Thing(kind, shape, int(variant[i]), int(body[i]), seated, palette[i], float(u[i]), float(v[i]), float(size[i]), float(depth[i]))
        )  # fmt: skip


def _spots(cam: Camera, rng: Generator, n: int, *, near: float, far: float, left: float, right: float, pitch: float = 0.45,
           clump: float = 1.5, patch: float = 5.0) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """At most ``n`` places on the ground whose heads lie in the picture: denser here, empty there, never on each other."""
    z, x = np.meshgrid(np.arange(near, far, pitch), np.arange(left, right, pitch), indexing="ij")
    x, z = x.ravel(), z.ravel()
    u, v, depth = cam.project(x, np.full_like(x, EYE), z)
    seen = (u > 2) & (u < cam.width - 2) & (v > 2) & (v < cam.height - 2) & (depth > 0.5)
    x, z, depth = x[seen], z[seen], depth[seen]
    if not len(x):
        return x, z
    # the far ground holds many more square metres per pixel row: thin it out to fill the picture evenly
    weight = np.exp(clump * np.clip(_smooth(x, z, patch, rng), -2, 2)) / depth
    n = min(n, int(0.7 * len(x)))
    chosen = rng.choice(len(x), n, replace=False, p=weight / weight.sum())
    jitter = rng.uniform(-0.4, 0.4, (2, n)) * pitch
    return x[chosen] + jitter[0], z[chosen] + jitter[1]


def _long_tail(rng: Generator, median: float, spread: float, low: int, high: int) -> int:
    return int(np.clip(round(median * np.exp(spread * rng.standard_normal())), low, high))


def _square(rng: Generator) -> Scene:
    """A dense crowd on a square, seen from a balcony or a crane."""
    cam = Camera(512, 384, rng.uniform(470, 640), np.radians(rng.uniform(18, 32)), rng.uniform(7, 13))
    far = cam.focal * HEAD / 4.8 / np.cos(cam.tilt) - cam.up * np.tan(cam.tilt)  # heads shrink to 4.8 px there
    back = far * rng.uniform(0.95, 1.1)
    floor = rng.choice(["slabs", "cobbles", "asphalt", "grass"], p=[0.4, 0.3, 0.15, 0.15])
    canvas, x, z, on_floor = _world(cam, rng, floor, Walls(back, None, None, (5, 18)))
    sun = rng.random() < 0.5
    if sun and rng.random() < 0.6:  # the shadow of a building across the square
        angle, reach = rng.uniform(-0.6, 0.6), rng.uniform(0.3, 0.8) * far
        canvas[on_floor & (z * np.cos(angle) + x * np.sin(angle) > reach)] *= 0.55
    scene = Scene(cam, canvas, [], haze=rng.uniform(0, 0.5), sun=sun, mirror=rng.random() < 0.5)
    half = 0.6 * cam.width / cam.focal * far + 2
    area = {"near": 2.0, "far": far - 0.5, "left": -half, "right": half}
    n = _long_tail(rng, 130, 0.85, 15, 620)
    spots = _spots(cam, rng, n, **area, clump=rng.uniform(0.5, 2.2), patch=rng.uniform(3, 9))
    n = len(spots[0])
    under = rng.random(n) < (rng.uniform(0.15, 0.45) if rng.random() < 0.3 else rng.uniform(0, 0.04))  # a rainy day
    _add(scene, rng, "umbrella", "umbrella", spots[0][under], spots[1][under], _objects(rng, int(under.sum())), centre=1.9)
    open_air = ~under
    _add(scene, rng, "person", "person", spots[0][open_air], spots[1][open_air], _people(rng, int(open_air.sum())), centre=EYE)
    _bollards(scene, rng, rng.integers(0, 5), near=3, far=far - 1, half=half, step=(0.9, 2.0), length=(5, 14))
    for kind, shape, paint, most in (("lamp", "lamp", _objects, 6), ("tree", "tree", _trees, 4), ("car", "car", _objects, 4), ("box", "box", _objects, 5)):
        place = _spots(cam, rng, int(rng.integers(0, most)), **area, pitch=2.5)
        _add(scene, rng, kind, shape, *place, paint(rng, len(place[0])))
    place = _spots(cam, rng, int(rng.integers(0, 8)), **area, pitch=1.2, clump=2.0)
    _add(scene, rng, "silhouette", "person", *place, _silhouettes(rng, len(place[0])), centre=EYE)
    return scene


def _bollards(scene: Scene, rng: Generator, chains: int, *, near: float, far: float, half: float, step: tuple[float, float],
              length: tuple[int, int]) -> None:  # fmt: skip
    """Chains of stone balls along lines on the ground."""
    for _ in range(chains):
        n, gap = int(rng.integers(*length)), rng.uniform(*step)
        angle = rng.choice([0.0, np.pi / 2]) + rng.uniform(-0.2, 0.2)
        along = gap * np.arange(n)
        x = rng.uniform(-half, half) * 0.6 + along * np.cos(angle)
        z = rng.uniform(near, far) + along * np.sin(angle)
        keep = (z > near) & (z < far)
        _add(scene, rng, "ball", "ball", x[keep], z[keep], _balls(rng, int(keep.sum())), centre=0.16)


def _street(rng: Generator) -> Scene:
    """Few, large people in a street of shops, photographed from eye level."""
    width, height = (512, 384) if rng.random() < 0.65 else (384, 512)
    cam = Camera(width, height, rng.uniform(440, 580), np.radians(rng.uniform(1, 7)), rng.uniform(1.7, 3.0))
    left, right = -rng.uniform(4, 8), rng.uniform(4, 8)
    crossing = rng.uniform(15, 18)  # where the annotated part of the street ends
    end = cam.focal * HEAD / 4.6
    walls = Walls(end + 2, left if rng.random() < 0.85 else None, right if rng.random() < 0.85 else None, (5, 15))
    canvas, x, z, on_floor = _world(cam, rng, rng.choice(["slabs", "cobbles", "asphalt"], p=[0.45, 0.25, 0.3]), walls)
    if rng.random() < 0.5:  # a zebra crossing
        start = rng.uniform(5, 12)
        canvas[on_floor & (z > start) & (z < start + 3) & (np.mod(x, 1.0) < 0.5)] = 0.8
    sun = rng.random() < 0.5
    if sun:
        canvas[on_floor & (x * rng.choice([-1, 1]) > rng.uniform(-2, 3))] *= 0.6
    scene = Scene(cam, canvas, [], haze=rng.uniform(0, 0.3), sun=sun, mirror=rng.random() < 0.5)
    lane = {"left": left + 0.5, "right": right - 0.5}
    n = _long_tail(rng, 9, 0.9, 1, 70)
    place = _spots(cam, rng, n, near=3.2, far=crossing, **lane, pitch=0.6, clump=rng.uniform(0.3, 1.5), patch=3.0)
    _add(scene, rng, "person", "person", *place, _people(rng, len(place[0])), centre=EYE)
    place = _spots(cam, rng, _long_tail(rng, 9, 1.0, 0, 45), near=0.87 * end, far=end + 1, **lane, pitch=0.5)
    _add(scene, rng, "far", "person", *place, _people(rng, len(place[0])), centre=EYE)
    place = _spots(cam, rng, int(rng.integers(0, 7)), near=4, far=14, **lane, pitch=2.0)
    _add(scene, rng, "umbrella", "umbrella", *place, _objects(rng, len(place[0])), centre=1.9)
    place = _spots(cam, rng, int(rng.integers(0, 6)), near=3.5, far=13, **lane, pitch=1.0)
    _add(scene, rng, "silhouette", "person", *place, _silhouettes(rng, len(place[0])), centre=EYE)
    _bollards(scene, rng, rng.integers(0, 4), near=3.5, far=20, half=right, step=(0.8, 1.8), length=(3, 9))
    for kind, shape, paint, most, near in (("car", "car", _objects, 4, 9), ("tree", "tree", _trees, 4, 10), ("lamp", "lamp", _objects, 5, 6), ("box", "box", _objects, 4, 6)):
        place = _spots(cam, rng, int(rng.integers(0, most)), near=near, far=22, **lane, pitch=2.5)
        _add(scene, rng, kind, shape, *place, paint(rng, len(place[0])))
    return scene


def _stadium(rng: Generator) -> Scene:
    """A stand of seats through a long lens: hundreds of small heads, a part of them seen from behind."""
    slope, start, deep = rng.uniform(0.42, 0.62), rng.uniform(30, 40), rng.uniform(12, 22)
    up = rng.uniform(5, 14)
    middle = start + deep * rng.uniform(0.35, 0.55)
    tilt = np.arctan2(up - slope * (middle - start), middle)
    cam = Camera(576, 384, rng.uniform(4.9, 6.3) * (start + deep) / HEAD, tilt, up)
    a, dy, dz = cam.rays()
    bottom = np.where(dy < -1e-3, up / np.maximum(-dy, 1e-3), 900)  # depth of the pitch
    t = (up + slope * start) / np.maximum(slope * dz - dy, 1e-3)
    z = t * dz
    x = t * a
    height = slope * (z - start)
    pixel = t / cam.focal * 1.3 + 0 * a
    team, seat = _colours(rng, 2, 1.0)
    seat = 0.15 + 0.7 * seat
    row_pitch, seat_pitch = 0.8, 0.52
    row, column = np.floor((z - start) / row_pitch), np.floor(x / seat_pitch)
    white, _ = _noise_tables()
    worn = 0.85 + 0.3 * _lookup(white, column, row + 0 * column)
    back_rest = np.mod((z - start) / row_pitch, 1) > 0.45
    gap = _joints(x, seat_pitch, 0.08, pixel)
    canvas = np.where(back_rest[..., None], (seat * (worn * (1 - 0.6 * gap))[..., None]), (0.3 * (1 + 0.06 * _smooth(x, z + 0 * x, 0.6, rng)))[..., None] * np.ones(3))
    aisle_every, aisle_at = rng.uniform(8, 14), rng.uniform(0, 8)
    aisle = np.mod(x - aisle_at, aisle_every) < 1.1
    steps = 0.42 + 0.12 * (np.mod((z - start) / 0.4, 1) > 0.5)
    canvas = np.where(aisle[..., None], steps[..., None], canvas)
    above = np.broadcast_to(z > start + deep, x.shape)
    canvas = np.where(above[..., None], rng.uniform(0.08, 0.3) * (1 + 0.3 * (np.mod(x, 4) < 0.3))[..., None] * np.ones(3), canvas)
    pitch_x, pitch_z = bottom * a, bottom * dz
    front = np.broadcast_to(z < start, x.shape)
    boards = front & np.broadcast_to(height > -1.0, x.shape)
    grass = _ground(np.clip(pitch_x, -100, 100), np.clip(pitch_z + 0 * a, 0, 100), pixel, rng, "grass")
    canvas = np.where(front[..., None], grass, canvas)
    advert = np.stack([_lookup(white, np.floor(x / 6), 0 * x + i) for i in (31, 32, 33)], -1)
    letters = _lookup(white, np.floor(x * 2.5), np.floor(height * 4) + 0 * x) > 0.55
    canvas = np.where(boards[..., None], np.where(letters[..., None], 0.9 - 0.6 * advert, advert), canvas).astype(np.float32)
    scene = Scene(cam, canvas, [], mirror=rng.random() < 0.5)
    # seats that the picture shows, occupied in sectors
    rows, columns = np.meshgrid(np.arange(int(deep / row_pitch)), np.arange(-60, 60), indexing="ij")
    sx, sz = (columns.ravel() + 0.5) * seat_pitch, start + (rows.ravel() + 0.6) * row_pitch
    base = np.floor((sz - start) / row_pitch) * row_pitch * slope
    u, v, _ = cam.project(sx, base + 1.2, sz)
    free = (u > 2) & (u < cam.width - 2) & (v > 2) & (v < cam.height - 2) & (np.mod(sx - aisle_at, aisle_every) > 1.3)
    sx, sz, base = sx[free], sz[free], base[free]
    n = min(_long_tail(rng, 260, 0.75, 40, 1000), int(0.95 * len(sx)))
    weight = np.exp(rng.uniform(0.5, 2.5) * np.clip(_smooth(sx, sz, rng.uniform(4, 10), rng), -2, 2))
    taken = rng.choice(len(sx), n, replace=False, p=weight / weight.sum())
    sx, sz, base = sx[taken] + rng.uniform(-0.1, 0.1, n), sz[taken], base[taken]
    behind = rng.random(n) < rng.uniform(0.05, 0.6)
    facing = ~behind
    _add(scene, rng, "ball", "ball", sx[behind], sz[behind], _balls(rng, int(behind.sum())), centre=1.15, base=base[behind])
    _add(scene, rng, "person", "person", sx[facing], sz[facing], _people(rng, int(facing.sum()), team), centre=1.2, base=base[facing], seated=True)
    return scene


def _station(rng: Generator) -> Scene:
    """A hall under a surveillance camera."""
    cam = Camera(480, 384, rng.uniform(330, 430), np.radians(rng.uniform(22, 34)), rng.uniform(4.0, 6.0))
    back = rng.uniform(13, 17)
    left, right = -rng.uniform(5, 9), rng.uniform(5, 9)
    canvas, x, z, on_floor = _world(cam, rng, rng.choice(["tiles", "slabs", "asphalt"], p=[0.6, 0.25, 0.15]), Walls(back, left, right, (20, 30)))
    glare = np.exp(-(((x - rng.uniform(-4, 4)) / 3) ** 2) - ((z - rng.uniform(5, back)) / 4) ** 2) * rng.uniform(0.1, 0.5)
    canvas += (glare * on_floor)[..., None].astype(np.float32)
    scene = Scene(cam, canvas, [], mirror=rng.random() < 0.5)
    area = {"near": 1.5, "far": back - 0.6, "left": left + 0.4, "right": right - 0.4}
    n = _long_tail(rng, 22, 0.85, 2, 120)
    spots = _spots(cam, rng, n, **area, clump=rng.uniform(0.4, 1.8), patch=rng.uniform(2, 5))
    n = len(spots[0])
    dark = rng.random(n) < rng.uniform(0, 0.6)
    lit = ~dark
    _add(scene, rng, "silhouette", "person", spots[0][dark], spots[1][dark], _silhouettes(rng, int(dark.sum())), centre=EYE)
    _add(scene, rng, "person", "person", spots[0][lit], spots[1][lit], _people(rng, int(lit.sum())), centre=EYE)
    place = _spots(cam, rng, int(rng.integers(0, 7)), **area, pitch=1.5)
    _add(scene, rng, "box", "box", *place, _objects(rng, len(place[0])))
    return scene


# ------------------------------------------------------------------------------------------------- paint and develop
def _paint(scene: Scene, counted: dict[str, bool]) -> np.ndarray:
    """Stamp the things from back to front onto the canvas (in place); heads [N, 2] that count and can be seen."""
    canvas, (height, width) = scene.canvas, scene.canvas.shape[:2]
    owner = np.full((height, width), -1, np.int32)
    heads = []
    for number, thing in enumerate(sorted(scene.things, key=lambda thing: -thing.depth)):
        level = round(np.log(thing.size) / np.log(STEP))
        sprite = _sprite(thing.shape, thing.variant, thing.body, thing.seated, scene.sun, scene.mirror, level)
        h, w = sprite.solid.shape
        x, y = round(thing.u - sprite.anchor[0]), round(thing.v - sprite.anchor[1])
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if x0 >= x1 or y0 >= y1:
            continue
        palette = thing.palette.astype(np.float32)
        if scene.haze:
            far = min(0.6, scene.haze * thing.depth / 100)
            palette = palette * (1 - far) + far * 0.75
        colour = (sprite.parts @ palette).reshape(h, w, 3)
        inner = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        patch = canvas[y0:y1, x0:x1]
        patch *= 1 - sprite.alpha[inner]
        patch += colour[inner]
        owner[y0:y1, x0:x1][sprite.solid[inner]] = number
        if counted.get(thing.kind, False):
            heads.append((x + sprite.anchor[0], y + sprite.anchor[1], thing.size, number))
    if not heads:
        return np.zeros((0, 2), np.float32)
    px, py, size, number = np.array(heads).T
    offset = np.array([-0.28, 0.0, 0.28])
    gx = np.clip((px[:, None, None] + offset[None, None, :] * size[:, None, None]).astype(int), 0, width - 1)
    gy = np.clip((py[:, None, None] + offset[None, :, None] * size[:, None, None]).astype(int), 0, height - 1)
    shown = (owner[gy, gx] == number[:, None, None]).mean((1, 2)) > 0.3
    inside = (px >= 0) & (px < width) & (py >= 0) & (py < height)
    return np.stack([px, py], 1)[shown & inside].astype(np.float32)


class Look(NamedTuple):
    """Ranges of a camera's development: (low, high) each."""

    exposure: tuple[float, float]
    contrast: tuple[float, float]
    saturation: tuple[float, float]
    cast: float
    vignette: tuple[float, float]
    blur: tuple[float, float]
    noise: tuple[float, float]
    jpeg: tuple[int, int]


def _develop(canvas: np.ndarray, rng: Generator, look: Look) -> np.ndarray:
    """Scene light float32 [H, W, 3] -> the camera's picture, uint8."""
    height, width = canvas.shape[:2]
    picture = canvas * np.float32(rng.uniform(*look.exposure)) * (1 + look.cast * rng.uniform(-1, 1, 3)).astype(np.float32)
    gray = picture.mean(-1, keepdims=True)
    picture = gray + (picture - gray) * np.float32(rng.uniform(*look.saturation))
    middle = np.float32(rng.uniform(0.4, 0.5))
    picture = middle + (picture - middle) * np.float32(rng.uniform(*look.contrast))
    x, y = _grid(width, height)
    edge = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
    picture *= (1 - np.float32(rng.uniform(*look.vignette)) * edge)[..., None]
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*look.blur)))
    picture = np.asarray(image, np.float32) / 255
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * 0.8 + 0.6 * rng.standard_normal((height, width, 3), dtype=np.float32)
    picture += np.float32(rng.uniform(*look.noise)) * grain * np.sqrt(picture + 0.05)
    buffer = io.BytesIO()
    Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(buffer, "JPEG", quality=int(rng.integers(*look.jpeg)))
    return np.asarray(Image.open(buffer))


SCENES: dict[str, tuple[Callable[[Generator], Scene], Look]] = {
    "square": (_square, Look((0.7, 1.25), (0.75, 1.15), (0.6, 1.1), 0.06, (0, 0.3), (0.3, 0.8), (0.005, 0.03), (60, 96))),
    "street": (_street, Look((0.8, 1.3), (0.9, 1.3), (0.9, 1.4), 0.08, (0, 0.4), (0.2, 0.8), (0.003, 0.025), (75, 97))),
    "stadium": (_stadium, Look((0.8, 1.5), (0.9, 1.4), (0.8, 1.5), 0.1, (0, 0.3), (0.3, 0.8), (0.01, 0.045), (45, 80))),
    "station": (_station, Look((0.7, 1.1), (0.45, 0.7), (0.0, 0.15), 0.04, (0.3, 0.9), (0.6, 1.0), (0.03, 0.07), (35, 70))),
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- public
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
    build, look = SCENES[domain]
    scene = build(rng)
    points = _paint(scene, COUNTED[domain])
    return _develop(scene.canvas, rng, look), points


def ensure(root: Path, seed: int = 0, progress: bool = True) -> dict[str, Path]:
    """Write the data set below ``root`` unless it is there; domain name -> its folder.

    A folder ``synthetic-v<VERSION>-seed<seed>/<domain>`` holds ``images/*.jpg`` and ``train.csv`` and ``test.csv`` with the
    header ``image,points`` (a path relative to the folder; the points as JSON ``[[x, y], ...]`` in pixels). It appears
    complete or not at all; ``progress`` reports on stderr.
    """
    root = Path(root)
    final = root / f"synthetic-v{VERSION}-seed{seed}"
    if not final.is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=root))
        except OSError as error:
            raise UserError(f"cannot write the synthetic data to {root}: {error.strerror}; give another folder") from error
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
        print(f"synthetic {domain}: {sum(SIZES[domain])} images in {time.perf_counter() - begin:.1f} s", file=sys.stderr)


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
        raise UserError("usage: python -m dkpnet_ext.data.synthetic OUT (writes the synthetic data and a contact sheet there)")
    out = Path(sys.argv[1])
    for domain, folder in ensure(out).items():
        print(f"{domain}={folder}")
    contact_sheet().save(out / "contact_sheet.png")
    print(f"look at {out / 'contact_sheet.png'}")


if __name__ == "__main__":
    run_command(main)
