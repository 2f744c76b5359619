"""Count the people in pictures and videos: `python -m dkpnet_ext.predict photo.jpg video.mp4 folder ...`."""

from __future__ import annotations

import math
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from .cli import Arithmetic, Checkpoint, Device, Engine, parse, run_command
from .errors import UserError, say

if TYPE_CHECKING:
    from .counting.pictures import Prediction


@dataclass
class Arguments:
    """The command line."""

    inputs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE ...", help_behavior_hint="(required)")
    ]
    """Pictures, videos, or folders of them."""
    output: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("predictions")
    """Folder for the results: the density over each picture (PNG); of a video the counts (CSV), their plot and the
    overlaid video; predictions.json about all."""
    checkpoint: Checkpoint = None
    regions: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also count per region: polygons in pixels (GeoJSON), or a picture whose values label the regions."""
    points: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also write where the heads of each picture are: points in pixels (GeoJSON and CSV), drawn into the overlay, too."""
    ground: Annotated[
        tuple[str, str, str, str] | None, tyro.conf.arg(metavar="X,Y X,Y X,Y X,Y", help_behavior_hint="")
    ] = None
    """Also say people per square metre: the corners of a rectangle on the ground, in order around it, in pixels."""
    ground_size: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="W H", help_behavior_hint="")] = None
    """Metres from its first corner to the second, and on to the third."""
    as_is: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Count every picture at its own size, not at the one that the model was trained for (see docs/predict.md)."""
    device: Device = "auto"
    precision: Arithmetic = "fp32"
    engine: Engine = "auto"


def main() -> None:
    """Parse, count, print."""
    if "" in sys.argv[1:]:  # as a path it would be the current folder
        raise UserError('an empty argument: perhaps a variable that is not set, such as "$FILE"')
    args = parse(Arguments, "predict", description=__doc__)
    if not args.inputs:
        raise UserError("nothing to count: name pictures, videos or folders")
    from .counting.ground import parse_points, read_ground
    from .counting.prediction import predict_files
    from .counting.regions import read_regions
    from .device import pick_device
    from .models import load_model

    if (args.ground is None) != (args.ground_size is None):
        raise UserError("--ground and --ground-size go together: four points x,y in pixels, and two lengths in metres")
    ground = None if args.ground is None else read_ground(parse_points(args.ground), args.ground_size)
    device = pick_device(args.device, args.precision)
    regions = None if args.regions is None else read_regions(args.regions)
    model = load_model(args.checkpoint).to(device).for_inference(args.engine, args.precision)
    failed = 0
    results = predict_files(
        model,
        args.inputs,
        args.output,
        regions=regions,
        precision=args.precision,
        as_is=args.as_is,
        points=args.points,
        ground=ground,
        progress=sys.stderr.isatty(),
    )
    with closing(results):  # predictions.json is written however this ends
        for found in results:
            problems = [found.error] if found.error else []
            for problem in problems + found.skipped:
                named = problem if found.file in problem else f"{found.file}: {problem}"
                say(f"error: {named}", error=True)
            failed += found.error is not None
            if found.count is not None:
                say(line(found))
    say(f"results in {args.output}")
    if failed:
        raise UserError(f"{failed} of the files could not be counted")


def line(found: Prediction) -> str:
    """What is said of one file."""
    from .counting.ground import words

    frames = "" if found.frames is None else f" on average in {found.frames} frames"
    parts = "".join(f"; {name} {count:.1f}" for name, count in found.regions.items())
    parts += "" if found.ground is None else f"; {words(found.ground)}"
    notes = list(found.notes)
    if found.intervals:
        level, (low, high) = list(found.intervals.items())[-1]
        checked = found.interval_pictures.get(level)
        known = f", as on {checked} checked pictures" if checked else ""
        frames += f" ({level} %: {math.floor(low)} to {math.ceil(high)}{known})"
    if found.familiar and found.familiar.startswith("unlike"):
        notes.insert(0, found.familiar)
    if found.size != found.counted_size and found.size and found.counted_size:
        (height, width), (h, w) = found.size, found.counted_size
        notes.insert(0, f"resized from {width}x{height} to {w}x{h} px")
    return f"{found.file}: {found.count:.1f}{frames}{parts}" + (f" ({'; '.join(notes)})" if notes else "")


if __name__ == "__main__":
    run_command(main)
