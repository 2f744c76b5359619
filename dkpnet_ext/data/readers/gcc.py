"""GCC, "GTA5 Crowd Counting" (Wang et al., CVPR 2019), and what its labeller writes.

    scene_01_0/pngs/1534540881.png (or jpgs)   scene_01_0/mats/1534540881.mat (or jsons/...json)   txt_list/train_list.txt ...

``image_info`` has ``location`` [N, 2] and ``number``; in the JSON it is the list of places. A place is (row, column), not (x, y).
A line of the lists is ``level time weather folder name count``; of the three pairs of lists the random one is taken
(train_list.txt, test_list.txt), without it all is train. ``roi_info`` is in the game's coordinates and is not used. A folder
with density maps only (csv_den_maps_...) has no points. A folder of another name than scene_... is told by ``camera_info`` in its
files (``camera`` in JSON): in others places are (x, y). Sources: gjy3035/GCC-CL (mkInfo.py, getHead.py, README),
gjy3035/C-3-Framework (prepare_GCC.m, GCC.py, loading_data.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, as_points, files, has, pairs, read_json, read_text, read_variable
from .shanghaitech import read_image_info
from .tree import PEEKED, peek_json


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".mat":
        return read_image_info(path)[:, ::-1]
    content = read_json(path)
    return as_points(content.get("image_info") if isinstance(content, dict) else None, path)[:, ::-1]


def _folder(scene: Path, *names: str) -> Path | None:
    return next((scene / name for name in names if has(scene, name)), None)


def _is_scene(scene: Path, truths: Path) -> bool:
    if re.fullmatch(r"scene_\d+(_\d+)?", scene.name):
        return True
    for path in files(truths)[:PEEKED]:
        try:
            if path.suffix != ".json":
                read_variable(path, "camera_info")
            elif "camera" not in peek_json(path):
                continue
            return True
        except (BadFile, TypeError):
            continue
    return False


def _scenes(root: Path) -> list[tuple[Path, Path, Path]]:
    """(scene, its pictures, its annotations) of the folders in ``root``, or of itself."""
    inside = [path for path in files(root) if path.is_dir()] if root.is_dir() else []
    found = ((scene, _folder(scene, "pngs", "jpgs"), _folder(scene, "mats", "jsons")) for scene in (root, *inside))
    return [
        (scene, images, truths) for scene, images, truths in found if images and truths and _is_scene(scene, truths)
    ]


def _splits(root: Path) -> dict[tuple[str, str], str]:
    """(scene, name) -> split, by the random lists."""
    splits: dict[tuple[str, str], str] = {}
    for split in ("train", "test"):
        for path in (root / "txt_list" / f"{split}_list.txt", root / f"{split}_list.txt"):
            rows = [line.split() for line in read_text(path).splitlines()] if path.is_file() else []
            splits |= {(Path(row[3].replace("\\", "/")).name, row[4]): split for row in rows if len(row) == 6}
    return splits


def _entries(root: Path) -> Iterator[Entry]:
    splits = _splits(root)
    for scene, images, truths in _scenes(root):
        for entry in pairs("train", images, truths, f"*.{truths.name[:-1]}", _read):
            split = splits.get((scene.name, Path(entry.name).stem), "train")
            yield entry._replace(split=split, name=f"{scene.name}/{entry.name}")


LAYOUT = Layout(
    "gcc",
    lambda root: bool(_scenes(root)),
    _entries,
    says="the random split, where train_list.txt and test_list.txt are there",
)
