"""Writing a data set in another layout: `prepare --to list`, `coco` or `shanghaitech`.

Images are hard links to the originals where the disk allows it, else copies. Those that need it are decoded and saved
as PNG: where the new layout cannot say that a picture is turned (EXIF), or that it has a region of interest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files import write_atomically, writing
from .images import IMAGE_SUFFIXES, decode, inspect_image
from .readers import Record
from .regions import paint_outside

Target = Literal["list", "coco", "shanghaitech"]


def convert(records: Mapping[str, Sequence[Record]], to: Target, folder: Path) -> int:
    """Write the labelled images of ``records`` (split -> records) below ``folder``; returns how many.

    Raises:
        UserError: the folder holds something already, or cannot be written.
    """
    with writing(folder):
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder}: not empty; name another folder with --into")
        folder.mkdir(parents=True, exist_ok=True)
        written = 0
        for split in ("train", "val", "test"):
            rows = [record for record in records.get(split, ()) if record.points is not None]
            if rows:
                _WRITERS[to](rows, split, folder)
                written += len(rows)
    return written


def _place(record: Record, images: Path, taken: set[str], flat: bool, stored: bool) -> Path:
    """The image in the new layout. ``flat``: without folders; ``stored``: its points are of the pixels as stored."""
    name = record.name.replace("..", "_").replace("\\", "_").lstrip("/")
    name = name.replace("/", "_") if flat else name
    info = inspect_image(record.image)
    decoded = (stored and info.orientation != 1) or record.region is not None
    base, suffix = os.path.splitext(name)
    if suffix.lower() not in IMAGE_SUFFIXES:  # readers find pictures by their suffix
        base, suffix = name, info.suffix
    suffix = ".png" if decoded else suffix
    stem = next(stem for n in range(len(taken) + 1) if (stem := f"{base}-{n}" if n else base) not in taken)
    taken.add(stem)
    path = images / f"{stem}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not decoded:
        try:
            os.link(record.image.resolve(), path)
        except OSError:  # another disk, or one without links
            shutil.copyfile(record.image, path)
        return path
    pixels = np.asarray(decode(record.image))
    if record.region is not None:
        pixels = paint_outside(pixels, record.region, record.size)
    Image.fromarray(pixels).save(path)
    return path


def _write_list(rows: Sequence[Record], split: str, folder: Path) -> None:
    taken: set[str] = set()
    entries = [
        {
            "image": _place(record, folder / split, taken, False, False).relative_to(folder).as_posix(),
            "points": _points(record).tolist(),
        }
        for record in rows
    ]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    write_atomically(folder / f"{split}.json", f"[\n{lines}\n]\n")


def _write_coco(rows: Sequence[Record], split: str, folder: Path) -> None:
    """Each head a keypoint called head, with a box of no size around it."""
    taken: set[str] = set()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(rows, 1):
        path = _place(record, folder / split, taken, True, False)
        height, width = record.size
        images.append({"id": number, "file_name": path.name, "width": width, "height": height})
        annotations += [
            {
                "id": len(annotations) + n,
                "image_id": number,
                "category_id": 1,
                "keypoints": [x, y, 2],
                "num_keypoints": 1,
                "bbox": [x, y, 0, 0],
                "area": 0,
                "iscrowd": 0,
            }
            for n, (x, y) in enumerate(_points(record).tolist(), 1)
        ]
    categories = [{"id": 1, "name": "head", "keypoints": ["head"], "skeleton": []}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir(exist_ok=True)
    write_atomically(folder / "annotations" / f"instances_{split}.json", json.dumps(content, ensure_ascii=False))


def _write_shanghaitech(rows: Sequence[Record], split: str, folder: Path) -> None:
    from scipy.io import savemat

    truths = folder / f"{split}_data" / "ground_truth"
    truths.mkdir(parents=True)
    taken: set[str] = set()
    for record in rows:
        path = _place(record, folder / f"{split}_data" / "images", taken, True, True)
        points = _points(record)
        info = np.empty((1, 1), object)
        info[0, 0] = {"location": points, "number": float(len(points))}
        savemat(truths / f"GT_{path.stem}.mat", {"image_info": info}, do_compression=True)


def _points(record: Record) -> np.ndarray:
    assert record.points is not None  # `convert` leaves unlabelled images out
    return record.points


_WRITERS = {"list": _write_list, "coco": _write_coco, "shanghaitech": _write_shanghaitech}
