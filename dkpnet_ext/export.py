"""Save a model for use without this package: `python -m dkpnet_ext.export [CHECKPOINT] --output counter.onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .cli import Checkpoint, parse, run_command
from .errors import say


@dataclass
class Arguments:
    """The command line."""

    checkpoint: Annotated[Checkpoint, tyro.conf.Positional] = None
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("counter.onnx")
    """File to write: NAME.onnx (ONNX, opset 18) or NAME.pt2 (torch.export)."""


def main() -> None:
    """Parse, export, check, print."""
    args = parse(Arguments, "export", description=__doc__)
    from .counting.export import check_exported, export_model
    from .models import load_model

    model = load_model(args.checkpoint)
    export_model(model, args.output)
    difference = check_exported(model, args.output)
    say(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB; counts differ from PyTorch's by {difference:.1e}")


if __name__ == "__main__":
    run_command(main)
