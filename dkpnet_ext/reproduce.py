"""Reproduce the paper's tables and figures: `python -m dkpnet_ext.reproduce table4 ... [--data NAME=FOLDER ...]`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from .cli import parse as parse_arguments
from .cli import program, run_command
from .errors import UserError
from .train import FIRST, first_options, quiet
from .training import PRESETS, Config
from .training.config import ModelConfig


@dataclasses.dataclass
class Model(ModelConfig):
    """The network; the tables decide on the system."""

    system: tyro.conf.Suppress[str] = "dkpnet"


@dataclasses.dataclass
class Settings(Config):
    """A run's settings, without those that the tables decide on."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = Path("reproduction")
    """Folder of the runs and of the tables."""
    resume: tyro.conf.Suppress[Path | None] = None
    seed: tyro.conf.Suppress[int] = 0
    start: tyro.conf.Suppress[str | None] = None
    model: Model = dataclasses.field(default_factory=Model)

    @staticmethod
    def of(preset: str) -> Settings:
        """The settings of a preset."""
        values = vars(PRESETS[preset].config)
        return Settings(**values | {"model": Model(**vars(values["model"])), "output": Path("reproduction")})


@dataclasses.dataclass
class Arguments:
    """The command line after the names of tables."""

    config: Settings
    """The runs' settings; --epochs are those of a stage."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="SEED ...")] = (0,)
    """Every system is trained once with each."""


def parse(arguments: list[str]) -> tuple[list[str], Arguments]:
    """Names of tables (or `all`) and perhaps a preset first, then anything to change in it."""
    from .reproduction.tables import PAGES

    names: list[str] = []
    preset = "small" if any(word.partition("=")[0] == "--data" for word in arguments) else "scratch"
    while arguments and not arguments[0].startswith("-"):
        word, *arguments = arguments
        if word in PRESETS:
            preset = word
        elif word == "all":
            names += PAGES
        elif word in PAGES:
            names.append(word)
        else:
            raise UserError(f"{word}: neither a table nor a preset; there are all, {', '.join([*PAGES, *PRESETS])}")
    if not names and not {"-h", "--help", "--help-all"} & set(arguments):
        raise UserError(f"which table? all, or some of {', '.join(PAGES)}")
    pages = "\n".join(f"  {name}: {page.title}" for name, page in PAGES.items())
    about = (
        "Train what the paper's tables and figures need, each run once, and write them with a verdict for every claim.\n\n"
        "Systems without a second stage train twice the epochs. A run that was cut off goes on where it was.\n\n"
        f"Tables, or all:\n{pages}"
    )
    settings = Settings.of(preset)
    options = {"--seeds SEED ...": "every system is trained once with each (0)"} | FIRST
    del options["--resume FOLDER"]
    parsed = parse_arguments(
        tyro.conf.OmitArgPrefixes[Arguments],
        "reproduce",
        short=f"usage: {program('reproduce')} TABLE ... [PRESET] [OPTION ...]\n\n{about}\n\nPresets: {', '.join(PRESETS)}\n\n"
        f"The options that people need first, with their values in {preset}:\n{first_options(settings, options)}\n\n"
        f"All options: {program('reproduce')} {preset} --help-all",
        prog=f"{program('reproduce')} TABLE ... [PRESET]",
        description=f"{about}\n\nThe defaults below are those of the preset {preset}.",
        default=Arguments(settings),
        args=arguments,
    )
    if not parsed.seeds or not all(0 <= seed < 2**32 - 1 for seed in parsed.seeds):
        raise UserError("--seeds: give at least one, each from 0 to 4294967294")
    parsed.seeds = tuple(dict.fromkeys(parsed.seeds))
    parsed.config.check()
    return list(dict.fromkeys(names)), parsed


def main() -> None:
    names, args = parse(sys.argv[1:])
    quiet()
    from .reproduction.report import reproduce
    from .training.interruption import Interrupted

    config = args.config
    try:
        page = reproduce(names, config, args.seeds, config.output or Path("reproduction"))
    except Interrupted:
        print("\nstopped, and saved; the same command goes on", file=sys.stderr)
        sys.exit(130)
    print(f"written: {page}")


if __name__ == "__main__":
    run_command(main)
