"""Lists of paths: of images alone (CSRNet and its followers), or of an image and its annotation (P2PNet, CLTR).

    part_A_train.json     ["/some/where/train_data/images/IMG_1.jpg", ...]
    train.list            train/scene01/img1.jpg train/scene01/img1.txt

Paths are relative to the list, or of another machine: then the file whose folders fit best is taken. An annotation
that is not named is looked for as in the layout beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..images import IMAGE_SUFFIXES, BadFile
from .base import Entry, Layout, exists, fail, files, is_file, read_json, read_text
from .beside import annotation_of, holds_points, read_annotation
from .tree import PEEKED, Pictures, peek_json, peek_lines, split_of

SUFFIXES = (".list", ".txt", ".json")


def _is_image(name: str) -> bool:
    return Path(name.replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES


def _parse(line: str) -> tuple[str, str] | None:
    """(image, annotation or "") of a line; None: it names no image."""
    line = line.strip().strip('"')
    if _is_image(line) and not any(map(_is_image, line.split()[:-1])):
        return line, ""
    image, _, truth = line.replace(",", " ").rpartition(" ")
    return (image.strip(), truth) if _is_image(image) and Path(truth).suffix else None


def _is_list(path: Path) -> bool:
    if path.suffix.lower() == ".json":
        content = peek_json(path)
        return isinstance(content, list) and bool(content) and all(isinstance(s, str) and _is_image(s) for s in content)
    lines = peek_lines(path)
    return bool(lines) and all(_parse(line) for line in lines[:-1] or lines)  # the last may be cut off


def _lists(root: Path) -> list[Path]:
    candidates = [root] if root.is_file() else files(root) if root.is_dir() else []
    return [path for path in candidates if path.suffix.lower() in SUFFIXES and path.is_file() and _is_list(path)]


def _truth(name: str, image: Path, path: Path) -> Path:
    if not name:
        if (found := annotation_of(image, {})) is None:
            raise BadFile(image, "no annotation of it beside it or in ground_truth")
        return found
    own = path.parent / name.replace("\\", "/")
    return own if exists(own) else image.with_name(Path(name.replace("\\", "/")).name)


def _entries(root: Path) -> Iterator[Entry]:
    for path in _lists(root):
        split, pictures = split_of(path.stem) or "train", Pictures(path.parent)
        lines = read_json(path) if path.suffix.lower() == ".json" else read_text(path).splitlines()
        seen: set[Path] = set()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                if (found := _parse(line)) is None:
                    raise BadFile(path, f"line {number} is no image, or image and annotation")
                own = path.parent / found[0].replace("\\", "/")
                image = own if is_file(own) else pictures.find(found[0], split)
                if image in seen:
                    raise BadFile(path, f"line {number} lists {image.name} again")
                seen.add(image)
                name = image.relative_to(path.parent).as_posix() if image.is_relative_to(path.parent) else image.name
                yield Entry(split, name, image, partial(read_annotation, _truth(found[1], image, path)))
            except BadFile as bad:
                yield Entry(split, f"line {number}", path, partial(fail, bad.path, str(bad)))


def _recognise(root: Path) -> bool:
    """Lists of which an image has an annotation: YOLO's train.txt names images, too."""
    reads = [entry.points for entry in _entries(root) if isinstance(entry.points, partial)]
    found = [read.args[0] for read in reads if read.func is read_annotation]
    return bool(found) and all(holds_points(path) for path in found[:PEEKED] if path.is_file())


LAYOUT = Layout("path-list", _recognise, _entries)
