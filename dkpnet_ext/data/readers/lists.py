"""Lists of images and points, for data sets that users annotate themselves.

    train.csv     val.csv     test.csv     (or .json, .jsonl; of any name; or one such file)

CSV with the columns image,points, or JSON ``[{"image": ..., "points": [[x, y], ...]}, ...]`` (also JSON Lines of such
objects, ``{image: points, ...}``, and points {x, y}): paths relative to the list or to a folder below it, points in pixels of
the upright image; points may also name a CSV file with the columns x,y. ``ignore``, a list of polygons [[x, y], ...] (JSON),
leaves regions out, as `annotate` writes it; ``split`` (train, val, test) counts more than the list's name. A list whose name tells
no split is train; one that is named itself, not its folder, is test.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..images import IMAGE_SUFFIXES, BadFile
from ..regions import all_but
from .base import (
    MALFORMED,
    Entry,
    Layout,
    as_points,
    exists,
    fail,
    files,
    has,
    is_file,
    read_json,
    read_rows,
    read_xy_csv,
)
from .marks import MARKS
from .tree import SPLITS, Pictures, peek_json, peek_lines, read_json_lines, split_of
from .wrapped import unwrap

SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson")
LIST_FILES = tuple(f"{split}{suffix}" for split in ("train", "val", "test") for suffix in SUFFIXES)
IMAGE_KEYS = ("image", "file_name", "filename", "img", "image_path", "path")
_BRACKETS = str.maketrans("()", "[]")  # pandas writes a list of pairs as Python does


def list_points(value: Any, path: Path, where: str, owners: dict[Path, str]) -> np.ndarray:
    """The ``points`` of a list: pairs, pairs as JSON text, or the relative path of an x,y CSV file.

    ``owners`` collects those files with the place that names them: two images cannot share one.
    """
    try:
        if isinstance(value, str):
            if not value.strip():
                raise BadFile(path, "no points (write [] for an image without people)")
            if "\0" in value:
                raise BadFile(path, "points are not a JSON list")
            if not value.lstrip().startswith("["):
                file = beside(path, value)
                if not exists(file) and not value.strip().lower().endswith(".csv"):
                    raise BadFile(
                        path,
                        f"points {value.strip()[:40]!r} are neither pairs [[x, y], ...] nor a CSV file with the columns x,y",
                    )
                if owners.setdefault(file, where) != where:
                    raise BadFile(path, f"{value.strip()} is already the annotation of {owners[file]}")
                return read_xy_csv(file)
            try:
                value = json.loads(value.translate(_BRACKETS))
            except (ValueError, RecursionError):
                raise BadFile(path, "points are not a JSON list") from None
        if not isinstance(value, list):
            raise BadFile(path, "points are not pairs of numbers")
        pairs = [[p["x"], p["y"]] if isinstance(p, dict) and {"x", "y"} <= set(p) else p for p in value]
        return as_points(pairs, path)
    except BadFile as bad:
        if bad.path != path:
            raise
        raise BadFile(path, f"{where}: {bad}") from None


def ignored(value: Any, path: Path, where: str) -> np.ndarray:
    """The region without the polygons that ``ignore`` lists."""
    try:
        polygons = json.loads(value) if isinstance(value, str) else value
        rings = [as_points(ring, path) for ring in polygons]
        if any(len(ring) < 3 for ring in rings):
            raise ValueError
    except (TypeError, ValueError, RecursionError, BadFile):
        raise BadFile(path, f"{where}: ignore is no list of polygons [[x, y], [x, y], [x, y], ...]") from None
    return all_but(rings)


def beside(listing: Path, name: str) -> Path:
    """The file that a list calls ``name``. A list written on Windows has back slashes."""
    path = listing.parent / posixpath.normpath(name)
    if name != name.strip() and not exists(path):
        path = listing.parent / posixpath.normpath(name.strip())
    if "\\" in name and not exists(path):
        path = listing.parent / posixpath.normpath(name.strip().replace("\\", "/"))
    return path


def _is_list(path: Path) -> bool:
    """Whether a file of any name is a list, by its beginning."""
    if path.suffix.lower() == ".csv":
        names = [name.strip() for name in "".join(peek_lines(path, 1)).split(",")]
        return "points" in names and any(key in names for key in IMAGE_KEYS)
    if path.suffix.lower() == ".json":
        content = peek_json(path)
        if _is_dictionary(content):
            return True
        rows = content[:1] if isinstance(content, list) else []
    else:
        try:
            rows = [json.loads(line) for line in peek_lines(path, 2)[:1]]
        except ValueError:
            return path.suffix.lower() in SUFFIXES
    return any(isinstance(row, dict) and "points" in row and image_of(row) is not None for row in rows)


def _is_dictionary(content: Any) -> bool:
    """Whether a JSON file holds ``{image: [[x, y], ...], ...}``."""
    named = isinstance(content, dict) and bool(content) and all(isinstance(v, list) for v in content.values())
    return named and all(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in content)


def image_of(row: Any) -> str | None:
    """The picture that a row of a list names."""
    found = next((row[key] for key in IMAGE_KEYS if key in row), None) if isinstance(row, dict) else None
    return found if isinstance(found, str) and found.strip() and "\0" not in found else None


def _of_a_tool(path: Path) -> bool:
    """Whether a tool's marks are in a JSON file by a list's name: a row of a list has ``points``."""
    if path.suffix.lower() == ".csv":
        return False
    try:
        content = peek_json(path) if path.suffix.lower() == ".json" else list(map(json.loads, peek_lines(path, 1)))
        if unwrap(content) is not None:
            return True
    except MALFORMED:
        return False
    first = content[0] if isinstance(content, list) and content else None
    if not isinstance(first, dict) or "points" in first:
        return False
    return "data_row" in first or any(isinstance(first.get(key), list | dict) for key in MARKS)  # Labelbox; the others


def _lists(root: Path) -> list[Path]:
    named = [root / name for name in LIST_FILES if has(root, name)] if root.is_dir() else []
    named = [path for path in named if not _of_a_tool(path)]
    others = (
        [path for path in files(root) if path.suffix.lower() in SUFFIXES and path not in named] if root.is_dir() else []
    )
    if named:  # beside them only lists that are called as a split is: valid.csv
        called = {name for names in SPLITS.values() for name in names}
        others = [path for path in others if path.stem.lower() in called and not _of_a_tool(path)]
    return named + [path for path in others if path.is_file() and _is_list(path)]


def _entries(root: Path) -> Iterator[Entry]:
    if root.is_file():
        yield from read_list("test", root, {})
        return
    seen: dict[str, dict[Path, str]] = {}
    for path in _lists(root):
        split = split_of(path.stem) or "train"
        yield from read_list(split, path, seen.setdefault(split, {}))


def read_list(split: str, path: Path, seen: dict[Path, str]) -> Iterator[Entry]:
    """One list. ``seen`` collects the images of a split with the place that lists them."""
    rows: Iterable[tuple[str, Any]]
    try:
        if path.suffix.lower() == ".csv":
            header = [name.strip() for name in "".join(peek_lines(path, 1)).split(",")]
            columns = (next((key for key in IMAGE_KEYS if key in header), "image"), "points")
            rows = [(f"line {number}", row) for number, row in read_rows(path, columns)]
        elif path.suffix.lower() != ".json":
            rows = read_json_lines(path)
        else:
            content = read_json(path)
            if _is_dictionary(content):
                content = [{"image": image, "points": points} for image, points in content.items()]
            if not isinstance(content, list):
                raise BadFile(path, 'not a list of {"image": ..., "points": [[x, y], ...]}')
            rows = [(f"entry {number}", row) for number, row in enumerate(content)]
    except BadFile as bad:
        yield Entry(split, path.name, path, partial(fail, path, str(bad)))
        return
    owners: dict[Path, str] = {}
    pictures: Pictures | None = None
    for where, row in rows:
        name = image_of(row)
        if name is None or "points" not in row:
            yield Entry(split, where, path, partial(fail, path, f"{where} has no image and points"))
            continue
        image = beside(path, name)
        if not is_file(image):
            pictures = pictures or Pictures(path.parent)
            image = elsewhere(image, pictures)
        if image in seen:
            yield Entry(split, name, path, partial(fail, path, f"{where} lists {name} again (after {seen[image]})"))
            continue
        seen[image] = f"{path.name}, {where}"
        polygons = row.get("ignore")
        yield Entry(
            split_of(str(row.get("split") or "")) or split,
            image.relative_to(path.parent).as_posix() if image.is_relative_to(path.parent) else name,
            image,
            partial(list_points, row["points"], path, where, owners),
            None if polygons in (None, "", "[]", []) else partial(ignored, polygons, path, where),
        )


def elsewhere(image: Path, pictures: Pictures) -> Path:
    """A picture that is not where a list says, but in the only folder below the list in which its whole name fits."""
    try:
        found = pictures.find(image.relative_to(pictures.root).as_posix())
    except (BadFile, ValueError):
        return image
    return found if found.as_posix().endswith("/" + image.relative_to(pictures.root).as_posix()) else image


def _recognise(root: Path) -> bool:
    return root.suffix.lower() in SUFFIXES and not _of_a_tool(root) if root.is_file() else bool(_lists(root))


LAYOUT = Layout("list", _recognise, _entries, upright_points=True)
