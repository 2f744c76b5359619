"""Counting one still picture: its density, the size it was counted at, and the overlay on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL.Image import Image
from torch import Tensor

from ..data.images import limited_size, open_image, read_image, to_tensor
from ..device import Precision, autocast
from ..files import write_atomically
from ..plots import overlay
from .ground import Ground, GroundCount, NoGround, count_ground, ground_picture
from .points import locate, to_picture, write_points
from .regions import Regions, count_regions

if TYPE_CHECKING:
    from ..models import CrowdCounter
    from ..models.calibration import Assessment


@dataclass
class Prediction:
    """What is said of one file; of a video, its frames' mean."""

    file: str
    count: float | None = None
    size: tuple[int, int] | None = None  # (height, width) in pixels
    counted_size: tuple[int, int] | None = None  # (height, width) at which the model saw it
    regions: dict[str, float] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)  # files written, relative to the output folder
    frames: int | None = None  # frames counted, videos only
    skipped: list[str] = field(default_factory=list)  # frames left out, and why
    notes: list[str] = field(default_factory=list)  # what else one should know
    ground: dict[str, Any] | None = None  # people per square metre, see `GroundCount.spoken`
    error: str | None = None  # then nothing else is known
    intervals: dict[str, list[float]] = field(default_factory=dict)  # per cent -> lowest and highest count
    interval_pictures: dict[str, int] = field(default_factory=dict)  # per cent -> validation pictures behind the limits
    familiar: str | None = None  # in words, whether the picture is like those that the model learned from


class Counted(NamedTuple):
    """What a model says of a picture."""

    density: Tensor  # float32 [ceil(h / stride), ceil(w / stride)] on the CPU, heads per cell
    size: tuple[int, int]  # (H, W) of the picture in pixels
    counted: tuple[int, int]  # (h, w) at which the model saw it
    stride: int
    assessed: Assessment | None = None  # of a calibrated model, where asked for

    @property
    def heads(self) -> float:
        """Heads in the whole picture."""
        return float(self.density.double().sum())

    def located(self) -> np.ndarray:
        """The heads as points [N, 3]: x, y in pixels of the picture, score (see `locate`)."""
        points, scores = locate(self.density, self.stride)
        return np.column_stack([to_picture(points, self.counted, self.size), scores])

    def on_ground(self, ground: Ground) -> GroundCount:
        """People per square metre (see `count_ground`)."""
        return count_ground(self.density, ground, self.size, self.stride, self.counted)

    def in_regions(self, regions: Regions) -> dict[str, float]:
        """Heads in each region (see `count_regions`)."""
        return count_regions(self.density, regions, self.size, self.stride, self.counted)


def count_pixels(
    model: CrowdCounter, image: Any, precision: Precision = "fp32", as_is: bool = False, assess: bool = False
) -> Counted:
    """Count one picture, at the size that the model was trained for, or ``as_is``.

    Args:
        image: as for `CrowdCounter.density`.
        assess: also say what a calibrated model knows of it; not at another size than the training's.
    """
    pixels = to_tensor(image)
    prepared = pixels if as_is else model.prepare(pixels)
    with autocast(model.pixel_mean.device, precision):
        output = model.examine(prepared, as_is=True)
    size, counted = ((each.shape[1], each.shape[2]) for each in (pixels, prepared))
    found = Counted(output.density[0, 0].float().cpu(), size, counted, model.out_stride)
    if assess and not (as_is and counted != limited_size(size, model.min_side, model.max_side)):
        found = found._replace(assessed=model.assess(pixels, found.heads))
    return found


def outputs_of_picture(name: str, points: bool = False, ground: bool = False) -> list[str]:
    """Names of the files that `draw_picture` writes."""
    ends = (
        "-density.png",
        *(("-points.geojson", "-points.csv") if points else ()),
        *(("-ground.png",) if ground else ()),
    )
    return [f"{name}{end}" for end in ends]


def decode_picture(path: Path) -> tuple[Image, int]:
    """A picture file's upright RGB image, and the number of its frames if it is an animation. Raises `UserError`."""
    return read_image(path), _frames(path)


def draw_picture(
    path: Path,
    image: Image,
    frames: int,
    found: Counted,
    output: Path,
    name: str,
    regions: Regions,
    points: bool = False,
    ground: Ground | None = None,
) -> Prediction:
    """Write ``<name>-density.png`` into ``output``.

    Args:
        points: draw the heads as points, too, and write ``<name>-points.geojson`` and ``<name>-points.csv``.
        ground: say people per square metre, too, and write ``<name>-ground.png``; a note says why where that cannot be said.

    Raises:
        UserError: regions or ground points that do not fit the picture, an output that cannot be written.
    """
    counts = found.in_regions(regions)
    heads = found.located() if points else None
    notes = [f"an animation: the first of {frames} frames is counted"] if frames > 1 else []
    crowded = None
    try:
        crowded = found.on_ground(ground) if ground else None
    except NoGround as reason:
        notes.append(str(reason))
    outputs = outputs_of_picture(name, points, crowded is not None)
    drawn = overlay(image, found.density, found.heads, points=heads)
    # Level 1 instead of 6: a tenth more bytes, a third of the time (bench/results/engines.md).
    write_atomically(output / outputs[0], partial(drawn.save, compress_level=1))
    if heads is not None:
        write_points(heads, output / outputs[1], output / outputs[2])
    if ground and crowded:
        drawn = ground_picture(crowded, ground, image)
        write_atomically(output / outputs[-1], partial(drawn.save, compress_level=1))
    prediction = Prediction(str(path), found.heads, found.size, found.counted, counts, outputs, notes=notes)
    prediction.ground = crowded.spoken() if crowded else None
    if found.assessed is not None:
        prediction.familiar = found.assessed.words()
        prediction.intervals = {str(level): list(limits) for level, limits in found.assessed.intervals.items()}
        prediction.interval_pictures = {str(level): number for level, number in found.assessed.pictures.items()}
    return prediction


def _frames(path: Path) -> int:
    """Frames of an animation; 1 of a still picture (also of those that hold a preview or a second photograph)."""
    with open_image(path) as image:
        try:
            return getattr(image, "n_frames", 1) if image.format in ("GIF", "WEBP", "PNG") else 1
        except Exception:  # cut off behind the first frame, the one that is counted: Pillow raises what it comes upon
            return 1
