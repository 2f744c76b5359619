"""Train a multi-domain crowd counter: `python -m dkpnet_ext.train [PRESET] [--data NAME=FOLDER ...]`."""

from __future__ import annotations

import copy
import difflib
import os
import sys
import warnings

from .cli import parse as parse_arguments
from .cli import program, run_command
from .errors import UserError, say
from .training import PRESETS, Config

_FIRST = """The options that people need first:
  --data NAME=FOLDER ...  your data sets; `prepare` checks them before
  --output FOLDER         where the run is written
  --resume FOLDER         go on with a run that was stopped
  --epochs N              length of each stage
  --batch N, --crop N     lower them if memory runs out
  --lr RATE               learning rate
  --num-clusters N        domains of stage II
  --backbone NAME, --weights imagenet|FILE|None
  --device cpu|cuda
  --seed N"""


def parse(arguments: list[str]) -> Config:
    """A preset's name first (``quick`` by default), then anything to change in it.

    Raises:
        UserError: an unknown preset, arguments that do not fit, settings out of range, options beside --resume.
    """
    import tyro

    words, name = list(arguments), "quick"
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"preset {name}: unknown; there are {', '.join(PRESETS)}{meant}")
    presets = "\n".join(f"  {key}: {text}" for key, (text, _) in PRESETS.items())
    config = parse_arguments(
        tyro.conf.OmitArgPrefixes[Config],
        "train",
        prog=f"{program('train')} [PRESET]",
        description=f"Train DKPNet or one of its comparison systems, in one or two stages.\n\nPresets:\n{presets}\n\n"
        f"{_FIRST}\n\nThe defaults below are those of {name}.",
        default=copy.deepcopy(PRESETS[name][1]),
        args=arguments,
    )
    if config.resume is not None and len(words) > (1 if words[0].startswith("--resume=") else 2):
        raise UserError(
            "--resume goes on with the run's own settings: give it alone, without a preset or other options"
        )
    config.check()
    return config


def quiet() -> None:
    """Fewer lines in a log file, and no advice from libraries."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # seconds: a log file needs no line per step


def main() -> None:
    """Parse, train; a signal ends it with exit status 130."""
    config = parse(sys.argv[1:])
    quiet()
    from .training import train
    from .training.interruption import Interrupted

    try:
        train(config)
    except Interrupted as stop:
        how = f"go on with: {program('train')} --resume {stop.folder}" if stop.folder else "nothing was written yet"
        say(f"stopped{', and saved' if stop.folder else ''}; {how}", error=True)
        sys.exit(130)


if __name__ == "__main__":
    run_command(main)
