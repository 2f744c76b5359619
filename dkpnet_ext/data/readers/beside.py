"""Pictures with an annotation of the same name beside them, as pre-processing scripts and own tools leave them.

    train/img_0001.jpg   train/img_0001.npy     (or .npz, .mat, .txt, .csv; in val/, test/; or without such folders)
    images/1.jpg         ground_truth/1.npy     (or GT_1.mat, 1_ann.mat ...; train_img and train_gt, as ShanghaiTechRGBD has them)
    images_2048/1.jpg    gt_npydata_2048/1.npy   (FIDTM, AutoScale and CLTR)

A .npy has the columns x, y (and perhaps a distance, as Bayesian and DM-Count write it), a .npz such an array, a .mat one of the
usual variables or a single one, a .txt a line ``x y`` per head (perhaps below their number), a .csv the columns x,y (as ImageJ's
Results.csv, taken as pixels; or axis-0 and axis-1, rows and columns of napari) or lines of two numbers. 1-points.csv, which
`predict --points` writes, and CellCounter_1.xml of ImageJ's Cell Counter, markers of all types, are read, too. A picture without an
annotation is unlabelled. Sources: the tools' writers as public code has them; napari.org (axes are rows, then columns).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import printable
from .. import matlab
from ..images import BadFile
from .base import (
    Entry,
    Heads,
    Layout,
    as_points,
    contents,
    fail,
    read_mat,
    read_text,
    read_xml,
    read_xy_csv,
    require_count,
)
from .shanghaitech import read_image_info
from .tree import peek_lines, relative, split_folders, walk_pictures

FOLDERS = ("ground_truth", "ground-truth", "gt", "annotations", "labels", "points", "npy", "mats")
VARIABLES = ("annPoints", "loc", "point_position", "points", "point", "annotation", "location", "gt")


def read_any_mat(path: Path) -> np.ndarray:
    """Points of a MATLAB file under one of the usual names, or of its only variable. Raises `BadFile`."""
    try:
        held = matlab.load(contents(path), "image_info") and ["image_info"]
    except KeyError as error:
        held = error.args[0]
    except ValueError as error:
        raise BadFile(path, f"not a readable .mat file: {error}") from None
    if "image_info" in held:
        return read_image_info(path)
    known = [name for name in VARIABLES if name in held] or (held if len(held) == 1 else [])
    if not known:
        raise BadFile(path, f"no '{VARIABLES[0]}' in it (it holds {', '.join(held) or 'nothing'})")
    return read_mat(path, known[0])


def read_npy(path: Path) -> np.ndarray:
    """Points of a NumPy file, its first two columns. Raises `BadFile`."""
    contents(path)  # a regular file of a sound size
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's parser of a damaged header raises many kinds
        raise BadFile(path, f"not a NumPy file of numbers ({error})") from None
    if not isinstance(array, np.ndarray):  # a .npz
        with array:
            points = [array[name] for name in array.files if array[name].ndim == 2 and array[name].shape[1] < 5]
        if len(points) != 1:
            raise BadFile(path, f"it holds {len(points)} arrays [N, 2] of points, expected one")
        array = points[0]
    if array.ndim == 2 and array.shape[1] > 4:
        raise BadFile(path, f"{array.shape[0]}x{array.shape[1]} values are a density map, not points")
    return as_points(array[:, :2] if array.ndim == 2 else array, path)


def read_xy_text(path: Path) -> np.ndarray:
    """Points of a text file, a line ``x y`` or ``x,y`` per head (a third number is left out), perhaps below their number.

    Raises `BadFile`.
    """
    points: list[tuple[float, float]] = []
    lines = read_text(path).splitlines()
    headed = bool(lines) and lines[0].strip().isdigit()
    for number, line in enumerate(lines[headed:], 1 + headed):
        if fields := line.replace(",", " ").split():
            try:
                if len(fields) not in (2, 3):
                    raise ValueError
                points.append((float(fields[0]), float(fields[1])))
            except ValueError:
                raise BadFile(path, f"line {number} is not 'x y'") from None
    if headed:
        require_count(int(lines[0]), as_points(points, path), path, "its first line")
    return as_points(points, path)


def read_csv(path: Path) -> np.ndarray:
    """Points of a CSV file with the columns x,y, or without a header. Raises `BadFile`."""
    first = "".join(peek_lines(path, 1)).split(",")
    numbers = len(first) > 1 and all(re.fullmatch(r"\s*-?[\d.]+\s*", field) for field in first)
    return read_xy_text(path) if numbers else read_xy_csv(path)


_CELL_COUNTER = "CellCounter_Marker_File"


def read_cell_counter(path: Path) -> np.ndarray:
    """Points of ImageJ's Cell Counter, markers of any type. Raises `BadFile`."""
    root = read_xml(path)
    if root.tag != _CELL_COUNTER:
        raise BadFile(
            path, f"XML of a kind that is not read ({printable(root.tag)[:40]}); of points only ImageJ's Cell Counter"
        )
    markers = root.iter("Marker")
    try:
        return as_points([[float(marker.findtext(f"Marker{axis}", "")) for axis in "XY"] for marker in markers], path)
    except ValueError:
        raise BadFile(path, "a Marker has no MarkerX and MarkerY") from None


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".mat": read_any_mat, ".npy": read_npy, ".npz": read_npy, ".txt": read_xy_text, ".csv": read_csv,
    ".xml": read_cell_counter,
}  # fmt: skip


def annotation_of(image: Path, listings: dict[Path, frozenset[str]]) -> Path | None:
    """The annotation that goes with an image, by its name. ``listings`` keeps the folders that were looked into."""
    stem = image.stem
    names = [f"{name}{suffix}" for suffix in READERS for name in (stem, f"GT_{stem}", f"{stem}_ann", f"{stem}_gt")]
    names += [f"{stem}-points.csv", f"CellCounter_{stem}.xml"]
    called = image.parent.name
    twins = [re.sub("img|images?", "gt", called), re.sub("^images", "gt_npydata", called)] if called else []
    for folder in (image.parent, *(image.parent.parent / name for name in (*FOLDERS, *twins))):
        if folder not in listings:
            listings[folder] = frozenset(p.name for p in folder.iterdir()) if folder.is_dir() else frozenset()
        if found := next((name for name in names if name in listings[folder]), None):
            return folder / found
    return None


def read_annotation(path: Path) -> np.ndarray | Heads:
    """Points of a file of any of the kinds in `READERS`. Raises `BadFile`."""
    if (read := READERS.get(path.suffix.lower())) is None:
        raise BadFile(path, f"points of this kind are not read ({', '.join(READERS)} are)")
    return Heads(read(path), upright=True) if path.name.endswith("-points.csv") else read(path)  # of `predict --points`


def holds_points(path: Path) -> bool:
    """Whether an annotation's beginning is that of points; False for boxes as YOLO writes them, and density maps as CSV."""
    first = [line.replace(",", " ").split() for line in peek_lines(path, 1)] if path.suffix in (".txt", ".csv") else []
    if path.suffix == ".xml":
        return any(_CELL_COUNTER in line for line in peek_lines(path))
    if path.suffix == ".csv":
        return not first or len(first[0]) < 4 or not all(re.fullmatch(r"-?[\d.e-]+", field) for field in first[0])
    return all(len(fields) in (2, 3) or (len(fields) == 1 and fields[0].isdigit()) for fields in first)


def _recognise(root: Path) -> bool:
    listings: dict[Path, frozenset[str]] = {}
    images = [image for _, folder in split_folders(root) for image in walk_pictures(folder)[:20]]
    found = [path for image in images if (path := annotation_of(image, listings)) is not None]
    return bool(found) and all(map(holds_points, found))


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
