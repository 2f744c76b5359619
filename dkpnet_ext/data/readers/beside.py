"""Pictures with an annotation of the same name beside them, as pre-processing scripts and own tools leave them.

    train/img_0001.jpg   train/img_0001.npy     (or .mat, .txt, .csv; in val/, test/; or without such folders)
    images/1.jpg         ground_truth/1.npy     (or GT_1.mat, 1_ann.mat ...)

A .npy has the columns x, y (and perhaps a distance, as Bayesian and DM-Count write it), a .mat one of the usual
variables, a .txt a line ``x y`` per head, a .csv the columns x,y. A picture without an annotation is unlabelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, as_points, contents, fail, read_mat, read_text, read_variable, read_xy_csv
from .shanghaitech import read_image_info
from .tree import peek_lines, relative, split_folders, walk_pictures

FOLDERS = ("ground_truth", "ground-truth", "gt", "annotations", "labels", "points", "npy", "mats")
VARIABLES = ("annPoints", "loc", "point_position", "points", "annotation", "location", "gt")


def read_any_mat(path: Path) -> np.ndarray:
    """Points of a MATLAB file under one of the usual names. Raises `BadFile`."""
    try:
        read_variable(path, "image_info")
        return read_image_info(path)
    except BadFile as bad:
        first = bad
    for name in VARIABLES:
        if f"no '{name}'" not in str(first) and name in str(first):
            return read_mat(path, name)
    raise first


def read_npy(path: Path) -> np.ndarray:
    """Points of a NumPy file, its first two columns. Raises `BadFile`."""
    contents(path)  # a regular file of a sound size
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's parser of a damaged header raises many kinds
        raise BadFile(path, f"not a NumPy file of numbers ({error})") from None
    if isinstance(array, np.ndarray) and array.ndim == 2 and array.shape[1] > 4:
        raise BadFile(path, f"{array.shape[0]}x{array.shape[1]} values are a density map, not points")
    return as_points(array[:, :2] if isinstance(array, np.ndarray) and array.ndim == 2 else array, path)


def read_xy_text(path: Path) -> np.ndarray:
    """Points of a text file, a line ``x y`` or ``x,y`` per head (a third number is left out). Raises `BadFile`."""
    points = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if fields := line.replace(",", " ").split():
            try:
                if len(fields) not in (2, 3):
                    raise ValueError
                points.append((float(fields[0]), float(fields[1])))
            except ValueError:
                raise BadFile(path, f"line {number} is not 'x y'") from None
    return as_points(points, path)


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".mat": read_any_mat, ".npy": read_npy, ".txt": read_xy_text, ".csv": read_xy_csv,
}  # fmt: skip


def annotation_of(image: Path, listings: dict[Path, frozenset[str]]) -> Path | None:
    """The annotation that goes with an image, by its name. ``listings`` keeps the folders that were looked into."""
    stem = image.stem
    names = [f"{name}{suffix}" for suffix in READERS for name in (stem, f"GT_{stem}", f"{stem}_ann", f"{stem}_gt")]
    for folder in (image.parent, *(image.parent.parent / name for name in FOLDERS)):
        if folder not in listings:
            listings[folder] = frozenset(p.name for p in folder.iterdir()) if folder.is_dir() else frozenset()
        if found := next((name for name in names if name in listings[folder]), None):
            return folder / found
    return None


def read_annotation(path: Path) -> np.ndarray:
    """Points of a file of any of the kinds in `READERS`. Raises `BadFile`."""
    if (read := READERS.get(path.suffix.lower())) is None:
        raise BadFile(path, f"points of this kind are not read ({', '.join(READERS)} are)")
    return read(path)


def _recognise(root: Path) -> bool:
    listings: dict[Path, frozenset[str]] = {}
    images = [image for _, folder in split_folders(root) for image in walk_pictures(folder)[:20]]
    found = [path for image in images if (path := annotation_of(image, listings)) is not None]
    texts = [line for path in found if path.suffix == ".txt" for line in peek_lines(path, 1)]
    return bool(found) and all(len(line.replace(",", " ").split()) in (2, 3) for line in texts)


def _entries(root: Path) -> Iterator[Entry]:
    listings: dict[Path, frozenset[str]] = {}
    owners: dict[Path, Path] = {}
    for split, folder in split_folders(root):
        for image in walk_pictures(folder):
            name, truth = relative(image, folder), annotation_of(image, listings)
            if truth is None:
                yield Entry("unlabelled", name, image, None)
            elif owners.setdefault(truth, image) != image:
                reason = f"it shares its annotation {truth.name} with {owners[truth].name}: remove one of them"
                yield Entry(split, name, image, partial(fail, image, reason))
            else:
                yield Entry(split, name, image, partial(read_annotation, truth))


LAYOUT = Layout("beside", _recognise, _entries, deep=True)
