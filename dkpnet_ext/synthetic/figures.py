"""The people and objects of the synthetic scenes (`dkpnet_ext.synthetic.scenes`), and the colours they wear.

A figure is drawn once, large, as a map of parts. A resized copy keeps the shaded coverage of every part, so
that any palette [6, 3] colours it with one small matrix product: a differently dressed person costs microseconds.
The unit of all drawings is the head (0.28 m across); x grows to the right and y downwards from the anchor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

HAIR, SKIN, TOP, LEGS, DARK, ACCENT = PARTS = range(1, 7)  # indices in a drawing; 0 is empty
SHADOW = 7  # darkens what is behind it
FULL = 170.0  # shading 1.0 in 8 bits
VARIANTS = 16
STEP = 1.1  # ratio between neighbouring sizes: a sprite is within 5 % of the size asked for
KEPT = 29  # sprites up to this level (16 px per head) are kept for the next scene
STANDING = 5.7  # heads from a standing person's head centre to the feet, seen level


class Sprite(NamedTuple):
    """A figure at one size, ready to be coloured and stamped."""

    clear: np.ndarray  # [h, w, 1] float32, the share of the background that stays visible
    parts: np.ndarray  # [h * w, 6] float32, shaded coverage of each part
    solid: np.ndarray  # [h, w] bool, hides what is behind it
    anchor: tuple[float, float]  # x, y in the sprite's pixels


class Drawing(NamedTuple):
    """A figure drawn large: 8-bit coverage and shaded parts, the anchor (x, y) and the pixels per head."""

    cover: Image.Image
    parts: list[tuple[int, Image.Image]]
    anchor: tuple[float, float]
    unit: float


class Pen:
    """Draws parts in head units around an anchor that lies ``left`` and ``above`` heads from the corner."""

    def __init__(self, unit: float, left: float, right: float, above: float, below: float) -> None:
        self.unit, self.anchor = unit, (left * unit, above * unit)
        self.image = Image.new("L", (int((left + right) * unit), int((above + below) * unit)))
        self.draw = ImageDraw.Draw(self.image)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.anchor[0] + x * self.unit, self.anchor[1] + y * self.unit

    def ellipse(self, part: int, x: float, y: float, rx: float, ry: float) -> None:
        self.draw.ellipse([self.at(x - rx, y - ry), self.at(x + rx, y + ry)], fill=part)

    def box(self, part: int, x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> None:
        self.draw.rounded_rectangle([self.at(x0, y0), self.at(x1, y1)], radius * self.unit, fill=part)

    def polygon(self, part: int, *corners: tuple[float, float]) -> None:
        self.draw.polygon([self.at(*corner) for corner in corners], fill=part)

    def line(self, part: int, width: float, *points: tuple[float, float]) -> None:
        self.draw.line([self.at(*point) for point in points], fill=part, width=max(2, round(width * self.unit)))

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Every pixel's x [1, w] and y [h, 1] in heads from the anchor."""
        x = np.arange(self.image.width, dtype=np.float32)[None, :] - np.float32(self.anchor[0])
        y = np.arange(self.image.height, dtype=np.float32)[:, None] - np.float32(self.anchor[1])
        return x / np.float32(self.unit), y / np.float32(self.unit)

    def finish(self, shade: np.ndarray, edges: float = 0.0) -> Drawing:
        """``shade`` [h, w] is each pixel's light, 1 = the palette's colour; ``edges`` darkens the outline."""
        index = np.asarray(self.image)
        if edges:
            inside = Image.fromarray(((index > 0) & (index < SHADOW)).astype(np.uint8) * 255)
            depth = np.asarray(inside.filter(ImageFilter.GaussianBlur(0.1 * self.unit)), np.float32) / 255
            shade = shade * (1 - edges + edges * depth)
        light = np.clip(shade * FULL, 0, 255).astype(np.uint8) + np.zeros_like(index)
        cover = np.array([0] + [255] * 6 + [115], np.uint8)[index]
        parts = [
            (part, Image.fromarray(np.where(index == part, light, 0).astype(np.uint8))) for part in np.unique(index)
        ]
        parts = [(int(part), plane) for part, plane in parts if part in PARTS]
        return Drawing(Image.fromarray(cover), parts, self.anchor, self.unit)


def _person(variant: int, body: float, seated: bool) -> Drawing:
    """A person whose feet appear ``body`` heads below the head's centre (fewer when seen from higher up)."""
    rng = np.random.default_rng([11, variant])
    k = body / STANDING
    shoulder, hip, foot = 0.3 + 0.5 * k, max(2.9 * k, 1.2), body
    pen = Pen(40.0, 2.1, 2.1, 0.8, 2.0 * max(k, 0.6) + 1.0 if seated else body + 0.5)
    back = rng.random() < 0.45  # seen from behind
    lean, build = rng.uniform(-0.12, 0.12), rng.uniform(0.85, 1.12)
    stance, lift = rng.uniform(0.05, 0.55), rng.uniform(0, 0.35) * k
    bare = rng.random() < 0.2
    if seated:
        pen.box(LEGS, -0.75, hip - 0.1, 0.75, hip + 1.0)
    else:
        pen.ellipse(SHADOW, 0.2, foot, 0.9, 0.3)
        for side, raised in ((-1, 0.0), (1, lift)):
            x, top = side * (0.18 + stance * 0.6), lean + side * 0.02
            toe = foot - raised
            leg = ((top - 0.3, hip - 0.2), (top + 0.36, hip - 0.2), (x + 0.2, toe), (x - 0.2, toe))
            pen.polygon(SKIN if bare else LEGS, *leg)
            pen.ellipse(DARK, x + 0.05, toe, 0.26, 0.14)
        if bare:  # shorts or a skirt
            wide, hem = rng.uniform(0.55, 0.8), hip + 1.2 * k
            pen.polygon(LEGS, (lean - 0.45, hip - 0.4), (lean + 0.45, hip - 0.4), (wide, hem), (-wide, hem))
    wide, chest, waist = 0.92 * build, shoulder + 0.35 * k, 0.62 * build
    pen.ellipse(TOP, 0, chest, wide, 0.42 * max(k, 0.7))
    pen.polygon(TOP, (-wide, chest), (wide, chest), (waist + lean, hip + 0.15), (lean - waist, hip + 0.15))
    sleeve = TOP if rng.random() < 0.6 else SKIN
    for side in (-1, 1):
        pose = rng.random()
        if pose < 0.68:  # down
            elbow = (wide + 0.12, shoulder + 1.3 * k)
            hand = (wide + rng.uniform(-0.1, 0.15), shoulder + 2.3 * k)
        elif pose < 0.9:  # in front of the chest
            elbow, hand = (wide + 0.18, shoulder + 1.25 * k), (0.25, shoulder + 1.35 * k)
        else:  # raised
            elbow, hand = (wide + 0.35, shoulder + 0.1 * k), (wide + 0.25, shoulder - 1.1 * k)
        pen.line(TOP, 0.36, (side * (wide - 0.15), chest), (side * elbow[0], elbow[1]))
        pen.line(sleeve, 0.28, (side * elbow[0], elbow[1]), (side * hand[0], hand[1]))
        pen.ellipse(SKIN, side * hand[0], hand[1], 0.15, 0.15)
    extra = rng.random()
    if extra < 0.25 and back:
        pen.box(ACCENT, -0.5, shoulder + 0.25 * k, 0.5, shoulder + 1.7 * k, 0.25)
    elif extra < 0.4:
        pen.line(ACCENT, 0.14, (-0.6, shoulder + 0.2 * k), (0.6, hip - 0.3))
    elif extra < 0.55:
        pen.box(ACCENT, -0.74 * build, shoulder + 1.0 * k, 0.74 * build, shoulder + 1.35 * k)
    if k > 0.5:
        pen.box(SKIN, -0.17, 0.3, 0.17, shoulder + 0.15)
    if rng.random() < 0.35:  # long hair
        pen.box(HAIR, -0.47, -0.3, 0.47, 0.75 * max(k, 0.6), 0.3)
    pen.ellipse(HAIR, 0, 0, 0.42, 0.5)
    if not back:
        turn, low = rng.uniform(-0.1, 0.1), 0.1 + 0.16 * (1 - k)
        pen.ellipse(SKIN, turn, low, 0.35, 0.38)
        for side in (-1, 1):
            pen.ellipse(HAIR, 1.3 * turn + side * 0.13, low - 0.03, 0.045, 0.035)
    if rng.random() < 0.15:  # a cap
        pen.draw.chord([pen.at(-0.48, -0.56), pen.at(0.48, 0.3)], 180, 360, fill=ACCENT)

    u, v = pen.grid()
    shade = 1.08 - 0.3 * np.clip(u / 1.1, -1, 1) + 0.06 * np.sin(12 * u + 7 * v + variant)
    shade = shade * np.clip(1.1 - 0.04 * v, 0.7, 1.1)
    from_head = (u / 0.5) ** 2 + (v / 0.55) ** 2
    under_chin = (u / 0.6) ** 2 + ((v - 0.75) / 0.35) ** 2 < 1
    shade = np.where(under_chin, 0.7 * shade, shade)
    ball = 1.3 - 1.4 * ((u + 0.2) ** 2 + (v + 0.25) ** 2)
    return pen.finish(np.where(from_head < 1.1, np.clip(ball, 0.45, 1.3), shade), edges=0.45)


def _ball(variant: int, body: float, seated: bool) -> Drawing:
    """A dark round thing of a head's size: hair or stone."""
    pen = Pen(40.0, 0.75, 0.75, 0.75, 0.75)
    pen.ellipse(HAIR, 0, 0, 0.43, 0.5)
    u, v = pen.grid()
    light = 1.4 - 3.3 * ((u + 0.15) ** 2 + (v + 0.2) ** 2)
    return pen.finish(np.clip(light, 0.4, 1.4) + 0.08 * np.sin(20 * u + variant) * np.sin(16 * v))


def _umbrella(variant: int, body: float, seated: bool) -> Drawing:
    """A dome of panels, 1.2 m across, on a stick; its anchor is the dome's centre."""
    rng = np.random.default_rng([12, variant])
    k = body / STANDING
    rx, ry = 2.2, 1.05 + 0.9 * (1 - k)  # seen flatter when the camera is low
    rim = 0.35 * ry
    pen = Pen(24.0, rx + 0.2, rx + 0.2, ry + 0.1, 3.2 * max(k, 0.5))
    pen.line(DARK, 0.12, (0, 0), (0, 3.1 * max(k, 0.5)))
    pen.draw.chord([pen.at(-rx, rim - ry), pen.at(rx, rim + ry)], 172, 368, fill=TOP)
    pen.ellipse(TOP, 0, rim, rx, 0.15 + 0.9 * (1 - k))
    u, v = pen.grid()
    angle = np.arctan2(v + 0.6 * ry, 0.8 * u) * (8 / np.pi)
    if rng.random() < 0.5:  # two colours
        index = np.asarray(pen.image).copy()
        index[(index == TOP) & (np.floor(angle + rng.random()) % 2 == 1)] = ACCENT
        pen.image = Image.fromarray(index)
    crease = 0.4 * np.abs(np.mod(angle, 1) - 0.5)
    return pen.finish(np.clip(1.2 - 0.16 * u - 0.25 * v / ry - crease, 0.3, 1.4), edges=0.3)


def _car(variant: int, body: float, seated: bool) -> Drawing:
    """A car from the side, 4.3 m long; its anchor is on the ground."""
    rng = np.random.default_rng([13, variant])
    long, tall = 7.7, rng.uniform(4.8, 7.0)
    front, rear = rng.uniform(-0.62, -0.4) * long, rng.uniform(0.6, 0.9) * long
    pen = Pen(13.0, long + 0.4, long + 0.4, tall + 0.2, 0.9)
    pen.ellipse(SHADOW, 0, 0, long + 0.3, 0.7)
    pen.box(TOP, -long, -0.62 * tall, long, -0.5, 1.0)
    pen.polygon(TOP, (front, -0.6 * tall), (front + 2, -tall), (rear - 1, -tall), (rear, -0.6 * tall))
    for a, b in ((front + 0.8, 0.0), (0.5, rear - 0.6)):
        top_a, top_b = max(a, front + 2.1), min(b, rear - 1.2)
        pen.polygon(DARK, (a, -0.62 * tall), (top_a, -0.93 * tall), (top_b, -0.93 * tall), (b, -0.62 * tall))
    for x in (-0.6 * long, 0.6 * long):
        pen.ellipse(DARK, x, -0.9, 1.2, 1.2)
        pen.ellipse(ACCENT, x, -0.9, 0.6, 0.6)
    pen.box(ACCENT, -long + 0.1, -0.5 * tall, -long + 0.7, -0.4 * tall)
    u, v = pen.grid()
    return pen.finish(np.clip(0.65 - 0.7 * v / tall, 0.5, 1.3) + 0.05 * np.sin(0.6 * u + variant), edges=0.25)


def _tree(variant: int, body: float, seated: bool) -> Drawing:
    """A round or tall tree, 4-5 m; its anchor is on the ground."""
    rng = np.random.default_rng([14, variant])
    pen = Pen(9.0, 9.5, 9.5, 26.0, 1.0)
    pen.ellipse(SHADOW, 2, 0, 7, 0.9)
    pen.polygon(DARK, (-0.7, 0), (0.7, 0), (0.3, -17), (-0.3, -17))
    lobes = [(rng.uniform(-3.5, 3.5), rng.uniform(-20, -12), rng.uniform(3, 5.2)) for _ in range(6)]
    leaves = 900
    middle = np.array(lobes)[rng.integers(0, 6, leaves)]
    angle, away = rng.uniform(0, 2 * np.pi, leaves), middle[:, 2] * np.sqrt(rng.random(leaves))
    x, y = middle[:, 0] + away * np.cos(angle), middle[:, 1] + away * np.sin(angle)
    for leaf in zip(rng.choice([TOP, TOP, LEGS, ACCENT], leaves), x, y, rng.uniform(0.25, 0.7, leaves), strict=True):
        pen.ellipse(int(leaf[0]), *leaf[1:3], leaf[3], leaf[3])
    u, v = pen.grid()
    shade = 1.05 - 0.05 * u - 0.05 * (v + 16) + rng.normal(0, 0.1, pen.image.size[::-1])
    return pen.finish(np.clip(shade, 0.3, 1.5))


def _lamp(variant: int, body: float, seated: bool) -> Drawing:
    """A sign or a street lamp, a square or round head-like thing high up; its anchor is on the ground."""
    rng = np.random.default_rng([15, variant])
    tall = rng.uniform(9, 15)
    pen = Pen(12.0, 2.6, 2.6, tall + 1.5, 0.5)
    pen.ellipse(SHADOW, 0.3, 0, 1.2, 0.35)
    pen.line(DARK, 0.35, (0, 0), (0, -tall))
    if variant % 3 == 0:
        pen.box(ACCENT, -1.6, -tall - 1.2, 1.6, 1.4 - tall, 0.2)
        pen.box(TOP, -1.1, -tall - 0.7, 1.1, -tall - 0.3)
        pen.box(TOP, -1.1, -tall + 0.2, 0.6, -tall + 0.6)
    elif variant % 3 == 1:
        pen.ellipse(ACCENT, 0, -tall, 0.9, 0.9)
    else:
        pen.line(DARK, 0.2, (-1.2, -tall), (1.2, -tall))
        for x in (-1.2, 1.2):
            pen.ellipse(TOP, x, -tall - 0.5, 0.6, 0.65)
    u, _ = pen.grid()
    return pen.finish(np.clip(1.1 - 0.2 * u, 0.6, 1.3))


def _kiosk(variant: int, body: float, seated: bool) -> Drawing:
    """A kiosk, pillar, ticket machine or bin: a roof above a face with panels; its anchor is on the ground."""
    rng = np.random.default_rng([16, variant])
    half, tall = [(2.1, 6.8), (1.2, 16.0), (1.0, 3.5), (4.2, 7.8), (3.2, 3.2), (1.6, 6.4)][variant % 6]
    roof = 2 * half * rng.uniform(0.12, 0.25)
    pen = Pen(14.0, half + 0.5, half + 0.5, tall + roof + 0.2, 0.6)
    pen.ellipse(SHADOW, 0.1, 0, half + 0.4, 0.5)
    pen.box(LEGS, -half, -tall - roof, half, -tall)
    pen.box(TOP, -half, -tall, half, 0)
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(-0.9, 0.2) * half, -rng.uniform(0.5, 0.95) * tall
        w, h = rng.uniform(0.3, 0.7) * half, rng.uniform(0.08, 0.3) * tall
        pen.box(int(rng.choice([DARK, ACCENT])), x, y, x + w, y + h)
    u, v = pen.grid()
    return pen.finish(1.0 - 0.15 * u / half - 0.12 * v / tall - 0.12, edges=0.2)


_DRAW: dict[str, Callable[[int, float, bool], Drawing]] = {
    "person": _person,
    "ball": _ball,
    "umbrella": _umbrella,
    "car": _car,
    "tree": _tree,
    "lamp": _lamp,
    "kiosk": _kiosk,
}
_drawing = functools.cache(lambda shape, variant, body, seated: _DRAW[shape](variant, body, seated))


def _resized(shape: str, variant: int, body: int, seated: bool, level: int) -> Sprite:
    drawing = _drawing(shape, variant, body, seated)
    scale = STEP**level / drawing.unit
    w, h = (max(1, round(side * scale)) for side in drawing.cover.size)
    cover = np.asarray(drawing.cover.resize((w, h), Image.Resampling.BILINEAR, reducing_gap=2), np.float32) / 255
    parts = np.zeros((h, w, 6), np.float32)
    for part, plane in drawing.parts:
        parts[..., part - 1] = np.asarray(plane.resize((w, h), Image.Resampling.BILINEAR, reducing_gap=2))
    x, y = drawing.anchor[0] * w / drawing.cover.width, drawing.anchor[1] * h / drawing.cover.height
    return Sprite(1 - cover[..., None], parts.reshape(-1, 6) / np.float32(FULL), cover > 0.5, (x, y))


_kept = functools.cache(_resized)


def sprite(shape: str, variant: int, body: int, seated: bool, mirror: bool, level: int) -> Sprite:
    """The figure at ``STEP ** level`` pixels per head; a person's ``body`` is the visible length in heads."""
    # large ones are rare, and would fill the memory
    clear, parts, solid, (x, y) = (_kept if level <= KEPT else _resized)(shape, variant, body, seated, level)
    if mirror:
        h, w = solid.shape
        clear, solid, x = clear[:, ::-1], solid[:, ::-1], w - x
        parts = np.ascontiguousarray(parts.reshape(h, w, 6)[:, ::-1]).reshape(-1, 6)
    return Sprite(clear, parts, solid, (x, y))


def forget() -> None:
    """Free the memory that the figures drawn so far take."""
    _drawing.cache_clear()
    _kept.cache_clear()


# --------------------------------------------------------------------------------------------------- palettes
def clothes(rng: Generator, n: int) -> np.ndarray:
    """Random colours [n, 3] as clothes have them: many dark, white and gray ones, some bright."""
    gray = rng.choice([0.06, 0.12, 0.2, 0.35, 0.55, 0.8], (n, 1)) * rng.uniform(0.8, 1.15, (n, 1))
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (rng.random((n, 1)) - np.array([[0.0, 1 / 3, 2 / 3]])))
    bright, depth = rng.uniform(0.2, 0.85, (n, 1)), rng.uniform(0.2, 0.95, (n, 1))
    return np.where(rng.random((n, 1)) < 0.55, gray, bright * (1 - depth + depth * wheel))


def people(rng: Generator, n: int, team: np.ndarray | None = None) -> np.ndarray:
    """Palettes [n, 6, 3] of ordinary people; 60 % wear the ``team`` colour if there is one."""
    hair = np.array([[0.05, 0.045, 0.04], [0.09, 0.07, 0.05], [0.2, 0.12, 0.07], [0.45, 0.33, 0.18], [0.42, 0.41, 0.4]])
    skin = np.array([[0.86, 0.66, 0.54], [0.78, 0.57, 0.44], [0.62, 0.42, 0.3], [0.36, 0.23, 0.16]])
    trousers = np.array([[0.12, 0.17, 0.28], [0.06, 0.06, 0.07], [0.4, 0.34, 0.26], [0.25, 0.25, 0.27]])
    palette = np.empty((n, 6, 3))
    palette[:, 0] = hair[rng.choice(5, n, p=[0.4, 0.25, 0.17, 0.1, 0.08])]
    palette[:, 1] = skin[rng.integers(0, 4, n)] * rng.uniform(0.85, 1.1, (n, 1))
    palette[:, 2] = clothes(rng, n)
    palette[:, 3] = trousers[rng.integers(0, 4, n)] * rng.uniform(0.8, 1.2, (n, 1))
    palette[:, 4] = rng.uniform(0.04, 0.15, (n, 1))
    palette[:, 5] = clothes(rng, n)
    if team is not None:
        fan = rng.random(n) < 0.6
        palette[fan, 2] = team * rng.uniform(0.8, 1.15, (int(fan.sum()), 1))
    return palette


def balls(rng: Generator, n: int) -> np.ndarray:
    """Palettes [n, 6, 3] of balls, the same in every domain."""
    tone = rng.choice([0.06, 0.1, 0.15, 0.2], (n, 1, 1)) * rng.uniform(0.8, 1.2, (n, 1, 1))
    return tone * np.broadcast_to([1.0, 0.92, 0.85], (n, 6, 3))


def silhouettes(rng: Generator, n: int) -> np.ndarray:
    """Palettes [n, 6, 3] of uniformly dark figures, the same in every domain."""
    return np.repeat(rng.uniform(0.1, 0.22, (n, 1, 1)) * rng.uniform(0.9, 1.1, (n, 6, 1)), 3, axis=2)


def objects(rng: Generator, n: int) -> np.ndarray:
    """Palettes [n, 6, 3] of things that are made in any colour."""
    palette = np.stack([clothes(rng, n) for _ in PARTS], 1)
    palette = 0.6 * palette + 0.4 * palette.mean(-1, keepdims=True)
    palette[:, DARK - 1] = rng.uniform(0.05, 0.14, (n, 1))
    return palette


def trees(rng: Generator, n: int) -> np.ndarray:
    """Palettes [n, 6, 3] of greens on a brown trunk."""
    green = np.array([0.24, 0.33, 0.13]) * rng.uniform(0.7, 1.3, (n, 1)) * rng.uniform(0.85, 1.15, (n, 3))
    palette = green[:, None] * np.array([1, 1, 1, 0.65, 1, 1.35])[None, :, None]
    palette[:, DARK - 1] = [0.16, 0.12, 0.09]
    return palette
