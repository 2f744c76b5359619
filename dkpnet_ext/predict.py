"""Count the people in pictures and videos: `python -m dkpnet_ext.predict photo.jpg video.mp4 folder ...`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .errors import UserError, run_command

STARTER = "(default: the starter model that comes with the package)"


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
    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="CHECKPOINT", help_behavior_hint=STARTER)] = None
    """Folder with config.json and model.safetensors, the folder of a training run, or a hub id."""
    regions: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also count per region: polygons in pixels (GeoJSON), or a picture whose values label the regions."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes a GPU if there is one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic; fp16 needs a GPU."""


def main() -> None:
    """Parse, count, print."""
    args = tyro.cli(Arguments, prog="python -m dkpnet_ext.predict", description=__doc__)
    if not args.inputs:
        raise UserError("nothing to count: name pictures, videos or folders")
    from .counting.prediction import predict_files
    from .counting.regions import read_regions
    from .evaluation.inference import pick_device
    from .files import checkpoint_folder
    from .models import load_model

    device = pick_device(args.device, args.precision)
    regions = None if args.regions is None else read_regions(args.regions)
    model = load_model(checkpoint_folder(args.checkpoint)).for_inference().to(device)
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
