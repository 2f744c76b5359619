"""Exports of tools that wrap a picture and its marks in objects of their own; for the layout json-pictures.

- ``{"assets": {id: {"asset": {"name": "1.jpg"}, "regions": [{"tags", "boundingBox"}, ...]}}}``: VoTT
- ``{"images": [{"image_name": "1.jpg", "labels": [{"class_name", "bbox": [x0, y0, x1, y1]}, ...]}, ...]}``: Hasty
- ``{"imageGcsUri": ".../1.jpg", "boundingBoxAnnotations": [{"displayName", "xMin": fraction, ...}, ...]}``: Vertex AI
- ``{"source-ref": ".../1.jpg", JOB: {"annotations": [{"class_id", "top", "left", "width", "height"}, ...]}}``: SageMaker
- ``{"image": "1.jpg", "spans": [{"label", "points"}, ...], "answer": "accept"}``: Prodigy
- ``{"params": {"attachment": ".../1.jpg"}, "response": {"annotations": [{"label", "left", "top", ...}]}}``: Scale, or one
- ``{"data_units": {id: {"data_title": "1.jpg", "labels": {"objects": [{"boundingBox": fractions}, ...]}}}}``: Encord
- ``{"samples": [{"filepath": "1.jpg", "ground_truth": {"detections": [{"bounding_box": fractions}]}}]}``: FiftyOneDataset
- ``{"type": "localization", "annotations": {"1.jpg": [{"label", fractions: "x", "y", "x2", "y2"}, ...]}}``: IBM Cloud Annotations
- ``{"externalId": "1.jpg", "labels": [{"jsonResponse": {JOB: {"annotations": [{"boundingPoly": fractions}]}}}]}``: Kili
- ``{"fileName": "1.jpg", "result": text}``, text being ``{"annotations": [{"toolName", "result": [{"label", "x", "y"}]}]}``: LabelU
- ``{"dataset": {"task_attributes", "samples": [{"name": "1.jpg", "labels": {"ground-truth": {"attributes": {"annotations"}}}}]}}``:
  a release of Segments.ai; of a label that is not finished or was skipped the picture is unlabelled
- ``{"openlabel": {"objects", "frames": {"0": {"frame_properties", "objects": {id: {"object_data": {"bbox": [{"val"}]}}}}}}}``:
  OpenLABEL, of a box the centre, the width and the height (and an angle); frames without a name are called frame_0 ...
- ``{"files": [{"path": "1.jpg", "boundingBoxes": [{"label", "x", "y", "width", "height"}, ...]}]}`` (info.labels) and
  ``{"boundingBoxes": {"1.jpg": [...]}}`` (bounding_boxes.labels): Edge Impulse

Sources: datumaro (vott_json), cloud.google.com/vertex-ai (prepare data), docs.aws.amazon.com (Custom Labels' manifest files),
strickvl/panlabel's samples (Scale, SageMaker, VoTT, IBM) and readers (OpenLABEL, Edge Impulse), LabelU's documentation (JSON,
tools) and converter, segments-ai/docs (release file, label types), Vicomtech/video-content-description-VCD (OpenLABEL),
docs.encord.com (JSON export), the samples of kili-technology/kili-python-sdk's tests, the samples.json of FiftyOne's data sets on
Hugging Face. Hasty and Prodigy are written from their descriptions, not from a file of theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..images import IMAGE_SUFFIXES
from .tree import HEADS, is_called, split_of, surrounding

_FINISHED = ("LABELED", "REVIEWING_IN_PROGRESS", "REVIEWED", "VERIFIED")  # of Segments.ai's states


class Row(NamedTuple):
    """A picture."""

    name: str
    marks: Any  # of forms in `marks`
    split: str | None = None  # if the file tells
    bad: str = ""  # why its marks cannot be read


def fractional(content: Any) -> bool:
    """Whether the coordinates are shares of the picture's sides."""
    if isinstance(content, dict):
        fiftyone = isinstance(content.get("labels"), dict) and "classes" in content
        return isinstance(content.get("samples"), list) or content.get("type") == "localization" or fiftyone
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and bool({"imageGcsUri", "data_units", "externalId"} & first.keys())


def unwrap(content: Any) -> list[Row] | None:
    """The pictures of such a file; None: it is none.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it begins like one and goes on otherwise.
    """
    if isinstance(content, dict):
        return _of_object(content)
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return None
    first = content[0]
    if "imageGcsUri" in first:
        return list(map(_vertex, content))
    if "source-ref" in first:
        return list(map(_sagemaker, content))
    if "answer" in first and "image" in first:
        return [
            Row(_of_prodigy(own), list(map(_prodigy, own.get("spans", []))))
            for own in content
            if own["answer"] == "accept"
        ]
    if isinstance(first.get("params"), dict) and "attachment" in first["params"]:
        return list(map(_scale, content))
    if "result" in first and ("fileName" in first or "fileNames" in first):
        return list(map(_labelu, content))
    if "externalId" in first and ("labels" in first or "latestLabel" in first):
        return list(map(_kili, content))
    if isinstance(first.get("data_units"), dict):
        units = [unit for own in content for unit in own["data_units"].values()]
        return [Row(unit["data_title"], list(map(_encord, unit["labels"]["objects"]))) for unit in units]
    return None


def _of_object(content: dict[str, Any]) -> list[Row] | None:
    if isinstance(content.get("assets"), dict):
        seen = {key: own["asset"].get("state", 2) > 0 or bool(own["regions"]) for key, own in content["assets"].items()}
        return [
            Row(own["asset"]["name"], list(map(_vott, own["regions"])) if seen[key] else None)
            for key, own in content["assets"].items()
        ]
    if isinstance(content.get("images"), list) and "label_classes" in content:
        return [
            Row(
                own["image_name"],
                list(map(_hasty, own["labels"])) or (None if own.get("image_status") == "NEW" else []),
            )
            for own in content["images"]
        ]
    if content.get("type") == "localization" and isinstance(content.get("annotations"), dict):
        return [Row(name, marks) for name, marks in content["annotations"].items()]
    if isinstance(content.get("samples"), list):
        return list(map(_sample, content["samples"]))
    if isinstance(content.get("params"), dict) and "attachment" in content["params"]:
        return [_scale(content)]
    if isinstance(content.get("openlabel"), dict):
        return list(_openlabel(content["openlabel"]))
    if isinstance(content.get("dataset"), dict) and "task_attributes" in content["dataset"]:
        return list(_segments(content["dataset"]))
    if isinstance(content.get("boundingBoxes"), dict):
        return [Row(name, marks) for name, marks in content["boundingBoxes"].items()]
    if isinstance(content.get("files"), list) and content["files"] and "boundingBoxes" in content["files"][0]:
        return [Row(own["path"], own["boundingBoxes"], split_of(own.get("category", ""))) for own in content["files"]]
    if "classes" in content and isinstance(content.get("labels"), dict):  # FiftyOneImageDetectionDataset
        return [Row(name, _named(marks, content["classes"])) for name, marks in content["labels"].items()]
    return None


def _named(marks: Any, classes: list[str]) -> Any:
    """Numbers of classes by their names; null: unlabelled."""
    return marks and [own | {"label": classes[own["label"]]} if isinstance(own["label"], int) else own for own in marks]


def _box(label: str, x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    return {"label": label, "box2d": {"x1": x0, "y1": y0, "x2": x1, "y2": y1}}


def _vott(mark: dict[str, Any]) -> dict[str, Any]:
    label = (mark.get("tags") or [""])[0]
    if mark.get("type") == "POINT":
        return {"label": label, "point": mark["points"][0]}
    if "boundingBox" not in mark:  # a polygon's may be left out
        return {"label": label, "polygon": mark["points"]}
    return {"label": label, "bounding_box": mark["boundingBox"]}


def _hasty(mark: dict[str, Any]) -> dict[str, Any]:
    return _box(mark["class_name"], *mark["bbox"])


def _vertex(own: dict[str, Any]) -> Row:
    corners = ("xMin", "yMin", "xMax", "yMax")  # one that is 0 may be left out
    marks = [
        _box(mark["displayName"], *(mark.get(name, 0) for name in corners)) for mark in own["boundingBoxAnnotations"]
    ]
    use = own.get("dataItemResourceLabels", {}).get("aiplatform.googleapis.com/ml_use", "")
    return Row(own["imageGcsUri"], marks, split_of(use))


def _sagemaker(row: dict[str, Any]) -> Row:
    job = next((name for name, own in row.items() if isinstance(own, dict) and "annotations" in own), "")
    classes = row.get(f"{job}-metadata", {}).get("class-map", {})
    marks = row[job]["annotations"]
    named = [{"label": classes.get(str(mark.get("class_id")), ""), "bounding_box": mark} for mark in marks]
    return Row(row["source-ref"], named)


def _of_prodigy(own: dict[str, Any]) -> str:
    """A picture's name: `image` may hold its pixels."""
    return own["path"] if own["image"].startswith("data:") else own["image"]


def _prodigy(mark: dict[str, Any]) -> dict[str, Any]:
    corners = surrounding(mark["points"])
    if len(corners) == 2:
        return {"label": mark["label"], "point": {"x": corners[0], "y": corners[1]}}
    return _box(mark["label"], *corners)


def _encord(mark: dict[str, Any]) -> dict[str, Any]:
    if mark.get("shape") == "point":
        return {"label": mark["name"], "point": mark["point"]["0"]}
    return {"label": mark["name"], **{key: mark[key] for key in ("boundingBox", "polygon") if key in mark}}


def _kili(own: dict[str, Any]) -> Row:
    label = own.get("latestLabel") or next(iter(own.get("labels") or []), None)
    jobs = label["jsonResponse"].values() if label else ()
    found = [mark for job in jobs for mark in job.get("annotations", []) if "boundingPoly" in mark or "point" in mark]
    marks = [
        {"label": mark["categories"][0]["name"]}
        | ({"point": mark["point"]} if "point" in mark else {"polygon": mark["boundingPoly"][0]["normalizedVertices"]})
        for mark in found
    ]
    return Row(own["externalId"], marks if label else None)


def _sample(own: dict[str, Any]) -> Row:
    fields = {
        name: value
        for name, value in own.items()
        if isinstance(value, dict) and isinstance(value.get("detections"), list)
    }
    if "ground_truth" not in fields and len(fields) > 1:
        raise ValueError(f"which of {', '.join(fields)} is counted cannot be told")
    held: dict[str, Any] = fields.get("ground_truth") or next(iter(fields.values()), {"detections": []})
    tags = " ".join(tag for tag in own.get("tags", []) if isinstance(tag, str))
    return Row(own["filepath"], held["detections"], split_of(tags))


def _scale(own: dict[str, Any]) -> Row:
    return Row(own["params"]["attachment"].removeprefix("file:"), (own.get("response") or {}).get("annotations"))


def _labelu(own: dict[str, Any]) -> Row:
    """Its first versions had an object for each tool, ``attribute`` for the label and ``pointList``."""
    names = own.get("fileName") or next(iter((own.get("fileNames") or {}).values()), "")
    held = json.loads(own["result"] or "{}") if isinstance(own["result"], str | None) else own["result"]
    tools = held.get("annotations", [tool for key, tool in held.items() if key.endswith("Tool")])
    seen = "annotations" in held or bool(tools)
    marks = [_drawn(tool.get("toolName"), mark) for tool in tools for mark in tool.get("result", [])]
    turned = f"was turned by {held['rotate']} degrees in LabelU" if held.get("rotate") else ""
    return Row(names, [mark for mark in marks if mark] if seen else None, bad=turned)


def _drawn(tool: str, mark: dict[str, Any]) -> dict[str, Any] | None:
    """A mark of LabelU: of a line or a cuboid without a place; None for what is said of the whole picture."""
    label = {"label": mark.get("label", mark.get("attribute", ""))}
    if tool in ("pointTool", "rectTool"):
        return label | {key: mark[key] for key in ("x", "y", "width", "height") if key in mark}
    if tool == "polygonTool":
        return label | {"polygon": mark.get("points") or mark["pointList"]}
    return label if tool in ("lineTool", "cuboidTool") else None


def _segments(dataset: dict[str, Any]) -> Iterator[Row]:
    names = {own["id"]: own["name"] for own in (dataset["task_attributes"] or {}).get("categories", [])}
    for sample in dataset["samples"]:
        labels = sample.get("labels") or {}
        label = labels.get("ground-truth") or next(iter(labels.values()), None)
        done = label and label.get("label_status", "LABELED") in _FINISHED
        held = (label.get("attributes") or {}).get("annotations") if label and done else None
        yield Row(sample["name"], held and [_vector(mark, names) for mark in held])


def _vector(mark: dict[str, Any], names: dict[Any, str]) -> dict[str, Any]:
    label = {"label": names.get(mark.get("category_id"), "")}
    # Two corners, many, or one; of a line or a mask's number no place.
    return label | {"polygon": mark["points"]} if mark.get("type") in ("bbox", "polygon", "point") else label


def _openlabel(held: dict[str, Any]) -> Iterator[Row]:
    kinds = {key: own.get("type") for key, own in held.get("objects", {}).items()}
    for key, frame in held["frames"].items():
        properties = frame.get("frame_properties") or {}
        streams = [own.get("uri") for own in (properties.get("streams") or {}).values()]
        names = [properties.get("file_name"), properties.get("name"), *streams, f"frame_{key}.jpg"]
        name = next(name for name in names if name and Path(name).suffix.lower() in IMAGE_SUFFIXES)
        objects = frame.get("objects", {}).items()
        found = [_of_openlabel(own.get("object_data") or {}, kinds.get(one)) for one, own in objects]
        yield Row(name.removeprefix("./"), [mark for marks in found for mark in marks])


def _of_openlabel(data: dict[str, Any], kind: str | None) -> list[dict[str, Any]]:
    """An object's marks: a point, else its first box, else its outline; a box called head is one whatever the object is."""
    for form in ("point2d", "bbox", "rbbox", "poly2d"):
        marks: dict[str, dict[str, Any]] = {}
        for own in data.get(form, []):
            called = str(own.get("name", ""))
            label = called if is_called(called, HEADS) or not kind else kind
            marks.setdefault(label, {"label": label, **_place(form, own["val"])})
        if marks:
            return list(marks.values())
    return [{"label": kind or ""}] if "cuboid" in data else []


def _place(form: str, values: list[Any]) -> dict[str, Any]:
    if form == "point2d":
        return {"x": values[0], "y": values[1]}
    if form == "poly2d":  # letters where it is packed
        return {"polygon": values} if all(isinstance(number, int | float) for number in values) else {}
    x, y, width, height, *turn = values
    c, s = (f(turn[0] if turn else 0) for f in (math.cos, math.sin))
    sides = ((-width, -height), (width, -height), (width, height), (-width, height))
    return {"polygon": [(x + (a * c - b * s) / 2, y + (a * s + b * c) / 2) for a, b in sides]}
