"""Writers of what followers of public sets leave beside them, and of exports that came last; as in `foreign`, each returns what a
reader should find.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from exports import _one_file, _share, _text, _xy, processed
from foreign import HEADS, SIZE, Found, _box, _json, _pictures, qnrf, shanghaitech_folders
from layouts import picture
from variants import _triangle


def _person(point) -> list[float]:
    """The box of a person whose head is at the middle of its top edge."""
    x, y = point
    return [x - 5, y, x + 5, y + 30]


def unity_solo(root: Path) -> Found:
    """Two captures a frame would be two cameras; here one, with another labeler's values."""
    found = {}
    for number, points in HEADS.items():
        folder = f"sequence.{number}"
        _pictures(root / folder, prefix="step0.camera", numbers=number, suffix=".png")
        values = [{"labelName": "head", "origin": [x - 5, y - 5], "dimension": [10, 10]} for x, y in points]
        box = {"@type": "type.unity.com/unity.solo.BoundingBox2DAnnotation", "values": values}
        mask = {"@type": "type.unity.com/unity.solo.InstanceSegmentationAnnotation", "values": [{"labelName": "head"}]}
        capture = {"filename": f"step0.camera{number}.png", "annotations": [box, mask]}
        _json(root / folder / "step0.frame_data.json", {"frame": 0, "captures": [capture], "metrics": []})
        found[f"{folder}/step0.camera{number}.png"] = points
    return {"train": found}


def unity_captures(root: Path) -> Found:
    """The pictures lie beside the folder of the JSON files."""
    found = _pictures(root / "RGBfca5422e", prefix="rgb_", suffix=".png")
    for i, (name, points) in enumerate(found.items()):
        boxes = [
            dict(zip(("x", "y", "width", "height"), _box(p), strict=True)) | {"label_name": "head"} for p in points
        ]
        captures = [{"filename": f"RGBfca5422e/{name}", "annotations": [{"values": boxes}]}]
        _json(root / "Dataset7f02" / f"captures_{i:03d}.json", {"version": "0.0.1", "captures": captures})
    return {"train": {f"RGBfca5422e/{name}": points for name, points in found.items()}}


def cityscapes(root: Path, boxes: bool = False) -> Found:
    """Polygons with a group, a deleted rider and a car; empty ones of the test; with CityPersons' boxes they are not read."""
    found: Found = {}
    for split, numbers in (("train", "123"), ("val", "4"), ("test", "1")):
        folder = root / "leftImg8bit" / split / "ulm"
        names = _pictures(folder, suffix="_leftImg8bit.png", numbers=numbers, prefix=f"ulm_{split}_")
        for name, points in names.items():
            kinds = ["person", "rider", "person", "rider"]
            marks = [
                {"label": kind, "polygon": [[x0, y1], [(x0 + x1) / 2, y0], [x1, y1], [x1, y0 + 1], [x0, y0 + 1]]}
                for kind, (x0, y0, x1, y1) in zip(kinds, map(_person, points[boxes:]), strict=False)
            ]
            marks += [
                {"label": "persongroup", "polygon": [[1, 1], [9, 1], [5, 9]]},
                {"label": "car", "polygon": [[1, 1], [9, 9], [1, 9]]},
            ]
            marks += [{"label": "rider", "deleted": 1, "polygon": [[1, 1], [9, 9], [1, 9]]}]
            marks = [{"label": "ego vehicle", "polygon": [[0, 200], [320, 200], [160, 240]]}] + marks * (
                split != "test"
            )
            stem = name.replace("_leftImg8bit.png", "")
            (root / "gtFine" / split / "ulm").mkdir(parents=True, exist_ok=True)
            _json(
                root / "gtFine" / split / "ulm" / f"{stem}_gtFine_polygons.json",
                {"imgHeight": 240, "imgWidth": 320, "objects": marks},
            )
            if boxes and split != "test":
                people = [
                    {"label": "sitting person", "bbox": [x - 5, y, 10, 30], "bboxVis": [0, 0, 9, 9]} for x, y in points
                ]
                people.append({"label": "person group", "bbox": [1, 1, 9, 9], "bboxVis": [0, 0, 9, 9]})
                (root / "gtBboxCityPersons" / split / "ulm").mkdir(parents=True, exist_ok=True)
                path = root / "gtBboxCityPersons" / split / "ulm" / f"{stem}_gtBboxCityPersons.json"
                _json(path, {"imgHeight": 240, "imgWidth": 320, "objects": people})
        if split != "test":
            found[split] = {f"leftImg8bit/{split}/ulm/{name}": points for name, points in names.items()}
    return found


def city_persons(root: Path) -> Found:
    return cityscapes(root, boxes=True)


def dataloop(root: Path) -> Found:
    """A point, a box, a polygon, and a class of the whole picture."""
    found = _pictures(root / "items")
    (root / "json").mkdir()
    for name, points in found.items():
        kinds = [
            lambda x, y: {"type": "point", "coordinates": {"x": x, "y": y, "z": 0}},
            lambda x, y: {
                "type": "box",
                "coordinates": [{"x": x - 5, "y": y - 5, "z": 0}, {"x": x + 5, "y": y + 5, "z": 0}],
            },
            lambda x, y: {"type": "segment", "coordinates": [_xy(_triangle((x, y)))]},
        ]
        marks = [{"label": "head", "attributes": []} | kinds[i % 3](*point) for i, point in enumerate(points)]
        marks.append({"label": "night", "type": "class", "attributes": [], "coordinates": {}})
        content = {"filename": f"/{name}", "annotations": marks, "metadata": {"system": {"width": 320}}}
        _json(root / "json" / f"{name[:-4]}.json", content)
    return {"train": {f"items/{name}": points for name, points in found.items()}}


def automl(root: Path) -> Found:
    """A box by two corners, or by all four; a picture of nobody; the set in the first column."""
    found = _pictures(root / "images")
    uses = dict(zip(found, ("TRAIN", "VALIDATION", "TEST", "UNASSIGNED"), strict=True))
    rows = []
    for name, points in found.items():
        for i, (x, y, w, h) in enumerate(map(_share, points)):
            a, b, c, d = x, y, x + w, y + h
            rows.append(
                f"{uses[name]},gs://b/{name},head,"
                + (f"{a},{b},,,{c},{d},," if i % 2 else f"{a},{b},{c},{b},{c},{d},{a},{d}")
            )
        rows += [f"{uses[name]},gs://b/{name},,,,,,,,,"] * (not points)
    _text(root / "import.csv", "\n".join(rows) + "\n")
    one, two, three, four = found
    return {"train": {one: found[one], four: found[four]}, "val": {two: found[two]}, "test": {three: found[three]}}


def _kili(name: str, points: list) -> dict:
    """A marker, and boxes by their corners; a classification beside them."""
    marks = []
    for x, y, w, h in map(_share, points[1:]):
        corners = [{"x": a, "y": b} for a, b in ((x, y + h), (x, y), (x + w, y), (x + w, y + h))]
        marks.append(
            {"boundingPoly": [{"normalizedVertices": corners}], "type": "rectangle", "categories": [{"name": "HEAD"}]}
        )
    marks += [
        {"point": {"x": x / 320, "y": y / 240}, "type": "marker", "categories": [{"name": "HEAD"}]}
        for x, y in points[:1]
    ]
    response = {"JOB_0": {"annotations": marks}, "JOB_1": {"categories": [{"name": "DAY"}]}}
    return {"externalId": name, "content": "", "labels": [{"labelType": "DEFAULT", "jsonResponse": response}]}


def _ibm(points: list) -> list[dict]:
    corners = ([x, y, x + w, y + h] for x, y, w, h in map(_share, points))
    return [dict(zip(("x", "y", "x2", "y2"), own, strict=True)) | {"label": "head"} for own in corners]


def _maps(root: Path, folder: str, names: Found | dict, show: str = "gt_show") -> None:
    """What FIDTM, AutoScale and CLTR leave beside the pictures: maps as HDF5, and pictures of them."""
    for name in names:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name.replace(".jpg", ".h5")).write_bytes(b"\x89HDF\r\n\x1a\n")
        picture(root / show / name, SIZE)


def fidtm_shanghaitech(root: Path) -> Found:
    found = shanghaitech_folders(root)
    for split, names in found.items():
        _maps(root / split, "gt_fidt_map", names)
    (root / "A_gt.txt").write_text("1 1 20 30 5 6 1\n")
    return found


def fidtm_qnrf(root: Path) -> Found:
    """Smaller pictures, of which there are maps only, beside the set itself."""
    found = qnrf(root, (".", "."))
    for split, names in found.items():
        _maps(root / f"{split}_data", "gt_fidt_map", names, "gt_show_fidt")
        for name in names:
            picture(root / f"{split}_data" / "images" / name, (160, 120))
    return found


def fidtm_nwpu(root: Path) -> Found:
    """Smaller pictures beside those that the annotation is of."""
    found = processed(root)
    for names in found.values():
        _maps(root, "gt_fidt_map_2048", names)
        for name in names:
            picture(root / "images_2048" / name, (160, 120))
    return found


def cltr(root: Path) -> Found:
    """The points of the smaller pictures as .npy; the larger ones have none."""
    found = _pictures(root / "images_2048")
    (root / "gt_npydata_2048").mkdir()
    for name, points in found.items():
        np.save(root / "gt_npydata_2048" / name.replace(".jpg", ".npy"), np.array(points, float).reshape(-1, 2))
    _maps(root, "gt_detr_map_2048", found)
    return {"train": {f"images_2048/{name}": points for name, points in found.items()}}


def _labelu(name: str, points: list) -> dict:
    """A rectangle, a polygon and a point; a tag of the whole picture."""
    tools = [
        {"toolName": "rectTool", "result": [dict(zip(("x", "y", "width", "height"), _box(p), strict=True)) for p in points[:1]]},
        {"toolName": "polygonTool", "result": [{"type": "line", "points": _xy(_triangle(p))} for p in points[1:2]]},
        {"toolName": "pointTool", "result": _xy(points[2:])},
    ]  # fmt: skip
    for mark in (mark for tool in tools for mark in tool["result"]):
        mark |= {"id": "a", "order": 1, "visible": True, "attributes": {}, "label": "head"}
    tools += [{"toolName": "tagTool", "result": [{"id": "b", "value": {"weather": "rain"}}]}]
    tools += [{"toolName": "lineTool", "result": [{"points": _xy([[1, 2], [3, 4]]), "label": "road"}]}]
    held = {"width": 320, "height": 240, "rotate": 0, "annotations": tools}
    return {"id": 1, "result": json.dumps(held), "url": f"/api/{name}", "folder": "/home/me", "fileName": name}


def _labelu_of_old(name: str, points: list) -> dict:
    """An object for each tool; a name with a prefix."""
    rects = [dict(zip(("x", "y", "width", "height"), _box(p), strict=True)) | {"attribute": "head"} for p in points[:1]]
    rings = [{"pointList": _xy(_triangle(p)), "attribute": "head"} for p in points[1:]]
    held = {
        "rectTool": {"toolName": "rectTool", "result": rects},
        "polygonTool": {"toolName": "polygonTool", "result": rings},
    }
    return {"id": 1, "result": json.dumps(held), "urls": {"1": name}, "fileNames": {"1": f"57c82ae6-{name}"}}


def segments(root: Path) -> Found:
    """A box, a polygon and a point; one of another category; a picture that was skipped and one of nobody else."""
    found = _pictures(root / "images")
    samples = []
    for name, points in found.items():
        marks = [
            {"type": "bbox", "points": [[x - 5, y - 5], [x + 5, y + 5]]} if i == 0
            else {"type": "polygon", "points": _triangle((x, y))} if i == 1
            else {"type": "point", "points": [[x, y]]}
            for i, (x, y) in enumerate(points)
        ]  # fmt: skip
        marks = [{"id": i + 1, "category_id": 2} | mark for i, mark in enumerate(marks)]
        marks += [{"id": 9, "category_id": 1, "type": "polyline", "points": [[1, 2], [3, 4]]}]
        label = {"label_status": "REVIEWED", "attributes": {"format_version": "0.1", "annotations": marks}}
        samples.append(
            {"name": name, "attributes": {"image": {"url": f"https://x/{name}"}}, "labels": {"ground-truth": label}}
        )
    for number, status in (("5", "SKIPPED"), ("6", "PRELABELED")):
        picture(root / "images" / f"{number}.jpg", SIZE)
        label = {"label_status": status, "attributes": {"annotations": []}}
        samples.append({"name": f"{number}.jpg", "labels": {"ground-truth": label}})
    categories = [{"id": 1, "name": "road"}, {"id": 2, "name": "head"}]
    held = {"name": "x", "task_type": "vector", "task_attributes": {"categories": categories}, "samples": samples}
    _json(root / "x-v1.json", {"name": "v1", "dataset": held})
    return {"train": found}


def _openlabel(found: dict[str, list]) -> dict:
    """Boxes by their centres, one turned by a right angle, an outline and a point; a cuboid of a car."""
    frames, objects = {}, {"car": {"name": "car", "type": "car"}}
    for number, (name, points) in enumerate(found.items()):
        held = {}
        for i, (x, y) in enumerate(points):
            uid = f"{number}-{i}"
            objects[uid] = {"name": uid, "type": "head"}
            data = [
                {"bbox": [{"name": "shape", "val": [x, y, 10, 12]}]},
                {"rbbox": [{"name": "shape", "val": [x, y, 10, 4, 1.5707963]}]},
                {
                    "poly2d": [
                        {"name": "p", "val": [n for c in _triangle((x, y)) for n in c], "mode": "MODE_POLY2D_ABSOLUTE"}
                    ]
                },
                {"point2d": [{"name": "p", "val": [x, y]}]},
            ]
            held[uid] = {"object_data": data[i]}
        held["car"] = {"object_data": {"cuboid": [{"name": "c", "val": [0] * 9}]}}
        where = {"file_name": name} if number % 2 else {"streams": {"Camera1": {"uri": f"./{name}"}}}
        frames[str(number)] = {"frame_properties": where, "objects": held}
    return {"openlabel": {"metadata": {"schema_version": "1.0.0"}, "objects": objects, "frames": frames}}


def _edge_impulse(points: list) -> list[dict]:
    boxes = [dict(zip(("x", "y", "width", "height"), _box(point), strict=True)) for point in points]
    return [{"label": "head"} | box for box in boxes]


def _scale(name: str, points: list) -> dict:
    boxes = [dict(zip(("left", "top", "width", "height"), _box(p), strict=True)) for p in points]
    marks = [{"type": "box", "label": "head"} | box for box in boxes]
    return {"task_id": "t", "params": {"attachment": f"file:{name}"}, "response": {"annotations": marks}}


def zooniverse(root: Path, sized: bool = True) -> Found:
    """Three volunteers, of whom the middle one is right, on pictures of half the size; a workflow of questions alone."""
    found = _pictures(root / "images")
    header = "classification_id,user_name,workflow_id,workflow_version,metadata,annotations,subject_data,subject_ids"
    rows = [header.split(",")]
    half = 2 if sized else 1
    for number, (name, points) in enumerate(found.items(), 1000):
        dimensions = {"clientWidth": 99, "clientHeight": 70, "naturalWidth": 320 // half, "naturalHeight": 240 // half}
        for volunteer, some in enumerate(([], points, [*points, [9, 9], [19, 9]])):
            marks = [
                {"x": x / half, "y": y / half, "tool": 0, "frame": 0, "details": [], "tool_label": "Head"}
                for x, y in some
            ]
            marks += [{"x1": 1, "y1": 2, "x2": 3, "y2": 4, "tool": 5, "frame": 0, "tool_label": "Line"}]
            marks += [{"x": 9, "y": 9, "tool": 0, "frame": 1, "tool_label": "Head"}]
            tasks = [{"task": "T1", "value": "Yes"}, {"task": "T0", "task_label": "Mark heads", "value": marks}]
            about = {"retired": None, "#origin": f"raw_{name}", "Filename": name} if number % 2 else {"retired": None}
            metadata = {"subject_dimensions": [dimensions if sized and volunteer else None, None]}
            data = {str(number): about}
            rows.append([len(rows), "a", 3149, 44.19, *map(json.dumps, (metadata, tasks, data)), number])
        rows.append(
            [len(rows), "a", 77, 1.1, "{}", json.dumps([{"task": "T0", "value": ["dusk"]}]), json.dumps(data), number]
        )
        if not number % 2:
            (root / "images" / name).rename(root / "images" / f"{number}.jpg")
    with (root / "heads-classifications.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return {"train": {n if i % 2 else f"{i}.jpg": points for i, (n, points) in enumerate(found.items(), 1000)}}


def x_anylabeling(root: Path) -> Found:
    """A rectangle is four corners there; a pose's points of other labels beside it."""
    found = _pictures(root)
    for name, points in found.items():
        boxes = [_person(point) for point in points]
        corners = [[[x0, y0], [x1, y0], [x1, y1], [x0, y1]] for x0, y0, x1, y1 in boxes]
        shapes = [{"label": "person", "points": ring, "shape_type": "rectangle", "group_id": 0} for ring in corners]
        shapes += [{"label": "nose", "points": [[9, 9]], "shape_type": "point", "group_id": 0}]
        shapes = [shape | {"score": 0.9, "difficult": False, "attributes": {}, "kie_linking": []} for shape in shapes]
        content = {"version": "2.4.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None}
        _json(root / f"{name[:-4]}.json", content | {"imageHeight": 240, "imageWidth": 320})
    return {"train": found}


CASES = {
    "labelme of X-AnyLabeling": x_anylabeling,
    "zooniverse": zooniverse,
    "zooniverse without sizes": lambda root: zooniverse(root, sized=False),
    "json-pictures of LabelU": _one_file("task-1.json", lambda f: [_labelu(n, ps) for n, ps in f.items()]),
    "json-pictures of LabelU, first version": _one_file(
        "result.json", lambda f: [_labelu_of_old(n, ps) for n, ps in f.items()]
    ),
    "json-pictures of Segments.ai": segments,
    "json-pictures of OpenLABEL": _one_file("anything.json", _openlabel),
    "json-pictures of OpenLABEL, called train.json": _one_file("train.json", _openlabel),
    "json-pictures of Scale, called train.json": _one_file(
        "train.json", lambda f: [_scale(n, ps) for n, ps in f.items()]
    ),
    "json-pictures of CreateML, called train.json": _one_file(
        "train.json",
        lambda f: [
            {
                "image": n,
                "annotations": [{"label": "head", "coordinates": p | {"width": 9, "height": 8}} for p in _xy(ps)],
            }
            for n, ps in f.items()
        ],
    ),
    "json-pictures of Edge Impulse": _one_file(
        "images/bounding_boxes.labels",
        lambda f: {
            "version": 1,
            "type": "bounding-box-labels",
            "boundingBoxes": {n: _edge_impulse(ps) for n, ps in f.items()},
        },
    ),
    "json-pictures of Edge Impulse, files": _one_file(
        "info.labels",
        lambda f: {
            "version": 1,
            "files": [{"path": n, "category": "training", "boundingBoxes": _edge_impulse(ps)} for n, ps in f.items()],
        },
    ),
    "shanghaitech of FIDTM": fidtm_shanghaitech,
    "ucf-qnrf of FIDTM": fidtm_qnrf,
    "nwpu of FIDTM": fidtm_nwpu,
    "beside, CLTR": cltr,
    "unity SOLO": unity_solo,
    "unity captures": unity_captures,
    "json-each of Cityscapes": cityscapes,
    "json-each of CityPersons": city_persons,
    "json-each of Dataloop": dataloop,
    "csv-heads of AutoML": automl,
    "json-pictures of Kili": _one_file("data.json", lambda f: [_kili(n, ps) for n, ps in f.items()]),
    "json-pictures of IBM Cloud Annotations": _one_file(
        "_annotations.json",
        lambda f: {
            "version": "1.0",
            "type": "localization",
            "labels": ["head"],
            "annotations": {n: _ibm(ps) for n, ps in f.items()},
        },
    ),
}
