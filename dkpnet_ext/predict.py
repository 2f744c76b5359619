"""Count the people in pictures and videos: `python -m dkpnet_ext.predict photo.jpg video.mp4 folder ...`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .cli import Arithmetic, Checkpoint, Device, parse, run_command
from .errors import UserError


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
    device: Device = "auto"
    precision: Arithmetic = "fp32"


def main() -> None:
    """Parse, count, print."""
    args = parse(Arguments, "predict", description=__doc__)
    if not args.inputs:
        raise UserError("nothing to count: name pictures, videos or folders")
    from .counting.prediction import predict_files
    from .counting.regions import read_regions
    from .device import pick_device
    from .models import load_model

    device = pick_device(args.device, args.precision)
    regions = None if args.regions is None else read_regions(args.regions)
    model = load_model(args.checkpoint).for_inference().to(device)
    failed = 0
    for found in predict_files(
        model, args.inputs, args.output, regions=regions, precision=args.precision, progress=sys.stderr.isatty()
    ):
        for problem in ([found.error] if found.error else []) + [f"{found.file}: {s}" for s in found.skipped]:
            print(f"error: {problem}", file=sys.stderr, flush=True)
        failed += found.error is not None
        if found.count is not None:
            frames = "" if found.frames is None else f" on average in {found.frames} frames"
            parts = "".join(f"; {name} {count:.1f}" for name, count in found.regions.items())
            print(f"{found.file}: {found.count:.1f}{frames}{parts}", flush=True)
    print(f"results in {args.output}")
    if failed:
        raise UserError(f"{failed} of the files could not be counted")


if __name__ == "__main__":
    run_command(main)
