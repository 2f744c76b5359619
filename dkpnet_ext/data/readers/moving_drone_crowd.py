"""MovingDroneCrowd and MovingDroneCrowd++ (Fan et al., "Video individual counting for moving drones", ICCV 2025).

    frames/scene_1/1/1.jpg ...   annotations/scene_1/1.csv   train.txt   val.txt   test.txt

A line per head: ``frame,id,x,y,w,h,...``, of which the centre of the box is taken; frames begin at 0, pictures at 1. A line of the
lists is a scene, or ``scene_1/2``, a clip of it; clips in no list are training data. Sources: fyw1999/MovingDroneCrowd
(cusdatasets/dataset.py), code of others that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..images import BadFile
from .base import Entry, Layout, files, pictures
from .tree import Labelled, Shape, from_shapes, listed_splits
from .visdrone import numbers


def _clips(root: Path) -> list[tuple[Path, Path]]:
    """(the folder of its frames, its annotation) of each clip."""
    found = ((root / "frames" / path.parent.name / path.stem, path) for path in files(root / "annotations", "*/*.csv"))
    return [(folder, path) for folder, path in found if folder.is_dir()]


def _rows(root: Path) -> Iterator[Labelled]:
    splits = listed_splits(root)
    for folder, path in _clips(root):
        clip = f"{path.parent.name}/{path.stem}"
        split = splits.get(clip) or splits.get(path.parent.name) or "train"
        by_frame: dict[int, list[Shape]] = {}
        try:
            for frame, _, x, y, w, h in numbers(path, 6)[:, :6].tolist():
                by_frame.setdefault(int(frame), []).append(Shape("head", (x, y, x + w, y + h)))
        except BadFile as bad:
            yield Labelled(split, clip, path, path, bad)
            continue
        for image in pictures(folder):
            number = int("0" + "".join(letter for letter in image.stem if letter.isdecimal()))
            yield Labelled(split, f"{clip}/{image.name}", image, path, by_frame.get(number - 1, []))


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))


LAYOUT = Layout(
    "moving-drone-crowd", lambda root: bool(_clips(root)), _entries, says="frames begin at 0, pictures at 1"
)
