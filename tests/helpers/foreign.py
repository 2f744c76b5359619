"""Writers of small data sets as labelling tools and other public sets have them on disk.

Each writes `HEADS` into a folder and returns what a reader should find: {split: {name: points}}.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import scipy.io
from layouts import mat, picture, shanghai_mat
from PIL import Image

HEADS = {
    "1": [[20.5, 30.25], [100, 80], [200.75, 150], [310, 20]],
    "2": [[160, 120], [40, 200]],
    "3": [],
    "4": [[50, 60], [60, 60], [70, 60]],
}
SIZE = (320, 240)
Found = dict[str, dict[str, list[list[float]]]]


def _pictures(folder: Path, suffix: str = ".jpg", prefix: str = "", numbers: str = "1234") -> dict[str, list]:
    for number in numbers:
        picture(folder / f"{prefix}{number}{suffix}", SIZE)
    return {f"{prefix}{number}{suffix}": HEADS[number] for number in numbers}


def _json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _box(point, half: float = 5) -> list[float]:
    x, y = point
    return [x - half, y - half, 2 * half, 2 * half]


def labelme(root: Path) -> Found:
    found = _pictures(root)
    for name, points in found.items():
        shapes = [{"label": "head", "points": [point], "shape_type": "point"} for point in points[:-1]]
        for x, y in points[-1:]:
            shapes.append({"label": "head", "points": [[x + 5, y + 5], [x - 5, y - 5]], "shape_type": "rectangle"})
        _json(root / name.replace(".jpg", ".json"), {"version": "5", "shapes": shapes, "imagePath": name})
    picture(root / "unlabelled.jpg", SIZE)
    return {"train": found}


def labelme_apart(root: Path) -> Found:
    """Pictures and annotations in two folders, as the tool's option --output makes them on Windows."""
    labelme(root)
    for path in [*root.glob("*.jpg"), *root.glob("*.json")]:
        folder = root / ("images" if path.suffix == ".jpg" else "annotations")
        folder.mkdir(exist_ok=True)
        text = path.read_bytes()
        if path.suffix == ".json":
            text = json.dumps(json.loads(text) | {"imagePath": f"..\\images\\{path.stem}.jpg"}).encode()
        (folder / path.name).write_bytes(text)
        path.unlink()
    return {"train": {f"{number}.jpg": points for number, points in HEADS.items()}}


def coco_boxes(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "134"), ("val", "2")):
        found[split] = _pictures(root / "images" / split, numbers=numbers)
        images = [{"id": i, "file_name": name} for i, name in enumerate(found[split])]
        boxes = [(i, point) for i, points in enumerate(found[split].values()) for point in points]
        annotations = [{"image_id": i, "category_id": 1, "bbox": _box(point), "iscrowd": 0} for i, point in boxes]
        annotations.append({"image_id": 0, "category_id": 1, "bbox": [0, 0, 320, 40], "iscrowd": 1})
        annotations.append({"image_id": 0, "category_id": 2, "bbox": [0, 0, 20, 40], "iscrowd": 0})
        categories = [{"id": 1, "name": "head"}, {"id": 2, "name": "car"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        _json(root / "annotations" / f"instances_{split}2017.json", content)
    return found


def coco_keypoints(root: Path) -> Found:
    """The nose is seen of all, the eyes of none; a person without keypoints is its box: the middle of its top edge."""
    found = _pictures(root)
    images = [{"id": i, "file_name": f"/somewhere/else/{name}"} for i, name in enumerate(found)]
    annotations = []
    for i, points in enumerate(found.values()):
        for n, (x, y) in enumerate(points):
            keypoints = [0] * 9 if n == 0 else [x, y, 2, 0, 0, 0, x, y + 50, 2]
            annotations.append({"image_id": i, "category_id": 1, "keypoints": keypoints, "bbox": [x - 9, y, 18, 90]})
    names = ["nose", "left_eye", "left_shoulder"]
    _json(root / "person_keypoints_train.json", {
        "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person", "keypoints": names}],
    })  # fmt: skip
    return {"train": found}


def roboflow(root: Path) -> Found:
    """COCO files in train, valid and test."""
    found = {}
    for folder, split, numbers in (("train", "train", "13"), ("valid", "val", "2"), ("test", "test", "4")):
        found[split] = _pictures(root / folder, numbers=numbers)
        images = [{"id": i, "file_name": name} for i, name in enumerate(found[split])]
        boxes = [(i, point) for i, points in enumerate(found[split].values()) for point in points]
        annotations = [{"image_id": i, "category_id": 0, "bbox": _box(point)} for i, point in boxes]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "heads"}]}
        _json(root / folder / "_annotations.coco.json", content)
    return found


def cvat_xml(root: Path) -> Found:
    found = _pictures(root / "images")
    body = ""
    for name, points in found.items():
        pairs = ";".join(f"{x},{y}" for x, y in points[:-1])
        body += f'<image id="1" name="{name}">'
        body += f'<points label="head" points="{pairs}"></points>' if pairs else ""
        for x, y in points[-1:]:
            body += f'<box label="head" xtl="{x - 5}" ytl="{y - 5}" xbr="{x + 5}" ybr="{y + 5}"></box>'
        body += "</image>"
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0"?>\n<annotations>\n<version>1.1</version>{body}</annotations>'
    )
    return {"train": found}


def cvat_backup(root: Path) -> Found:
    found = _pictures(root / "data")
    rows = [{"version": "1.1"}, {"type": "images"}, *({"name": n[:-4], "extension": n[-4:]} for n in found)]
    (root / "data" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shapes = [{"type": "points", "frame": frame, "label": "head", "points": [*point], "outside": False}
              for frame, points in enumerate(found.values()) for point in points]  # fmt: skip
    _json(root / "annotations.json", [{"version": 0, "tags": [], "shapes": shapes, "tracks": []}])
    return {"train": found}


def datumaro(root: Path) -> Found:
    found = _pictures(root / "images" / "default")
    items = []
    for name, points in found.items():
        marks = [{"type": "points", "label_id": 0, "points": [*point]} for point in points[:-1]]
        marks += [{"type": "bbox", "label_id": 0, "bbox": _box(point)} for point in points[-1:]]
        marks.append({"type": "points", "label_id": 1, "points": [1, 1]})
        items.append({"id": name[:-4], "annotations": marks, "image": {"path": name}})
    labels = {"label": {"labels": [{"name": "head"}, {"name": "bag"}]}}
    _json(root / "annotations" / "default.json", {"items": items, "categories": labels})
    return {"train": found}


def via_project(root: Path) -> Found:
    found = _pictures(root)
    content = {}
    for name, points in found.items():
        regions = [
            {"shape_attributes": {"name": "point", "cx": x, "cy": y}, "region_attributes": {}} for x, y in points[:-1]
        ]
        for x, y in points[-1:]:
            shape = {"name": "rect", "x": x - 4, "y": y - 4, "width": 8, "height": 8}
            regions.append({"shape_attributes": shape, "region_attributes": {}})
        content[f"{name}99"] = {"filename": name, "size": 99, "regions": regions}
    _json(root / "via_region_data.json", {"_via_settings": {}, "_via_img_metadata": content})
    return {"train": found}


def via_csv(root: Path) -> Found:
    found = _pictures(root)
    with open(root / "via_region_data.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "file_size", "file_attributes", "region_count", "region_id",
                         "region_shape_attributes", "region_attributes"])  # fmt: skip
        for name, points in found.items():
            shapes = [json.dumps({"name": "point", "cx": x, "cy": y}) for x, y in points] or ["{}"]
            writer.writerows([name, 9, "{}", len(points), i, shape, "{}"] for i, shape in enumerate(shapes))
    return {"train": found}


def voc(root: Path) -> Found:
    found: Found = {"train": {}, "val": {}}
    names = _pictures(root / "JPEGImages")
    for name, points in names.items():
        boxes = [("head", x - 5, y - 6, x + 5, y + 6) for x, y in points] + [("dog", 1, 1, 9, 9)]
        body = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            for label, a, b, c, d in boxes
        )
        path = root / "Annotations" / name.replace(".jpg", ".xml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<annotation><filename>{name}</filename>{body}</annotation>")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, part in (("train", ["1", "2", "3"]), ("val", ["4"])):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(part) + "\n")
        found[split] = {f"{number}.jpg": names[f"{number}.jpg"] for number in part}
    return found


def fdst(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "123"), ("test", "4")):
        names = _pictures(root / f"{split}_data" / "7", numbers=numbers)
        for name, points in names.items():
            shapes = [{"name": "rect", "x": x - 4, "y": y - 4, "width": 8, "height": 8} for x, y in points]
            regions = {str(i): {"shape_attributes": shape, "region_attributes": {}} for i, shape in enumerate(shapes)}
            content = {f"{name}9": {"filename": name, "size": 9, "regions": regions}}
            _json(root / f"{split}_data" / "7" / name.replace(".jpg", ".json"), content)
        found[split] = {f"7/{name}": points for name, points in names.items()}
    return found


def label_studio(root: Path) -> Found:
    found = _pictures(root / "images")
    tasks = []
    for name, points in found.items():
        result = [{"type": "keypointlabels", "value": {"x": x / 3.2, "y": y / 2.4, "width": 0.3, "keypointlabels": ["Head"]}}
                  for x, y in points[:-1]]  # fmt: skip
        for x, y in points[-1:]:
            box = {"x": (x - 5) / 3.2, "y": (y - 5) / 2.4, "width": 10 / 3.2, "height": 10 / 2.4, "rotation": 0}
            result.append({"type": "rectanglelabels", "value": {**box, "rectanglelabels": ["Head"]}})
        tasks.append(
            {"id": 1, "annotations": [{"result": result}], "data": {"image": f"/data/upload/3/1a2b3c4d-{name}"}}
        )
    _json(root / "project-1.json", tasks)
    return {"train": found}


def label_studio_min(root: Path) -> Found:
    found = _pictures(root)
    tasks = [{"image": f"/data/local-files/?d=here/{name}", "id": 1, "annotator": 1, "annotation_id": 2,
              "kp-1": [{"x": x / 3.2, "y": y / 2.4, "width": 0.3, "keypointlabels": ["Head"]} for x, y in points]}
             for name, points in found.items()]  # fmt: skip
    _json(root / "export.json", tasks)
    return {"train": found}


def yolo(root: Path, order: str = "images/{split}") -> Found:
    found: Found = {}
    for split, numbers in (("train", "123"), ("val", "4")):
        images = root / order.format(split=split)
        labels = root / order.format(split=split).replace("images", "labels")
        labels.mkdir(parents=True)
        found[split] = _pictures(images, numbers=numbers)
        for name, points in found[split].items():
            lines = [f"1 {x / 320} {y / 240} 0.03 0.04\n" for x, y in points] + ["0 0.5 0.5 0.1 0.1\n"]
            (labels / name.replace(".jpg", ".txt")).write_text("".join(lines))
    (root / "data.yaml").write_text("names:\n  0: helmet\n  1: head\n")
    return found


def roboflow_yolo(root: Path) -> Found:
    return yolo(root, "{split}/images")


def darknet(root: Path) -> Found:
    """Text files beside the pictures, none beside an empty one, no names."""
    found = _pictures(root)
    for name, points in found.items():
        if points:
            (root / name.replace(".jpg", ".txt")).write_text("".join(f"0 {x / 320} {y / 240} 0 0\n" for x, y in points))
    return {"train": found}


def cclabeler(root: Path) -> Found:
    found = _pictures(root / "data" / "images")
    for name, points in found.items():
        boxes = [{"sx": x - 5, "sy": y - 6, "ex": x + 5, "ey": y + 6} for x, y in points[-1:]]
        content = {
            "img_id": name,
            "human_num": len(points),
            "boxes": boxes,
            "points": [{"x": x, "y": y} for x, y in points[:-1]],
        }
        _json(root / "data" / "jsons" / name.replace(".jpg", ".json"), content)
    return {"train": found}


def makesense_points(root: Path) -> Found:
    found = {name: points for name, points in _pictures(root).items() if points}
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(["head", x, y, name, *SIZE] for name, points in found.items() for x, y in points)
    return {"train": found}


def boxes_csv(root: Path) -> Found:
    found = {name: points for name, points in _pictures(root / "images").items() if points}
    with open(root / "train_labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
        writer.writerows(
            [name, *SIZE, "head", x - 5, y - 5, x + 5, y + 5] for name, points in found.items() for x, y in points
        )
    return {"train": found}


def list_of_any_name(root: Path) -> Found:
    found = _pictures(root)
    with open(root / "annotations.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image", "points"], *([name, json.dumps(p)] for name, p in found.items())])
    return {"train": found}


def json_dictionary(root: Path) -> Found:
    found = _pictures(root)
    _json(root / "points.json", {name: [{"x": x, "y": y} for x, y in points] for name, points in found.items()})
    return {"train": found}


def semicolons(root: Path) -> Found:
    found = {name: points for name, points in _pictures(root).items() if points}
    rows = [f"{name};{x};{y}\n" for name, points in found.items() for x, y in points]
    (root / "points.csv").write_text("image;x;y\n" + "".join(rows))
    return {"train": found}


def text_folders(root: Path) -> Found:
    """A line 'x y' per head, in JHU-Crowd++'s folders."""
    found: Found = {}
    for split, numbers in (("train", "123"), ("test", "4")):
        found[split] = _pictures(root / split / "images", numbers=numbers)
        (root / split / "gt").mkdir()
        for name, points in found[split].items():
            (root / split / "gt" / name.replace(".jpg", ".txt")).write_text("".join(f"{x} {y}\n" for x, y in points))
    return found


def yolo_with_lists(root: Path) -> Found:
    found = yolo(root)
    (root / "train.txt").write_text("./images/train/1.jpg\n./images/train/2.jpg\n./images/train/3.jpg\n")
    return found


def via_folders(root: Path) -> Found:
    found = via_project(root)
    for path in [*root.glob("*.jpg"), *root.glob("*.json")]:
        folder = root / ("images" if path.suffix == ".jpg" else "annotations")
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    return found


def json_lines(root: Path) -> Found:
    found = {"train": _pictures(root, numbers="123"), "test": _pictures(root, numbers="4")}
    for split, names in found.items():
        rows = [json.dumps({"image": name, "points": points}) + "\n" for name, points in names.items()]
        (root / f"{split}.jsonl").write_text("".join(rows))
    return found


def shanghaitech_like(root: Path, folders=("train_data", "test_data"), prefix: str = "") -> Found:
    found: Found = {}
    for folder, split, numbers in ((folders[0], "train", "123"), (folders[1], "test", "4")):
        found[split] = _pictures(root / folder / "images", prefix="IMG_", numbers=numbers)
        for name, points in found[split].items():
            shanghai_mat(root / folder / "ground_truth" / f"{prefix}{name[:-4]}.mat", points)
    return found


def shanghaitech_folders(root: Path) -> Found:
    return shanghaitech_like(root, ("train", "test"), "GT_")


def shanghaitech_deep(root: Path) -> Found:
    return shanghaitech_like(root / "ShanghaiTech" / "part_A", prefix="GT_")


def path_lists(root: Path) -> Found:
    """As CSRNet's: absolute paths of another machine."""
    found: Found = {}
    for split, numbers in (("train", "123"), ("val", "4")):
        names = _pictures(root / "part_B" / "images", prefix="IMG_", numbers=numbers)
        for name, points in names.items():
            shanghai_mat(root / "part_B" / "ground_truth" / f"GT_{name[:-4]}.mat", points)
        _json(root / f"part_B_{split}.json", [f"/home/leeyh/Shanghai/part_B/images/{name}" for name in names])
        found[split] = {f"part_B/images/{name}": points for name, points in names.items()}
    return found


def p2pnet(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "123"), ("test", "4")):
        names = _pictures(root / split / "scene01", numbers=numbers)
        for name, points in names.items():
            text = "".join(f"{x} {y}\n" for x, y in points)
            (root / split / "scene01" / name.replace(".jpg", ".txt")).write_text(text)
        paths = {f"{split}/scene01/{name}": points for name, points in names.items()}
        (root / f"{split}.list").write_text("".join(f"{p} {p.replace('.jpg', '.txt')}\n" for p in paths))
        found[split] = paths
    return found


def qnrf(root: Path, inner: tuple[str, str], names=("Train", "Test")) -> Found:
    found: Found = {}
    for folder, split, numbers in ((names[0], "train", "123"), (names[1], "test", "4")):
        found[split] = _pictures(root / folder / inner[0], prefix="img_000", numbers=numbers)
        for name, points in found[split].items():
            mat(root / folder / inner[1] / f"{name[:-4]}_ann.mat", "annPoints", points)
    return found


def qnrf_folders(root: Path) -> Found:
    return qnrf(root, ("images", "ground_truth"))


def qnrf_lower(root: Path) -> Found:
    return qnrf(root, (".", "."), ("train", "test"))


def npy_beside(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "13"), ("val", "2"), ("test", "4")):
        found[split] = _pictures(root / split, numbers=numbers)
        for name, points in found[split].items():
            array = np.array(points, np.float32).reshape(-1, 2)
            np.save(root / split / name.replace(".jpg", ".npy"), np.c_[array, np.full(len(array), 11.0, np.float32)])
    return found


def dots_folder(root: Path) -> Found:
    found = _pictures(root / "images", suffix=".png")
    (root / "dots").mkdir()
    for name, points in found.items():
        dots = np.zeros(SIZE[::-1], np.uint8)
        for x, y in points:
            dots[int(y), int(x)] = 255
        Image.fromarray(dots).save(root / "dots" / name)
    return {"train": {name: [[int(x), int(y)] for x, y in points] for name, points in found.items()}}


def own_mats(root: Path) -> Found:
    """Numbers beyond UCF_CC_50's."""
    found = {}
    for number in range(45, 55):
        picture(root / f"{number}.jpg", SIZE)
        found[f"{number}.jpg"] = HEADS["12344"[number % 5]]
        mat(root / f"{number}_ann.mat", "annPoints", found[f"{number}.jpg"])
    return {"train": found}


def mall(root: Path) -> Found:
    """The upper 25 rows lie outside the region of interest."""
    numbers = (1, 2, 800, 801)
    frame, count, found = np.empty((1, 801), object), np.zeros((801, 1)), {"train": {}, "test": {}}
    frame[:] = [[{"loc": np.zeros((0, 2))}] * 801]
    for number, key in zip(numbers, "1234"):
        picture(root / "frames" / f"seq_{number:06d}.jpg", SIZE)
        frame[0, number - 1] = {"loc": np.array(HEADS[key], float).reshape(-1, 2)}
        count[number - 1] = len(HEADS[key])
        inside = [point for point in HEADS[key] if point[1] >= 25]
        found["train" if number <= 800 else "test"][f"seq_{number:06d}.jpg"] = inside
    scipy.io.savemat(root / "mall_gt.mat", {"frame": frame, "count": count})
    mask = np.ones(SIZE[::-1], bool)
    mask[:25] = False
    scipy.io.savemat(root / "perspective_roi.mat", {"roi": {"mask": mask}})
    return found


def ucsd_nested(root: Path) -> Found:
    return ucsd(root, nested=True)


def ucsd(root: Path, nested: bool = False) -> Found:
    found: Found = {}
    for clip, split in (("002", "test"), ("003", "train")):
        names = [f"vidf1_33_{clip}_f{i:03d}.png" for i in (1, 2)]
        frame = np.empty((1, 2), object)
        for i, (name, key) in enumerate(zip(names, "14")):
            picture(root / "vidf" / f"vidf1_33_{clip}.y" / name, SIZE)
            frame[0, i] = {"loc": np.c_[np.array(HEADS[key], float), np.ones(len(HEADS[key]))]}
        (root / "vidf-cvpr").mkdir(exist_ok=True)
        scipy.io.savemat(
            root / "vidf-cvpr" / f"vidf1_33_{clip}_frame_full.mat",
            {"fgt": {"frame": frame}} if nested else {"frame": frame},
        )
        inside = [point for point in HEADS["1"] if point[0] < 300]
        found[split] = {names[0]: inside, names[1]: HEADS["4"]}
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[:, :300] = 1
    scipy.io.savemat(root / "vidf-cvpr" / "vidf1_33_roi_mainwalkway.mat", {"roi": {"mask": mask}})
    return found


def worldexpo(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "123"), ("test", "4")):
        names = _pictures(root / f"{split}_frame", prefix="200608_C08-0", numbers=numbers)
        labels = root / f"{split}_label" / "200608"
        for name, points in names.items():
            mat(labels / f"{name[:-4]}.mat", "point_position", points)
        x, y = [[0.0], [320], [320], [0]], [[25.0], [25], [240], [240]]
        scipy.io.savemat(labels / "roi.mat", {"maskVerticesXCoordinates": x, "maskVerticesYCoordinates": y})
        found[split] = {name: [p for p in points if p[1] >= 25] for name, points in names.items()}
    return found


def rgbt_cc(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "12"), ("val", "3"), ("test", "4")):
        found[split] = _pictures(root / split, suffix="_RGB.jpg", numbers=numbers)
        for name, points in found[split].items():
            picture(root / split / name.replace("RGB", "T"), SIZE)
            _json(root / split / name.replace("RGB.jpg", "GT.json"), {"count": len(points), "points": points})
    return found


def fsc147(root: Path) -> Found:
    names = _pictures(root / "images_384_VarV2")
    boxes = [[[1, 1], [1, 9], [9, 9], [9, 1]]] * 3
    content = {name: {"H": 240, "W": 320, "box_examples_coordinates": boxes, "points": p} for name, p in names.items()}
    _json(root / "annotation_FSC147_384.json", content)
    splits = {"train": ["1.jpg", "3.jpg"], "val": ["2.jpg"], "test": ["4.jpg"]}
    _json(root / "Train_Test_Val_FSC_147.json", splits)
    return {split: {name: names[name] for name in part} for split, part in splits.items()}


def visdrone(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "123"), ("val", "4")):
        folder = root / f"VisDrone2019-DET-{split}"
        found[split] = _pictures(folder / "images", numbers=numbers)
        (folder / "annotations").mkdir()
        for name, points in found[split].items():
            lines = ["{},{},{},{},1,1,0,0\n".format(*_box(point)) for point in points]
            lines += ["1,1,9,9,1,4,0,0\n", "1,1,9,9,0,0,0,0\n"]  # a car, an ignored region
            (folder / "annotations" / name.replace(".jpg", ".txt")).write_text("".join(lines))
    return found


def dronecrowd(root: Path) -> Found:
    found: Found = {}
    (root / "annotations").mkdir(parents=True)
    for sequence, split, numbers in (("00001", "train", "12"), ("00002", "test", "4")):
        names = _pictures(root / "sequences" / sequence, prefix="0000", numbers=numbers)
        lines = [f"{int(name[:-4])},{x},{y}\n" for name, points in names.items() for x, y in points]
        (root / "annotations" / f"{sequence}.txt").write_text("".join(lines))
        (root / f"{split}list.txt").write_text(f"{sequence}\n")
        found[split] = {f"{sequence}/{name}": points for name, points in names.items()}
    return found


def carpk(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "12"), ("test", "4")):
        found[split] = _pictures(root / "Images", suffix=".png", numbers=numbers)
        for folder in ("Annotations", "ImageSets"):
            (root / folder).mkdir(exist_ok=True)
        (root / "ImageSets" / f"{split}.txt").write_text("".join(f"{number}\n" for number in numbers))
        for name, points in found[split].items():
            lines = [f"{x - 9} {y - 9} {x + 9} {y + 9} 1\n" for x, y in points]
            (root / "Annotations" / name.replace(".png", ".txt")).write_text("".join(lines))
    return found


def crowdhuman(root: Path) -> Found:
    found: Found = {}
    for split, numbers in (("train", "123"), ("val", "4")):
        found[split] = _pictures(root / "Images", prefix="273271,c9db000", numbers=numbers)
        rows = []
        for name, points in found[split].items():
            boxes = [
                {"tag": "person", "hbox": _box(point), "head_attr": {"ignore": 0}, "fbox": [0, 0, 9, 9]}
                for point in points
            ]
            boxes.append({"tag": "person", "hbox": [1, 1, 2, 2], "head_attr": {"ignore": 1}})
            boxes.append({"tag": "mask", "hbox": [1, 1, 2, 2], "extra": {"ignore": 1}})
            rows.append(json.dumps({"ID": name[:-4], "gtboxes": boxes}) + "\n")
        (root / f"annotation_{split}.odgt").write_text("".join(rows))
    return found


def mot(root: Path, sequences: tuple[str, str] = ("MOT20-01", "MOT20-02"), top: int = 0) -> Found:
    """Of a person the middle of the top edge is found."""
    found: Found = {"train": {}}
    for number, sequence in enumerate(sequences):
        folder = root / "train" / sequence
        names = _pictures(folder / "img1", prefix=f"{number}0000")
        (folder / "gt").mkdir()
        lines = [f"{int(name[:-4])},1,{x - 5},{y - top},10,10,1,1,1\n" for name, ps in names.items() for x, y in ps]
        (folder / "gt" / "gt.txt").write_text("".join([*lines, "1,9,1,1,9,9,0,1,1\n"]))
        found["train"] |= {f"{sequence}/{name}": points for name, points in names.items()}
    _pictures(root / "test" / "MOT20-04" / "img1")
    return found


def head_tracking(root: Path) -> Found:
    """The boxes of HT21 are heads: their centres are found."""
    return mot(root, ("HT21-01", "HT21-02"), top=5)


def dot_images(root: Path) -> Found:
    found = _pictures(root, suffix="cell.png", prefix="00")
    whole = {name: [[int(x), int(y)] for x, y in points] for name, points in found.items()}
    for name, points in whole.items():
        dots = np.zeros((*SIZE[::-1], 3), np.uint8)
        for x, y in points:
            dots[y - 1 : y + 2, x - 1 : x + 2] = (255, 0, 0)
        Image.fromarray(dots).save(root / name.replace("cell", "dots"))
    return {"train": whole}
