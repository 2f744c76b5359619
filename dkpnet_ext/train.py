"""Train a multi-domain crowd counter: `python -m dkpnet_ext.train [PRESET] [--data NAME=FOLDER ...]`."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Mapping

from .cli import parse as parse_arguments
from .cli import program, run_command
from .errors import UserError, say
from .training import PRESETS, Config

# The options that people need first; `--help-all` lists all of them.
FIRST = {
    "--data NAME=FOLDER ...": "your data sets; `prepare` checks them before",
    "--output FOLDER": "where the run is written",
    "--resume FOLDER": "go on with a run that was stopped",
    "--epochs N": "length of each stage",
    "--batch N": "images of a step; lower it if memory runs out",
    "--crop N": "side of the training crops in pixels",
    "--lr RATE": "learning rate",
    "--num-clusters N": "domains of stage II",
    "--backbone NAME": "the part of the network that can be pretrained, by its name in timm",
    "--device cpu|cuda": "where to train",
}


def first_options(config: Config, options: Mapping[str, str] = FIRST) -> str:
    """A line for each option, with the value that it has in ``config``."""
    groups = (config, config.data, config.model, config.cluster, config.optim)
    values = {name: value for group in groups for name, value in vars(group).items()}
    lines = []
    for option, about in options.items():
        value = values.get(option.split()[0].strip("-").replace("-", "_"))
        value = " ".join(map(str, value)) if isinstance(value, tuple) else value
        lines.append(f"  {option:<24}{about}" + (f" ({value})" if value not in (None, "") else ""))
    return "\n".join(lines)


def parse(arguments: list[str]) -> Config:
    """A preset's name first (``quick`` by default), then anything to change in it.

    Raises:
        UserError: an unknown preset, arguments that do not fit, settings out of range, options beside --resume, options
            that contradict the counter of --from.
    """
    import tyro

    words, name = list(arguments), "quick"
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    elif any(word.partition("=")[0] == "--from" for word in arguments):
        name = "adapt"
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"preset {name}: unknown; there are {', '.join(PRESETS)}{meant}")
    presets = "\n".join(f"  {key}: {preset.about}" for key, preset in PRESETS.items())
    about = f"Train DKPNet or one of its comparison systems, in one or two stages.\n\nPresets:\n{presets}"
    config = parse_arguments(
        tyro.conf.OmitArgPrefixes[Config],
        "train",
        short=f"usage: {program('train')} [PRESET] [OPTION ...]\n\n{about}\n\n"
        f"The options that people need first, with their values in {name}:\n{first_options(PRESETS[name].config)}\n\n"
        f"All options: {program('train')} {name} --help-all",
        prog=f"{program('train')} [PRESET]",
        description=f"{about}\n\nThe defaults below are those of {name}.",
        default=PRESETS[name].config,
        args=arguments,
    )
    if config.resume is not None and len(words) > (1 if words[0].startswith("--resume=") else 2):
        raise UserError(
            "--resume goes on with the run's own settings: give it alone, without a preset or other options"
        )
    config.check()
    if config.start is not None and config.resume is None:
        from .training.adapt import adopt

        adopt(config, {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")})
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
