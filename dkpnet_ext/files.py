"""Reading and writing folders and files, with one clear line for every error of the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError


class OutputError(UserError):
    """Results cannot be written: going on with the next input would be no use."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the disk's refusals (read-only, full, a file where a folder should be) into an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_atomically(
    path: Path, content: str | bytes | Callable[[Path], object], check: Callable[[Path], object] | None = None
) -> None:
    """Write a file that is whole or not there: what stood at ``path`` stays until the new file is on the disk.

    Args:
        content: text (written as UTF-8), bytes, or a function that writes the path it is given (same suffix).
        check: reads the new file before it takes its place; what it raises is raised here.

    Raises:
        OutputError: the disk is full, the folder is gone ... Nothing half-written is left behind.
    """
    if not path.name:
        raise OutputError(f"'{path}' is a folder, name a file")
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}.tmp{path.suffix[-20:]}")
    try:
        with writing(path):
            if callable(content):
                content(partial)
            elif isinstance(content, str):  # names of files may not be UTF-8; escaped so, JSON reads them again
                partial.write_bytes(content.encode(errors="backslashreplace"))
            else:
                partial.write_bytes(content)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            if check is not None:
                check(partial)
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def create_folder(final: Path, fill: Callable[[Path], object]) -> None:
    """Create a folder that is complete or not there. If another process is faster, its folder stays.

    Args:
        fill: writes into the working folder that it is given.

    Raises:
        OutputError: the disk is full, or the folder above cannot be written.
    """
    with writing(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        with writing(final):
            work.chmod(0o755)  # a cache may be shared
            fill(work)
            try:
                os.rename(work, final)
            except OSError:
                if not final.is_dir():
                    raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Delete what `write_atomically` could not, since its process was killed. Only for a folder of one's own."""
    for partial in folder.rglob(".*.tmp*"):
        with suppress(OSError):
            partial.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process gets this folder. The system frees the lock of a process that died.

    A lock of `fcntl.lockf`, as forked workers do not inherit it: those of a killed process would hold it for seconds.

    Raises:
        UserError: another process has it. OutputError: the folder cannot be written.
    """
    import fcntl

    with writing(folder):
        try:
            file = (folder / ".lock").open("a")
        except PermissionError:
            if not os.access(folder, os.W_OK):
                raise
            file = None  # another user's, of an earlier call
    if file is None:
        yield
        return
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is writing to this folder; wait for its end") from None
        except OSError:  # a file system without locks
            pass
        yield


def output_folder(path: Path) -> Path:
    """Create a folder for results. Raises `OutputError`."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path
