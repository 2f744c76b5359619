"""Counting people's own pictures and videos: a count, an overlay and an entry in predictions.json for each."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.images import IMAGE_SUFFIXES
from ..device import Precision
from ..errors import UserError, out_of_memory
from ..files import OutputError, locked, output_folder, write_atomically
from .ground import Ground
from .pictures import Prediction, count_pixels, decode_picture, draw_picture, outputs_of_picture
from .regions import Regions
from .video import VIDEO_SUFFIXES, count_video, outputs_of_video
from .workers import Workers

if TYPE_CHECKING:
    from ..models import CrowdCounter

LISTING = "predictions.json"
MAX_NAME = 200  # bytes of a result's name before its ending; file systems allow 255 in all


def predict_files(
    model: CrowdCounter,
    inputs: Sequence[Path],
    output: Path,
    *,
    regions: Regions | None = None,
    precision: Precision = "fp32",
    as_is: bool = False,
    progress: bool = False,
    points: bool = False,
    ground: Ground | None = None,
) -> Generator[Prediction, None, None]:
    """Count pictures, videos, and those in folders; the results come in their order. At the end `predictions.json` lists all.

    A file that cannot be read, or not counted for lack of memory, yields a `Prediction` with its error, and the others
    follow. Entries of earlier calls stay in `predictions.json`; a file that is counted again replaces its own. No input
    and no file that is not listed there is overwritten.

    Args:
        model: on its device; output: folder for the results, created.
        as_is: count at the pictures' own size, not at the one that the model was trained for.
        points, ground: also write where the heads are, people per square metre, see `draw_picture` and `count_video`.

    Raises:
        UserError: an input that names nothing; an output that cannot be written, or that another call is writing to.
    """
    files = find_files(inputs, IMAGE_SUFFIXES | VIDEO_SUFFIXES, skip=output)
    done: list[Prediction] = []
    pictures = sum(path.suffix.lower() not in VIDEO_SUFFIXES for path in files)
    how = {"precision": precision, "as_is": as_is}
    with locked(output_folder(output)), Workers(model, pictures) as workers:
        earlier = _read_listing(output / LISTING)
        names = _Names(output, files, earlier)
        try:
            for path in files:
                video = path.suffix.lower() in VIDEO_SUFFIXES
                outputs = (
                    partial(outputs_of_video, points=points)
                    if video
                    else partial(outputs_of_picture, points=points, ground=ground is not None)
                )
                job = _Job(path, output, names.choose(path, outputs), outputs)
                if not video:
                    drawn = partial(draw_picture, regions=regions or {}, points=points, ground=ground)
                    workers.begin(job, _count_picture, model, job, workers.turn, how, drawn)
                for before, future in workers.finished(0 if video else workers.number):
                    yield before.finish(future.result, done)
                if video:
                    arguments = (
                        model,
                        path,
                        output,
                        job.name,
                        regions or {},
                        precision,
                        as_is,
                        progress,
                        points,
                        ground,
                    )
                    yield job.finish(partial(count_video, *arguments), done)
            for before, future in workers.finished(0):
                yield before.finish(future.result, done)
        except BaseException:  # a signal too, or nobody asks for more: what has begun is finished, and named
            for job, future in workers.begun:
                if not future.cancel():
                    with suppress(BaseException):
                        job.finish(future.result, done)
            raise
        finally:
            new = [_entry(found, output, earlier) for found in done]
            listed = _others(earlier, [found.file for found in done]) + new
            write_atomically(output / LISTING, json.dumps(listed, indent=2) + "\n")


class _Job(NamedTuple):
    """A file, and the name of its results."""

    path: Path
    output: Path
    name: str
    outputs: Callable[[str], list[str]]

    def finish(self, result: Callable[[], Prediction], done: list[Prediction]) -> Prediction:
        """What is said of the file, which ``done`` gets, too: its result, or why there is none.

        Raises:
            OutputError, and what is no fault of the file, such as Ctrl-C.
        """
        try:
            found = result()
            if self.name != self.path.stem:
                found.notes.append(f"written as {self.name}")
        except OutputError:
            raise
        except UserError as error:
            found = Prediction(str(self.path), error=str(error))
        except BaseException as stop:
            found = self.stopped(stop)
            if not out_of_memory(stop):
                done.append(found)
                raise
            found.error = f"{self.path}: not enough memory to count it; scale it down or cut it"
        done.append(found)
        return found

    def stopped(self, stop: BaseException) -> Prediction:
        """What is written of the file stays, and is named."""
        written = [file for file in self.outputs(self.name) if (self.output / file).exists()]
        return Prediction(str(self.path), outputs=written, error=f"stopped ({type(stop).__name__})")


def _count_picture(
    model: CrowdCounter,
    job: _Job,
    turn: AbstractContextManager,
    how: dict[str, Any],
    drawn: Callable[..., Prediction],
) -> Prediction:
    """Decode, count, draw."""
    image, frames = decode_picture(job.path)
    with turn:
        found = count_pixels(model, image, assess=True, **how)
    return drawn(job.path, image, frames, found, job.output, job.name)


def _read_listing(path: Path) -> list[dict[str, Any]]:
    """The entries that an earlier call wrote; [] without such a file. Raises `UserError` for somebody else's."""
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if all(
            isinstance(e["file"], str) and isinstance(e["outputs"], list) and isinstance(e.get("older", []), list)
            for e in entries
        ):
            return entries
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UserError(f"{path}: not a list of this command's results; move it away, or choose another --output")


def _others(entries: Sequence[dict[str, Any]], files: Sequence[str]) -> list[dict[str, Any]]:
    """Entries of a listing that are not of these files."""
    paths = {os.path.abspath(file) for file in files}
    # Older listings have only the path that was given.
    return [entry for entry in entries if (entry.get("path") or os.path.abspath(entry["file"])) not in paths]


def _entry(found: Prediction, output: Path, earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A file's entry in the listing; under ``older`` what other options wrote of it before, which is not of this count."""
    before = {name for entry in earlier if not _others([entry], [found.file]) for name in _written(entry)}
    older = [name for name in sorted(before.difference(found.outputs)) if (output / name).exists()]
    return asdict(found) | {"path": os.path.abspath(found.file)} | ({"older": older} if older else {})


def _written(entry: dict[str, Any]) -> list[str]:
    return [*entry["outputs"], *entry.get("older", [])]


class _Names:
    """Names of results in the output folder, each taken once."""

    def __init__(self, output: Path, files: Sequence[Path], earlier: Sequence[dict[str, Any]]) -> None:
        self.output = output
        others = _others(earlier, [str(path) for path in files])
        self.taken = {name for entry in others for name in _written(entry)}
        # What an earlier call wrote about the same files may be replaced.
        self.free = {name for entry in earlier for name in _written(entry)} - self.taken
        self.inputs = {os.path.realpath(path) for path in files}  # unlike `resolve` it takes links to themselves

    def choose(self, path: Path, outputs: Callable[[str], list[str]]) -> str:
        """A file's stem, with a number behind it where that is taken: by another picture, an input, a foreign file."""
        stem = path.stem if len(os.fsencode(path.stem)) <= MAX_NAME else path.stem[: MAX_NAME // 4]
        number = 1
        while True:
            name = stem if number == 1 else f"{stem}-{number}"
            wanted = outputs(name)
            if not any(self._blocked(file) for file in wanted):
                self.taken.update(wanted)
                return name
            number += 1

    def _blocked(self, file: str) -> bool:
        target = self.output / file
        return (
            file in self.taken or os.path.realpath(target) in self.inputs or (target.exists() and file not in self.free)
        )


def find_files(inputs: Sequence[Path], suffixes: frozenset[str], skip: Path) -> list[Path]:
    """Named files as they are, the files that a pattern (``*.jpg``) names, and those with these suffixes inside named
    folders, sorted; each once.

    Args:
        skip: a folder that is not searched (results of an earlier call), unless it is searched itself.

    Raises:
        UserError: a folder or pattern without any such file; an address; a camera.
    """
    found: list[Path] = []
    for path in inputs:
        # os.path, which says no of what may not be looked at; pathlib raises.
        if os.path.isdir(path):
            if not (inside := _inside(path, suffixes, skip)):
                raise UserError(f"{path}: no picture or video in this folder")
            found += inside
        elif os.path.exists(path):
            found.append(path)
        elif re.match(r"(?i)[a-z][a-z0-9+.-]*:/", str(path)):
            raise UserError(f"{path}: an address; download the picture or video and name its file")
        elif str(path).isdecimal():
            raise UserError(f"{path}: no such file; a camera's number is not read: record a video and name its file")
        elif glob.has_magic(str(path)):
            named = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            fitting = [p for p in named if os.path.isfile(p)]
            fitting += [p for folder in named if os.path.isdir(folder) for p in _inside(folder, suffixes, skip)]
            if not fitting:
                raise UserError(f"{path}: no file fits this pattern")
            found += fitting
        else:
            found.append(path)  # a missing one is reported like any other unreadable file
    return list(dict.fromkeys(found))


def _inside(folder: Path, suffixes: frozenset[str], skip: Path) -> list[Path]:
    """The files with these suffixes in a folder; hidden ones are thumbnails and the like, and no pattern names them either."""
    real, results = (Path(os.path.realpath(path)) for path in (folder, skip))
    searched = real.is_relative_to(results)
    return [  # a link to nothing or a pipe is named like any other file that cannot be read
        p
        for p in sorted(folder.rglob("*"))
        if p.suffix.lower() in suffixes
        and not any(part.startswith((".", "__MACOSX")) for part in p.relative_to(folder).parts)
        and not os.path.isdir(p)
        and (searched or results not in Path(os.path.realpath(p)).parents)
    ]
