"""Ctrl-C, SIGTERM and SIGHUP end a training with its state saved; what else goes wrong becomes one line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from ..errors import UserError, out_of_memory


class Interrupted(Exception):
    """A signal ended the training. ``folder`` is the run folder to go on with; None: nothing was written yet."""

    def __init__(self, folder: Path | None) -> None:
        where = f"go on with --resume {folder}" if folder else "nothing was written yet"
        super().__init__(f"stopped; {where}")
        self.folder = folder


class Stop:
    """Signals end the training: inside `deferred` the loop asks ``requested`` between steps, elsewhere at once."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.requested = False
        self._deferring = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler. A second signal changes nothing: torchrun sends its own after a Ctrl-C."""
        first, self.requested = not self.requested, True
        if first and not self._deferring:
            raise Interrupted(self.folder)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets ``requested``."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def outlive_stop(worker: int) -> None:
    """In a process that prepares batches: a signal to all of a run's processes, as Slurm sends it, ends this one 30 seconds later.

    The run needs its workers until it has saved its state, and ends them itself.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: signal.alarm(30))


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Handle Ctrl-C, SIGTERM and SIGHUP (one that nohup ignores stays ignored); in other threads than the main one
    Python allows no handlers."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop.handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def one_line(stop: Stop) -> Iterator[None]:
    """Turns what the machine refuses (memory, a killed worker, a folder that is gone) into a `UserError` of one line."""
    try:
        yield
    except (UserError, Interrupted) as error:
        if not str(error).startswith("Caught "):  # else it comes from a DataLoader's worker, with its traceback
            raise
        raise UserError(_last_line(error)) from None
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if "DataLoader worker" in text and ("exited unexpectedly" in text or "killed by signal" in text):
            problem = "a process that prepares batches was killed (perhaps memory ran out); try fewer --workers"
        elif out_of_memory(error):
            problem = f"not enough {'GPU ' * isinstance(error, torch.OutOfMemoryError)}memory; {_LESS}"
        elif text.startswith("Caught BadFile"):  # in a DataLoader's worker
            problem = _last_line(error)
        else:
            raise
        raise UserError(problem + _go_on(stop)) from None
    except OSError as error:
        where = error.filename or stop.folder or "training"
        reason = error.strerror or _last_line(error)
        raise UserError(f"{where}: {reason}{_go_on(stop)}") from None


_LESS = "lower --batch or --crop, or raise --accumulate"


def _go_on(stop: Stop) -> str:
    begun = stop.folder is not None and any(stop.folder.glob("stage*/state.pt"))
    return f"; go on with --resume {stop.folder}" if begun else ""


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
