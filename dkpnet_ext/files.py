"""Folders and files on the way in and out of a command, with one clear line where the disk says no."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UserError


@dataclass
class Prediction:
    """What is said of one file; of a video, its frames' mean."""

    file: str
    count: float | None = None
    size: tuple[int, int] | None = None  # (height, width) in pixels
    regions: dict[str, float] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)  # files written, relative to the output folder
    frames: int | None = None  # frames counted, videos only
    skipped: list[str] = field(default_factory=list)  # frames left out, and why
    error: str | None = None  # then nothing else is known


class OutputError(UserError):
    """Results cannot be written: going on with the next input would be no use."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the disk's refusals (read-only, full, a file where a folder should be) into an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None


def output_folder(path: Path) -> Path:
    """Create a folder for results. Raises `OutputError`."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def find_files(inputs: list[Path], suffixes: frozenset[str], skip: Path) -> list[Path]:
    """Named files as they are, and the files with these suffixes inside named folders, sorted.

    Args:
        skip: a folder that is not searched (results of an earlier call).

    Raises:
        UserError: a folder without any such file.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            found.append(path)  # a missing one is reported like any other unreadable file
            continue
        inside = [
            p
            for p in sorted(path.rglob("*"))
            if p.suffix.lower() in suffixes and p.is_file() and skip.resolve() not in p.resolve().parents
        ]
        if not inside:
            raise UserError(f"{path}: no picture or video in this folder")
        found += inside
    return found
