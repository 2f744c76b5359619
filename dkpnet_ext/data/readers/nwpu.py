"""NWPU-Crowd (Wang et al., PAMI 2020).

    images/0001.jpg (or images_part1/ ...)     mats/0001.mat or jsons/0001.json     train.txt     val.txt     test.txt

``annPoints`` of the .mat is [N, 2] (x, y), ``annBoxes`` [N, 4] (x0, y0, x1, y1). The .json has ``points`` (pairs, or objects
with x and y), ``boxes``, ``human_num``, and in some exports heads that are boxes only (``sx, sy, ex, ey``): their centres. Lines
of the lists are
``id luminance level`` or ``id``. The public labels end with val, which serves as ``test`` here; test.txt's images go
to the challenge's server. Other sets in this form (ProcessedData of IIM, FIDTM) have labels of test.txt: then val is val. Sources:
gjy3035/NWPU-Crowd-Sample-Code (README, prepare script), taohan10200/IIM (dataset_prepare).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..images import BadFile
from .base import (
    MALFORMED,
    Entry,
    Heads,
    Layout,
    as_points,
    fail,
    files,
    has,
    pictures,
    read_json,
    read_mat,
    read_text,
    read_variable,
    require_count,
)

_CORNERS = ("sx", "sy", "ex", "ey")


def _heads(points: np.ndarray, boxes: Any) -> Heads:
    """``boxes``: anything; where it is a box for each point, its size goes along."""
    if not len(points):
        return Heads(points, sizes=np.zeros((0, 2)))
    try:
        corners = np.array([[box[k] for k in _CORNERS] if isinstance(box, dict) else box for box in boxes], np.float64)
    except MALFORMED:
        return Heads(points)
    fits = corners.shape == (len(points), 4) and np.isfinite(corners).all()
    return Heads(points, sizes=np.abs(corners[:, 2:] - corners[:, :2]) if fits else None)


def read_nwpu_mat(path: Path) -> Heads:
    """Heads of a ``mats/0001.mat``. Raises `BadFile`."""
    points = read_mat(path, "annPoints")
    try:
        return _heads(points, read_variable(path, "annBoxes"))
    except BadFile:  # boxes are for evaluation only
        return Heads(points)


def read_nwpu_json(path: Path) -> Heads:
    """Heads of a ``jsons/0001.json``. Raises `BadFile`."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("points"), list):
        raise BadFile(path, "no list 'points' in it")
    points, boxes, number = content["points"], content.get("boxes"), content.get("human_num")
    try:
        rows: list[Any] = [[point["x"], point["y"]] if isinstance(point, dict) else point for point in points]
        # Boxes usually repeat the points; in some exports they hold the heads that have no point.
        if isinstance(boxes, list) and isinstance(number, int) and len(rows) + len(boxes) == number:
            rows += [[(box["sx"] + box["ex"]) / 2, (box["sy"] + box["ey"]) / 2] for box in boxes]
    except (KeyError, TypeError):
        raise BadFile(path, "its points are neither [x, y] nor {x, y}, or its boxes not {sx, sy, ex, ey}") from None
    found = as_points(rows, path)
    require_count(number, found, path, "human_num")
    return _heads(found, boxes)


def _truth(root: Path, mats: bool, identity: str) -> Path:
    return root / ("mats" if mats else "jsons") / f"{identity}.{'mat' if mats else 'json'}"


def _splits(root: Path, mats: bool) -> tuple[tuple[str, str], ...]:
    """(split, list). Other sets in this form (IIM's ProcessedData) have labels of test.txt, too."""
    lines = read_text(root / "test.txt").splitlines() if has(root, "test.txt") else []
    first = next((line.split()[0] for line in lines if line.split() and "\0" not in line), None)
    if first is not None and _truth(root, mats, first).exists():
        return ("train", "train.txt"), ("val", "val.txt"), ("test", "test.txt")
    return ("train", "train.txt"), ("test", "val.txt"), ("unlabelled", "test.txt")


def _entries(root: Path) -> Iterator[Entry]:
    # Of images_2048 (FIDTM, CLTR) the pictures are smaller than those that were annotated.
    folders = [
        path for path in files(root, "images*") if path.is_dir() and not re.fullmatch(r"images_\d{3,}", path.name)
    ]
    images: dict[str, list[Path]] = {}
    for path in (path for folder in folders for path in pictures(folder)):
        images.setdefault(path.stem, []).append(path)
    mats = has(root, "mats")
    for split, listing in _splits(root, mats):
        path = root / listing
        for number, line in enumerate(read_text(path).splitlines() if path.exists() else (), 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) not in (1, 3) or "\0" in line:
                reason = f"line {number} is neither 'id luminance level' nor 'id'"
                yield Entry(split, f"line {number}", path, partial(fail, path, reason))
                continue
            identity = fields[0]
            image, *others = images.get(identity, [root / "images" / f"{identity}.jpg"])
            if others:
                reason = f"it shares its annotation with {others[0].relative_to(root)}: remove one of them"
                yield Entry(split, image.name, image, partial(fail, image, reason))
                continue
            truth = _truth(root, mats, identity)
            read = partial(read_nwpu_mat, truth) if mats else partial(read_nwpu_json, truth)
            yield Entry(split, image.name, image, None if split == "unlabelled" else read)


LAYOUT = Layout(
    "nwpu",
    lambda root: has(root, "mats", "jsons") and has(root, "train.txt", "val.txt"),
    _entries,
    says="val is the labelled test, unless test has labels",
    keep_unlabelled=True,
)
