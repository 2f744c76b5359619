"""A text file of labelled boxes in pixels for each picture: KITTI, DOTA, and the toolkit of Open Images.

    training/image_2/000001.png   training/label_2/000001.txt      Pedestrian 0.00 0 -0.20 x0 y0 x1 y1 ...         KITTI, NVIDIA TAO
    train/images/1.png            train/labelTxt/1.txt             x y x y x y x y label difficult                 DOTA, Roboflow
    train/Human head/1.jpg        train/Human head/Label/1.txt     Human head x0 y0 x1 y1                          OIDv4 ToolKit

The text file lies beside the picture, in a folder in its folder, or in a folder beside its folder. KITTI's DontCare is an area;
a cyclist is a person. A picture without a text file is unlabelled. Sources: datumaro (kitti, dota,
roboflow), strickvl/panlabel (kitti, oidv4).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..images import BadFile
from .base import Entry, Layout, read_text
from .tree import (
    PEEKED,
    Labelled,
    Shape,
    from_shapes,
    others,
    outlined,
    peek_lines,
    relative,
    split_of,
    walk_pictures,
)

_FOLDERS = ("label_2", "labels", "labelTxt", "Label", "labels_2", "annotations")
_HEADERS = ("imagesource:", "gsd:")  # of DOTA


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def _shape(line: str) -> Shape | None:
    """The box of a line; None of a line of another form."""
    fields = line.split()
    numbers = [_number(field) for field in fields]
    words = next((i for i, number in enumerate(numbers) if number is not None), len(fields))
    known = [number for number in numbers[words:] if number is not None]
    if words == 1 and len(known) == len(fields) - 1 and len(known) in (14, 15):  # the last one is a detection's score
        return Shape(fields[0], known[3:7])
    if words > 0 and len(known) == 4 == len(fields) - words:
        return Shape(" ".join(fields[:words]), known)
    if words == 0 and len(fields) > 8 and all(number is not None for number in numbers[:8]):
        label = " ".join(field for field, number in zip(fields[8:], numbers[8:], strict=True) if number is None)
        return outlined(label, zip(known[:8:2], known[1:8:2], strict=True)) if label else None
    return None


def _truth(image: Path) -> Path | None:
    folder, parts = image.parent, image.parts[:-1]
    places = [folder, *(folder / name for name in _FOLDERS), *(folder.parent / name for name in _FOLDERS)]
    for i, part in enumerate(parts):  # image_2/train and label_2/train
        if part.lower() in ("images", "image_2"):
            places += [Path(*parts[:i], name, *parts[i + 1 :]) for name in _FOLDERS]
    return next((path for path in (place / f"{image.stem}.txt" for place in places) if path.is_file()), None)


def _recognise(root: Path) -> bool:
    found = [path for image in walk_pictures(root)[:200] if (path := _truth(image))][:PEEKED] if root.is_dir() else []
    lines = [line for path in found for line in peek_lines(path, 3) if not line.startswith(_HEADERS)]
    return bool(lines) and all(_shape(line) is not None for line in lines)


def _rows(root: Path) -> Iterator[Labelled]:
    for image in walk_pictures(root):
        if (path := _truth(image)) is not None:
            split = split_of(image.relative_to(root).parent.as_posix()) or "train"
            lines = [line for line in read_text(path).splitlines() if line.strip() and not line.startswith(_HEADERS)]
            found = [_shape(line) for line in lines]
            shapes = [shape for shape in found if shape is not None]
            bad = BadFile(path, "a line of it is no label with a box in pixels (KITTI, DOTA, OIDv4)")
            yield Labelled(split, relative(image, root), image, path, bad if None in found else shapes)


def _entries(root: Path) -> Iterator[Entry]:
    rows = list(_rows(root))
    yield from from_shapes(rows)
    yield from others(root, rows)


LAYOUT = Layout("text-boxes", _recognise, _entries, upright_points=True, deep=True)
