"""Writers of further exports of labelling tools and data sets; as in `foreign`, each returns what a reader should find."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from foreign import HEADS, SIZE, Found, _box, _json, _pictures
from layouts import mat, picture


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _xy(points) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in points]


def supervisely(root: Path) -> Found:
    found = _pictures(root / "ds" / "img")
    _json(root / "meta.json", {"classes": [{"title": "head", "shape": "point"}]})
    for name, points in found.items():
        marks = [
            {"classTitle": "head", "geometryType": "point", "points": {"exterior": [point]}} for point in points[:-1]
        ]
        for x, y in points[-1:]:
            corners = [[x - 5, y - 5], [x + 5, y + 5]]
            marks.append({"classTitle": "head", "geometryType": "rectangle", "points": {"exterior": corners}})
        _json(root / "ds" / "ann" / f"{name}.json", {"size": {"width": 320, "height": 240}, "objects": marks})
    return {"train": found}


def darwin(root: Path) -> Found:
    found = _pictures(root / "images")
    for name, points in found.items():
        marks = [{"name": "head", "keypoint": point} for point in _xy(points[:-1])]
        for x, y in points[-1:]:
            marks.append({"name": "head", "bounding_box": {"x": x - 5, "y": y - 5, "w": 10, "h": 10}})
        content = {
            "version": "2.0",
            "item": {"name": name, "path": "/"},
            "annotations": [*marks, {"name": "t", "tag": {}}],
        }
        _json(root / "releases" / "latest" / "annotations" / f"{name[:-4]}.json", content)
    return {"train": found}


def superannotate(root: Path) -> Found:
    found = _pictures(root)
    for name, points in found.items():
        marks = [{"type": "point", "className": "head"} | point for point in _xy(points)]
        _json(root / f"{name}.json", {"metadata": {"name": name}, "instances": marks})
    return {"train": found}


def geojson(root: Path) -> Found:
    found = _pictures(root)
    for name, points in found.items():
        features = [{"type": "Feature", "geometry": {"type": "Point", "coordinates": point}} for point in points]
        _json(root / f"{name[:-4]}.geojson", {"type": "FeatureCollection", "features": features})
    return {"train": found}


def points_apart(root: Path) -> Found:
    """A JSON of points for each picture, in a folder of its own, and in train and test."""
    for split, numbers in (("train", "134"), ("test", "2")):
        for name, points in _pictures(root / split / "images", numbers=numbers).items():
            _json(root / split / "json" / f"{name[:-4]}.json", {"points": points})
    return {split: {f"{split}/{n}.jpg": HEADS[n] for n in ns} for split, ns in (("train", "134"), ("test", "2"))}


def _one_file(
    name: str, content: Callable[[dict[str, list]], object], folder: str = "images"
) -> Callable[[Path], Found]:
    """A writer of pictures and one file: JSON, or the lines of a list of texts."""

    def write(root: Path) -> Found:
        found = _pictures(root / folder)
        made = content(found)
        _text(root / name, made if isinstance(made, str) else json.dumps(made))
        return {"train": {key: points for key, points in found.items()}}

    return write


def _lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _corners(point) -> list[float]:
    return [point[0] - 5, point[1] - 5, point[0] + 5, point[1] + 5]


def _labelbox(name: str, points: list) -> dict:
    marks = [{"name": "head", "point": point} for point in _xy(points)]
    return {"data_row": {"external_id": name}, "projects": {"p": {"labels": [{"annotations": {"objects": marks}}]}}}


def _share(point) -> list[float]:
    return [(point[0] - 5) / 320, (point[1] - 5) / 240, 10 / 320, 10 / 240]


def _vott(point) -> dict:
    return {
        "type": "RECTANGLE",
        "tags": ["head"],
        "boundingBox": {"left": point[0] - 5, "top": point[1] - 5, "width": 10, "height": 10},
    }


def _vott_point(point) -> dict:
    return {"type": "POINT", "tags": ["head"], "points": _xy([point])}


def _vertex(point) -> dict:
    x, y, w, h = _share(point)
    return {"displayName": "head", "xMin": x, "yMin": y, "xMax": x + w, "yMax": y + h}


def _sagemaker(name: str, points: list) -> dict:
    marks = [{"class_id": 0, "left": x - 5, "top": y - 5, "width": 10, "height": 10} for x, y in points]
    job = {"annotations": marks, "image_size": [{"width": 320, "height": 240, "depth": 3}]}
    return {"source-ref": f"s3://b/{name}", "heads": job, "heads-metadata": {"class-map": {"0": "head"}}}


def _outlines(points: list) -> list:
    """The corners of a rectangle around each point, and the last one itself."""
    around = [[[x0, y0], [x0, y1], [x1, y1], [x1, y0]] for x0, y0, x1, y1 in map(_corners, points[:-1])]
    return around + [[point] for point in points[-1:]]


JSON_PICTURES = {
    "of Hugging Face": _one_file(
        "train/metadata.jsonl",
        lambda f: _lines({"file_name": n, "objects": {"bbox": [_box(p) for p in ps]}} for n, ps in f.items()),
        "train",
    ),
    "of BDD100K": _one_file(
        "labels/det_train.json",
        lambda f: [
            {"name": n, "labels": [{"category": "head", "box2d": dict(zip(("x1", "y1", "x2", "y2"), _corners(p)))} for p in ps]}
            for n, ps in f.items()
        ],
    ),
    "of CreateML": _one_file(
        "train/_annotations.createml.json",
        lambda f: [
            {"image": n, "annotations": [{"label": "head", "coordinates": p | {"width": 10, "height": 8}} for p in _xy(ps)]}
            for n, ps in f.items()
        ],
        "train",
    ),
    "of Labelbox": _one_file("export.ndjson", lambda f: _lines(_labelbox(n, ps) for n, ps in f.items())),
    "of FiftyOne": _one_file(
        "labels.json",
        lambda f: {
            "classes": ["head"],
            "labels": {n: [{"label": 0, "bounding_box": _share(p)} for p in ps] for n, ps in f.items()},
        },
    ),
    "of DotDotGoose": _one_file(
        "mine.pnt", lambda f: {"classes": ["head"], "points": {n: {"head": _xy(ps)} for n, ps in f.items()}, "ui": {}}
    ),
    "pairs": _one_file("labels.json", lambda f: [{"image": n, "heads": ps} for n, ps in f.items()]),
    "of VoTT": _one_file(
        "vott-json-export/mine-export.json",
        lambda f: {
            "name": "mine",
            "assets": {
                str(i): {"asset": {"name": n}, "regions": [*map(_vott, ps[:-1]), *map(_vott_point, ps[-1:])]}
                for i, (n, ps) in enumerate(f.items())
            },
        },
        "vott-json-export",
    ),
    "of TensorBox": _one_file(
        "train_boxes.json",
        lambda f: [
            {"image_path": n, "rects": [dict(zip(("x1", "y1", "x2", "y2"), _corners(p))) for p in ps]}
            for n, ps in f.items()
        ],
    ),
    "of Hasty": _one_file(
        "export.json",
        lambda f: {
            "label_classes": [{"class_name": "head"}],
            "images": [
                {"image_name": n, "labels": [{"class_name": "head", "bbox": _corners(p), "polygon": None} for p in ps]}
                for n, ps in f.items()
            ],
        },
    ),
    "of Vertex AI": _one_file(
        "data.jsonl",
        lambda f: _lines(
            {"imageGcsUri": f"gs://b/{n}", "boundingBoxAnnotations": list(map(_vertex, ps))} for n, ps in f.items()
        ),
    ),
    "of SageMaker": _one_file("output.manifest", lambda f: _lines(_sagemaker(n, ps) for n, ps in f.items())),
    "of Prodigy": _one_file(
        "annotations.jsonl",
        lambda f: _lines(
            {"image": n, "spans": [{"label": "HEAD", "points": corners} for corners in _outlines(ps)], "answer": "accept"}
            for n, ps in f.items()
        )
        + json.dumps({"image": "skipped.jpg", "spans": [], "answer": "reject"}),
    ),
    "by name": _one_file("labels.json", lambda f: {n: {"points": ps} for n, ps in f.items()}),
}  # fmt: skip


def _keras(found: dict[str, list]) -> str:
    boxes = {n: " ".join(f"{','.join(map(str, _corners(p)))},0" for p in ps) for n, ps in found.items()}
    return "".join(f"{name} {row}\n" for name, row in boxes.items())


def _wider(found: dict[str, list]) -> str:
    text = ""
    for name, points in found.items():
        boxes = [f"{' '.join(map(str, _box(point)))} 0 0 0 0 0 0" for point in points]
        text += "\n".join([name, str(len(points)), *(boxes or ["0 0 0 0 0 0 0 0 0 0"])]) + "\n"
    return text


TEXT_PICTURES = {
    "of Keras": _one_file("train/_annotations.txt", _keras, "train"),
    "of WIDER FACE": _one_file("wider_face_split/wider_face_train_bbx_gt.txt", _wider, "WIDER_train/images"),
    "pairs": _one_file(
        "annotation.txt", lambda f: "".join(f"{n} {' '.join(f'{x} {y}' for x, y in ps)}\n" for n, ps in f.items())
    ),
    "localisation": _one_file(
        "train_gt_loc.txt",
        lambda f: "".join(f"{n} {len(ps)} {' '.join(f'{x} {y} 4 6 1' for x, y in ps)}\n" for n, ps in f.items()),
    ),
}


def csv_columns(image: str, x: str, y: str, mark: str = ",", name: str = "points.csv") -> Callable[[Path], Found]:
    """One head a line below a header of these columns: nothing tells of the picture without heads."""

    def write(root: Path) -> Found:
        found = {key: points for key, points in _pictures(root / "images").items() if points}
        rows = [mark.join((key, str(a), str(b))) for key, points in found.items() for a, b in points]
        _text(root / name, "\n".join([mark.join((image, x, y)), *rows]) + "\n")
        return {"train": found}

    return write


def csv_with_split(root: Path) -> Found:
    found = csv_columns("image", "x", "y")(root)["train"]
    rows = [
        f"{key},{x},{y},{'test' if key == '2.jpg' else 'train'}" for key, points in found.items() for x, y in points
    ]
    _text(root / "points.csv", "\n".join(["image,x,y,split", *rows]) + "\n")
    return {"train": {key: points for key, points in found.items() if key != "2.jpg"}, "test": {"2.jpg": HEADS["2"]}}


def open_images(root: Path) -> Found:
    found = {key[:-4]: points for key, points in _pictures(root / "train").items() if points}
    rows = []
    for key, points in found.items():
        for x0, y0, width, height in map(_share, points):
            rows.append(f"{key},xclick,/m/04hgtk,1,{x0},{x0 + width},{y0},{y0 + height},0")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded"
    _text(root / "train-annotations-bbox.csv", "\n".join([header, *rows]) + "\n")
    return {"train": found}


def yolo_lines(line: Callable[[float, float], str]) -> Callable[[Path], Found]:
    """Labels with other lines than boxes; lists tell the splits."""

    def write(root: Path) -> Found:
        for name, points in _pictures(root / "images").items():
            text = "".join(line(x / 320, y / 240) + "\n" for x, y in points)
            _text(root / "labels" / f"{name[:-4]}.txt", text)
        _text(root / "train.txt", "./images/1.jpg\n./images/3.jpg\n")
        _text(root / "val.txt", "./images/2.jpg\n./images/4.jpg\n")
        _text(root / "data.yaml", "train: train.txt\nval: val.txt\nnames: [head]\n")
        return {split: {f"{n}.jpg": HEADS[n] for n in ns} for split, ns in (("train", "13"), ("val", "24"))}

    return write


def processed(root: Path) -> Found:
    """NWPU's form with labels of test.txt, as IIM and FIDTM leave ShanghaiTech."""
    for name, points in _pictures(root / "images").items():
        boxes = [_corners(point) for point in points]
        content = {"img_id": name, "human_num": len(points), "points": points, "boxes": boxes}
        _json(root / "jsons" / f"{name[:-4]}.json", content)
    splits = {"train": "13", "val": "2", "test": "4"}
    for split, numbers in splits.items():
        _text(root / f"{split}.txt", "\n".join(numbers) + "\n")
    return {split: {f"{n}.jpg": HEADS[n] for n in numbers} for split, numbers in splits.items()}


def rgbd(root: Path) -> Found:
    for number, points in HEADS.items():
        picture(root / "train_data" / "train_img" / f"IMG_{number}.png", SIZE)
        mat(root / "train_data" / "train_gt" / f"GT_IMG_{number}.mat", "point", np.array(points).reshape(-1, 2))
    return {"train": {f"train_img/IMG_{number}.png": points for number, points in HEADS.items()}}


def npz_beside(root: Path) -> Found:
    found = _pictures(root)
    for name, points in found.items():
        np.savez(root / f"{name[:-4]}.npz", heads=np.array(points).reshape(-1, 2), size=np.array([240, 320]))
    return {"train": found}


def imagej(root: Path) -> Found:
    """Results.csv of the multi-point tool; and one file of bare numbers."""
    found = _pictures(root)
    for name, points in found.items():
        rows = [f"{i},0,120,{x},{y}" for i, (x, y) in enumerate(points, 1)]
        _text(root / f"{name[:-4]}.csv", "\n".join([" ,Area,Mean,X,Y", *rows]) + "\n")
    _text(root / "2.csv", "".join(f"{x},{y}\n" for x, y in found["2.jpg"]))
    return {"train": found}


def cell_counter(root: Path) -> Found:
    """CellCounter_1.xml of ImageJ; and one file that `predict --points` wrote."""
    found = _pictures(root)
    for name, points in found.items():
        marks = "".join(
            f"<Marker><MarkerX>{x}</MarkerX><MarkerY>{y}</MarkerY><MarkerZ>1</MarkerZ></Marker>" for x, y in points
        )
        data = f"<Marker_Data><Marker_Type><Type>1</Type>{marks}</Marker_Type></Marker_Data>"
        _text(root / f"CellCounter_{name[:-4]}.xml", f"<CellCounter_Marker_File>{data}</CellCounter_Marker_File>")
    (root / "CellCounter_2.xml").unlink()
    _text(root / "2-points.csv", "x,y,score\n" + "".join(f"{x},{y},0.9\n" for x, y in found["2.jpg"]))
    return {"train": found}


def counted_text(root: Path) -> Found:
    found = _pictures(root)
    for name, points in found.items():
        _text(root / f"{name[:-4]}.txt", "\n".join([str(len(points)), *(f"{x} {y}" for x, y in points)]) + "\n")
    return {"train": found}


def own_variable(root: Path) -> Found:
    found = _pictures(root / "images")
    for name, points in found.items():
        mat(root / "gt" / f"{name[:-4]}.mat", "center", np.array(points).reshape(-1, 2))
    return {"train": found}


def cvat_video(root: Path) -> Found:
    found = {name[:-4]: points for name, points in _pictures(root / "images", prefix="frame_00000").items() if points}
    tracks = ""
    for name, points in found.items():
        for x, y in points:
            place = f'frame="{int(name[6:])}" points="{x},{y}"'
            tracks += f'<track label="head"><points outside="0" {place}/><points outside="1" {place}/></track>'
    _text(
        root / "annotations.xml", f'<?xml version="1.0"?>\n<annotations>\n<version>1.1</version>{tracks}</annotations>'
    )
    return {"train": found}


def tuples(root: Path) -> Found:
    found = {f"images/{name}": points for name, points in _pictures(root / "images").items()}
    rows = [f'{name},"{[tuple(point) for point in points]}"' for name, points in found.items()]
    _text(root / "labels.csv", "\n".join(["filename,points", *rows]) + "\n")
    return {"train": found}


def list_without_folder(root: Path) -> Found:
    """Pictures lie in a folder that the list does not name; a key tells the split."""
    found = _pictures(root / "images")
    rows = [{"image": n, "points": ps, "split": "test" if n == "2.jpg" else "train"} for n, ps in found.items()]
    _json(root / "labels.json", rows)
    splits = {"train": "134", "test": "2"}
    return {split: {f"images/{n}.jpg": HEADS[n] for n in numbers} for split, numbers in splits.items()}


def boxes_string(root: Path) -> Found:
    found = _pictures(root / "images")
    rows = [f"{n},{';'.join(' '.join(map(str, _corners(p))) for p in ps) or 'no_box'},x\n" for n, ps in found.items()]
    _text(root / "train.csv", "image_name,BoxesString,domain\n" + "".join(rows))
    return {"train": found}


def bbox_column(root: Path) -> Found:
    found = {name: points for name, points in _pictures(root / "images").items() if points}  # nobody has no line
    rows = [f'{n[:-4]},320,240,"{_box(p)}",x\n' for n, ps in found.items() for p in ps]
    _text(root / "train.csv", "image_id,width,height,bbox,source\n" + "".join(rows))
    return {"train": {name[:-4]: points for name, points in found.items()}}


def napari(root: Path) -> Found:
    found = _pictures(root)
    for name, points in found.items():
        rows = [f"{i}.0,{y},{x}\n" for i, (x, y) in enumerate(points)]
        _text(root / f"{name[:-4]}.csv", "index,axis-0,axis-1\n" + "".join(rows))
    return {"train": found}


def label_studio_csv(root: Path) -> Found:
    found = _pictures(root)
    with (root / "project-1-at-2026-01-01.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["annotation_id", "annotator", "id", "image", "heads"])
        for number, (name, points) in enumerate(found.items()):
            marks = [{"x": x / 3.2, "y": y / 2.4, "width": 1, "keypointlabels": ["head"]} for x, y in points]
            rows.writerow([number, 1, number, f"/data/upload/1/1a2b3c4d-{name}", json.dumps(marks) if marks else ""])
    return {"train": found}


def labelme_xml(root: Path) -> Found:
    found = _pictures(root / "Images")
    for name, points in found.items():
        shapes = [*_outlines(points), *_outlines(points[:1])]
        text = ""
        for number, corners in enumerate(shapes):  # the last one was deleted
            ring = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in corners)
            deleted = int(number == len(points))
            text += f"<object><name>head</name><deleted>{deleted}</deleted><polygon>{ring}</polygon></object>"
        _text(
            root / "Annotations" / f"{name[:-4]}.xml", f"<annotation><filename>\n{name}\n</filename>{text}</annotation>"
        )
    return {"train": found}


def eurocity(root: Path) -> Found:
    found = _pictures(root / "img" / "train" / "x")
    for name, points in found.items():
        marks = [
            {"x0": x - 5, "y0": y, "x1": x + 5, "y1": y + 40, "identity": "pedestrian", "children": []}
            for x, y in points
        ]
        _json(root / "labels" / "train" / "x" / f"{name[:-4]}.json", {"identity": "frame", "children": marks})
    return {"train": {f"img/train/x/{name}": points for name, points in found.items()}}


def imglab(root: Path) -> Found:
    found = _pictures(root / "images")
    text = ""
    for name, points in found.items():
        boxes = [(f'left="{x - 5}" top="{y - 5}" width="10" height="10"') for x, y in points]
        marks = [f"<box {box}><label>head</label></box>" for box in boxes] + [
            f'<box {b} ignore="1"/>' for b in boxes[:1]
        ]
        text += f'<image file="images/{name}">{"".join(marks)}</image>'
    _text(root / "training.xml", f"<?xml version='1.0'?>\n<dataset><name>x</name><images>{text}</images></dataset>")
    return {"train": {f"images/{name}": points for name, points in found.items()}}


def brainwash(root: Path) -> Found:
    found = _pictures(root / "images")
    rows = [
        f'"images/{n}"{": " if ps else ""}{", ".join(str(tuple(_corners(p))) for p in ps)};\n'
        for n, ps in found.items()
    ]
    _text(root / "brainwash_train.idl", "".join(rows))
    return {"train": {f"images/{name}": points for name, points in found.items()}}


def wider_person(root: Path) -> Found:
    found = _pictures(root / "Images")
    for name, points in found.items():
        rows = [f"{1 + i % 3} {x - 5} {y} {x + 5} {y + 30}\n" for i, (x, y) in enumerate(points)]
        rows += ["4 0 0 9 9\n", "5 1 1 9 9\n"]
        _text(root / "Annotations" / f"{name}.txt", f"{len(rows)}\n{''.join(rows)}")
    _text(root / "train.txt", "".join(f"{name[:-4]}\n" for name in list(found)[:-1]))
    _text(root / "val.txt", "".join(f"{name[:-4]}\n" for name in list(found)[-1:]))
    names = list(found)
    return {"train": {n: found[n] for n in names[:-1]}, "val": {n: found[n] for n in names[-1:]}}


def vscrowd(root: Path) -> Found:
    expected: Found = {}
    for split, numbers in (("train", "134"), ("test", "2")):
        found = _pictures(root / "videos" / f"{split}_001", numbers=numbers)
        rows = []
        for name, points in found.items():
            heads = [f" {i} {x - 5} {y - 4} {x + 6} {y + 5} {x} {y}" for i, (x, y) in enumerate(points)]
            rows.append(f"000{name[:-4]}{''.join(heads)}\n")
        _text(root / "annotations" / f"{split}_001.txt", "".join(rows))
        expected[split] = {f"{split}_001/{name}": points for name, points in found.items()}
    return expected
