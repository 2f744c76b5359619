"""Areas in which people are not marked one by one: no head is counted for them, and they are neither trained on nor counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
import scipy.io

from dkpnet_ext.data import load_domains
from dkpnet_ext.data.readers import read_domain
from dkpnet_ext.data.readers.coco import rle_outline
from dkpnet_ext.data.regions import OUTSIDE, region_mask

SIZE = (320, 240)
ONE, TWO = (60, 50, 20, 30), (240, 180, 20, 30)  # x, y, width, height of the boxes of two people
GROUP = (40, 40, 100, 80)  # the first stands in front of it
WITHIN = [(45, 45), (130, 110), (100, 100)]  # places (x, y) in the group, beside the first person


def _corners(box: tuple[int, ...]) -> list[int]:
    x, y, w, h = box
    return [x, y, x + w, y + h]


def _ring(box: tuple[int, ...]) -> list[list[int]]:
    x0, y0, x1, y1 = _corners(box)
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def _write(root: Path, image: str, file: str, content: object) -> None:
    layouts.picture(root / image, SIZE)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(content if isinstance(content, str) else json.dumps(content))


def _runs() -> list[int]:
    """The group as COCO's run lengths."""
    mask = np.zeros(SIZE[::-1], bool)
    mask[GROUP[1] : GROUP[1] + GROUP[3], GROUP[0] : GROUP[0] + GROUP[2]] = True
    flat = mask.T.ravel()
    return np.diff([0, *(np.flatnonzero(np.diff(flat.astype(int))) + 1), flat.size]).tolist()


def _packed(counts: list[int]) -> str:
    """Written from the description of COCO's masks: five bits a letter, differences from the third on."""
    text = ""
    for i, count in enumerate(counts):
        number, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr((bits | 32 * more) + 48)
    return text


def _coco(mark: dict[str, object]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        marks = [{"image_id": 1, "category_id": 1, "bbox": box} for box in (ONE, TWO)]
        marks.append({"image_id": 1, "category_id": 1, "bbox": GROUP} | mark)
        marks.append({"image_id": 1, "category_id": 2, "bbox": [200, 10, 90, 90], "iscrowd": 1})  # of another class
        categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "sheep"}]
        images = [{"id": 1, "file_name": "1.jpg", "width": SIZE[0], "height": SIZE[1]}]
        _write(root, "1.jpg", "train.json", {"images": images, "annotations": marks, "categories": categories})

    return write


def _coco_keypoints(root: Path) -> None:
    """The point is the mean of the face, so that the place that is kept is that of the box."""
    marks = [
        {"image_id": 1, "category_id": 1, "bbox": (x, y, w, h), "keypoints": [x + w // 2, y, 2], "num_keypoints": 1}
        for x, y, w, h in (ONE, TWO)
    ]
    marks.append({"image_id": 1, "category_id": 1, "bbox": GROUP, "iscrowd": 1, "keypoints": [0, 0, 0]})
    categories = [{"id": 1, "name": "person", "keypoints": ["nose"]}]
    _write(
        root,
        "1.jpg",
        "train.json",
        {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": marks, "categories": categories},
    )


def _open_images(root: Path) -> None:
    rows = ["ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf,IsDepiction"]
    for box, group in ((ONE, 0), (TWO, 0), (GROUP, 1)):
        x0, y0, x1, y1 = _corners(box)
        rows.append(f"1,/m/01g317,{x0 / 320},{x1 / 320},{y0 / 240},{y1 / 240},{group},0")
    _write(root, "train/1.jpg", "train-annotations-bbox.csv", "\n".join(rows) + "\n")


def _datumaro(root: Path) -> None:
    marks = [
        {"type": "bbox", "label_id": 0, "attributes": {"is_crowd": box is GROUP}, "bbox": box}
        for box in (ONE, TWO, GROUP)
    ]
    content = {
        "categories": {"label": {"labels": [{"name": "person"}]}},
        "items": [{"id": "1", "annotations": marks, "image": {"path": "1.jpg"}}],
    }
    _write(root, "images/1.jpg", "annotations/default.json", content)


def _bdd100k(root: Path) -> None:
    marks = [
        {
            "category": "person",
            "attributes": {"crowd": box is GROUP},
            "box2d": dict(zip(("x1", "y1", "x2", "y2"), _corners(box), strict=True)),
        }
        for box in (ONE, TWO, GROUP)
    ]
    _write(root, "1.jpg", "labels/det_train.json", [{"name": "1.jpg", "labels": marks}])


def _crowdhuman(root: Path) -> None:
    """A head's box has a third of the person's height."""
    people = [{"tag": "person", "hbox": (x, y, w, h // 3), "fbox": (x, y, w, h)} for x, y, w, h in (ONE, TWO)]
    boxes = [*people, {"tag": "mask", "hbox": [1, 1, 2, 2], "fbox": GROUP, "extra": {"ignore": 1}}]
    _write(root, "Images/1.jpg", "annotation_train.odgt", json.dumps({"ID": "1", "gtboxes": boxes}))


def _wider_person(root: Path) -> None:
    lines = [" ".join(map(str, [kind, *_corners(box)])) for kind, box in ((1, ONE), (2, TWO), (5, GROUP))]
    _write(root, "Images/1.jpg", "Annotations/1.jpg.txt", "\n".join(["3", *lines]))


def _kitti(root: Path) -> None:
    rest = "-1 -1 -1 -1000 -1000 -1000 -10"
    rows = [("Pedestrian", ONE), ("Pedestrian", TWO), ("DontCare", GROUP)]
    lines = [f"{label} -1 -1 -10 {' '.join(map(str, _corners(box)))} {rest}\n" for label, box in rows]
    _write(root, "training/image_2/1.png", "training/label_2/1.txt", "".join(lines))


def _mot20(root: Path) -> None:
    rows = [(ONE, 1, 1), (TWO, 1, 1), (GROUP, 0, 13)]
    lines = [f"1,{i},{','.join(map(str, box))},{flag},{kind},1\n" for i, (box, flag, kind) in enumerate(rows)]
    _write(root, "train/MOT20-01/img1/000001.jpg", "train/MOT20-01/gt/gt.txt", "".join(lines))


def _eurocity(root: Path) -> None:
    names = ("x0", "y0", "x1", "y1")
    rows = [("pedestrian", ONE), ("pedestrian", TWO), ("person-group-far-away", GROUP)]
    marks = [
        {"identity": kind, "tags": [], "children": []} | dict(zip(names, _corners(box), strict=True))
        for kind, box in rows
    ]
    _write(root, "img/1.png", "labels/1.json", {"identity": "frame", "children": marks, "tags": []})


def _cityscapes(root: Path) -> None:
    rows = [("person", ONE), ("rider", TWO), ("persongroup", GROUP)]
    marks = [{"label": label, "polygon": _ring(box)} for label, box in rows]
    content = {"imgHeight": 240, "imgWidth": 320, "objects": marks}
    _write(root, "leftImg8bit/train/ulm/u_0_leftImg8bit.png", "gtFine/train/ulm/u_0_gtFine_polygons.json", content)


def _wider_face(root: Path) -> None:
    """Faces, of which the point is the centre."""
    lines = [f"{' '.join(map(str, box))} 0 0 0 {int(box is GROUP)} 0 0\n" for box in (ONE, TWO, GROUP)]
    _write(
        root,
        "WIDER_train/images/0--Parade/1.jpg",
        "wider_face_split/wider_face_train_bbx_gt.txt",
        "0--Parade/1.jpg\n3\n" + "".join(lines),
    )


def _labelme(root: Path) -> None:
    """A polygon whose lower right corner is left open: there nothing is ignored."""
    shapes = [{"label": "person", "shape_type": "polygon", "points": _ring(box)} for box in (ONE, TWO)]
    corners = [[40, 40], [140, 40], [140, 119], [139, 120], [40, 120]]
    shapes.append({"label": "ignore", "shape_type": "polygon", "points": corners})
    _write(root, "1.jpg", "1.json", {"shapes": shapes, "imagePath": "1.jpg"})


def _yolo(root: Path) -> None:
    lines = [
        f"{kind} {(x + w / 2) / 320} {(y + h / 2) / 240} {w / 320} {h / 240}\n"
        for kind, (x, y, w, h) in ((0, ONE), (0, TWO), (1, GROUP))
    ]
    _write(root, "images/1.jpg", "labels/1.txt", "".join(lines))
    (root / "data.yaml").write_text("names: [person, crowd]\n")


def _cvat_xml(value: str) -> Callable[[Path], None]:
    """An attribute of the box; of the others it is not set."""

    def write(root: Path) -> None:
        names = ("xtl", "ytl", "xbr", "ybr")
        marks = ""
        for box in (ONE, TWO, GROUP):
            corners = " ".join(f'{name}="{place}"' for name, place in zip(names, _corners(box), strict=True))
            told = value if box is GROUP else "false"
            marks += f'<box label="person" {corners}><attribute name="iscrowd">{told}</attribute></box>'
        _write(root, "1.jpg", "annotations.xml", f'<annotations>\n<image name="1.jpg">{marks}</image></annotations>')

    return write


def _cvat_backup(root: Path) -> None:
    shapes = [
        {"frame": 0, "label": "person", "type": "rectangle", "points": _corners(box),
         "attributes": [{"name": "crowd", "value": "true" if box is GROUP else "false"}]}
        for box in (ONE, TWO, GROUP)
    ]  # fmt: skip
    _write(root, "data/1.jpg", "annotations.json", [{"shapes": shapes, "tracks": []}])
    (root / "data" / "manifest.jsonl").write_text('{"version": "1.1"}\n{"name": "1", "extension": ".jpg"}\n')


def _caltech(root: Path) -> None:
    rows = [("person", ONE), ("person", TWO), ("people", GROUP)]
    lines = [f"{label} {' '.join(map(str, box))} 0 0 0 0 0 0 0\n" for label, box in rows]
    _write(root, "train/images/1.jpg", "train/annotations/1.txt", "% bbGt version=3\n" + "".join(lines))


def _city_persons(root: Path) -> None:
    cell = np.empty((1, 1), object)
    rows = [[kind, *box, 1, *box] for kind, box in ((1, ONE), (2, TWO), (5, GROUP))]
    cell[0, 0] = {"cityname": "ulm", "im_name": "u.png", "bbs": np.array(rows, np.float64)}
    layouts.picture(root / "images" / "train" / "u.png", SIZE)
    (root / "annotations").mkdir()
    scipy.io.savemat(root / "annotations" / "anno_train.mat", {"anno_train_aligned": cell})


AREAS = {
    "coco, box": _coco({"iscrowd": 1}),
    "coco, run lengths": _coco({"iscrowd": 1, "segmentation": {"counts": _runs(), "size": [240, 320]}}),
    "coco, packed run lengths": _coco({"iscrowd": 1, "segmentation": {"counts": _packed(_runs()), "size": [240, 320]}}),
    "coco, polygon": _coco({"iscrowd": 1, "segmentation": [[number for corner in _ring(GROUP) for number in corner]]}),
    "coco, ignore": _coco({"ignore": 1}),
    "coco, keypoints": _coco_keypoints,
    "csv-heads of Open Images": _open_images,
    "cvat datumaro": _datumaro,
    "cvat, a checkbox": _cvat_xml("true"),
    "cvat, a number": _cvat_xml("1"),
    "cvat, backup": _cvat_backup,
    "text-boxes of Caltech": _caltech,
    "citypersons": _city_persons,
    "json-pictures of BDD100K": _bdd100k,
    "crowdhuman": _crowdhuman,
    "widerperson": _wider_person,
    "text-boxes of KITTI": _kitti,
    "mot, class 13": _mot20,
    "json-each of EuroCity Persons": _eurocity,
    "json-each of Cityscapes": _cityscapes,
    "text-pictures of WIDER FACE": _wider_face,
    "labelme": _labelme,
    "yolo, a class crowd": _yolo,
}  # fmt: skip


@pytest.mark.parametrize("case", AREAS)
def test_a_group_is_no_head_and_is_painted_out(case, tmp_path):
    """Who is marked singly is counted, in front of a group, too, and seen: everybody else in the group is not."""
    AREAS[case](tmp_path / "data")
    records, report = read_domain("X", tmp_path / "data", progress=False)
    assert report.bad == [] and report.layout == case.replace(",", " ").split()[0]
    (record,) = records["train"]
    height = 5 if case == "crowdhuman" else 15 if "FACE" in case else 0  # to the box's centre
    assert np.allclose(sorted(record.points.tolist()), [[70, 50 + height], [250, 180 + height]])
    mask = region_mask(record.region, record.size, record.size)
    assert not any(mask[y, x] for x, y in WITHIN)
    assert mask[52, 62] and mask[52, 78] and mask[20, 210] and mask[200, 250] and mask[130, 100]
    assert "  groups of people, painted out but for who is marked singly: 1\n" in f"{report}\n"
    assert not report.left & {"crowd", "ignore", "person group"}


def test_the_cached_picture_has_no_group(tmp_path):
    _coco({"iscrowd": 1})(tmp_path / "data")
    (domain,) = load_domains([f"X={tmp_path / 'data'}"], cache=tmp_path / "cache", min_side=120, progress=False)
    pixels = domain.train[0].read()
    assert (pixels[100:120, 40:140] == OUTSIDE).all() and domain.train[0].count == 2
    assert not (pixels[50:80, 60:80] == OUTSIDE).all(axis=2).any()


def test_who_stands_in_an_ignored_region_is_not_counted(tmp_path):
    """As VisDrone's region of category 0 is: nobody is marked reliably in it."""
    lines = [f"{x},{y},{w},{h},1,{kind},0,0\n" for (x, y, w, h), kind in ((ONE, 1), (TWO, 1), (GROUP, 0))]
    _write(tmp_path, "images/1.jpg", "annotations/1.txt", "".join(lines))
    records, report = read_domain("X", tmp_path, progress=False)
    assert records["train"][0].points.tolist() == [[250, 195]]
    assert report.notes["heads outside the region of interest, left out"] == ["train/1.jpg"]
    assert "  areas marked to be ignored, painted out with who stands in them: 1\n" in f"{report}\n"


def test_an_area_without_an_extent_is_said(tmp_path):
    shapes = [{"label": label, "shape_type": "point", "points": [[9, 9]]} for label in ("head", "crowd", "crowd")]
    _write(tmp_path, "1.jpg", "1.json", {"shapes": shapes, "imagePath": "1.jpg"})
    records, report = read_domain("X", tmp_path, progress=False)
    assert len(records["train"][0].points) == 1 and records["train"][0].region is None
    assert "  groups or ignored areas without an extent, in whose place nobody is counted: 2\n" in f"{report}\n"


def test_an_area_beyond_all_pictures(tmp_path):
    """Of numbers that a damaged file holds, too."""
    _coco({"iscrowd": 1, "bbox": [-1e308, 40, 1e308, 80]})(tmp_path / "data")
    _coco({"iscrowd": 1, "segmentation": [[-1e308, -1e308, 1e308, -1e308, 0, 120]]})(tmp_path / "ring")
    for name in ("data", "ring"):
        (record,) = read_domain("X", tmp_path / name, progress=False)[0]["train"]
        assert record.region is not None and region_mask(record.region, record.size, record.size)[200, 310]


def test_a_turned_picture(tmp_path):
    """COCO's boxes are in the upright picture, VisDrone's on the stored pixels: the region goes with them."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    lines = [f"{x},{y},{w},{h},1,{kind},0,0\n" for (x, y, w, h), kind in ((TWO, 1), (GROUP, 0))]
    _write(tmp_path, "images/1.jpg", "annotations/1.txt", "".join(lines))
    layouts.picture(tmp_path / "images/1.jpg", SIZE, exif=exif)
    (record,) = read_domain("X", tmp_path, progress=False)[0]["train"]
    mask = region_mask(record.region, record.size, record.size)
    assert record.size == (320, 240)
    assert not mask[42:138, 122:197].any() and mask[:38].all() and mask[142:].all() and mask[:, 202:].all()


def test_outline_of_run_lengths():
    """Every pixel of the mask is inside, and of what is not, only what is between its rows of eight columns."""
    mask = np.zeros((60, 80), bool)
    mask[10:30, 3:21] = True
    mask[40:50, 50:77] = True
    flat = mask.T.ravel()
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat.astype(int))) + 1), flat.size]).tolist()
    region = np.concatenate([[[np.nan, np.nan]], rle_outline(counts, 60, 80)])
    inside = ~region_mask(region, mask.shape, mask.shape)
    assert rle_outline(counts, 60, 80) == rle_outline(_packed(counts), 60, 80)
    assert (inside >= mask).all() and not inside[:, 24:48].any() and not inside[30:40].any()
    assert len(rle_outline([60 * 80], 60, 80)) == 0
    for size, runs in (((0, 80), [1]), ((60, 10**12), [1]), ((60, 80), "o" * 10**6)):
        with pytest.raises(ValueError):
            rle_outline(runs, *size)
