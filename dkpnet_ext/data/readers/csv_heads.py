"""A CSV file with one head a line, as labelling tools and detection sets write it.

    labels.csv (.tsv, .txt with tabs)     pictures anywhere below

With a header: a column for the picture (image, filename, Image Name ...; Label in ImageJ's results, whose X and Y are taken as
pixels), and x,y (X Coordinate, head_x ...) or
xmin,ymin,xmax,ymax (or x1 ...) or x,y,width,height, perhaps label and split. Open Images has fractions and numbers of classes,
which are named here for people; boxes of groups (IsGroupOf) are areas, those of pictures of people (IsDepiction) are left out.
Or one column:
bbox ``[x, y, width, height]`` (the first wheat heads of Kaggle), BoxesString ``x0 y0 x1 y1;...`` (all of a picture; GWHD). Without:
makesense.ai's ``label,x,y,image,width,height`` (points), ``label,x,y,w,h,image,width,height`` (boxes), or ``image,x,y`` and
``image,x0,y0,x1,y1,label`` (keras-retinanet, where ``image,,,,,`` is a picture of nobody). A picture without a line is unlabelled.
Google AutoML's ``TRAIN,gs://.../1.jpg,label,x0,y0,,,x1,y1,,`` (fractions).
A width and a height that are the same all over the file and beyond all x and y are the picture's own. Sources: SkalskiP/make-sense
(src/logic/export), cloud.google.com (AutoML Vision, CSV format), datumaro (open_images, vott_csv), strickvl/panlabel's samples
(TensorFlow, Udacity, RetinaNet, wheat).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from ..images import IMAGE_SUFFIXES, BadFile
from .base import Entry, Layout, read_text
from .tree import (
    Labelled,
    Pictures,
    Shape,
    annotation_files,
    from_shapes,
    others,
    peek_lines,
    picture_root,
    split_of,
    split_of_file,
)

# Names of columns, in small letters and without what is no letter or digit.
IMAGE = (
    *(
        "image",
        "filename",
        "file",
        "imagename",
        "imagepath",
        "imagefile",
        "img",
        "imgname",
        "path",
        "name",
        "frame",
        "picture",
    ),
    *("photo", "imageid", "imgid", "externalid"),
)
LABEL = ("label", "class", "category", "labelname", "classname", "type")
SPLIT = ("split", "subset", "set")
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"),
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"), ("x", "y", "w", "h"), ("x", "y", "width", "height"), ("x", "y"),
    ("pointx", "pointy"), ("cx", "cy"), ("headx", "heady"), ("xcoord", "ycoord"), ("xcoordinate", "ycoordinate"),
    ("xcenter", "ycenter"), ("centerx", "centery"), ("xpos", "ypos"), ("px", "py"), ("col", "row"), ("column", "row"),
)  # fmt: skip
_SIZES = ("w", "h", "width", "height", "bboxwidth", "bboxheight")  # a corner and a size, not two corners
_OPEN_IMAGES = {  # class-descriptions.csv
    "/m/04hgtk": "human head", "/m/0dzct": "face", "/m/01g317": "person", "/m/04yx4": "man", "/m/03bt1vf": "woman",
    "/m/01bl7v": "boy", "/m/05r655": "girl",
}  # fmt: skip
_GROUP, _LIKENESS = "isgroupof", "isdepiction"  # a 1 there: no single person
_AUTOML = ("sisnnssnnss", "sisnnnnnnnn", "sisssssssss")  # kinds of fields: two corners, four corners, nobody
_PACKED = {"bbox": [1], "boxesstring": []}  # boxes in one column, and whether as a corner and a size
SUFFIXES = (".csv", ".tsv", ".txt")


def _is_image(field: str) -> bool:
    return Path(field.strip().replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _columns(path: Path) -> dict[str, list[int]] | None:
    """Where the image, the corners and the label stand, and what is a corner and a size; None: not such a file."""
    lines: list[list[str]] = [*csv.reader(peek_lines(path), delimiter=_delimiter(path)), [], []]
    first, second = lines[:2]
    names = [re.sub(r"[^a-z0-9]", "", field.lower()) for field in first]
    image = next((names.index(name) for name in IMAGE if name in names), None)
    if image is None and "label" in names and _is_image("".join(second[names.index("label") :][:1])):
        image = names.index("label")  # ImageJ's results
    if image is not None:
        corners: tuple[str, ...] | None = next((c for c in CORNERS if set(c) <= set(names)), None)
        corners = corners or next(((name,) for name in _PACKED if name in names), None)
        # makesense.ai and others write the picture's own size as width,height beside a point.
        if corners == ("x", "y", "width", "height") and ("xmin" in names or "imagewidth" in names):
            corners = ("x", "y")
        label = [names.index(name) for name in LABEL if name in names and names.index(name) != image][:1]
        sized = _PACKED.get(corners[-1], [1] if corners[-1] in _SIZES else []) if corners else []
        split = [names.index(name) for name in SPLIT if name in names][:1]
        skip = [names.index(name) for name in (_LIKENESS,) if name in names]
        group = [names.index(name) for name in (_GROUP,) if name in names]
        return {"image": [image], "corners": [names.index(c) for c in corners], "label": label, "sized": sized,
                "header": [1], "split": split, "skip": skip, "group": group, "shares": []} if corners else None  # fmt: skip
    told = next((line for line in lines if any(line[1:])), first)  # `image,,,,,` tells nothing
    kinds = ["i" if _is_image(field) else "n" if _is_number(field) else "s" for field in told]
    rows = {"snninn": (3, [1, 2], [0], []), "snnnninn": (5, [1, 2, 3, 4], [0], [1]), "inn": (0, [1, 2], [], []),
            "innnns": (0, [1, 2, 3, 4], [5], []), "inns": (0, [1, 2], [3], [])}  # fmt: skip
    automl = "".join(kinds) in _AUTOML
    found = (1, [3, 4, 7, 8], [2], []) if automl else rows.get("".join(kinds))
    if found is None:
        return None
    return {"image": [found[0]], "corners": found[1], "label": found[2], "sized": found[3], "header": [],
            "split": [0] * automl, "skip": [], "group": [], "shares": [1] * automl}  # fmt: skip


def _delimiter(path: Path) -> str:
    """Spreadsheets of many countries write semicolons."""
    first = "".join(peek_lines(path, 1))
    return next((mark for mark in ",;\t" if mark in first), ",")


def is_heads_csv(path: Path) -> bool:
    """Whether a CSV file has one head a line."""
    columns = _columns(path)
    return columns is not None and bool(columns["header"] or path.suffix.lower() == ".csv")


def _marks(fields: list[str], sized: bool) -> list[list[float]]:
    """Points or boxes of a line; several of a field like "1 2 3 4;5 6 7 8", none of "no_box". Raises ValueError."""
    if not any(field.strip() for field in fields):
        return []
    if len(fields) > 1:
        boxes = [[float(field) for field in fields]]
    else:
        parts = [part.strip(" []()") for part in fields[0].split(";")]
        boxes = [[float(n) for n in re.split(r"[\s,]+", part)] for part in parts if part and part != "no_box"]
        if any(len(box) != 4 for box in boxes):
            raise ValueError
    return [[x, y, x + size[0], y + size[1]] if sized else [x, y, *size] for x, y, *size in boxes]


def _of_pictures(shapes: dict[str, list[Shape]]) -> bool:
    """Whether the sizes beside corners [x, y] are those of the pictures, not of boxes."""
    corners = [shape.corners for mine in shapes.values() for shape in mine]
    sizes = {(x1 - x0, y1 - y0) for x0, y0, x1, y1 in corners}
    places = {(x0, y0) for x0, y0, _, _ in corners}
    return len(sizes) == 1 and len(places) > 2 and all(x < w and y < h for x, y in places for w, h in sizes)


def _rows(path: Path) -> Iterator[Labelled]:
    where = _columns(path)
    assert where is not None
    pictures, shapes = Pictures(picture_root(path)), dict[str, list[Shape]]()
    split, splits = split_of_file(path), dict[str, str]()
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=_delimiter(path))
    for number, row in enumerate(lines, 1):
        if not row or (number == 1 and where["header"]):
            continue
        try:
            marks = _marks([row[i] for i in where["corners"]], bool(where["sized"]))
            name = row[where["image"][0]].strip()
            mine = shapes.setdefault(name, [])
            splits[name] = (split_of(row[where["split"][0]]) if where["split"] else None) or split
            label = row[where["label"][0]].strip() if where["label"] else ""
            if not any(row[i].strip() == "1" for i in where["skip"]):
                group = any(row[i].strip() == "1" for i in where["group"])
                mine += [Shape(_OPEN_IMAGES.get(label, label), corners, group) for corners in marks]
        except (ValueError, IndexError):
            reason = BadFile(path, f"line {number} is not as the first: {','.join(row)[:60]}")
            yield Labelled(split, f"line {number}", path, path, reason)
    if where["sized"] and len(where["corners"]) == 4 and _of_pictures(shapes):
        shapes = {name: [shape._replace(corners=shape.corners[:2]) for shape in mine] for name, mine in shapes.items()}
    for name, mine in shapes.items():
        yield Labelled(splits[name], name, pictures.find(name, splits[name]), path, mine)


def _recognise(root: Path) -> bool:
    return any(is_heads_csv(path) for path in annotation_files(root, *SUFFIXES))


def _entries(root: Path) -> Iterator[Entry]:
    found = [path for path in annotation_files(root, *SUFFIXES) if is_heads_csv(path)]
    rows = [row for path in found for row in _rows(path)]
    shares = any(columns["shares"] for path in found if (columns := _columns(path)))
    yield from from_shapes(rows, fractions=shares)
    yield from others(picture_root(found[0]), rows) if found else ()


LAYOUT = Layout(
    "csv-heads", _recognise, _entries, upright_points=True, says="width and height belong to a corner, the top left one"
)
