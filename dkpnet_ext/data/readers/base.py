"""What all layouts share: an `Entry` for each image, and careful reading of text, JSON, CSV and MATLAB files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from .. import matlab
from ..images import IMAGE_SUFFIXES, BadFile, require_file

# What walking over a file's content raises when it is not of the form that it seems to have.
MALFORMED = (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, csv.Error)
csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than an inline list of 10,000 points
MAX_BYTES = 1 << 30  # of an annotation file; COCO's own largest has 0.45 GB


class Areas(NamedTuple):
    """Parts of a picture in which not everybody is marked: polygons [K, 2] (x, y), in the unit of the points."""

    groups: Sequence[np.ndarray]  # people who are marked together, or not clearly: left out but for ``single``
    single: Sequence[np.ndarray]  # the boxes of those who are marked one by one
    ignored: Sequence[np.ndarray]  # left out with who stands in them
    placeless: int  # how many have no extent


class Heads(NamedTuple):
    """One image's annotation."""

    points: np.ndarray  # float64 [N, 2] (x, y)
    boxes: int = 0  # how many of the heads were boxes
    top: bool = False  # of which the middle of the top edge was taken (of persons), not the centre
    fractions: bool = False  # x and y are fractions of the picture's width and height, not pixels
    labels: frozenset[str] = frozenset()  # what was counted, where there are labels
    sizes: np.ndarray | None = None  # float64 [N, 2] (width, height) of the heads' boxes, in the unit of the points
    left: frozenset[str] = frozenset()  # labels of the data set that are not counted
    areas: Areas | None = None
    upright: bool = False  # places are of the upright picture, whatever the layout


class Entry(NamedTuple):
    """One image of a layout, unchecked. ``points`` reads its annotation (None: an unlabelled image)."""

    split: str  # "train", "val", "test" or "unlabelled"
    name: str  # unique in the split
    image: Path
    points: Callable[[], np.ndarray | Heads] | None
    region: Callable[[], np.ndarray] | None = None  # of interest: vertices [K, 2] or a mask [H, W] of booleans


@dataclass(frozen=True)
class Layout:
    """A row of `LAYOUTS`: how its folder is recognised, and a walk over its images."""

    name: str
    recognise: Callable[[Path], bool]
    entries: Callable[[Path], Iterable[Entry]]
    # Research sets were annotated on the stored pixels (MATLAB and Pillow ignore EXIF); people's own lists
    # come from tools that show the picture upright.
    upright_points: bool = False
    # It looks into folders of any name, and so would take a folder that holds other data sets: it is tried last.
    deep: bool = False
    says: str = ""  # said in the report: what was taken for granted
    # Images without annotation belong to the set (a challenge's server has it); else they are left out.
    keep_unlabelled: bool = False


# Folders and files.


def natural(path: Path) -> list[Any]:
    """A sorting key: IMG_2 before IMG_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.as_posix())]


def files(folder: Path, pattern: str = "*") -> list[Path]:
    """What a pattern finds in a folder, hidden files left out, in natural order."""
    return sorted((path for path in folder.glob(pattern) if not path.name.startswith(".")), key=natural)


def pictures(folder: Path, pattern: str = "*") -> list[Path]:
    """The image files among `files`, by suffix."""
    return [path for path in files(folder, pattern) if path.suffix.lower() in IMAGE_SUFFIXES]


def has(root: Path, *alternatives: str) -> bool:
    """Whether one of the paths exists below ``root``."""
    return any((root / path).exists() for path in alternatives)


def is_file(path: Path) -> bool:
    """Whether a path that a file names is a file: `Path.is_file` raises where the name is too long."""
    return os.path.isfile(path)


def exists(path: Path) -> bool:
    """Whether there is anything, a device too, by the name that a file gives, see `is_file`."""
    return os.path.exists(path)


def fail(path: Path, reason: str) -> np.ndarray:
    """In the place of a reader: this entry cannot be used."""
    raise BadFile(path, reason)


def pairs(
    split: str, images: Path, truths: Path, pattern: str, read: Callable[[Path], np.ndarray | Heads]
) -> Iterator[Entry]:
    """Image ``X.*`` goes with annotation ``pattern``, X for its star. A leftover of either kind is bad."""
    leftover = set(files(truths, pattern))
    owners: dict[Path, Path] = {}
    for image in pictures(images):
        truth = truths / pattern.replace("*", image.stem)
        leftover.discard(truth)
        if truth in owners:
            reason = f"it shares its annotation {truth.name} with {owners[truth].name}: remove one of them"
            yield Entry(split, image.name, image, partial(fail, image, reason))
            continue
        owners[truth] = image
        yield Entry(split, image.name, image, partial(read, truth))
    for truth in sorted(leftover, key=natural):
        yield Entry(split, truth.name, truth, partial(fail, truth, "an annotation without its image"))


def contents(path: Path) -> bytes:
    """An annotation file's bytes. Raises `BadFile`."""
    require_file(path, "no such annotation")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadFile(path, f"larger than {MAX_BYTES >> 30} GB")
        return path.read_bytes()
    except OSError as error:
        raise BadFile(path, f"unreadable ({error.strerror})") from None


def read_text(path: Path) -> str:
    """A text file. Raises `BadFile`."""
    try:
        return contents(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadFile(path, "not a text file (UTF-8)") from None


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises `BadFile`."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError):
        raise BadFile(path, "not a JSON file") from None


def read_xml(path: Path) -> ElementTree.Element:
    """An XML file's root element. Raises `BadFile`."""
    content = contents(path)
    if b"<!ENTITY" in content:  # entities that grow without end
        raise BadFile(path, "it defines XML entities")
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError:
        raise BadFile(path, "not an XML file") from None


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file whose header has ``columns``. Raises `BadFile`."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        found = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = found
        if missing := [column for column in columns if column not in found]:
            those = f"it has {','.join(found)}" if found else "the file is empty"
            raise BadFile(path, f"no column '{missing[0]}' in its first line ({those}; expected {','.join(columns)})")
        if twice := [column for column in columns if found.count(column) > 1]:
            raise BadFile(path, f"two columns are called '{twice[0]}'")
        for row in reader:
            if any(row[column] is None for column in columns):
                raise BadFile(path, f"line {reader.line_num} has too few fields")
            if None in row:
                quotes = '; points need quotes: a.jpg,"[[1, 2]]"' if "points" in columns else ""
                raise BadFile(path, f"line {reader.line_num} has too many fields{quotes}")
            yield reader.line_num, row
    except csv.Error as error:
        raise BadFile(path, f"not a CSV file ({error})") from None


# Points.


def as_points(value: Any, path: Path) -> np.ndarray:
    """Anything array-like -> float64 [N, 2] of finite numbers. Raises `BadFile`."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        raise BadFile(path, "points are not pairs of numbers") from None
    if array.shape == (0,):
        return np.zeros((0, 2))
    if array.dtype.kind not in "iuf":
        raise BadFile(path, "points are not pairs of numbers")
    if array.ndim != 2 or array.shape[1] != 2:
        raise BadFile(path, f"points have shape {list(array.shape)}, expected [N, 2] (x, y)")
    points = array.astype(np.float64)
    if not np.isfinite(points).all():
        raise BadFile(path, "points hold NaN or infinite values")
    return points


def read_xy_csv(path: Path) -> np.ndarray:
    """Points of a CSV file with the columns x,y, or X,Y as ImageJ writes them, or axis-1,axis-0 as napari. Raises `BadFile`."""
    points = []
    header = [name.strip() for name in read_text(path).partition("\n")[0].split(",")]
    x, y = next((pair for pair in (("X", "Y"), ("axis-1", "axis-0")) if {*pair} <= {*header}), ("x", "y"))
    if "axis-2" in header:
        raise BadFile(path, "points in three dimensions (axis-0, axis-1, axis-2), expected a picture's")
    for number, row in read_rows(path, (x, y)):
        try:
            points.append((float(row[x]), float(row[y])))
        except ValueError:
            raise BadFile(path, f"line {number}: x and y are not numbers") from None
    return as_points(points, path)


def read_variable(path: Path, key: str) -> Any:
    """A variable of a MATLAB file, as `matlab.load` gives it. Raises `BadFile`."""
    try:
        return matlab.load(contents(path), key)
    except KeyError as error:
        raise BadFile(path, f"no '{key}' in it (it holds {', '.join(error.args[0]) or 'nothing'})") from None
    except ValueError as error:
        raise BadFile(path, f"not a readable .mat file: {error}") from None


def matlab_points(value: Any, path: Path) -> np.ndarray:
    """`as_points`, but MATLAB's empty matrix may have any shape."""
    if isinstance(value, np.ndarray) and value.size == 0:  # MATLAB's [] may be 0x0, 0x2 or 1x0
        return np.zeros((0, 2))
    return as_points(value, path)


def read_mat(path: Path, key: str) -> np.ndarray:
    """Points of a MATLAB file's variable ``key``. Raises `BadFile`."""
    return matlab_points(read_variable(path, key), path)


def require_count(number: Any, points: np.ndarray, path: Path, name: str) -> None:
    """Raise `BadFile` unless the file's own ``number`` of heads (None: it has none) is that of its points."""
    try:
        stated = None if number is None else float(np.asarray(number, float).reshape(-1)[0])
    except (ValueError, TypeError, IndexError, OverflowError):
        raise BadFile(path, f"{name} is not a number") from None
    if stated is not None and stated != len(points):
        raise BadFile(path, f"{name} is {stated:g}, but there are {len(points)} points")
