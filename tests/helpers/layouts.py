"""Writers of small data sets in the exact layout that each public one has on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

POINTS = {"1": [[3.5, 4.25], [59.0, 40.0]], "2": [[10.0, 20.0]], "3": []}


def picture(path: Path, size: tuple[int, int] = (64, 48), mode: str = "RGB", **save: object) -> Path:
    """A random picture, size (W, H), the same for the same file name in the same split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    split = [part for part in path.parts[-3:-1] if part.lower() in ("val", "test", "test_data")]
    rng = np.random.default_rng(list("/".join([*split, path.name]).encode()))
    pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **save)
    return path


def mat(path: Path, key: str, points: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {key: np.reshape(np.asarray(points, float), (-1, 2))})
    return path


def shanghai_mat(path: Path, points: object) -> Path:
    """``image_info`` is a 1x1 cell that holds a 1x1 struct with ``location`` and ``number``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    location = np.reshape(np.asarray(points, float), (-1, 2))
    cell = np.empty((1, 1), object)
    cell[0, 0] = {"location": location, "number": np.array([[len(location)]], np.uint16)}
    scipy.io.savemat(path, {"image_info": cell})
    return path


def shanghaitech(root: Path, folder: str = "ground_truth") -> Path:
    for split in ("train_data", "test_data"):
        for number, points in POINTS.items():
            picture(root / split / "images" / f"IMG_{number}.jpg")
            shanghai_mat(root / split / folder / f"GT_IMG_{number}.mat", points)
    return root


def ucf_qnrf(root: Path) -> Path:
    for split in ("Train", "Test"):
        for number, points in POINTS.items():
            picture(root / split / f"img_{int(number):04d}.jpg")
            mat(root / split / f"img_{int(number):04d}_ann.mat", "annPoints", points)
    return root


def ucf_cc_50(root: Path) -> Path:
    for number in (1, 2, 40, 41, 50):
        picture(root / f"{number}.jpg", mode="L")
        mat(root / f"{number}_ann.mat", "annPoints", POINTS["1"])
    return root


def nwpu(root: Path, annotations: str = "mats", folders: tuple[str, ...] = ("images",), tokens: int = 3) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    lists = {"train.txt": ("0001", "0002"), "val.txt": ("0003",), "test.txt": ("3610", "3611")}
    for n, identity in enumerate(i for ids in lists.values() for i in ids):
        picture(root / folders[n % len(folders)] / f"{identity}.jpg")
    for number, points in POINTS.items():
        if annotations == "mats":
            mat(root / "mats" / f"000{number}.mat", "annPoints", points)
        else:
            (root / "jsons").mkdir(exist_ok=True)
            content = {"img_id": f"000{number}.jpg", "human_num": len(points), "points": points, "boxes": []}
            (root / "jsons" / f"000{number}.json").write_text(json.dumps(content))
    for name, identities in lists.items():
        tail = " 1 2" if tokens == 3 and name != "test.txt" else ""
        (root / name).write_text("".join(f"{identity}{tail}\n" for identity in identities))
    return root


def jhu_crowd(root: Path) -> Path:
    for split in ("train", "val", "test"):
        for number, points in POINTS.items():
            picture(root / split / "images" / f"000{number}.jpg")
            (root / split / "gt").mkdir(exist_ok=True)
            lines = "".join(f"{x:.0f} {y:.0f} 12 14 1 0\n" for x, y in points)
            (root / split / "gt" / f"000{number}.txt").write_text(lines)
        (root / split / "image_labels.txt").write_text("0001,2,stadium,0,0\n")
    return root


def beijing_brt(root: Path) -> Path:
    for split in ("train", "test"):
        for number, points in POINTS.items():
            picture(root / split / "frame" / f"1-2016{number}.jpg")
            mat(root / split / "ground_truth" / f"1-2016{number}.mat", "loc", points)
    return root


def csv_lists(root: Path) -> Path:
    """train.csv with the points inline, test.csv with the points in a CSV file of their own."""
    for number in (*POINTS, "own3"):
        picture(root / "pictures" / f"{number}.png")
    rows = "".join(f'pictures/{number}.png,"{json.dumps(points)}"\n' for number, points in POINTS.items())
    (root / "train.csv").write_text("image,points\n" + rows)
    (root / "heads").mkdir()
    for number, points in POINTS.items():
        (root / "heads" / f"{number}.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in points))
    rows = "".join(f"pictures/{number}.png,heads/{number}.csv\n" for number in POINTS)
    rows = rows.replace("pictures/3", "pictures/own3")  # whose picture is not in train
    (root / "test.csv").write_text("image,points\n" + rows)
    return root


def json_lists(root: Path) -> Path:
    for split in ("train", "val", "test"):
        for number in POINTS:
            picture(root / split / f"{number}.png")
        entries = [{"image": f"{split}/{number}.png", "points": points} for number, points in POINTS.items()]
        (root / f"{split}.json").write_text(json.dumps(entries))
    return root
