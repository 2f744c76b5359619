"""Writers of further public data sets as they lie about; as in `foreign`, each returns what a reader should find. Their forms were
looked up, see the readers' docstrings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
from exports import _text
from foreign import SIZE, Found, _json, _pictures
from layouts import picture


def _rows_and_columns(points: list) -> np.ndarray:
    return np.array(points, float).reshape(-1, 2)[:, ::-1]


def gcc(root: Path, lists: bool = True) -> Found:
    """A place is a row and a column. Smaller pictures and density maps of followers lie beside."""
    found: Found = {"train": {}, "test": {}} if lists else {"train": {}}
    rows: dict[str, str] = {"train": "", "test": ""}
    for scene, numbers in (("scene_01_0", "12"), ("scene_02_3", "34")):
        for name, points in _pictures(root / scene / "pngs", ".png", "153454088", numbers).items():
            (root / scene / "mats").mkdir(exist_ok=True)
            info = {"location": _rows_and_columns(points), "number": np.array([[len(points)]])}
            held = {"image_info": info, "weather_info": "CLEAR", "roi_info": np.array([[-1300.0, 200.0]] * 4)}
            scipy.io.savemat(root / scene / "mats" / f"{name[:-4]}.mat", held)
            _json(root / scene / "jsons" / f"{name[:-4]}.json", {"image_info": _rows_and_columns(points).tolist()})
            picture(root / scene / "pngs_544_960" / name, (160, 120))
            picture(root / scene / "vis" / name, SIZE)
            _text(root / scene / "csv_den_maps_k15_s4_544_960" / f"{name[:-4]}.csv", "0,0,0,0,0.5,0\n")
            split = "test" if name.endswith("4.png") else "train"
            found[split if lists else "train"][f"{scene}/{name}"] = points
            rows[split] += f"2 14 1 /{scene} {name[:-4]} {len(points)}\n"
    for split, text in rows.items() if lists else ():
        _text(root / "txt_list" / f"{split}_list.txt", text)
        _text(root / "txt_list" / f"cross_camera_{split}_list.txt", rows["test"])
    return found


def gcc_of_another_name(root: Path) -> Found:
    """Told by the camera in its files."""
    found = _pictures(root / "square" / "jpgs")
    for name, points in found.items():
        info = {"location": _rows_and_columns(points), "number": np.array([[len(points)]])}
        camera = {"location": np.zeros((1, 3)), "rotation": np.zeros((1, 3)), "fov": 50.0}
        (root / "square" / "mats").mkdir(exist_ok=True)
        scipy.io.savemat(root / "square" / "mats" / f"{name[:-4]}.mat", {"image_info": info, "camera_info": camera})
    return {"train": {f"square/{name}": points for name, points in found.items()}}


def gcc_jsons(root: Path) -> Found:
    """As the labeller leaves them, without MATLAB's files and lists."""
    found = gcc(root, lists=False)
    for path in root.glob("*/mats/*"):
        path.unlink()
    for path in root.glob("*/mats"):
        path.rmdir()
    return found


def venice(root: Path) -> Found:
    """The upper 25 rows lie outside the region of interest; a copy of a picture came without its annotation."""
    found: Found = {}
    for folder, split, numbers in (("train_data", "train", "123"), ("test_data", "test", "4")):
        names = _pictures(root / "venice" / folder / "images", prefix="4896_00006", numbers=numbers)
        (root / "venice" / folder / "ground-truth").mkdir()
        for name, points in names.items():
            roi = np.ones(SIZE[::-1], np.uint8)
            roi[:25] = 0
            held = {"annotation": np.array(points, float).reshape(-1, 2), "roi": roi, "homograph": np.eye(3)}
            scipy.io.savemat(root / "venice" / folder / "ground-truth" / f"{name[:-4]}.mat", held)
        found[split] = {name: [p for p in points if p[1] >= 25] for name, points in names.items()}
    picture(root / "venice" / "train_data" / "images" / "4896_000061 (1).jpg", SIZE)
    return found


BBGT = "% bbGt version=3\n"


def _person(label: str, point, ignore: int = 0) -> str:
    """A person whose head is at the middle of the top edge."""
    return f"{label} {point[0] - 5} {point[1]} 10 30 0 0 0 0 0 {ignore} 0\n"


def caltech(root: Path) -> Found:
    """The first frames show nobody; several people, somebody unsure and somebody to be ignored are no heads."""
    found: Found = {}
    for split, numbers in (("train", "3124"), ("test", "4")):
        found[split] = _pictures(root / split / "images", prefix="set00_V000_I0", numbers=numbers)
        for name, points in found[split].items():
            rows = [_person("person", point) for point in points]
            rows += [_person(label, (9, 9)) for label in ("people", "person?", "person-fa", "ignore")] if points else []
            rows += [_person("person", (9, 9), ignore=1)] if points else []
            _text(root / split / "annotations" / f"{name[:-4]}.txt", BBGT + "".join(rows))
    return {split: {f"{split}/{name}": points for name, points in names.items()} for split, names in found.items()}


def kaist(root: Path) -> Found:
    """Two cameras, of which the colour picture is counted; riders are people."""
    found = _pictures(root / "images" / "set00" / "V000" / "visible", prefix="I0000")
    for name, points in found.items():
        picture(root / "images" / "set00" / "V000" / "lwir" / name, SIZE)
        rows = [_person("cyclist" if i else "person", point) for i, point in enumerate(points)]
        _text(root / "annotations" / "set00" / "V000" / f"{name[:-4]}.txt", BBGT + "".join(rows))
    return {"train": {f"set00/V000/visible/{name}": points for name, points in found.items()}}


def exdark(root: Path) -> Found:
    """People is a class there, not several people."""
    found = _pictures(root / "ExDark" / "People", prefix="2015_0624")
    for name, points in found.items():
        rows = [_person("People", point) for point in points] + ["Car 1 1 9 9 0 0 0 0 0 0 0\n"]
        _text(root / "ExDark_Annno" / "People" / f"{name}.txt", BBGT + "".join(rows))
    return {"train": {f"ExDark/People/{name}": points for name, points in found.items()}}


def city_persons(root: Path) -> Found:
    """A group, an ignored region and a picture that neither file is about (the test's)."""
    found: Found = {}
    for split, numbers in (("train", "123"), ("val", "4"), ("test", "2")):
        names = _pictures(root / "images" / split / "ulm", "_leftImg8bit.png", f"ulm_{split}_", numbers)
        cells = np.empty((1, len(names)), object)
        for i, (name, points) in enumerate(names.items()):
            rows = [[1 + n % 4, x - 5, y, 10, 30, n, 0, 0, 0, 0] for n, (x, y) in enumerate(points)]
            rows += [[0, 1, 1, 9, 9, 8, 1, 1, 9, 9], [5, 1, 1, 9, 9, 9, 1, 1, 9, 9]]
            cells[0, i] = {
                "cityname": "ulm",
                "im_name": name,
                "bbs": np.array(rows if points else np.zeros((0, 10)), np.float64),
            }
        if split != "test":
            (root / "annotations").mkdir(exist_ok=True)
            scipy.io.savemat(root / "annotations" / f"anno_{split}.mat", {f"anno_{split}_aligned": cells})
            found[split] = names
    return found


def _voc(points: list, form) -> str:
    objects = "".join(f"<object><name>person</name>{form(*point)}</object>" for point in points)
    return (
        f"<annotation><filename>x</filename><size><width>320</width><height>240</height></size>{objects}</annotation>"
    )


def drone_rgbt(root: Path) -> Found:
    """A point for each person, in a file that is called like the thermal picture."""
    found: Found = {}
    for folder, split, numbers in (("Train", "train", "123"), ("Test", "test", "14")):
        found[split] = _pictures(root / folder / "RGB", numbers=numbers)
        for name, points in found[split].items():
            picture(root / folder / "Infrared" / f"{name[:-4]}R.jpg", SIZE)
            text = _voc(points, lambda x, y: f"<point><x>{x}</x><y>{y}</y></point>")
            _text(root / folder / "GT_" / f"{name[:-4]}R.xml", text)
    return found


def _bndbox(x: float, y: float) -> str:
    return f"<bndbox><xmin>{x - 5}</xmin><ymin>{y}</ymin><xmax>{x + 5}</xmax><ymax>{y + 9}</ymax></bndbox>"


def voc_nested(root: Path) -> Found:
    """Pictures and annotations in folders of their own, in train and test."""
    found: Found = {}
    for split, numbers in (("train", "123"), ("test", "4")):
        found[split] = _pictures(root / split / "images", numbers=numbers)
        for name, points in found[split].items():
            _text(root / split / "annotations" / f"{name[:-4]}.xml", _voc(points, _bndbox))
    return found


def moving_drone_crowd(root: Path) -> Found:
    """Frames begin at 0, pictures at 1; a scene and a clip are listed, the last clip is not."""
    found: Found = {"test": {}, "val": {}, "train": {}}
    clips = (
        ("test", "scene_1/1", "1"),
        ("test", "scene_1/2", "2"),
        ("val", "scene_2/1", "3"),
        ("train", "scene_2/2", "4"),
    )
    for split, clip, numbers in clips:
        names = _pictures(root / "frames" / clip, numbers=numbers)
        boxes = [(int(name[:-4]) - 1, i, x - 5, y - 5) for name, ps in names.items() for i, (x, y) in enumerate(ps)]
        _text(root / "annotations" / f"{clip}.csv", "".join(f"{f},{i},{x},{y},10,10,1,1,1\n" for f, i, x, y in boxes))
        found[split] |= {f"{clip}/{name}": points for name, points in names.items()}
    (root / "test.txt").write_text("scene_1\n")
    (root / "val.txt").write_text("scene_2/1\n")
    return found


def sense_crowd(root: Path) -> Found:
    """VSCrowd's first form: the point comes before the head's number; a frame without a line is left out."""
    found: Found = {}
    for split, video, numbers in (("train", "a_b_s1", "123"), ("val", "a_b_s2", "4"), ("test", "c", "1")):
        names = _pictures(root / "video_ori" / video, prefix=f"{split}0000", numbers=numbers)
        picture(root / "video_ori" / video / f"{split}9.jpg", SIZE)
        heads = {
            n: [f"{x - 5} {y - 5} {x + 5} {y + 9} {x} {y} {i}" for i, (x, y) in enumerate(ps)]
            for n, ps in names.items()
        }
        lines = "".join(f"{' '.join([name, '320', '240', *own])}\n" for name, own in heads.items())
        _text(root / "label_list_all" / f"{video}.txt", lines)
        _text(root / f"{split}.txt", f"{video}\n")
        found[split] = {f"{video}/{name}": points for name, points in names.items()}
    return found


CASES = {
    "vscrowd of SenseCrowd": sense_crowd,
    "moving-drone-crowd": moving_drone_crowd,
    "voc of DroneRGBT": drone_rgbt,
    "voc in train and test": voc_nested,
    "text-boxes of Caltech": caltech,
    "text-boxes of KAIST": kaist,
    "text-boxes of ExDark": exdark,
    "citypersons": city_persons,
    "gcc": gcc,
    "gcc of another name": gcc_of_another_name,
    "gcc, JSON alone": gcc_jsons,
    "shanghaitech of Venice": venice,
}
