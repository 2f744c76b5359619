"""VSCrowd (Li et al., "Video crowd localization with multi-focus Gaussian neighborhood attention", 2021).

    annotations/train_001.txt     videos/train_001/001.jpg (a folder of the file's name, anywhere below)
    label_list_all/NAME.txt       video_ori/NAME/000001.jpg     train.txt   val.txt   test.txt     SenseCrowd, its first form

A line per frame: ``frame head x0 y0 x1 y1 x y head x0 ...``: of each head its number, its box and the point that is counted, in
pixels. The frame's number is the picture's name. In the first form a line is ``000001.jpg``, two numbers, and of each head
``x0 y0 x1 y1 x y head``; the lists name videos. Frames without a line are left out. Sources: HopLee6/VSCrowd-Dataset (README); for
the first form the code of taohan10200/DRNet and fyw1999/MovingDroneCrowd that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..images import BadFile
from .base import Entry, Layout, files, pictures, read_text
from .tree import (
    PEEKED_BYTES,
    Labelled,
    Shape,
    annotation_files,
    from_shapes,
    listed_splits,
    peek_lines,
    split_of_file,
    walk_pictures,
)

_FIELDS = 7  # of a head
_FIRST_FORM = "label_list_all"


def _is_video(path: Path) -> bool:
    lines = [line.split() for line in peek_lines(path, 9)]
    whole = lines if path.stat().st_size < PEEKED_BYTES else lines[:-1]  # the last may be cut off
    try:
        counts = [len([float(field) for field in fields]) for fields in whole]
    except ValueError:
        return False
    return all(count % _FIELDS == 1 for count in counts) and max(counts, default=0) > 1


def _videos(root: Path) -> list[Path]:
    if first := files(root / _FIRST_FORM, "*.txt"):
        return first
    found = [path for path in annotation_files(root, ".txt") if _is_video(path)] if root.is_dir() else []
    if not found or len(found) < len(annotation_files(root, ".txt")):
        return []
    # A line of YOLO with one keypoint has as many numbers, but its file is of a picture.
    folders = {image.parent.name for image in walk_pictures(root)}
    return found if any(path.stem in folders for path in found) else []


def _frames(folder: Path, by_name: bool) -> dict[str | int, Path]:
    images = pictures(folder)
    if by_name:
        return {image.name: image for image in images}
    return {int("0" + "".join(c for c in image.stem if c.isdecimal())): image for image in images}


def _rows(root: Path) -> Iterator[Labelled]:
    folders = {image.parent.name: image.parent for image in walk_pictures(root)}
    splits = listed_splits(root)
    for path in _videos(root):
        first, folder = path.parent.name == _FIRST_FORM, folders.get(path.stem)
        split = splits.get(path.stem, "train") if first else split_of_file(path)
        if folder is None:
            yield Labelled(split, path.stem, path, path, BadFile(path, f"no folder {path.stem} with its frames"))
            continue
        frames, place = _frames(folder, first), 4 if first else 5
        for number, line in enumerate(read_text(path).splitlines(), 1):
            try:
                frame, *fields = line.split() or ["-1"]
                heads = [float(field) for field in fields[2 * first :]]
                key: str | int = frame if first else int(float(frame))
                if len(heads) % _FIELDS:
                    raise ValueError
                if key in frames:
                    shapes = [Shape("head", heads[i : i + 2]) for i in range(place, len(heads), _FIELDS)]
                    image = frames[key]
                    yield Labelled(split, f"{folder.name}/{image.name}", image, path, shapes)
            except (ValueError, OverflowError):
                reason = BadFile(path, f"line {number} is not a frame and seven numbers for each head")
                yield Labelled(split, f"{path.stem}, line {number}", path, path, reason)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))


LAYOUT = Layout("vscrowd", lambda root: bool(_videos(root)), _entries)
