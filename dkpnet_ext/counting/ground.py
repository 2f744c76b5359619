"""People per square metre: four ground points of known distances give the ground plane, and the plane of the heads.

The corners of a rectangle on the ground, and its two sides in metres, fix the homography between ground and picture (four
correspondences, eight unknowns; Hartley and Zisserman, Multiple View Geometry, 2nd edition, 4.1). Heads are not on the
ground: their density, laid onto the ground where they appear, lies too far away and is spread over too large an area, by
(up / (up - 1.6))^2 for a camera `up` metres high. With square pixels and the principal point in the middle of the picture
(as of a picture that was not cut) the two constraints on the rotation's columns give the focal length (8.8 there), hence
the camera, hence the homography of the plane 1.6 m above the ground, on which the heads are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter
from torch import Tensor

from ..errors import UserError
from ..plots import MAX_SIDE, captioned, colormap
from .regions import rasterize

HEAD_HEIGHT = 1.6  # metres from the ground to the middle of a standing person's head
LEAST_UP = (
    3.0  # metres: a camera that is lower looks along the heads; three pixels beside a corner change all (bench/results)
)
FOCAL = (0.3, 30.0)  # of the picture's longer side: outside lies no lens, and the points say nothing about it
SQUARE = 2.0  # metres, the side of the square whose density is said; smaller ones hold too few people
STEP = 0.25  # metres of the grid in which it is looked for
SAMPLES = 8  # places a cell and direction at which its heads are spread over the ground
LONGEST = 1000.0  # metres of a side


@dataclass(frozen=True)
class Ground:
    """A rectangle on the ground.

    Args:
        corners: [4, 2] (x, y) in pixels of the upright picture, in order around the rectangle.
        size: metres from the first corner to the second, and from the second to the third.
    """

    corners: np.ndarray
    size: tuple[float, float]


class Planes(NamedTuple):
    """The rectangle's homographies, from metres (X from the first corner to the second, Y on to the third) to pixels."""

    ground: np.ndarray  # [3, 3], to pixels of the ground
    heads: np.ndarray  # [3, 3], to pixels of the heads of people who stand there; `ground` if the camera is unknown
    up: float | None  # metres of the camera above the ground; None: not told by these points
    picture: tuple[int, int]  # (H, W) in pixels


@dataclass(frozen=True)
class GroundCount:
    """People on the part of the rectangle whose heads are in the picture."""

    people: float
    area: float  # square metres of that part
    side: float  # metres of the densest square
    densest: float  # people per square metre there
    where: np.ndarray  # [4, 2] its corners in pixels of the picture, on the ground
    around: (
        np.ndarray
    )  # [rows, columns] people per square metre in such a square around each place of a grid over the area
    planes: Planes

    def spoken(self) -> dict[str, Any]:
        """As JSON."""
        up = self.planes.up
        return {
            "people": self.people,
            "square_metres": self.area,
            "people_per_square_metre": self.people / self.area,
            "densest_square": {
                "side_metres": self.side,
                "people_per_square_metre": self.densest,
                "corners": self.where.round(1).tolist(),
            },
            "camera_metres": None if up is None else round(up, 2),
            "plane": "ground (camera not told by the points: too low a density)" if up is None else "heads",
        }


def words(spoken: dict[str, Any]) -> str:
    """`GroundCount.spoken` in one line."""
    square, told = spoken["densest_square"], spoken["camera_metres"] is not None
    return (
        f"{spoken['people']:.1f} people on {spoken['square_metres']:g} square metres: "
        f"{spoken['people_per_square_metre']:.2f} per square metre, {square['people_per_square_metre']:.2f} in the densest "
        f"square of {square['side_metres']:g} m"
        + ("" if told else " (too low: the points do not tell where the camera is)")
    )


class NoGround(UserError):
    """The rectangle tells nothing about the people on it; what else is known of the picture stands."""


def read_ground(corners: Any, size: Any) -> Ground:
    """Four corners [[x, y], ...] and two sides, checked.

    Raises:
        UserError: not four points of finite numbers, on one line, crossed, or no lengths.
    """
    try:
        points = np.array([[float(v) for v in corner] for corner in corners], np.float64)
        lengths = tuple(float(v) for v in size)
    except (TypeError, ValueError, OverflowError):
        raise UserError("ground: four points x,y in pixels and two lengths in metres are needed") from None
    if points.shape != (4, 2) or not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise UserError("ground: four points x,y in pixels are needed, in order around a rectangle on the ground")
    if len(lengths) != 2 or not all(0 < v <= LONGEST for v in lengths):
        raise UserError(f"ground: two lengths in metres are needed, above 0 and at most {LONGEST:g}")
    # Around a convex quadrilateral every corner turns the same way; the sine of the turn says how flat it is.
    edges = np.roll(points, -1, axis=0) - points
    following = np.roll(edges, -1, axis=0)
    cross = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    lengths_px = np.linalg.norm(edges, axis=1) * np.linalg.norm(following, axis=1)
    if (lengths_px == 0).any() or (np.abs(cross) < 0.01 * lengths_px).any():
        raise UserError("ground: two of the points are equal or three lie on one line; take the corners of a rectangle")
    if abs(np.sign(cross).sum()) != 4:
        raise UserError("ground: the points' order crosses; name them in order around the rectangle")
    return Ground(points, (lengths[0], lengths[1]))


def planes(ground: Ground, picture: tuple[int, int]) -> Planes:
    """The homographies of a picture of size (H, W).

    Raises:
        UserError: a point outside of the picture. NoGround: a camera so low that it looks along the heads.
    """
    height, width = picture
    if ((ground.corners < 0) | (ground.corners > [width, height])).any():
        raise UserError(f"ground: a point lies outside of the picture of {width}x{height} px")
    a, b = ground.size
    to_picture = _homography(np.array([[0, 0], [a, 0], [a, b], [0, b]], np.float64), ground.corners)
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1.0]])
    found = _heads_plane(centre @ to_picture, max(width, height))
    if found is None:
        return Planes(to_picture, to_picture, None, picture)
    heads, up = found
    if up < LEAST_UP:
        raise NoGround(
            f"no people per square metre: by these points the camera is {up:.1f} m up and looks along the "
            f"heads; at least {LEAST_UP:g} m are needed"
        )
    return Planes(to_picture, np.linalg.inv(centre) @ heads, up, picture)


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[3, 3] that takes four points [4, 2] to four others, positive in the third coordinate at all of them."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), target.ravel()), 1).reshape(3, 3)


def _heads_plane(ground: np.ndarray, side: float) -> tuple[np.ndarray, float] | None:
    """From the homography of the ground, in pixels from the picture's middle: that of the heads, and the camera's height.

    None where the points do not tell the focal length: the camera looks straight down, or the points are not good.
    """
    scaled = np.diag([1 / side, 1 / side, 1]) @ ground
    b1, b2, b3 = (scaled / np.linalg.norm(scaled[:, :2])).T
    # The columns of the rotation are orthogonal and equally long: u * a + c = 0, twice, with u = 1 / focal^2.
    a = np.array([b1[0] * b2[0] + b1[1] * b2[1], b1[0] ** 2 + b1[1] ** 2 - b2[0] ** 2 - b2[1] ** 2])
    c = np.array([b1[2] * b2[2], b1[2] ** 2 - b2[2] ** 2])
    if (a @ a) == 0 or (c @ c) == 0:
        return None
    u = -(a @ c) / (a @ a)
    if not FOCAL[0] < math.sqrt(max(u, 0)) ** -1 < FOCAL[1] if u > 0 else True:
        return None
    k = np.array([u**-0.5, u**-0.5, 1])
    r1, r2, t = b1 / k, b2 / k, b3 / k
    scale = (np.linalg.norm(r1) + np.linalg.norm(r2)) / 2
    normal = np.cross(r1 / scale, r2 / scale)
    normal /= np.linalg.norm(normal)
    # The camera's centre is C with R C + t = 0: its height along the normal; people stand on the camera's side.
    up = float(-normal @ t / scale)
    above = b3 + math.copysign(HEAD_HEIGHT, up) * scale * k * normal
    return np.diag([side, side, 1]) @ np.stack([b1, b2, above], 1), abs(up)


def project(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [N, 2] through a homography; NaN where they lie behind the camera."""
    x, y, w = homography @ np.column_stack([points, np.ones(len(points))]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(w > 0, np.stack([x / w, y / w]), np.nan).T


def count_ground(
    density: Tensor | np.ndarray, ground: Ground, size: tuple[int, int], stride: int, counted: tuple[int, int]
) -> GroundCount:
    """People on the rectangle, and where they stand densest.

    Args:
        density: [ceil(h / stride), ceil(w / stride)] heads per cell; size: (H, W) of the picture in pixels.
        counted: (h, w) at which it was counted.

    Raises:
        UserError, NoGround: as `planes` and `on_ground` do.
    """
    both = planes(ground, size)
    heads = np.asarray(density, np.float64)
    cell = np.array([stride * size[1] / counted[1], stride * size[0] / counted[0]])
    rows, columns = np.nonzero(heads > 0)
    spread = (np.arange(SAMPLES) + 0.5) / SAMPLES
    dx, dy = (part.ravel() for part in np.meshgrid(spread, spread))
    places = np.stack([(columns[:, None] + dx) * cell[0], (rows[:, None] + dy) * cell[1]], -1).reshape(-1, 2)
    return on_ground(both, ground.size, places, np.repeat(heads[rows, columns] / SAMPLES**2, SAMPLES**2))


def on_ground(both: Planes, size: tuple[float, float], places: np.ndarray, heads: np.ndarray) -> GroundCount:
    """What weights ``heads`` [N] at ``places`` [N, 2] of the picture (pixels) say of the rectangle of ``size`` metres.

    Raises:
        NoGround: the heads of people on most of it are outside of the picture.
    """
    bins = [max(1, round(length / STEP)) for length in size]
    step = np.array(size) / bins
    shown = project(both.heads, (np.indices(bins).reshape(2, -1).T + 0.5) * step)
    height, width = both.picture
    within = ((shown >= 0) & (shown < [width, height])).all(1)
    seen = np.array(within, np.float64).reshape(bins).T  # [rows, columns]
    if seen.mean() < 0.5:
        raise NoGround(
            "no people per square metre: the heads of most people who stand there are outside of the picture; take another "
            "rectangle"
        )
    inverse = np.linalg.inv(both.heads)
    # In front of the camera the third coordinate has the sign that it has in the middle of the rectangle.
    middle = both.heads @ [size[0] / 2, size[1] / 2, 1]
    metres = project(inverse * np.sign(middle[2]), places)
    inside = ((metres >= 0) & (metres < size)).all(1)  # NaN is not
    x, y = metres[inside].T
    grid = np.histogram2d(x, y, bins, [(0, size[0]), (0, size[1])], weights=heads[inside])[0].T * seen
    side = min(SQUARE, *size)
    window = [max(1, round(side / length * n)) for length, n in zip(size, bins, strict=True)]
    area = float(np.prod(window * step))
    people, visible = _squares(grid, window), _squares(seen, window)
    whole = visible > np.prod(window) - 0.5
    if not whole.any():  # on a narrow place that the picture's edge cuts: people on what is seen of a square
        whole, people = visible > 0.5, people * np.prod(window) / np.maximum(visible, 0.5)
    squares = np.where(whole, people, -1.0)
    row, column = np.unravel_index(int(squares.argmax()), squares.shape)
    x0, y0 = np.array([column, row]) * step
    x1, y1 = [x0, y0] + np.array(window) * step
    corners = project(both.ground, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    # Near the border the square is cut by it.
    share = uniform_filter(seen, window[::-1], mode="constant")
    around = uniform_filter(grid, window[::-1], mode="constant") / np.maximum(share, 1e-9) / step.prod() * seen
    densest = max(0.0, float(squares.max())) / area
    return GroundCount(float(grid.sum()), float(seen.sum() * step.prod()), side, densest, corners, around, both)


def _squares(grid: np.ndarray, window: Sequence[int]) -> np.ndarray:
    """The grid's sum in the window of (columns, rows) that begins at each place where it fits."""
    columns, rows = window
    sums = np.pad(grid, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]


def ground_layer(found: GroundCount, ground: Ground, picture: tuple[int, int], longest: int = 1024) -> Image.Image:
    """The density around each place of the ground as a picture to lie over the photograph, RGBA.

    Args:
        picture: (H, W) of the photograph in pixels; longest: of the layer, in pixels.
    """
    height, width = picture
    scale = min(1, longest / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    mask = rasterize([ground.corners * [w / width, h / height]], (h, w))
    rows, columns = np.nonzero(mask)
    places = np.stack([(columns + 0.5) * width / w, (rows + 0.5) * height / h], 1)
    metres = project(np.linalg.inv(found.planes.ground), places) / ground.size
    lines, across = found.around.shape
    index = (np.nan_to_num(metres) * [across, lines]).astype(int).clip(0, [across - 1, lines - 1])
    values = found.around[index[:, 1], index[:, 0]] / max(found.densest, 1e-9)
    layer = np.zeros((h, w, 4), np.uint8)
    layer[rows, columns, :3] = colormap(np.sqrt(values.clip(0, 1)))
    layer[rows, columns, 3] = 150
    return Image.fromarray(layer)


def ground_picture(found: GroundCount, ground: Ground, image: Image.Image) -> Image.Image:
    """The photograph with the density around each place of the ground, the rectangle, the densest square, and the scale."""
    size = (image.height, image.width)
    result = image.convert("RGB")
    result.thumbnail((MAX_SIDE, MAX_SIDE))
    layer = ground_layer(found, ground, size).resize(result.size)
    result.paste(layer, mask=layer.getchannel("A"))
    draw = ImageDraw.Draw(result)
    wide = max(2, min(result.size) // 250)
    for corners, colour in (
        (ground.corners, (255, 255, 255)),
        (found.where, (255, 255, 255)),
        (found.where, (0, 0, 0)),
    ):
        places = [tuple(corner) for corner in corners * (result.width / size[1])]
        draw.line([*places, places[0]], fill=colour, width=wide if colour[0] == 0 else 2 * wide)
    return captioned(result, f"{found.people:,.0f} on {found.area:g} m2", found.densest, "per m2")


def parse_points(texts: Sequence[str]) -> list[list[float]]:
    """``x,y`` of the command line, four times. Raises `UserError`."""
    try:
        return [[float(v) for v in text.split(",")] for text in texts]
    except ValueError:
        raise UserError("--ground: four points x,y in pixels, such as 120,400 610,390 480,200 220,205") from None
