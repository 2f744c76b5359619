"""A text file of labelled boxes in pixels for each picture: KITTI, DOTA, Caltech and KAIST, ExDark, and the toolkit of Open Images.

    training/image_2/000001.png   training/label_2/000001.txt      Pedestrian 0.00 0 -0.20 x0 y0 x1 y1 ...         KITTI, NVIDIA TAO
    train/images/1.png            train/labelTxt/1.txt             x y x y x y x y label difficult                 DOTA, Roboflow
    train/Human head/1.jpg        train/Human head/Label/1.txt     Human head x0 y0 x1 y1                          OIDv4 ToolKit
    test/images/set06_V000_I00029.jpg   test/annotations/set06_V000_I00029.txt   "% bbGt version=3" / person x y w h ...   Caltech
    images/set00/V000/visible/I00000.jpg   annotations/set00/V000/I00000.txt     likewise                          KAIST
    ExDark/People/1.jpg                 ExDark_Annno/People/1.jpg.txt            likewise                          ExDark

The text file lies beside the picture, in a folder in its folder, or in a folder beside its folder. KITTI's DontCare is an area;
a cyclist is a person. Of the files of Piotr Dollar's toolbox (bbGt) people (several of them), person?, people?, person?a and
person-fa are areas, and what is marked to be ignored; ExDark's class People is persons. A picture without a text file is
unlabelled. Sources: datumaro (kitti, dota, roboflow), strickvl/panlabel (kitti, oidv4), bbGt.m of the toolbox, evaluations of
Caltech and KAIST (which labels are ignored), code that reads ExDark.
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
_TWINS = {"images": _FOLDERS, "image_2": _FOLDERS, "exdark": ("ExDark_Annno", "ExDark_Anno")}
_BBGT = "% bbGt"
_HEADERS = ("imagesource:", "gsd:", _BBGT)  # DOTA's are the first two
_UNSURE = ("people", "people?", "person?", "person?a", "person-fa")  # of Caltech and KAIST


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


def _bbgt_shape(line: str) -> Shape | None:
    """Label, box, whether it is hidden in part, the visible box, whether it is ignored (version 2), and an angle (version 3)."""
    label, *numbers = line.split()
    known = [number for field in numbers if (number := _number(field)) is not None]
    if not 9 <= len(known) == len(numbers) <= 11:
        return None
    x, y, width, height = known[:4]
    unsure = label in _UNSURE
    return Shape("person" if unsure else label, (x, y, x + width, y + height), unsure or known[9:10] == [1])


def _shapes(lines: list[str]) -> list[Shape | None]:
    read = _bbgt_shape if lines and lines[0].startswith(_BBGT) else _shape
    return [read(line) for line in lines if line.strip() and not line.startswith(_HEADERS)]


def _truth(image: Path) -> Path | None:
    folder, parts = image.parent, image.parts[:-1]
    places = [folder, *(folder / name for name in _FOLDERS), *(folder.parent / name for name in _FOLDERS)]
    for i, part in enumerate(parts):  # image_2/train and label_2/train
        places += [Path(*parts[:i], name, *parts[i + 1 :]) for name in _TWINS.get(part.lower(), ())]
    places += [place.parent for place in places if place.name == "visible"]  # KAIST's two cameras share a file
    names = (f"{image.stem}.txt", f"{image.name}.txt")
    return next((path for place in places for name in names if (path := place / name).is_file()), None)


def _recognise(root: Path) -> bool:
    found = [path for image in walk_pictures(root)[:200] if (path := _truth(image))][:PEEKED] if root.is_dir() else []
    lines = [peek_lines(path, 3) for path in found]
    shapes = [shape for few in lines for shape in _shapes(few)]
    named = any(few[0].startswith(_BBGT) for few in lines if few)
    return named or (bool(shapes) and None not in shapes)


def _rows(root: Path) -> Iterator[Labelled]:
    for image in walk_pictures(root):
        if (path := _truth(image)) is not None:
            split = split_of(image.relative_to(root).parent.as_posix()) or "train"
            found = _shapes(read_text(path).splitlines())
            shapes = [shape for shape in found if shape is not None]
            bad = BadFile(path, "a line of it is no label with a box in pixels (KITTI, DOTA, bbGt, OIDv4)")
            yield Labelled(split, relative(image, root), image, path, bad if None in found else shapes)


def _entries(root: Path) -> Iterator[Entry]:
    rows = list(_rows(root))
    yield from from_shapes(rows)
    yield from others(root, rows)


LAYOUT = Layout("text-boxes", _recognise, _entries, upright_points=True, deep=True)
