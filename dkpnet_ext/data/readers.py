"""Readers: an annotated data set as it lies on a user's disk -> checked `Record`s.

Every layout is one row of `LAYOUTS`: how to recognise its folder, and a walk that yields an `Entry` for each
image. `read_domain` checks every entry once. It reads image headers only (the pixels are decoded once, by
`prepare`), so that 5000 images take seconds, and it collects what it saw in a `Report`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ..errors import UserError
from . import matlab
from .images import to_rgb

OnBad = Literal["error", "skip"]

# Formats by content, with the suffixes that fit. Others that Pillow knows (EPS, PDF ...) start foreign
# programs.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
_FORMATS = [name for name in SUFFIXES if name != "MPO"]  # Pillow opens MPO as JPEG
MIN_PIXELS = 16  # a side; smaller "images" are icons or tracking pixels
MAX_MEGAPIXELS = 178  # Pillow's own limit against decompression bombs (2 x 89 megapixels)


class BadFile(Exception):
    """One file that cannot be used: ``str()`` is the reason, in one line, without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        # A damaged file's own words may hold anything, a terminal's control codes too.
        super().__init__("".join(c if c.isprintable() else "?" for c in " ".join(reason.split())))
        self.path = path


# ---------------------------------------------------------------------------------------------------------- i


@dataclass(frozen=True)
class ImageInfo:
    """What an image's header says. ``size`` (H, W) is upright: after the EXIF ``orientation`` (1 to 8)."""

    size: tuple[int, int]
    orientation: int
    notes: tuple[str, ...]


_open_lock = threading.Lock()  # warnings.catch_warnings is not thread-safe


def _open(path: Path) -> ImageFile.ImageFile:
    try:
        if path.stat().st_size == 0:
            raise BadFile(path, "empty file (0 bytes)")
        with _open_lock, warnings.catch_warnings():
            # Pillow's notes on 89 to 178 megapixels and on odd metadata; neither matters here.
            warnings.simplefilter("ignore")
            return Image.open(path, formats=_FORMATS)
    except FileNotFoundError:
        raise BadFile(path, "no such image") from None
    except Image.DecompressionBombError:
        raise BadFile(path, f"more than {MAX_MEGAPIXELS} megapixels by its header") from None
    except UnidentifiedImageError:
        raise BadFile(path, f"not an image ({', '.join(_FORMATS)} are read)") from None
    except BadFile:
        raise
    except Exception as error:  # Pillow's plugins raise anything on a broken header
        raise BadFile(path, f"unreadable image ({error})") from None


def _orientation(image: ImageFile.ImageFile) -> int:
    # When a PNG has no EXIF before its pixels, Pillow decodes all of them to look for one behind: spare it
    # that where there is none.
    if image.format == "PNG" and "exif" not in image.info and "Raw profile type exif" not in image.info:
        file = cast(IO[bytes], image.fp)
        position = file.tell()
        file.seek(-min(1 << 16, file.seek(0, 2)), 2)
        late = b"eXIf" in file.read()
        file.seek(position)
        if not late:
            return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF is common in the wild and says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def inspect_image(path: Path) -> ImageInfo:
    """Check an image by its header alone. Raises `BadFile`."""
    with _open(path) as image:
        try:
            return _inspect(image, path)
        except BadFile:
            raise
        except Exception as error:  # looking for a second frame parses more of a broken file
            raise BadFile(path, f"unreadable image ({error})") from None


def _inspect(image: ImageFile.ImageFile, path: Path) -> ImageInfo:
    width, height = image.size
    if min(width, height) < MIN_PIXELS:
        raise BadFile(path, f"{width}x{height} px is too small (at least {MIN_PIXELS} px a side)")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # phones write MPO: photo first, then extras
        raise BadFile(path, "animated or several pages: save one frame as a still image")
    if image.mode == "F":
        raise BadFile(path, "floating-point pixels: save it with 8 bits per channel")
    orientation = _orientation(image)
    notes = {
        "grayscale": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
        "16-bit": image.mode.startswith("I") or any("16" in str(tile[3]) for tile in image.tile),
        "CMYK": image.mode == "CMYK",
        "EXIF orientation": orientation != 1,
        "wrong suffix": path.suffix.lower() not in SUFFIXES[image.format or ""],
    }
    size = (height, width) if orientation < 5 else (width, height)
    return ImageInfo(size, orientation, tuple(note for note, holds in notes.items() if holds))


def read_image(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image as people see it: uint8 [H, W, 3] RGB, upright (see `images.to_rgb`).

    ``size`` (H, W) resizes it; a JPEG much larger than that is decoded at a fraction of its size, which saves
    time and memory. Raises `BadFile`.
    """
    with _open(path) as image:
        if size is not None:
            height, width = size if _orientation(image) < 5 else size[::-1]
            image.draft(None, (2 * width, 2 * height))
        try:
            picture = to_rgb(image)
        except MemoryError:
            raise BadFile(path, "not enough memory to decode it") from None
        except Exception:  # OSError, SyntaxError, struct.error ...: whatever the broken file provokes
            raise BadFile(path, "cut off or corrupt: its pixels cannot be decoded") from None
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(picture)


def mirror(values: np.ndarray, length: int) -> np.ndarray:
    """Mirror coordinates like pixels: floor(v) -> length - 1 - floor(v); the fraction stays, but never rounds up."""
    cell = np.floor(values)
    return (length - 1 - cell) + np.minimum(values - cell, 1 - 2**-10)


def turn_points(points: np.ndarray, orientation: int, size: tuple[int, int]) -> np.ndarray:
    """Points [N, 2] in stored pixels -> in the upright image of ``size`` (H, W)."""
    height, width = size
    x, y = points[:, 0], points[:, 1]
    if orientation >= 5:
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = mirror(x, width)
    if orientation in (3, 4, 7, 8):
        y = mirror(y, height)
    return np.stack([x, y], axis=1)


# ------------------------------------------------------------------------------------------------------ annot


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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadFile(path, "no such annotation") from None
    except UnicodeDecodeError:
        raise BadFile(path, "not a text file (UTF-8)") from None
    except OSError as error:
        raise BadFile(path, f"unreadable ({error.strerror})") from None


def read_mat(path: Path, key: str) -> np.ndarray:
    """Points of a MATLAB file, under ``key``; ShanghaiTech's ``image_info`` holds them three levels down."""
    try:
        value = matlab.load(path.read_bytes(), key)
    except FileNotFoundError:
        raise BadFile(path, "no such annotation") from None
    except OSError as error:
        raise BadFile(path, f"unreadable ({error.strerror})") from None
    except KeyError as error:
        raise BadFile(path, f"no '{key}' in it (it holds {', '.join(error.args[0]) or 'nothing'})") from None
    except ValueError as error:
        raise BadFile(path, f"not a readable .mat file: {error}") from None
    if key == "image_info":
        try:
            value = value[0][0]["location"]
        except (IndexError, TypeError, KeyError):
            raise BadFile(path, "image_info is not a cell that holds a struct with 'location'") from None
    if isinstance(value, np.ndarray) and value.size == 0:  # MATLAB's [] may be 0x0, 0x2 or 1x0
        return np.zeros((0, 2))
    return as_points(value, path)


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError):
        raise BadFile(path, "not a JSON file") from None


def read_nwpu_json(path: Path) -> np.ndarray:
    content = _json(path)
    if not isinstance(content, dict) or "points" not in content:
        raise BadFile(path, "no 'points' in it")
    points = as_points(content["points"], path)
    number = content.get("human_num", len(points))
    if number != len(points):
        raise BadFile(path, f"human_num is {number}, but there are {len(points)} points")
    return points


def read_jhu_text(path: Path) -> np.ndarray:
    points = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if fields := line.split():
            try:
                x, y, *_ = values = [float(value) for value in fields]
                if len(values) != 6:
                    raise ValueError
            except ValueError:
                raise BadFile(path, f"line {number} is not 'x y w h occlusion blur'") from None
            points.append((x, y))
    return as_points(points, path)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file whose header has ``columns``."""
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than an inline list of 10,000 points
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise BadFile(path, f"no column '{missing[0]}' in its first line (expected {','.join(columns)})")
        for row in reader:
            if any(row[column] is None for column in columns):
                raise BadFile(path, f"line {reader.line_num} has too few fields")
            yield reader.line_num, row
    except csv.Error as error:
        raise BadFile(path, f"not a CSV file ({error})") from None


def read_xy_csv(path: Path) -> np.ndarray:
    points = []
    for number, row in _rows(path, ("x", "y")):
        try:
            points.append((float(row["x"]), float(row["y"])))
        except ValueError:
            raise BadFile(path, f"line {number}: x and y are not numbers") from None
    return as_points(points, path)


def _list_points(value: Any, path: Path, where: str) -> np.ndarray:
    """The ``points`` of a list: pairs, pairs as JSON text, or the relative path of an x,y CSV file."""
    try:
        if isinstance(value, str):
            if not value.strip():
                raise BadFile(path, "no points (write [] for an image without people)")
            if "\0" in value:
                raise BadFile(path, "points are not a JSON list")
            if not value.lstrip().startswith("["):
                return read_xy_csv(path.parent / value.strip())
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise BadFile(path, "points are not a JSON list") from None
        if not isinstance(value, list):
            raise BadFile(path, "points are not pairs of numbers")
        return as_points(value, path)
    except BadFile as bad:
        if bad.path != path:
            raise
        raise BadFile(path, f"{where}: {bad}") from None


# ---------------------------------------------------------------------------------------------------------- l


class Entry(NamedTuple):
    """One image of a layout, unchecked. ``points`` reads its annotation (None: an unlabelled image)."""

    split: str  # "train", "val", "test" or "unlabelled"
    name: str  # unique in the split
    image: Path
    points: Callable[[], np.ndarray] | None


@dataclass(frozen=True)
class Layout:
    name: str
    recognise: Callable[[Path], bool]
    entries: Callable[[Path], Iterable[Entry]]
    # Research sets were annotated on the stored pixels (MATLAB and Pillow ignore EXIF); people's own lists
    # come from tools that show the picture upright.
    upright_points: bool = False


def _natural(path: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.as_posix())]


def _files(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted((path for path in folder.glob(pattern) if not path.name.startswith(".")), key=_natural)


def _fail(path: Path, reason: str) -> np.ndarray:
    raise BadFile(path, reason)


def _pairs(split: str, images: Path, truths: Path, pattern: str, read: Callable[[Path], np.ndarray]) -> Iterator[Entry]:
    """Image ``X.*`` goes with annotation ``pattern``, X for its star. A leftover of either kind is bad."""
    leftover = set(_files(truths, pattern))
    for image in _files(images):
        if image.suffix.lower() in IMAGE_SUFFIXES:
            truth = truths / pattern.replace("*", image.stem)
            leftover.discard(truth)
            yield Entry(split, image.name, image, partial(read, truth))
    for truth in sorted(leftover, key=_natural):
        yield Entry(split, truth.name, truth, partial(_fail, truth, "an annotation without its image"))


def _has(root: Path, *alternatives: str) -> bool:
    return any((root / path).exists() for path in alternatives)


def _shanghaitech(root: Path) -> Iterator[Entry]:
    for split in ("train", "test"):
        folder = root / f"{split}_data"
        truths = folder / ("ground-truth" if _has(folder, "ground-truth") else "ground_truth")
        yield from _pairs(split, folder / "images", truths, "GT_*.mat", partial(read_mat, key="image_info"))


def _ucf_qnrf(root: Path) -> Iterator[Entry]:
    for split, folder in (("train", root / "Train"), ("test", root / "Test")):
        yield from _pairs(split, folder, folder, "*_ann.mat", partial(read_mat, key="annPoints"))


def _ucf_cc_50(root: Path) -> Iterator[Entry]:
    # The set has no split; papers cross-validate over five folds of ten. `test` is the fifth fold in the
    # order of the numbers (41 to 50), `train` the other four.
    for entry in _pairs("train", root, root, "*_ann.mat", partial(read_mat, key="annPoints")):
        number = re.match(r"\d+", entry.name)
        yield entry._replace(split="test" if number and int(number[0]) > 40 else "train")


def _beijing_brt(root: Path) -> Iterator[Entry]:
    for split in ("train", "test"):
        folder = root / split
        yield from _pairs(split, folder / "frame", folder / "ground_truth", "*.mat", partial(read_mat, key="loc"))


def _jhu_crowd(root: Path) -> Iterator[Entry]:
    for split in ("train", "val", "test"):
        yield from _pairs(split, root / split / "images", root / split / "gt", "*.txt", read_jhu_text)


def _nwpu(root: Path) -> Iterator[Entry]:
    # The public labels end with val: it serves as `test` here; test.txt's images go to the challenge's
    # server.
    folders = [path for path in _files(root, "images*") if path.is_dir()]
    images = {path.stem: path for folder in folders for path in _files(folder) if path.suffix.lower() == ".jpg"}
    mats = _has(root, "mats")
    for split, listing in (("train", "train.txt"), ("test", "val.txt"), ("unlabelled", "test.txt")):
        path = root / listing
        for number, line in enumerate(_text(path).splitlines() if path.exists() else (), 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) not in (1, 3) or "\0" in line:
                reason = f"line {number} is neither 'id luminance level' nor 'id'"
                yield Entry(split, f"line {number}", path, partial(_fail, path, reason))
                continue
            identity = fields[0]
            image = images.get(identity, root / "images" / f"{identity}.jpg")
            if split == "unlabelled":
                points = None
            elif mats:
                points = partial(read_mat, root / "mats" / f"{identity}.mat", key="annPoints")
            else:
                points = partial(read_nwpu_json, root / "jsons" / f"{identity}.json")
            yield Entry(split, image.name, image, points)


_LIST_FILES = tuple(f"{split}{suffix}" for split in ("train", "val", "test") for suffix in (".csv", ".json"))


def _lists(root: Path) -> Iterator[Entry]:
    if root.is_file():
        yield from _list("test", root)
    for name in _LIST_FILES if root.is_dir() else ():
        if _has(root, name):
            yield from _list(name.split(".")[0], root / name)


def _list(split: str, path: Path) -> Iterator[Entry]:
    """A list: CSV with the columns image,points, or JSON ``[{"image": ..., "points": [[x, y], ...]}, ...]``."""
    rows: Iterable[tuple[str, Any]]
    try:
        if path.suffix.lower() == ".csv":
            rows = [(f"line {number}", row) for number, row in _rows(path, ("image", "points"))]
        else:
            content = _json(path)
            if not isinstance(content, list):
                raise BadFile(path, 'not a list of {"image": ..., "points": [[x, y], ...]}')
            rows = [(f"entry {number}", row) for number, row in enumerate(content)]
    except BadFile as bad:
        yield Entry(split, path.name, path, partial(_fail, path, str(bad)))
        return
    seen = set()
    for where, row in rows:
        image = row.get("image") if isinstance(row, dict) else None
        if not isinstance(image, str) or not image.strip() or "\0" in image or "points" not in row:
            yield Entry(split, where, path, partial(_fail, path, f"{where} has no image and points"))
        elif image in seen:
            yield Entry(split, image, path, partial(_fail, path, f"{where} lists {image} again"))
        else:
            seen.add(image)
            points = partial(_list_points, row["points"], path, where)
            yield Entry(split, image, path.parent / image.strip(), points)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("shanghaitech", lambda root: _has(root, "train_data/images", "test_data/images"), _shanghaitech),
        Layout("beijing-brt", lambda root: _has(root, "train/frame", "test/frame"), _beijing_brt),
        Layout("jhu-crowd", lambda root: _has(root, "train/gt", "val/gt", "test/gt"), _jhu_crowd),
        Layout("nwpu", lambda root: _has(root, "mats", "jsons") and _has(root, "train.txt", "val.txt"), _nwpu),
        Layout(
            "ucf-qnrf",
            lambda root: any(_files(root, "Train/*_ann.mat") + _files(root, "Test/*_ann.mat")),
            _ucf_qnrf,
        ),
        Layout("ucf-cc-50", lambda root: any(_files(root, "[0-9]*_ann.mat")), _ucf_cc_50),
        Layout(
            "list",
            lambda root: root.suffix.lower() in (".csv", ".json") or _has(root, *_LIST_FILES),
            _lists,
            True,
        ),
    )
}


def find_layout(path: Path, layout: str | None = None) -> tuple[Path, Layout]:
    """The folder that holds the data (``path``, or its only sub-folder that does) and its layout.

    Raises `UserError` when nothing or more than one thing is recognised.
    """
    known = ", ".join(LAYOUTS)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if layout is not None:
        if layout not in LAYOUTS:
            raise UserError(f"'{layout}' is not a layout (known: {known})")
        return path, LAYOUTS[layout]
    candidates = [path, *(child for child in _files(path) if child.is_dir())]
    found = [(root, row) for root in candidates for row in LAYOUTS.values() if row.recognise(root)]
    if found and found[0][0] == path:
        return found[0]
    if not found:
        raise UserError(f"{path}: no known data set layout here ({known}; see the README for what each looks like)")
    if len(found) > 1:
        raise UserError(
            f"{path}: several data sets here, name one of them: {', '.join(str(root) for root, _ in found)}"
        )
    return found[0]


# -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """A checked image. ``points``: float64 [N, 2] (x, y) in the upright image's pixels; None: unlabelled."""

    split: str
    name: str
    image: Path
    size: tuple[int, int]  # (H, W), upright
    points: np.ndarray | None


@dataclass
class Report:
    """What a reader saw; ``print(report)`` is meant to be read."""

    domain: str
    layout: str
    root: Path
    heads: dict[str, list[int]] = field(default_factory=dict)  # split -> heads per image
    notes: dict[str, list[str]] = field(default_factory=dict)  # what was noticed -> names
    bad: list[tuple[Path, str]] = field(default_factory=list)  # unusable files and why

    def note(self, what: str, name: str) -> None:
        self.notes.setdefault(what, []).append(name)

    def raise_if_bad(self) -> None:
        """Raise `UserError` with the first bad file, if there is one."""
        if self.bad:
            path, reason = self.bad[0]
            more = f" (and {len(self.bad) - 1} more bad files)" if len(self.bad) > 1 else ""
            raise UserError(f"{self.domain}: {path}: {reason}{more}; repair it, or skip such with --on-bad skip")

    def __str__(self) -> str:
        lines = [f"{self.domain}: layout {self.layout} in {self.root}"]
        for split, heads in self.heads.items():
            line = f"  {split:<10} {len(heads):>6} images"
            if split != "unlabelled":
                per_image = f"{min(heads)} to {max(heads)}, mean {np.mean(heads):.1f} per image"
                line += f"  {sum(heads):>9,} heads  ({per_image})"
            lines.append(line)
        lines += [f"  {what}: {_some(names)}" for what, names in sorted(self.notes.items())]
        lines += [f"  BAD {path}: {reason}" for path, reason in self.bad]
        return "\n".join(lines)


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{more})"


def _check(entry: Entry, layout: Layout) -> tuple[Record, tuple[str, ...]]:
    points = entry.points() if entry.points else None
    info = inspect_image(entry.image)
    notes = list(info.notes)
    if points is not None:
        if not layout.upright_points:
            points = turn_points(points, info.orientation, info.size)
        height, width = info.size
        # More than a tenth of the image away is no annotator's slip. Most points there: not this image's
        # annotation.
        far = ((points < -0.1 * np.array([width, height])) | (points > 1.1 * np.array([width, height]))).any(axis=1)
        if far.sum() > 0.5 * len(points):
            x, y = points[far][0]
            where = f"far outside the {width}x{height} image, like ({x:g}, {y:g})"
            raise BadFile(entry.image, f"{far.sum()} of {len(points)} points lie {where}")
        outside = ((points < 0) | (points >= [width, height])).any(axis=1)
        notes += ["no heads"] * (len(points) == 0) + ["points outside"] * bool(outside.any())
    return Record(entry.split, entry.name, entry.image, info.size, points), tuple(notes)


def read_domain(
    domain: str, path: Path, layout: str | None = None, progress: bool = True
) -> tuple[dict[str, list[Record]], Report]:
    """Check every image and annotation of one data set.

    Returns the usable records by split and the report, in which unusable files are listed: what to do with
    those (`Report.raise_if_bad`) is the caller's choice. Raises `UserError` when there is no data set at ``path``.
    """
    from tqdm import tqdm

    root, row = find_layout(path, layout)
    report = Report(domain, row.name, root)
    records: dict[str, list[Record]] = {"train": [], "val": [], "test": [], "unlabelled": []}
    try:
        entries = list(row.entries(root))
    except BadFile as bad:
        raise UserError(f"{bad.path}: {bad}") from None
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from None
    hide = None if progress else True  # None: unless this is a terminal
    for entry in tqdm(entries, f"checking {domain}", unit="image", disable=hide, leave=False):
        try:
            record, notes = _check(entry, row)
        except BadFile as bad:
            report.bad.append((bad.path, str(bad)))
            continue
        records[entry.split].append(record)
        report.heads.setdefault(entry.split, []).append(0 if record.points is None else len(record.points))
        for note in notes:
            report.note(note, f"{entry.split}/{entry.name}")
    if not entries:
        raise UserError(f"{root}: no images in the '{row.name}' layout here")
    return records, report


def limited_size(size: tuple[int, int], min_side: int, max_side: int) -> tuple[int, int]:
    """(H, W), aspect kept: shortest side >= ``min_side``, longest <= ``max_side``; in conflict the latter."""
    scale = max(1.0, min_side / min(size))
    scale = min(scale, max_side / max(size))
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in size)
    return height, width
