"""Exports of tools that wrap a picture and its marks in objects of their own; for the layout json-pictures.

- ``{"assets": {id: {"asset": {"name": "1.jpg"}, "regions": [{"tags", "boundingBox"}, ...]}}}``: VoTT
- ``{"images": [{"image_name": "1.jpg", "labels": [{"class_name", "bbox": [x0, y0, x1, y1]}, ...]}, ...]}``: Hasty
- ``{"imageGcsUri": ".../1.jpg", "boundingBoxAnnotations": [{"displayName", "xMin": fraction, ...}, ...]}``: Vertex AI
- ``{"source-ref": ".../1.jpg", JOB: {"annotations": [{"class_id", "top", "left", "width", "height"}, ...]}}``: SageMaker
- ``{"image": "1.jpg", "spans": [{"label", "points"}, ...], "answer": "accept"}``: Prodigy
"""

from __future__ import annotations

from typing import Any

Row = tuple[str, Any]  # a picture's name and its marks, of forms in `marks`


def fractional(content: Any) -> bool:
    """Whether the coordinates are shares of the picture's sides."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "imageGcsUri" in content[0]


def unwrap(content: Any) -> list[Row] | None:
    """The pictures of such a file; None: it is none.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it begins like one and goes on otherwise.
    """
    if isinstance(content, dict) and isinstance(content.get("assets"), dict):
        return [(own["asset"]["name"], [_vott(mark) for mark in own["regions"]]) for own in content["assets"].values()]
    if isinstance(content, dict) and isinstance(content.get("images"), list) and "label_classes" in content:
        return [(own["image_name"], [_hasty(mark) for mark in own["labels"]]) for own in content["images"]]
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return None
    if "imageGcsUri" in content[0]:
        return [(own["imageGcsUri"], [_vertex(mark) for mark in own["boundingBoxAnnotations"]]) for own in content]
    if "source-ref" in content[0]:
        return [_sagemaker(own) for own in content]
    if "answer" in content[0] and "image" in content[0]:
        return [
            (own["image"], list(map(_prodigy, own.get("spans", [])))) for own in content if own["answer"] == "accept"
        ]
    return None


def _box(label: str, x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    return {"label": label, "box2d": {"x1": x0, "y1": y0, "x2": x1, "y2": y1}}


def _vott(mark: dict[str, Any]) -> dict[str, Any]:
    label = (mark.get("tags") or [""])[0]
    if mark.get("type") == "POINT":
        return {"label": label, "point": mark["points"][0]}
    return {"label": label, "bounding_box": mark["boundingBox"]}


def _hasty(mark: dict[str, Any]) -> dict[str, Any]:
    return _box(mark["class_name"], *mark["bbox"])


def _vertex(mark: dict[str, Any]) -> dict[str, Any]:
    return _box(mark["displayName"], *(mark[name] for name in ("xMin", "yMin", "xMax", "yMax")))


def _sagemaker(row: dict[str, Any]) -> Row:
    job = next((name for name, own in row.items() if isinstance(own, dict) and "annotations" in own), "")
    classes = row.get(f"{job}-metadata", {}).get("class-map", {})
    marks = row[job]["annotations"]
    return row["source-ref"], [
        {"label": classes.get(str(mark.get("class_id")), ""), "bounding_box": mark} for mark in marks
    ]


def _prodigy(mark: dict[str, Any]) -> dict[str, Any]:
    xs, ys = zip(*mark["points"], strict=True)
    if len(xs) == 1:
        return {"label": mark["label"], "point": {"x": xs[0], "y": ys[0]}}
    return _box(mark["label"], min(xs), min(ys), max(xs), max(ys))
