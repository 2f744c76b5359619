"""The four places of the synthetic scenes: background, crowd and objects of a square, a street, a stadium, a station."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .camera import Camera
from .figures import STANDING, VARIANTS, balls, clothes, objects, people, silhouettes, trees
from .textures import Walls, ground_colour, joints, lookup, noise_tables, smooth, world

HEAD = 0.28  # metres across a person's head, hair included: the unit in which figures are drawn
EYE = 1.6  # metres from the ground to the centre of a standing person's head


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
        weight = np.exp(clump * np.clip(smooth(x, z, patch, rng), -2, 2)) / depth
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


def square(rng: Generator) -> Scene:
    """A dense crowd on a square, seen from a balcony or a crane."""
    cam = Camera(512, 384, rng.uniform(470, 640), np.radians(rng.uniform(18, 32)), rng.uniform(7, 13))
    far = cam.focal * HEAD / 4.8 / np.cos(cam.tilt) - cam.up * np.tan(cam.tilt)  # heads shrink to 4.8 px there
    floor = rng.choice(["slabs", "cobbles", "asphalt", "grass"], p=[0.4, 0.3, 0.15, 0.15])
    canvas, x, z, on_floor = world(cam, rng, floor, Walls(far * rng.uniform(0.95, 1.1)))
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


def street(rng: Generator) -> Scene:
    """Few, large people in a street of shops, photographed from eye level."""
    width, height = (512, 384) if rng.random() < 0.65 else (384, 512)
    cam = Camera(width, height, rng.uniform(440, 580), np.radians(rng.uniform(1, 7)), rng.uniform(1.7, 3.0))
    left, right = -rng.uniform(4, 8), rng.uniform(4, 8)
    end = cam.focal * HEAD / 4.6  # heads shrink to 4.6 px there
    houses = rng.random(2) < 0.85
    floor = rng.choice(["slabs", "cobbles", "asphalt"], p=[0.45, 0.25, 0.3])
    canvas, x, z, on_floor = world(
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


def stadium(rng: Generator) -> Scene:
    """A stand of seats through a long lens: hundreds of small heads, a part of them seen from behind."""
    slope, start, deep = rng.uniform(0.42, 0.62), rng.uniform(30, 40), rng.uniform(12, 22)
    up, middle = rng.uniform(5, 14), start + deep * rng.uniform(0.4, 0.6)
    tilt = np.arctan2(up - slope * (middle - start), middle)
    cam = Camera(576, 384, rng.uniform(4.9, 6.3) * (start + deep) / HEAD, tilt, up)
    white = noise_tables()[0]
    row_pitch, seat_pitch = 0.8, 0.52
    aisle_every, aisle_at = rng.uniform(8, 14), rng.uniform(0, 8)
    a, dy, dz = cam.rays()
    t = ((up + slope * start) / np.maximum(slope * dz - dy, 1e-3)).astype(np.float32)  # where the stand's slope is hit
    x, z = t * a, t * dz - start
    row, pixel = z / row_pitch, 1.3 * t / cam.focal
    # seats above concrete, stairs between the blocks
    seat = (0.1 + 0.75 * clothes(rng, 1)[0]).astype(np.float32)
    light = 0.85 + 0.3 * lookup(white[..., 0], x / seat_pitch + 512, np.floor(row) + 64)
    light *= 1 - 0.6 * joints(x, seat_pitch, pixel, 0.08)
    concrete = 0.3 + 0.02 * smooth(x + 100, z + 50, 0.6, rng)[..., None]
    canvas = np.where((row % 1 > 0.45)[..., None], seat * light[..., None], concrete)
    stairs = np.where(z % 0.4 > 0.2, 0.54, 0.42)[..., None]
    canvas = np.where((np.mod(x - aisle_at, aisle_every) < 1.1)[..., None], stairs, canvas).astype(np.float32)
    # below the roof; in front of it all the boards and the pitch
    top, bottom = int((z > deep).sum()), int((z > 0).sum())
    canvas[:top] = (rng.uniform(0.08, 0.3) * (1 + 0.4 * (np.mod(x[:top], 4) < 0.3)))[..., None]
    if bottom < cam.height:
        t_pitch = np.where(dy < -1e-3, up / np.maximum(-dy, 1e-3), 100).astype(np.float32)[bottom:]
        ground = (np.clip(t_pitch * a, -100, 100), np.clip(t_pitch * dz[bottom:], 0, 100), pixel[bottom:])
        canvas[bottom:] = ground_colour(*ground, rng, "grass")
        below = slope * z[bottom:] + 0 * a
        advert = 0.15 + 0.6 * lookup(white, x[bottom:] / 5 + 256, 31)
        letters = (lookup(white[..., 0], x[bottom:] * 4 + 256, 17) > 0.5) & (below < -0.3) & (below > -0.7)
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
    weight = np.exp(rng.uniform(0.5, 2.5) * np.clip(smooth(x + 100, z, rng.uniform(4, 10), rng), -2, 2))
    taken = rng.choice(len(x), n, replace=False, p=weight / weight.sum())
    x, z, base = x[taken] + rng.uniform(-0.1, 0.1, n), z[taken], base[taken]
    back = rng.random(n) < rng.uniform(0.05, 0.6)
    scene.add(rng, "ball", "ball", x[back], z[back], balls(rng, int(back.sum())), centre=1.1, base=base[back])
    fans = people(rng, int((~back).sum()), team=clothes(rng, 1)[0])
    scene.add(rng, "person", "person", x[~back], z[~back], fans, centre=1.2, base=base[~back], seated=True)
    return scene


def station(rng: Generator) -> Scene:
    """A hall under a surveillance camera."""
    cam = Camera(480, 384, rng.uniform(330, 430), np.radians(rng.uniform(22, 34)), rng.uniform(4.0, 6.0))
    back, left, right = rng.uniform(13, 17), -rng.uniform(5, 9), rng.uniform(5, 9)
    floor = rng.choice(["tiles", "slabs", "asphalt"], p=[0.6, 0.25, 0.15])
    canvas, x, z, on_floor = world(cam, rng, floor, Walls(back, left, right, inside=True))
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


SCENES: dict[str, Callable[[Generator], Scene]] = {
    "square": square,
    "street": street,
    "stadium": stadium,
    "station": station,
}
