"""What all commands share: argument types, parsing with errors of one line, how a command ends, and `dkpnet`."""

from __future__ import annotations

import importlib
import io
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro

from .errors import OutputClosed, UserError, closed, out_of_memory, say

COMMANDS = {
    "train": "train a model",
    "evaluate": "errors of a model on data sets",
    "predict": "count people in pictures and videos",
    "demo": "a local page to try a model on",
    "annotate": "label heads in your pictures on a local page",
    "prepare": "check data sets before training",
    "reproduce": "the paper's tables and figures",
    "export": "save a model as ONNX or torch.export",
    "info": "versions, devices, which operator runs where",
}

STARTER = "(default: the starter model that comes with the package)"
_CACHE = "(default: $DKPNET_CACHE or ~/.cache/dkpnet_ext)"

# A command's arguments of the same meaning, with one help text each.
Checkpoint = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="CHECKPOINT",
        help_behavior_hint=STARTER,
        help="Folder with config.json and model.safetensors, the folder of a training run (its best model so far), or "
        "a hub id.",
    ),
]
Cache = Annotated[
    Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint=_CACHE, help="Folder of decoded images.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], tyro.conf.arg(help="Where the model runs; auto takes a GPU if there is one.")
]
Arithmetic = Annotated[Literal["fp32", "bf16", "fp16"], tyro.conf.arg(help="Arithmetic; fp16 needs a GPU.")]
Engine = Annotated[
    Literal["auto", "torch", "onnxruntime", "openvino"],
    tyro.conf.arg(
        help="What runs the convolutions; auto takes the fastest installed engine that counts the same, measured once and "
        "remembered."
    ),
]

T = TypeVar("T")


def program(command: str) -> str:
    """How the running command was called: ``dkpnet predict`` or ``python -m dkpnet_ext.predict``."""
    return sys.argv[0] if sys.argv[0] == f"dkpnet {command}" else f"python -m dkpnet_ext.{command}"


def parse(kind: Callable[..., T], command: str, *, short: str | None = None, **options: Any) -> T:
    """`tyro.cli` for a command, whose errors are one line.

    Args:
        kind: the class of the arguments; command: its name, such as ``predict``; options: as for `tyro.cli`.
        short: what ``--help`` prints in place of tyro's list of all options, which ``--help-all`` prints.

    Raises:
        UserError: arguments that do not fit. SystemExit: after ``--help`` and ``--help-all``.
    """
    words = [str(word) for word in (sys.argv[1:] if options.get("args") is None else options["args"])]
    if short is not None and {"-h", "--help"} & set(words):
        for line in short.splitlines():
            say(line)
        raise SystemExit(0)
    options["args"] = ["--help" if word == "--help-all" else word for word in words]
    if (os.environ.get("COLUMNS") or "80").isdecimal() and int(os.environ.get("COLUMNS") or 80) < 40:
        os.environ["COLUMNS"] = "40"  # narrower help texts take tyro very long, or forever
    shown = io.StringIO()
    options.setdefault("prog", program(command))
    try:
        with redirect_stderr(shown):
            return tyro.cli(kind, **options)
    except OSError as error:  # the reader of the help text has gone
        raise closed(sys.stdout, error) from None
    except SystemExit as ended:
        if not ended.code:
            raise
        raise UserError(f"{_one_line(shown.getvalue())}; see {program(command)} --help") from None


def _one_line(shown: str) -> str:
    """The words of an error of tyro's, which draws a title, parts between rules and a hint (`╭─ Title ─╮ │ part │`, or
    without a box on a stream that has no such characters)."""
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row).strip(" │") for row in shown.splitlines()]
    parts = [" ".join(part.split()) for part in re.split(r"(?m)^[╭╰─-][^\n]*─╮?$|^-{4,}$", "\n".join(rows))]
    wanted = [part.rstrip(".") for part in parts if part and not part.startswith(("For full helptext", "╰"))]
    return "; ".join(wanted if rows[0].startswith("╭") else wanted[1:]) or "arguments that do not fit"


class Stopped(BaseException):
    """SIGTERM or SIGHUP arrived."""


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: results so far are written. A second one changes nothing."""

    def stop(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(signal.Signals(number))

    # One that is ignored from outside (nohup) stays ignored.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _open_streams() -> None:
    """Give closed standard streams (``2>&-``) somewhere to write: else the next file opened gets their number, and
    whatever a library prints ends in it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run a command's ``main`` and exit.

    Bad input becomes one line on stderr and exit status 2; Ctrl-C 130; SIGTERM, SIGHUP and a reader of the output that
    has gone one line and 128 + the signal's number.
    """
    _open_streams()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # its words on a damaged file stand beside ours
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    try:
        with _signals():
            main()
        status = 0
    except UserError as error:
        say(f"error: {error}", error=True)
        status = 128 + signal.SIGPIPE if isinstance(error, OutputClosed) and error.reader_gone else 2
    except KeyboardInterrupt:
        status = 130
    except Stopped as stop:
        say(f"stopped by {stop.args[0].name}; results so far are kept", error=True)
        status = 128 + stop.args[0]
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        say("error: not enough memory", error=True)
        status = 2
    sys.exit(status)


def completion(shell: str) -> str:
    """A script that completes the commands, options and choices of `dkpnet` with the tab key.

    Args:
        shell: bash or zsh.
    """
    from .training.config import Config

    modules = {command: importlib.import_module(f"dkpnet_ext.{command}") for command in COMMANDS}
    kinds = {command: getattr(module, "Arguments", lambda: None) for command, module in modules.items()}
    written = io.StringIO()
    with redirect_stdout(written), suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            kinds | {"train": Config},
            prog="dkpnet",
            args=["--tyro-print-completion", shell],
            config=(tyro.conf.OmitArgPrefixes,),
        )
    # Where the script has nothing to offer, bash completes names of files.
    return written.getvalue().replace("complete -F", "complete -o bashdefault -o default -F")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: `dkpnet COMMAND ...` is `python -m dkpnet_ext.COMMAND ...`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words else "--help"
    if command in ("-h", "--help"):
        say("usage: dkpnet COMMAND ...; dkpnet COMMAND --help tells more")
        for name, what in COMMANDS.items():
            say(f"  {name:<10} {what}")
        say(f"  {'completion':<10} prints a script for tab completion: source <(dkpnet completion bash)")
        return
    if command == "completion":
        shells = ("bash", "zsh")
        if len(words) != 2 or words[1] not in shells:
            raise UserError(f"dkpnet completion: name your shell: {', '.join(shells)}")
        for line in completion(words[1]).splitlines():
            sys.stdout.write(line + "\n")  # as it is: a script may hold any character
        return
    if command not in COMMANDS:
        raise UserError(f"dkpnet {command}: unknown; there are {', '.join([*COMMANDS, 'completion'])}")
    sys.argv = [f"dkpnet {command}", *words[1:]]
    importlib.import_module(f"dkpnet_ext.{command}").main()


def console() -> NoReturn:
    """Entry point of the console script."""
    run_command(main)
