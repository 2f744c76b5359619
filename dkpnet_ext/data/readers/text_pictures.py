"""A text file with a line for each picture, or a few lines, as detectors and localisers read it.

    _annotations.txt     1.jpg x0,y0,x1,y1,class x0,y0,x1,y1,class ...         YOLO v3 for Keras, Roboflow's "_annotations.txt"
    train_gt_loc.txt     1 number x y small large level x y small ...          NWPU-Crowd's localisation, IIM, FIDTM, CLTR
    *_bbx_gt.txt         0--Parade/1.jpg / number / x y w h ... (a line each)   WIDER FACE
    annotation.txt       1.jpg x y x y ...                                     own
    brainwash_train.idl  "images/1.png": (x0, y0, x1, y1), (x0, ...);          Brainwash, TUD

Pictures lie anywhere below. A box gives its centre. WIDER FACE's eighth number tells faces that are ``invalid``, which are
areas. A localisation file of another name is told by its numbers. Sources: datumaro (wider_face), taohan10200/IIM
(dataset_prepare), davisking/dlib (imglab's convert_idl), the package's readme of Brainwash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..images import IMAGE_SUFFIXES, BadFile
from .base import Entry, Layout, read_text
from .tree import PEEKED, Labelled, Pictures, Shape, annotation_files, from_shapes, peek_lines, split_of_file


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _form(path: Path) -> str:
    """Which of the forms a file has, by its first line with heads; "" for another file."""
    each = map(str.split, peek_lines(path))
    first = next((fields for fields in each if fields[1:] not in ([], ["0"])), [])
    if path.suffix.lower() == ".idl":
        return "idl"
    if path.stem.lower().endswith("_bbx_gt"):
        return "wider"
    if path.stem.lower().endswith("gt_loc") or _is_loc(first):
        return "loc"
    if len(first) > 1 and _is_image(first[0]):
        if all(len(field.split(",")) == 5 for field in first[1:]):
            return "keras"
        if len(first) % 2 and all(_number(field) for field in first[1:]):
            return "own"
    return ""


def _is_loc(fields: list[str]) -> bool:
    """An identity, the number of heads, and five numbers for each."""
    heads = len(fields) // 5
    return heads > 0 and len(fields) == 2 + 5 * heads and fields[1] == str(heads) and all(map(_number, fields[1:]))


def _number(field: str) -> bool:
    return field.replace(".", "", 1).replace("-", "", 1).isdigit()


def _classes(folder: Path) -> list[str]:
    """Names of the classes, where a list of them lies beside the boxes (Roboflow's Keras form)."""
    path = next((path for name in ("_classes.txt", "classes.txt") if (path := folder / name).is_file()), None)
    return [line.strip() for line in read_text(path).splitlines()] if path else []


def _line(form: str, fields: list[str], classes: Sequence[str] = ()) -> tuple[str, list[Shape]]:
    if form == "idl":
        name, _, boxes = " ".join(fields).lstrip('"').partition('"')
        corners = [box.split(",") for box in re.findall(r"\(([^)]*)\)", boxes)]
        return name, [Shape("", [float(number) for number in box[:4]]) for box in corners]
    name, *rest = fields
    if form == "keras":
        keras = [field.split(",") for field in rest]
        known = [classes[int(box[4])] if classes and box[4].isdigit() else "" for box in keras]
        return name, [Shape(label, [float(n) for n in box[:4]]) for label, box in zip(known, keras, strict=True)]
    numbers = [float(field) for field in rest[form == "loc" :]]
    step = 5 if form == "loc" else 2
    if len(numbers) % step or (form == "loc" and len(numbers) != 5 * int(rest[0])):
        raise ValueError
    return name, [Shape("", (numbers[i], numbers[i + 1])) for i in range(0, len(numbers), step)]


def _wider(lines: list[str]) -> Iterator[tuple[str, list[Shape]]]:
    """Name, number and boxes; a picture of nobody has one box of zeros all the same."""
    name = ""
    shapes: list[Shape] = []
    for line in [*(line.strip() for line in lines), "end.jpg"]:
        if _is_image(line):
            if name:
                yield name, shapes
            name, shapes = line, []
        elif len(fields := line.split()) >= 4:
            x, y, width, height = (float(field) for field in fields[:4])
            invalid = fields[7:8] in (["1"], ["True"])
            shapes += [Shape("", (x, y, x + width, y + height), invalid)] * (width > 0 and height > 0)


def _rows(path: Path) -> Iterator[Labelled]:
    form, split = _form(path), split_of_file(path)
    pictures = Pictures(path.parent if form in ("keras", "own", "loc", "idl") else path.parent.parent)
    lines = read_text(path).splitlines()
    try:
        classes = _classes(path.parent)
        each = (_line(form, line.split(), classes) for line in lines if line.strip())
        read = _wider(lines) if form == "wider" else each
        for name, shapes in read:
            yield Labelled(split, name, pictures.find(name, split), path, shapes)
    except (ValueError, IndexError):
        yield Labelled(split, path.name, path, path, BadFile(path, "a line of it is not as the first"))


def _files(root: Path) -> list[Path]:
    folder = [path for path in root.glob("*_split") if path.is_dir()] if root.is_dir() else []
    found = annotation_files(root, ".txt", ".idl") + [
        path for each in folder for path in annotation_files(each, ".txt")
    ]
    return [path for path in found[: 4 * PEEKED] if _form(path)]


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(row for path in _files(root) for row in _rows(path))


LAYOUT = Layout("text-pictures", lambda root: bool(_files(root)), _entries, upright_points=True)
