"""Evaluate a model on data sets: `python -m dkpnet_ext.evaluate CHECKPOINT --data NAME=FOLDER ...`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .cli import Arithmetic, Cache, Device, Engine, parse, run_command
from .errors import UserError, say

TRAINED = "(default: as for the model's training)"
BY_CALIBRATE = ("checkpoint", "data", "calibrate", "on_bad", "cache", "device")  # options that --calibrate reads


@dataclass
class Arguments:
    """The command line."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """Folder with config.json and model.safetensors, the folder of a training run (its final model), or a hub id."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=FOLDER ...")] = ("synthetic",)
    """Data sets as NAME=FOLDER (layout recognised) or NAME=FOLDER:LAYOUT; `synthetic` is the embedded source."""
    split: Literal["train", "val", "test"] = "test"
    """Which part of each data set."""
    output: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("evaluation")
    """Folder for table.md, metrics.json and counts.csv (a line per image)."""
    submission: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also write the NWPU-Crowd server's text file (1500 lines "id count") from its unlabelled test images."""
    nine_patch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Evaluate as the authors' released code does: nine overlapping half-size patches per image."""
    points: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also locate the heads: precision, recall and F1 of points within 4 and 8 pixels of the annotated ones."""
    calibrate: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Instead of evaluating, measure intervals and what is like the training images, on the validation images of the data
    sets that the model was trained on, and write them beside its weights. A training run ends with this."""
    min_side: Annotated[int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint=TRAINED)] = None
    """Images are resized so that the shorter side is at least this."""
    max_side: Annotated[int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint=TRAINED)] = None
    """... and the longer side at most this. Large images are evaluated in tiles, with the same result."""
    on_bad: Literal["error", "skip"] = "error"
    """A bad file stops the evaluation, or is named and left out."""
    cache: Cache = None
    device: Device = "auto"
    precision: Arithmetic = "fp32"
    engine: Engine = "auto"


def main() -> None:
    """Parse, call, print."""
    args = parse(Arguments, "evaluate", description=__doc__)
    from .data import load_domains
    from .device import pick_device
    from .evaluation.calibration import calibrate_checkpoint
    from .evaluation.evaluate import evaluate_domains, submit, tables
    from .models import load_model
    from .models.hub import find_checkpoint

    ignored = [f.name for f in fields(args) if f.name not in BY_CALIBRATE and getattr(args, f.name) != f.default]
    if args.calibrate and ignored:
        names = ", ".join("--" + name.replace("_", "-") for name in ignored)
        raise UserError(f"--calibrate: measures the model as `predict` runs it, and only that; leave {names} out")
    if args.points and args.nine_patch:
        raise UserError("--points: nine patches give counts only; leave one of the two options out")
    device = pick_device(args.device, args.precision)
    model = load_model(args.checkpoint).to(device).for_inference(args.engine, args.precision)
    how: dict[str, Any] = {
        "device": device,
        "precision": args.precision,
        "nine_patch": args.nine_patch,
        "progress": sys.stderr.isatty(),
    }
    domains = load_domains(
        args.data,
        cache=args.cache,
        min_side=model.min_side if args.min_side is None else args.min_side,
        max_side=model.max_side if args.max_side is None else args.max_side,
        on_bad=args.on_bad,
    )
    if args.calibrate:
        found = calibrate_checkpoint(args.checkpoint, domains, device=device, progress=how["progress"])
        for line in found.card().splitlines():
            say(line)
        say(f"written to {find_checkpoint(args.checkpoint)}")
        return
    if args.submission is None or any(getattr(d, args.split) for d in domains):
        rows = evaluate_domains(model, domains, args.output, split=args.split, points=args.points, **how)
        for line in "\n\n".join(tables(rows)).splitlines():
            say(line)
        say(f"written to {args.output}")
    if args.submission is not None:
        submit(model, domains, args.submission, **how)
        say(f"submission written to {args.submission}")


if __name__ == "__main__":
    run_command(main)
