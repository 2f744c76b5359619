"""What the layouts of labelling tools and of detection sets share: splits told by names, pictures found by name,
shapes with labels.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..images import IMAGE_SUFFIXES, BadFile
from .base import Areas, Entry, Heads, as_points, fail, files, natural, read_json, read_text

SPLITS = {  # in this order: "test-dev" is test
    "train": ("train", "training", "trainset", "trainlist"),
    "test": ("test", "testing", "testset", "testlist"),
    "val": ("val", "valid", "validation", "dev", "vallist"),
}
HEADS = frozenset({"head", "heads", "human head", "person head"})
FACES = frozenset({"face", "faces", "human face"})
BODIES = frozenset({
    "person", "persons", "people", "pedestrian", "pedestrians", "human", "humans", "body", "man", "woman", "boy", "girl",
    "rider", "riders", "co rider", "cyclist", "person sitting", "sitting person", "person (other)",
})  # fmt: skip
GROUPS = frozenset({  # areas in which only who is marked singly is counted
    "crowd", "crowds", "group", "groups", "person group", "persongroup", "ridergroup", "rider group", "people group",
    "group of people", "ignore", "ignored", "dontcare", "don't care", "dont care",
})  # fmt: skip
# Nobody in them is counted.
IGNORED = frozenset({"ignore region", "ignore regions", "ignored region", "ignored regions"})
FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "head")  # keypoints of a person that mark the head
PEEKED_BYTES = 1 << 16  # of a text file, by `peek_lines`
PEEKED = 8  # annotation files of a folder that are looked into to recognise a layout


def split_of(name: str) -> str | None:
    """The split that a file's or folder's name tells: "train_data", "Val", "instances_test2017" ...; else None."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((split for split, names in SPLITS.items() for word in words if word in names), None)


def listed_splits(root: Path) -> dict[str, str]:
    """What the words of train.txt, val.txt and test.txt in ``root`` name -> split; empty without such lists."""
    lists = [(split, root / f"{split}.txt") for split in ("train", "val", "test")]
    return {name: split for split, path in lists if path.is_file() for name in read_text(path).split()}


def split_folders(root: Path) -> list[tuple[str, Path]]:
    """(split, folder) of the folders in ``root`` whose names tell a split; of a folder without such: all of it train."""
    if not root.is_dir():
        return []
    named = [(split_of(path.name), path) for path in files(root) if path.is_dir()]
    return [(split, path) for split, path in named if split] or [("train", root)]


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, hidden ones and hidden folders left out, in natural order."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return iter(sorted(found, key=natural))


def walk_pictures(folder: Path) -> list[Path]:
    """The image files below a folder."""
    return [path for path in walk(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


class Pictures:
    """The image files below a folder, found by what an annotation file calls them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_name: dict[str, list[Path]] = {}
        for path in walk_pictures(root):
            for name in {path.name.lower(), path.stem.lower()}:
                self.by_name.setdefault(name, []).append(path)

    def find(self, name: str, split: str | None = None, near: Path | None = None) -> Path:
        """The file called ``name``, perhaps with folders of another machine, back slashes or no suffix.

        Of several the one whose folders fit best, then the one in the folder ``near``, then the one in a folder named like
        ``split``. Raises `BadFile`.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or "\0" in name:
            raise BadFile(self.root, f"a picture without a name: {name!r}")
        found = self.by_name.get(parts[-1].lower(), [])
        for count in range(len(parts), 1, -1):
            fitting = [path for path in found if [*path.parts[-count:-1]] == parts[-count:-1]]
            if fitting:
                found = fitting
                break
        found = [p for p in found if p.parent == near] or found
        if len(found) > 1:
            found = [p for p in found if split_of(p.relative_to(self.root).parent.as_posix()) == split] or found
        if len(found) > 1:  # the one that is called so and lies in no other folder
            found = [p for p in found if relative(p, self.root).lower() == "/".join(parts).lower()] or found
        if len(found) > 1:
            raise BadFile(
                found[0], f"{name} may be {found[0].relative_to(self.root)} or {found[1].relative_to(self.root)}"
            )
        return found[0] if found else self.root.joinpath(*parts)


def annotation_files(root: Path, *suffixes: str) -> list[Path]:
    """The files with these suffixes in a folder, its ``annotations`` and its train, val and test; or the file itself."""
    if root.is_file():
        return [root] if root.suffix.lower() in suffixes else []
    inside = [path for path in files(root) if path.is_dir()] if root.is_dir() else []
    folders = [root, *(path for path in inside if path.name.lower() in _ANNOTATIONS or split_of(path.name))]
    found = [path for folder in folders for path in files(folder)]
    return [path for path in found if path.suffix.lower() in suffixes and path.is_file()]


_ANNOTATIONS = ("annotations", "annotation", "labels", "json", "gt", "result")


def split_of_file(path: Path) -> str:
    """The split that an annotation file's name tells, or its folder's; else train."""
    return split_of(path.stem) or split_of(path.parent.name) or "train"


def picture_root(file: Path) -> Path:
    """The folder below which the pictures of an annotation file lie."""
    return file.parent.parent if file.parent.name.lower() in _ANNOTATIONS else file.parent


@lru_cache(maxsize=16)
def _peek(path: Path, size: int, time: int) -> Any:
    try:
        return read_json(path)
    except BadFile:
        return None


def peek_json(path: Path) -> Any:
    """A JSON file's content, kept for the layouts that look into the same file; None if it is not one."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _peek(path, stat.st_size, stat.st_mtime_ns)


def json_files(root: Path, fits: Callable[[Any], object], most: int | None = None) -> Iterator[Path]:
    """Those of a folder's JSON annotation files whose content ``fits``; only the first ``most`` files are looked into."""
    return (path for path in annotation_files(root, ".json")[:most] if fits(peek_json(path)))


def peek_lines(path: Path, most: int = 20) -> list[str]:
    """The first lines of a text file that are not empty; none if it is not one: a pipe would wait for ever."""
    if not path.is_file():
        return []
    try:
        with path.open("rb") as file:
            text = file.read(PEEKED_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][:most]


def read_json_lines(path: Path) -> list[tuple[str, Any]]:
    """(where, value) of each line of a JSON Lines file. Raises `BadFile`."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", json.loads(line)))
            except (ValueError, RecursionError):
                raise BadFile(path, f"line {number} is not JSON") from None
    return rows


class Shape(NamedTuple):
    """What marks one head, or an area."""

    label: str
    corners: Sequence[Any]  # (x, y) of a point, or (x0, y0, x1, y1) of a box; () of a mark that cannot be read
    group: bool = False  # of several people, or of somebody who is not to be counted: an area, no head
    rings: Sequence[Any] = ()  # the polygons [[x, y], ...] of an area, where there are more than a box


class Labelled(NamedTuple):
    """One image and its shapes, or why they cannot be read."""

    split: str
    name: str
    image: Path
    file: Path  # of the annotation
    shapes: Sequence[Shape] | BadFile | None  # None: the file says that nobody has labelled it yet


def is_called(label: str, names: frozenset[str]) -> bool:
    """Whether a label is one of the names: Human-Head is "human head"."""
    return re.sub(r"[\s_-]+", " ", label.strip().lower()) in names


def choose_labels(labels: Iterable[str]) -> frozenset[str]:
    """Which labels are heads: those called so, else faces, else persons, else all of them but areas."""
    every = frozenset(labels)
    given = frozenset(label for label in every if not is_called(label, GROUPS | IGNORED)) or every
    for known in (HEADS, FACES, BODIES):
        if chosen := frozenset(label for label in given if is_called(label, known)):
            return chosen
    return given


def surrounding(corners: Iterable[Sequence[Any]]) -> list[float]:
    """The box around points (x, y): [x0, y0, x1, y1]; of a single one the point itself. Raises TypeError, ValueError."""
    xs, ys = zip(*((float(x), float(y)) for x, y, *_ in corners), strict=True)
    return [xs[0], ys[0]] if len(xs) == 1 else [min(xs), min(ys), max(xs), max(ys)]


def outlined(label: str, corners: Iterable[Sequence[Any]]) -> Shape:
    """The shape of a polygon (x, y) ...: its extent is the mark of a head, its outline that of an area. Raises as `surrounding`."""
    ring = [(float(x), float(y)) for x, y, *_ in corners]
    return Shape(label, surrounding(ring), rings=[ring] if len(ring) > 2 else ())


def to_heads(
    shapes: Sequence[Shape], path: Path, chosen: frozenset[str], fractions: bool, left: frozenset[str] = frozenset()
) -> Heads:
    """The points of the chosen shapes: a box gives its centre, a person's box the middle of its top edge."""
    points, boxes, top, sizes = [], 0, False, []
    for label, corners in ((shape.label, shape.corners) for shape in shapes if is_head(shape, chosen)):
        if len(corners) == 0:
            raise BadFile(path, f"a {label or 'shape'} that is marked neither by a point, nor a box, nor a polygon")
        try:
            numbers = [float(number) for number in corners]
            if len(numbers) not in (2, 4):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise BadFile(path, f"a {label or 'shape'} whose coordinates are not 2 or 4 numbers") from None
        if len(numbers) == 4:
            x0, y0, x1, y1 = numbers
            body = is_called(label, BODIES)
            points.append(((x0 + x1) / 2, min(y0, y1) if body else (y0 + y1) / 2))
            boxes, top = boxes + 1, top or body
            sizes.append((abs(x1 - x0), abs(y1 - y0)))
        else:
            points.append((numbers[0], numbers[1]))
    known = as_points(np.array(sizes).reshape(-1, 2), path) if boxes == len(points) and not top else None
    places, areas = as_points(np.array(points).reshape(-1, 2), path), areas_of(shapes, chosen, path)
    return Heads(places, boxes, top, fractions, chosen, known, left, areas)


def is_head(shape: Shape, chosen: frozenset[str]) -> bool:
    return shape.label in chosen and not shape.group


def areas_of(shapes: Sequence[Shape], chosen: frozenset[str], path: Path) -> Areas | None:
    """The areas among a picture's shapes; None if there are none. A group of a label that is not counted is none."""
    groups: list[Shape] = []
    ignored: list[Shape] = []
    for shape in shapes:
        if shape.label not in chosen and is_called(shape.label, IGNORED):
            ignored.append(shape)
        elif shape.group if shape.label in chosen else is_called(shape.label, GROUPS):
            groups.append(shape)
    if not groups and not ignored:
        return None
    single = [shape for shape in shapes if is_head(shape, chosen) and (shape.rings or len(shape.corners) == 4)]
    # The box has the point that is counted, which an outline may not have.
    single = [shape._replace(rings=()) if len(shape.corners) == 4 else shape for shape in single]
    all_of, own, out = ([ring for each in kind for ring in rings(each, path)] for kind in (groups, single, ignored))
    return Areas(all_of, own, out, sum(not rings(shape, path) for shape in groups + ignored))


def rings(shape: Shape, path: Path) -> list[np.ndarray]:
    """The polygons of a shape, or its box. Raises `BadFile`."""
    if shape.rings:
        return [as_points(ring, path) for ring in shape.rings]
    if len(shape.corners) != 4:
        return []
    x0, y0, x1, y1 = map(float, shape.corners)
    return [as_points([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], path)]


def _split_by_folders(rows: list[Labelled]) -> list[Labelled]:
    """Where no annotation file tells a split, the folders of its pictures do: one export of train/ and test/."""
    told = any(
        row.split != "train"
        or (row.file.parent != row.image.parent and (split_of(row.file.stem) or split_of(row.file.parent.name)))
        for row in rows
    )
    if told or not rows:
        return rows
    top = os.path.commonpath([row.image.parent for row in rows])
    return [row._replace(split=split_of_folders(row.image.parent.relative_to(top)) or "train") for row in rows]


def split_of_folders(path: Path) -> str | None:
    """The split that the first folder tells whose name tells one: test/train_station is test."""
    return next(filter(None, map(split_of, path.parts)), None)


def _told_apart(rows: list[Labelled]) -> list[Labelled]:
    """Names that several pictures of a split share get the folders in which these are."""
    first = {(row.split, row.name): row.image for row in reversed(rows)}
    shared = {(row.split, row.name) for row in rows if row.image != first[row.split, row.name]}
    images = [row.image for row in rows if (row.split, row.name) in shared]
    top = os.path.commonpath([image.parent for image in images]) if images else ""
    return [
        row._replace(name=row.image.relative_to(top).as_posix()) if (row.split, row.name) in shared else row
        for row in rows
    ]


def from_shapes(rows: Iterable[Labelled], fractions: bool = False, labels: Iterable[str] = ()) -> Iterator[Entry]:
    """Entries of labelled images. ``labels``: all of the data set's, where its files list them."""
    everything = _told_apart(_split_by_folders(list(rows)))
    used = {shape.label for row in everything if not isinstance(row.shapes, BadFile) for shape in row.shapes or ()}
    chosen = choose_labels(set(labels) or used)
    if not chosen & used:  # heads are listed and none is drawn: persons are, or no people at all
        chosen = frozenset(label for label in used if is_called(label, FACES | BODIES)) or chosen
    left = frozenset(label for label in used - chosen if not is_called(label, GROUPS | IGNORED))
    seen: set[tuple[str, Path]] = set()
    for split, called, image, file, shapes in everything:
        # Some tools write the whole path on the machine that they ran on, or an address (s3://...).
        name = re.split(r"[/\\]", called)[-1] if re.match(r"/|[A-Za-z0-9]+:|\\", called) else called.replace("\\", "/")
        if shapes is None:
            yield Entry("unlabelled", name, image, None)
        elif isinstance(shapes, BadFile):
            yield Entry(split, name, image, partial(fail, shapes.path, str(shapes)))
        elif (split, image) in seen:
            yield Entry(split, name, image, partial(fail, file, f"{name} is annotated twice"))
        else:
            seen.add((split, image))
            yield Entry(split, name, image, partial(to_heads, shapes, file, chosen & used, fractions, left))


def others(root: Path, rows: Iterable[Labelled]) -> Iterator[Entry]:
    """Entries of the pictures below ``root`` that no row is about: they are unlabelled."""
    known = {row.image for row in rows}
    yield from (Entry("unlabelled", relative(i, root), i, None) for i in walk_pictures(root) if i not in known)


def relative(path: Path, root: Path) -> str:
    """A picture's name: its path below ``root`` without a folder called images."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else (path.name,)
    return "/".join(part for part in parts if part.lower() not in ("images", "img1", "image"))
