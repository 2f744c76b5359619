"""Train a multi-domain crowd counter: `python -m dkpnet_ext.train [PRESET] [--data NAME=FOLDER ...]`."""

from __future__ import annotations

import copy
import os
import sys
import warnings

from .cli import parse as parse_arguments
from .cli import program, run_command
from .errors import UserError
from .training import PRESETS, Config


def parse(arguments: list[str]) -> Config:
    """A preset's name first (``quick`` by default), then anything to change in it."""
    import tyro

    name = "quick"
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    if name not in PRESETS:
        raise UserError(f"preset {name}: unknown; there are {', '.join(PRESETS)}")
    presets = "\n".join(f"  {key}: {text}" for key, (text, _) in PRESETS.items())
    config = parse_arguments(
        tyro.conf.OmitArgPrefixes[Config],
        "train",
        prog=f"{program('train')} [PRESET]",
        description=f"Train DKPNet or one of its comparison systems, in one or two stages.\n\nPresets:\n{presets}\n\n"
        f"The defaults below are those of {name}.",
        default=copy.deepcopy(PRESETS[name][1]),
        args=arguments,
    )
    config.check()
    return config


def main() -> None:
    config = parse(sys.argv[1:])
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # seconds: a log file needs no line per step
    from .training.interruption import Interrupted
    from .training.run import train

    try:
        train(config)
    except Interrupted as stop:
        print(f"\nstopped, and saved; go on with: python -m dkpnet_ext.train --resume {stop}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run_command(main)
