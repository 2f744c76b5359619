"""Writers of what current versions of tools and data sets write beside heads: groups, polygons, other classes, numbers of classes.

As in `foreign`, each returns what a reader should find. Their forms were looked up, see the readers' docstrings.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy.io
from exports import _corners, _lines, _one_file, _share, _text, _xy
from foreign import HEADS, Found, _box, _json, _pictures
from PIL import Image


def _triangle(point) -> list[list[float]]:
    """A polygon whose extent has the point in its middle."""
    x, y = point
    return [[x - 5, y - 5], [x + 5, y - 5], [x, y + 5]]


def _xml(*inside: str) -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>{"".join(inside)}</annotations>'
    )


def cvat_skeletons(root: Path) -> Found:
    """Skeletons, masks and lines of another label; tags."""
    found = _pictures(root / "images")
    rows = ""
    for name, points in found.items():
        marks = "".join(
            f'<skeleton label="head"><points label="nose" outside="0" points="{x},{y}"/>'
            f'<points label="foot" outside="0" points="{x},{y + 60}"/></skeleton>'
            for x, y in points[:-1]
        )
        marks += "".join(
            f'<mask label="head" rle="1, 2" left="{x - 5}" top="{y - 5}" width="10" height="10"/>'
            for x, y in points[-1:]
        )
        rows += f'<image name="{name}">{marks}<polyline label="road" points="1,2;3,4"/><tag label="day"/></image>'
    _text(root / "annotations.xml", _xml(rows))
    return {"train": found}


def datumaro_crowds(root: Path) -> Found:
    found = _pictures(root / "images")
    items = [
        {
            "id": name[:-4],
            "annotations": [
                {"type": "bbox", "label_id": 0, "attributes": {"is_crowd": False}, "bbox": _box(p)} for p in points
            ]
            + [{"type": "bbox", "label_id": 0, "attributes": {"is_crowd": True}, "bbox": [0, 0, 90, 90]}],
            "image": {"path": name},
        }
        for name, points in found.items()
    ]
    _json(
        root / "annotations" / "default.json", {"categories": {"label": {"labels": [{"name": "head"}]}}, "items": items}
    )
    return {"train": found}


def label_studio_shapes(root: Path) -> Found:
    """JSON-MIN: polygons, and a rectangle that is turned by 90 degrees about its corner: its centre is below left of it."""
    found = _pictures(root)
    rows = []
    for number, (name, points) in enumerate(found.items()):
        polygons = [
            {"points": [[x / 3.2, y / 2.4] for x, y in _triangle(point)], "polygonlabels": ["head"]}
            for point in points[:-1]
        ]
        boxes = [
            {"x": (x + 5) / 3.2, "y": (y - 8) / 2.4, "width": 16 / 3.2, "height": 10 / 2.4, "rotation": 90,
             "original_width": 320, "original_height": 240, "rectanglelabels": ["head"]}
            for x, y in points[-1:]
        ]  # fmt: skip
        rows.append({"image": name, "id": number, "a": polygons, "b": boxes, "annotator": 1, "annotation_id": number})
    _json(root / "project-1.json", rows)
    return {"train": found}


def coco_of_roboflow(root: Path) -> Found:
    """The project, called head, is a category without boxes; ignored and further files of captions and boxes beside it."""
    found = _pictures(root / "images")
    images = [{"id": i, "file_name": name} for i, name in enumerate(found)]
    categories = [
        {"id": 0, "name": "head", "supercategory": "none"},
        {"id": 1, "name": "visible-head", "supercategory": "head"},
    ]
    marks = [
        {"image_id": i, "category_id": 1, "bbox": _box(point)}
        for i, points in enumerate(found.values())
        for point in points
    ]
    marks.append({"image_id": 0, "category_id": 1, "bbox": [0, 0, 90, 90], "ignore": 1})
    captions = [{"image_id": 0, "caption": "a crowd"}]
    _json(root / "annotations" / "captions_train.json", {"images": images, "annotations": captions})
    for part, some in (("a", images[:2]), ("b", images[2:])):
        own = [mark for mark in marks if mark["image_id"] in {image["id"] for image in some}]
        content = {"images": some, "annotations": own, "categories": categories}
        _json(root / "annotations" / f"instances_train_{part}.json", content)
    return {"train": found}


def yolo_pose(root: Path) -> Found:
    """Two keypoints: six numbers behind the box are no polygon."""
    found = _pictures(root / "train" / "images")
    for name, points in found.items():
        lines = "".join(f"0 {x / 320} {y / 240} 0.05 0.1 {x / 320} 0.9 2 0 0 0\n" for x, y in points)
        _text(root / "train" / "labels" / f"{name[:-4]}.txt", lines)
    _text(root / "data.yaml", "kpt_shape: [2, 3]\nnames: ['head']\n")
    return {"train": found}


def yolo_other_class(root: Path) -> Found:
    """data.yaml lists heads, of which none is drawn: persons are, here with heads' boxes 10 pixels below the point."""
    found = _pictures(root / "images")
    for name, points in found.items():
        lines = "".join(f"1 {x / 320} {(y + 5) / 240} {10 / 320} {10 / 240}\n" for x, y in points)
        _text(root / "labels" / f"{name[:-4]}.txt", lines + "2 0.5 0.5 0.1 0.1\n")
    _text(root / "data.yaml", "names: [head, person, car]\n")
    return {"train": found}


def voc_parts(root: Path) -> Found:
    """VOC's person layout; an empty object; masks of the same names."""
    found = _pictures(root / "JPEGImages")
    for name, points in found.items():
        objects = ""
        for point in points:
            boxes = [
                "<bndbox>"
                + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
                for box in ([point[0] - 9, point[1] - 7, point[0] + 9, point[1] + 90], _corners(point))
            ]
            objects += f"<object><name>person</name>{boxes[0]}</bndbox><part><name>head</name>{boxes[1]}</bndbox></part></object>"
        _text(root / "Annotations" / f"{name[:-4]}.xml", f"<annotation>{objects}<object/></annotation>")
        (root / "SegmentationClass").mkdir(exist_ok=True)
        Image.new("L", (320, 240)).save(root / "SegmentationClass" / f"{name[:-4]}.png")
    return {"train": found}


def scut_head(root: Path) -> Found:
    """Heads that are called person."""
    found = {}
    for number, points in HEADS.items():
        name = f"PartA_0000{number}.jpg"
        found |= {name: points}
        _pictures(root / "JPEGImages", prefix="PartA_0000", numbers=number)
        boxes = [zip(("xmin", "ymin", "xmax", "ymax"), _corners(point), strict=True) for point in points]
        text = ["".join(f"<{key}>{value}</{key}>" for key, value in box) for box in boxes]
        objects = "".join(f"<object><name>person</name><bndbox>{box}</bndbox></object>" for box in text)
        _text(
            root / "Annotations" / f"{name[:-4]}.xml", f"<annotation><filename>{name}</filename>{objects}</annotation>"
        )
    return {"train": found}


def labelme_masks(root: Path) -> Found:
    """LabelMe's first form with masks, one of them deleted."""
    found = _pictures(root / "Images")
    for name, points in found.items():
        boxes = [zip(("xmin", "ymin", "xmax", "ymax"), _corners(point), strict=True) for point in points]
        text = ["".join(f"<{key}>{value}</{key}>" for key, value in box) for box in boxes]
        objects = [
            f"<object><name>head</name><deleted>0</deleted><segm><box>{box}</box></segm></object>" for box in text
        ]
        deleted = "<object><name>head</name><deleted>1</deleted><segm><box/></segm></object>"
        _text(root / "Annotations" / f"{name[:-4]}.xml", f"<annotation>{''.join(objects)}{deleted}</annotation>")
    return {"train": found}


def kitti(root: Path) -> Found:
    found = _pictures(root / "training" / "image_2", ".png")
    for name, points in found.items():
        rest = "1.89 0.48 1.20 1.84 1.47 8.41 0.01"
        kinds = ["Pedestrian", "Cyclist", "Person_sitting", "Pedestrian"]
        lines = [
            f"{kind} 0.00 0 -0.20 {x - 5} {y} {x + 5} {y + 40} {rest}\n"
            for kind, (x, y) in zip(kinds, points, strict=False)
        ]
        lines += [f"Car 0.00 0 1.5 1 2 30 40 {rest}\n", "DontCare -1 -1 -10 1 2 30 40 -1 -1 -1 -1000 -1000 -1000 -10\n"]
        _text(root / "training" / "label_2" / f"{name[:-4]}.txt", "".join(lines))
    return {"train": {f"training/image_2/{name}": points for name, points in found.items()}}


def dota(root: Path) -> Found:
    found = _pictures(root / "train" / "images")
    for name, points in found.items():
        lines = [f"{x - 5} {y} {x} {y - 5} {x + 5} {y} {x} {y + 5} head 0\n" for x, y in points]
        _text(root / "train" / "labelTxt" / f"{name[:-4]}.txt", "imagesource:GoogleEarth\ngsd:0.1\n" + "".join(lines))
    return {"train": {f"train/{name}": points for name, points in found.items()}}


def oidv4(root: Path) -> Found:
    found = _pictures(root / "train" / "Human head")
    for name, points in found.items():
        lines = [f"Human head {' '.join(map(str, _corners(point)))}\n" for point in points]
        _text(root / "train" / "Human head" / "Label" / f"{name[:-4]}.txt", "".join(lines))
    return {"train": {f"train/Human head/{name}": points for name, points in found.items()}}


def open_images(root: Path) -> Found:
    """Heads, their faces, trees, a group of heads and a picture of one."""
    found = {key[:-4]: points for key, points in _pictures(root / "train").items()}
    rows = ["ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf,IsDepiction"]
    for key, points in found.items():
        for x0, y0, width, height in map(_share, points):
            rows += [f"{key},/m/{kind},{x0},{x0 + width},{y0},{y0 + height},0,0" for kind in ("04hgtk", "0dzct")]
        rows += [f"{key},/m/07j7r,0.1,0.2,0.1,0.2,0,0"]
        rows += [f"{key},/m/04hgtk,0.1,0.2,0.1,0.2,{flags}" for flags in ("1,0", "0,1")]
    _text(root / "train-annotations-bbox.csv", "\n".join(rows) + "\n")
    return {"train": found}


def imagej_table(root: Path) -> Found:
    """Results of several pictures, whose names are in the column Label."""
    found = {name: points for name, points in _pictures(root).items() if points}
    rows = [f"{i},{n},0,9,{x},{y}" for i, (n, (x, y)) in enumerate((n, p) for n, ps in found.items() for p in ps)]
    _text(root / "Results.csv", "\n".join([" ,Label,Area,Mean,X,Y", *rows]) + "\n")
    return {"train": found}


def retinanet(root: Path) -> Found:
    found = _pictures(root)
    rows = [
        "".join(f"{n},{','.join(map(str, _corners(p)))},head\n" for p in ps) or f"{n},,,,,\n" for n, ps in found.items()
    ]
    _text(root / "annotations.csv", "".join(rows))
    return {"train": found}


def visdrone_ignored(root: Path) -> Found:
    """An ignored region, with a person in it, and a car."""
    found = _pictures(root / "images", numbers="124")
    for name, points in found.items():
        rows = [f"{x - 5},{y - 5},10,10,1,1,0,0\n" for x, y in points]
        rows += ["280,200,40,40,0,0,0,0\n", "300,220,9,9,1,2,0,0\n", "5,5,9,9,1,4,0,0\n"]
        _text(root / "annotations" / f"{name[:-4]}.txt", "".join(rows))
    return {"train": found}


def _mot(folder: Path, row) -> dict[str, list]:
    found = {}
    lines = ""
    for number, (name, points) in enumerate(_pictures(folder / "img1").items(), 1):
        found[f"{folder.name}/{name}"] = points
        lines += "".join(row(number, *_box(point)) for point in points)
    _text(folder / "gt" / "gt.txt", lines)
    return found


def mot_labels(root: Path) -> Found:
    """CVAT's MOT 1.1: classes are numbers of lines of labels.txt."""
    found = _mot(root / "S1", lambda n, x, y, w, h: f"{n},1,{x},{y},{w},{h},1,2,1.0\n{n},2,5,5,9,9,1,1,1.0\n")
    _text(root / "S1" / "gt" / "labels.txt", "car\nhead\n")
    return {"train": found}


def mot_from_zero(root: Path) -> Found:
    """Pictures frame_000000.jpg ..., frames from 1."""
    _mot(root / "S1", lambda n, x, y, w, h: f"{n},1,{x},{y + 5},{w},{h},1,1,1.0\n")
    for path in sorted((root / "S1" / "img1").iterdir()):
        path.rename(path.with_name(f"frame_00000{int(path.stem) - 1}.jpg"))
    return {"train": {f"S1/frame_00000{int(number) - 1}.jpg": points for number, points in HEADS.items()}}


def mot15(root: Path) -> Found:
    """Places in the world are no classes; a person's box gives the middle of its top edge."""
    found = _mot(root / "S1", lambda n, x, y, w, h: f"{n},1,{x},{y + 5},{w},{h},1,3.5,2.1,0\n")
    return {"train": found}


def head_tracking(root: Path) -> Found:
    found = _mot(root / "HT21-01", lambda n, x, y, w, h: f"{n},1,{x},{y},{w},{h},1,2,1.0\n{n},2,5,5,9,9,1,3,1.0\n")
    return {"train": found}


def trancos(root: Path) -> Found:
    """A region of interest without the left fifth, in which there is a dot."""
    found = _pictures(root)
    for name, points in found.items():
        dots = np.zeros((240, 320, 3), np.uint8)
        for x, y in [*points, (10, 10)]:
            dots[int(y), int(x)] = 255, 0, 0
        Image.fromarray(dots).save(root / f"{name[:-4]}dots.png")
        inside = np.ones((240, 320), bool)
        inside[:, :12] = False
        scipy.io.savemat(root / f"{name[:-4]}mask.mat", {"BW": inside})
    return {"train": {name: [[int(x), int(y)] for x, y in points] for name, points in found.items()}}


def geojson_of_qupath(root: Path) -> Found:
    found = _pictures(root)
    for name, points in found.items():
        shapes = [{"type": "MultiPoint", "coordinates": points[:-1]}]
        shapes += [{"type": "Polygon", "coordinates": [[*_triangle(p), _triangle(p)[0]]]} for p in points[-1:]]
        features = [{"geometry": own, "properties": {"classification": {"name": "head"}}} for own in shapes]
        features.append(
            {"geometry": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}, "properties": {"name": "scale"}}
        )
        _json(root / f"{name[:-4]}.geojson", {"type": "FeatureCollection", "features": features})
    return {"train": found}


def eurocity(root: Path) -> Found:
    """Riders and who rides along are people; their bicycles, groups and likenesses are not."""
    found = _pictures(root / "img")
    kinds = ["pedestrian", "rider", "pedestrian", "rider"]
    for name, points in found.items():
        boxes = [{"x0": x - 5, "y0": y, "x1": x + 5, "y1": y + 40, "tags": [], "children": []} for x, y in points]
        marks = [box | {"identity": kind} for box, kind in zip(boxes, kinds, strict=False)]
        other = {"x0": 1, "y0": 1, "x1": 9, "y1": 9, "children": []}
        for mark in marks[1:2]:
            mark["children"] = [other | {"identity": "bicycle", "tags": []}]
        marks.append(other | {"identity": "person-group-far-away", "tags": []})
        marks.append(other | {"identity": "pedestrian", "tags": ["depiction"]})
        _json(root / "labels" / f"{name[:-4]}.json", {"identity": "frame", "children": marks, "tags": []})
    return {"train": {f"img/{name}": points for name, points in found.items()}}


def superannotate_shapes(root: Path) -> Found:
    found = _pictures(root)
    for name, points in found.items():
        marks = [
            {"type": "polygon", "className": "head", "points": [n for corner in _triangle(point) for n in corner]}
            for point in points[:-1]
        ]
        for x, y in points[-1:]:  # a square on its corner
            corners = {"x1": x - 5, "y1": y, "x2": x, "y2": y - 5, "x3": x + 5, "y3": y, "x4": x, "y4": y + 5}
            marks.append({"type": "rbbox", "className": "head", "points": corners})
        marks.append({"type": "tag", "className": "day"})
        _json(root / f"{name}.json", {"metadata": {"name": name}, "instances": marks})
    return {"train": found}


def _labelbox(name: str, points: list) -> dict:
    marks = [{"name": "head", "polygon": _xy(_triangle(point))} for point in points]
    return {"data_row": {"external_id": name}, "projects": {"p": {"labels": [{"annotations": {"objects": marks}}]}}}


def _encord(name: str, points: list) -> dict:
    marks: list[dict] = [
        {"name": "head", "shape": "bounding_box", "boundingBox": dict(zip("xywh", _share(point), strict=True))}
        for point in points[:-1]
    ]
    marks += [{"name": "head", "shape": "point", "point": {"0": {"x": x / 320, "y": y / 240}}} for x, y in points[-1:]]
    return {"data_title": name, "data_units": {"u": {"data_title": name, "labels": {"objects": marks}}}}


def _scale(name: str, points: list) -> dict:
    marks = [
        {"type": "box", "label": "head", "left": x - 5, "top": y - 5, "width": 10, "height": 10} for x, y in points[:1]
    ]
    marks += [{"type": "point", "label": "head", "x": x, "y": y} for x, y in points[1:2]]
    marks += [{"type": "polygon", "label": "head", "vertices": _xy(_triangle(point))} for point in points[2:]]
    return {"params": {"attachment": f"https://x/{name}"}, "response": {"annotations": marks}}


def _prodigy(name: str, points: list) -> dict:
    spans = [{"label": "HEAD", "points": _triangle(point)} for point in points]
    return {"image": "data:image/jpeg;base64,AA==", "path": name, "spans": spans, "answer": "accept"}


def _sample(name: str, points: list) -> dict:
    marks = [{"label": "head", "bounding_box": _share(point)} for point in points]
    held = {"predictions": {"detections": [{"label": "head", "bounding_box": [0, 0, 0.1, 0.1]}]}}
    return {"filepath": name, "tags": ["train"], "ground_truth": {"detections": marks}} | held


JSON_PICTURES = {
    "of Labelbox, polygons": _one_file("export.ndjson", lambda f: _lines(_labelbox(n, ps) for n, ps in f.items())),
    "of Encord": _one_file("labels.json", lambda f: [_encord(n, ps) for n, ps in f.items()]),
    "of Scale": _one_file("tasks.json", lambda f: [_scale(n, ps) for n, ps in f.items()]),
    "of Prodigy with pixels": _one_file("a.jsonl", lambda f: _lines(_prodigy(n, ps) for n, ps in f.items())),
    "of FiftyOneDataset": _one_file("samples.json", lambda f: {"samples": [_sample(n, ps) for n, ps in f.items()]}),
    "of FiftyOne, numbers of classes": _one_file(
        "labels.json",
        lambda f: {
            "classes": ["car", "head"],
            "labels": {
                n: [{"label": 1, "bounding_box": _share(p)} for p in ps]
                + [{"label": 0, "bounding_box": [0, 0, 0.1, 0.1]}]
                for n, ps in f.items()
            },
        },
    ),
    "of Hugging Face, categories": _one_file(
        "train/metadata.jsonl",
        lambda f: _lines(
            {
                "file_name": n,
                "objects": {"bbox": [*map(_box, ps), [0, 0, 9, 9]], "categories": ["head"] * len(ps) + ["car"]},
            }
            for n, ps in f.items()
        ),
        "train",
    ),
    "of VoTT, polygons": _one_file(
        "x-export.json",
        lambda f: {
            "assets": {
                n: {
                    "asset": {"name": n},
                    "regions": [{"type": "POLYGON", "tags": ["head"], "points": _xy(_triangle(p))} for p in ps],
                }
                for n, ps in f.items()
            }
        },
    ),
    "of corners": _one_file(
        "labels.json",
        lambda f: [
            {"image": n, "objects": [dict(zip(("xmin", "ymin", "xmax", "ymax"), _corners(p), strict=True)) for p in ps]}
            for n, ps in f.items()
        ],
    ),
    "of corner and size": _one_file(
        "labels.json",
        lambda f: [
            {"image": n, "objects": [dict(zip(("x", "y", "width", "height"), _box(p), strict=True)) for p in ps]}
            for n, ps in f.items()
        ],
    ),
}


def _faces(found: dict[str, list]) -> str:
    """WIDER FACE with a face that is marked invalid."""
    text = ""
    for name, points in found.items():
        boxes = [f"{' '.join(map(str, _box(point)))} 0 0 0 0 0 0" for point in points] + ["1 1 9 9 2 0 0 1 0 0"]
        text += "\n".join([name, str(len(boxes)), *boxes]) + "\n"
    return text


TEXT_PICTURES = {
    "of WIDER FACE, invalid ones": _one_file(
        "wider_face_split/wider_face_train_bbx_gt.txt", _faces, "WIDER_train/images"
    ),
    "localisation of another name": _one_file(
        "A_gt.txt",
        lambda f: "".join(f"{n} {len(ps)} {' '.join(f'{x} {y} 4 8 1' for x, y in ps)}\n" for n, ps in f.items()),
    ),
}


def csv_of_picture_sizes(root: Path) -> Found:
    """Points with the picture's own size in the columns width and height."""
    found = {name: points for name, points in _pictures(root).items() if points}
    rows = [f"{n},{x},{y},320,240\n" for n, ps in found.items() for x, y in ps]
    _text(root / "labels.csv", "image,x,y,width,height\n" + "".join(rows))
    return {"train": found}


def underscores(root: Path) -> Found:
    """Human-Head is a head: the persons beside it are not counted, too."""
    found = _pictures(root)
    rows = [
        {
            "image": n,
            "annotations": [{"label": label, "point": p} for label in ("Human-Head", "person") for p in _xy(ps)],
        }
        for n, ps in found.items()
    ]
    _json(root / "labels.json", rows)
    return {"train": found}


def vertex_splits(root: Path) -> Found:
    found = _pictures(root / "images")
    uses = dict(zip(found, ("training", "test", "validation", "training"), strict=True))
    rows = []
    for name, points in found.items():
        corners = [dict(zip(("xMin", "yMin", "w", "h"), _share(point), strict=True)) for point in points]
        marks = [
            {
                "displayName": "head",
                "xMin": c["xMin"],
                "yMin": c["yMin"],
                "xMax": c["xMin"] + c["w"],
                "yMax": c["yMin"] + c["h"],
            }
            for c in corners
        ]
        use = {"aiplatform.googleapis.com/ml_use": uses[name]}
        rows.append({"imageGcsUri": f"gs://b/{name}", "boundingBoxAnnotations": marks, "dataItemResourceLabels": use})
    _text(root / "data.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    names = list(found)
    return {
        "train": {n: found[n] for n in (names[0], names[3])},
        "test": {names[1]: found[names[1]]},
        "val": {names[2]: []},
    }


CASES = {
    "cvat skeletons and masks": cvat_skeletons,
    "cvat datumaro with crowds": datumaro_crowds,
    "label-studio polygons and turned boxes": label_studio_shapes,
    "coco of Roboflow, a project called head": coco_of_roboflow,
    "yolo pose with two keypoints": yolo_pose,
    "yolo with heads listed and persons drawn": yolo_other_class,
    "voc parts of persons": voc_parts,
    "voc of SCUT-HEAD": scut_head,
    "voc of LabelMe's first form, masks": labelme_masks,
    "text-boxes of KITTI": kitti,
    "text-boxes of DOTA": dota,
    "text-boxes of OIDv4 ToolKit": oidv4,
    "csv-heads of Open Images with faces and groups": open_images,
    "csv-heads of ImageJ": imagej_table,
    "csv-heads of RetinaNet": retinanet,
    "visdrone with ignored regions": visdrone_ignored,
    "mot of CVAT": mot_labels,
    "mot of MOT15": mot15,
    "mot with pictures from 0": mot_from_zero,
    "mot of heads and ignored boxes": head_tracking,
    "dot-images of TRANCOS": trancos,
    "json-each GeoJSON of QuPath": geojson_of_qupath,
    "json-each of EuroCity Persons with riders": eurocity,
    "json-each of SuperAnnotate, polygons": superannotate_shapes,
    "json-pictures of Vertex AI with splits": vertex_splits,
    "json-pictures with Human-Head": underscores,
    "csv-heads with sizes of pictures": csv_of_picture_sizes,
    **{f"json-pictures {name}": write for name, write in JSON_PICTURES.items()},
    **{f"text-pictures {name}": write for name, write in TEXT_PICTURES.items()},
}
