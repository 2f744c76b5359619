"""YOLO boxes (docs.ultralytics.com/datasets/detect), as darknet, Ultralytics, Roboflow and labelImg write them.

    images/train/1.jpg   labels/train/1.txt     or  train/images/1.jpg  train/labels/1.txt     or  1.jpg  1.txt

A line per box: ``class cx cy w h``, fractions of the picture, perhaps with a confidence or keypoints behind, of which a single
one is the point; or a polygon ``class x y x y x y ...``, which gives the centre of its extent. data.yaml or classes.txt names
the classes; train.txt, val.txt and test.txt may list the pictures of a split. A picture without a text file has no objects,
as the format defines. ``kpt_shape`` of data.yaml says that lines are boxes with keypoints; without it 6, 8, 10 ... numbers behind
the class are a polygon. Sources: docs.ultralytics.com/datasets (detect, pose, obb, segment).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..images import BadFile
from .base import Entry, Layout, read_text
from .tree import Labelled, Shape, from_shapes, peek_lines, relative, split_of, walk_pictures


def _label_file(image: Path) -> Path:
    """``.../images/train/1.jpg`` -> ``.../labels/train/1.txt``, else beside the picture."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].lower() == "images":
            parts[i] = "labels" if parts[i].islower() else "Labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")


def _corners(line: str, keypoints: list[int] | None = None) -> list[float] | None:
    """The box or point of a line, in fractions of the picture; None if it has none.

    Args:
        keypoints: how many there are behind the box, and how many numbers each has, where data.yaml tells.
    """
    try:
        kind, *numbers = [float(field) for field in line.split()]
    except ValueError:
        return None
    if len(numbers) == 7 or (keypoints and keypoints[0] == 1):  # a box and one keypoint: the place itself
        if any(numbers[4:6]) and all(numbers[6:7]):
            return numbers[4:6] if len(numbers) > 5 and all(0 <= number <= 1 for number in numbers[4:6]) else None
        numbers = numbers[:4]  # its place or its visibility says that it is not labelled
    if keypoints:
        numbers = numbers[:4]
    polygon = len(numbers) >= 6 and len(numbers) % 2 == 0
    places = numbers if polygon else numbers[:4]
    if len(numbers) < 4 or kind != int(kind) or kind < 0 or not all(0 <= number <= 1 for number in places):
        return None
    if polygon:
        return [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]
    x, y, width, height = places
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def _recognise(root: Path) -> bool:
    if not root.is_dir():
        return False
    lines = (line for image in walk_pictures(root)[:500] for line in peek_lines(_label_file(image), 1))
    first = [line for line, _ in zip(lines, range(20), strict=False)]
    keypoints = _settings(root)[1]
    return bool(first) and all(_corners(line, keypoints) for line in first)


def _settings(root: Path) -> tuple[dict[int, str], list[int] | None]:
    """Names of the classes, and ``kpt_shape``."""
    for path in (root / "data.yaml", root / "dataset.yaml", *root.glob("*.yaml")):
        if path.is_file():
            import yaml

            try:
                content = yaml.safe_load(read_text(path))
                names, shape = content.get("names", {}), content.get("kpt_shape")
                called = {int(k): str(v) for k, v in (names.items() if isinstance(names, dict) else enumerate(names))}
                return called, [int(number) for number in shape] if shape else None
            except (yaml.YAMLError, AttributeError, TypeError, ValueError):
                raise BadFile(path, "no list 'names' in it") from None
    for path in (root / "classes.txt", root / "labels" / "classes.txt", root / "obj.names"):
        if path.is_file():
            return dict(enumerate(line.strip() for line in read_text(path).splitlines() if line.strip())), None
    return {}, None


def _shapes(path: Path, names: dict[int, str], keypoints: list[int] | None) -> list[Shape]:
    shapes = []
    for number, line in enumerate(read_text(path).splitlines() if path.exists() else (), 1):
        if line.strip():
            corners = _corners(line, keypoints)
            if corners is None:
                raise BadFile(path, f"line {number} is not 'class cx cy w h' with fractions of the picture")
            kind = int(float(line.split()[0]))
            shapes.append(Shape(names.get(kind, f"class {kind}"), corners))
    return shapes


def _rows(root: Path, names: dict[int, str], keypoints: list[int] | None) -> Iterator[Labelled]:
    listed: dict[str, list[tuple[list[str], str]]] = {}  # by the picture's name
    for split in ("train", "val", "test"):
        for line in read_text(root / f"{split}.txt").splitlines() if (root / f"{split}.txt").is_file() else ():
            parts = line.strip().replace("\\", "/").split("/")
            listed.setdefault(parts[-1], []).append((parts, split))
    for image in walk_pictures(root):
        folders = image.relative_to(root).parent.as_posix()
        path, split = _label_file(image), split_of(folders) or _listed_split(image, listed.get(image.name, ()))
        folder = next((p for p in image.parents if split_of(p.name) and p.is_relative_to(root)), root)
        try:
            shapes: list[Shape] | BadFile = _shapes(path, names, keypoints)
        except BadFile as bad:
            shapes = bad
        yield Labelled(split, relative(image, folder), image, path, shapes)


def _listed_split(image: Path, lines: Sequence[tuple[list[str], str]]) -> str:
    """Of the lists' lines that end in the picture's name, the one that ends in most of its folders, too."""

    def common(line: tuple[list[str], str]) -> int:
        same = (a == b for a, b in zip(reversed(line[0]), reversed(image.parts), strict=False))
        return sum(1 for _ in itertools.takewhile(bool, same))

    return max(reversed(lines), key=common, default=([], "train"))[1]  # the last list: of one for all and one for val


def _entries(root: Path) -> Iterator[Entry]:
    names, keypoints = _settings(root)
    yield from from_shapes(_rows(root, names, keypoints), fractions=True, labels=names.values())


LAYOUT = Layout(
    "yolo", _recognise, _entries, upright_points=True, deep=True, says="a picture without a text file has nobody"
)
