"""Lists of images and points, for people's own data.

    train.csv     val.csv     test.csv     (or .json; or one such file)

CSV with the columns image,points, or JSON ``[{"image": ..., "points": [[x, y], ...]}, ...]``: paths relative to the
list, points in pixels of the upright image; points may also name a CSV file with the columns x,y.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, as_points, fail, has, read_json, read_rows, read_xy_csv

LIST_FILES = tuple(f"{split}{suffix}" for split in ("train", "val", "test") for suffix in (".csv", ".json"))


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
                if owners.setdefault(file, where) != where:
                    raise BadFile(path, f"{value.strip()} is already the annotation of {owners[file]}")
                return read_xy_csv(file)
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


def beside(listing: Path, name: str) -> Path:
    """The file that a list calls ``name``. A list written on Windows has back slashes."""
    path = listing.parent / posixpath.normpath(name.strip())
    if "\\" in name and not path.exists():
        path = listing.parent / posixpath.normpath(name.strip().replace("\\", "/"))
    return path


def _entries(root: Path) -> Iterator[Entry]:
    if root.is_file():
        yield from read_list("test", root, {})
        return
    seen: dict[str, dict[Path, str]] = {}
    for name in LIST_FILES:
        if has(root, name):
            split = name.split(".")[0]
            yield from read_list(split, root / name, seen.setdefault(split, {}))


def read_list(split: str, path: Path, seen: dict[Path, str]) -> Iterator[Entry]:
    """One list. ``seen`` collects the images of a split with the place that lists them."""
    rows: Iterable[tuple[str, Any]]
    try:
        if path.suffix.lower() == ".csv":
            rows = [(f"line {number}", row) for number, row in read_rows(path, ("image", "points"))]
        else:
            content = read_json(path)
            if not isinstance(content, list):
                raise BadFile(path, 'not a list of {"image": ..., "points": [[x, y], ...]}')
            rows = [(f"entry {number}", row) for number, row in enumerate(content)]
    except BadFile as bad:
        yield Entry(split, path.name, path, partial(fail, path, str(bad)))
        return
    owners: dict[Path, str] = {}
    for where, row in rows:
        name = row.get("image") if isinstance(row, dict) else None
        if not isinstance(name, str) or not name.strip() or "\0" in name or "points" not in row:
            yield Entry(split, where, path, partial(fail, path, f"{where} has no image and points"))
            continue
        image = beside(path, name)
        if image in seen:
            yield Entry(split, name, path, partial(fail, path, f"{where} lists {name} again (after {seen[image]})"))
            continue
        seen[image] = f"{path.name}, {where}"
        yield Entry(split, image.relative_to(path.parent).as_posix() if image.is_relative_to(path.parent) else name,
                    image, partial(list_points, row["points"], path, where, owners))  # fmt: skip


def _recognise(root: Path) -> bool:
    return root.suffix.lower() in (".csv", ".json") or has(root, *LIST_FILES)


LAYOUT = Layout("list", _recognise, _entries, upright_points=True)
