"""The layouts of labelling tools and of public sets: recognised from the folder, every head in its place."""

from __future__ import annotations

import json
from pathlib import Path

import exports
import followers
import foreign
import layouts
import numpy as np
import public_sets
import pytest
import scipy.io
import variants
from PIL import Image

from dkpnet_ext.data import load_domains
from dkpnet_ext.data.readers import LAYOUTS, find_layout, read_domain
from dkpnet_ext.data.regions import OUTSIDE
from dkpnet_ext.errors import UserError

CASES = {
    "labelme": foreign.labelme,
    "labelme in two folders": foreign.labelme_apart,
    "coco": foreign.coco_boxes,
    "coco keypoints": foreign.coco_keypoints,
    "coco of Roboflow": foreign.roboflow,
    "voc": foreign.voc,
    "cvat": foreign.cvat_xml,
    "cvat backup": foreign.cvat_backup,
    "cvat datumaro": foreign.datumaro,
    "via": foreign.via_project,
    "via CSV": foreign.via_csv,
    "via FDST": foreign.fdst,
    "label-studio": foreign.label_studio,
    "label-studio JSON-MIN": foreign.label_studio_min,
    "yolo": foreign.yolo,
    "yolo of Roboflow": foreign.roboflow_yolo,
    "yolo darknet": foreign.darknet,
    "cclabeler": foreign.cclabeler,
    "csv-heads points": foreign.makesense_points,
    "csv-heads boxes": foreign.boxes_csv,
    "list of any name": foreign.list_of_any_name,
    "list JSON Lines": foreign.json_lines,
    "list JSON dictionary": foreign.json_dictionary,
    "csv-heads semicolons": foreign.semicolons,
    "beside, text in gt": foreign.text_folders,
    "yolo with lists of images": foreign.yolo_with_lists,
    "via in two folders": foreign.via_folders,
    "shanghaitech without GT_": foreign.shanghaitech_like,
    "shanghaitech in train and test": foreign.shanghaitech_folders,
    "shanghaitech two folders deep": foreign.shanghaitech_deep,
    "path-list of CSRNet": foreign.path_lists,
    "path-list of P2PNet": foreign.p2pnet,
    "ucf-qnrf in folders": foreign.qnrf_folders,
    "ucf-qnrf in lower case": foreign.qnrf_lower,
    "beside, npy": foreign.npy_beside,
    "beside, mat": foreign.own_mats,
    "mall": foreign.mall,
    "ucsd": foreign.ucsd,
    "ucsd fgt": foreign.ucsd_nested,
    "worldexpo": foreign.worldexpo,
    "rgbt-cc": foreign.rgbt_cc,
    "fsc-147": foreign.fsc147,
    "visdrone": foreign.visdrone,
    "visdrone DroneCrowd": foreign.dronecrowd,
    "carpk": foreign.carpk,
    "crowdhuman": foreign.crowdhuman,
    "mot": foreign.mot,
    "mot of heads": foreign.head_tracking,
    "dot-images": foreign.dot_images,
    "dot-images in a folder": foreign.dots_folder,
    "supervisely": exports.supervisely,
    "json-each of Darwin": exports.darwin,
    "json-each of SuperAnnotate": exports.superannotate,
    "json-each GeoJSON": exports.geojson,
    "json-each in train and test": exports.points_apart,
    **{f"json-pictures {name}": write for name, write in exports.JSON_PICTURES.items()},
    **{f"text-pictures {name}": write for name, write in exports.TEXT_PICTURES.items()},
    "csv-heads Image Name": exports.csv_columns("Image Name", "X Coordinate", "Y Coordinate"),
    "csv-heads head_x": exports.csv_columns("img_id", "head_x", "head_y"),
    "csv-heads col, row": exports.csv_columns("file", "col", "row"),
    "csv-heads tabs": exports.csv_columns("image", "x", "y", "\t", "points.tsv"),
    "csv-heads text with tabs": exports.csv_columns("ImageID", "X", "Y", "\t", "points.txt"),
    "csv-heads with split": exports.csv_with_split,
    "csv-heads of Open Images": exports.open_images,
    "csv-heads of GWHD": exports.boxes_string,
    "csv-heads with a column bbox": exports.bbox_column,
    "beside, napari": exports.napari,
    "label-studio CSV": exports.label_studio_csv,
    "voc of LabelMe's first form": exports.labelme_xml,
    "json-each of EuroCity Persons": exports.eurocity,
    "imglab": exports.imglab,
    "text-pictures of Brainwash": exports.brainwash,
    "widerperson": exports.wider_person,
    "vscrowd": exports.vscrowd,
    "yolo with confidence": exports.yolo_lines(lambda x, y: f"0 {x} {y} 0.05 0.1 0.93"),
    "yolo with keypoints": exports.yolo_lines(lambda x, y: f"0 {x} {y} 0.05 0.1 {x} {y} 2"),
    "yolo with one keypoint off the box's centre": exports.yolo_lines(
        lambda x, y: f"0 {x * 0.9 + 0.05} {y * 0.9 + 0.05} 0.05 0.1 {x} {y} 2"
    ),
    "yolo polygons": exports.yolo_lines(
        lambda x, y: f"0 {x - 0.01} {y - 0.02} {x + 0.01} {y - 0.02} {x + 0.01} {y + 0.02} {x - 0.01} {y + 0.02}"
    ),
    "nwpu with labelled test": exports.processed,
    "beside, ShanghaiTechRGBD": exports.rgbd,
    "beside, npz": exports.npz_beside,
    "beside, ImageJ": exports.imagej,
    "beside, ImageJ's Cell Counter": exports.cell_counter,
    "beside, text below its number": exports.counted_text,
    "beside, mat of one variable": exports.own_variable,
    "cvat of a video": exports.cvat_video,
    "list of tuples": exports.tuples,
    "list without folders": exports.list_without_folder,
    **variants.CASES,
    **followers.CASES,
    **public_sets.CASES,
}


@pytest.mark.parametrize("case", CASES)
def test_layout(case, tmp_path):
    expected = CASES[case](tmp_path / "data")
    (tmp_path / "data" / "Thumbs.db").write_bytes(b"junk")
    (tmp_path / "data" / "._1.jpg").write_bytes(b"\0\5\26\7")
    records, report = read_domain("X", tmp_path / "data", progress=False)
    assert report.bad == []
    assert report.layout == case.replace(",", " ").split()[0]
    found = {split: {record.name: record.points for record in rows} for split, rows in records.items() if rows}
    found.pop("unlabelled", None)
    assert {split: sorted(rows) for split, rows in found.items()} == {s: sorted(rows) for s, rows in expected.items()}
    for split, rows in expected.items():
        for name, points in rows.items():
            np.testing.assert_allclose(_sorted(found[split][name]), _sorted(points), atol=2e-4, err_msg=name)


def _sorted(points) -> np.ndarray:
    points = np.array(points, float).reshape(-1, 2)
    return points[np.lexsort(points.round(2).T)]


def test_what_was_guessed_is_said(tmp_path):
    foreign.coco_boxes(tmp_path)
    text = str(read_domain("X", tmp_path, progress=False)[1])
    assert text.startswith(f"X: layout coco in {tmp_path}, 4 pictures, 9 boxes -> centres\n")
    assert "  counted as heads: head\n" in text
    variants.open_images(tmp_path / "kinds")
    text = str(read_domain("X", tmp_path / "kinds", progress=False)[1])
    assert "  counted as heads: human head\n  not counted: 2 (/m/07j7r, face)\n" in text
    foreign.mot(tmp_path / "mot")
    assert "boxes -> top-centres" in str(read_domain("X", tmp_path / "mot", progress=False)[1])


@pytest.mark.parametrize(
    "write",
    [
        *(foreign.coco_boxes, foreign.cvat_xml, foreign.via_project, foreign.json_lines),
        *(
            exports.JSON_PICTURES["of CreateML"],
            exports.JSON_PICTURES["of Labelbox"],
            variants.JSON_PICTURES["of Scale"],
        ),
        followers.CASES["json-pictures of OpenLABEL"],
    ],
)
def test_an_annotation_file_by_its_own_name(write, tmp_path):
    write(tmp_path)
    path = next(
        p
        for p in sorted(tmp_path.rglob("*"))
        if p.suffix in (".json", ".xml", ".jsonl", ".ndjson") and "train" in p.stem + "train"
    )
    records, report = read_domain("X", path, progress=False)
    assert report.bad == [] and sum(map(len, records.values())) > 0


def test_unlabelled_pictures_are_told_apart(tmp_path):
    foreign.labelme(tmp_path)
    records, report = read_domain("X", tmp_path, progress=False)
    assert report.notes["without an annotation, left out"] == ["unlabelled.jpg"]
    assert records["unlabelled"] == []


def test_region_of_interest_in_the_cache(tmp_path):
    """Outside the region nobody is counted, and nothing is seen: the cached pixels there have one colour."""
    foreign.worldexpo(tmp_path / "data")
    (domain,) = load_domains([f"X={tmp_path / 'data'}"], cache=tmp_path / "cache", min_side=120, progress=False)
    item = domain.train[0]
    pixels = item.read()
    assert item.count == 3
    assert (pixels[:25] == OUTSIDE).all()
    source = np.asarray(Image.open(item.source).convert("RGB"))
    assert np.array_equal(pixels[25:], source[25:])
    assert domain.report.notes["heads outside the region of interest, left out"] == ["train/200608_C08-01.jpg"]


def test_a_region_of_another_size(tmp_path):
    foreign.mall(tmp_path)
    layouts.picture(tmp_path / "frames/seq_000001.jpg", (300, 200))
    _, report = read_domain("X", tmp_path, progress=False)
    assert report.bad == [(tmp_path / "frames/seq_000001.jpg", "it has 300x200 px, its region of interest 320x240")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": None, "a.h5": b"x"}, "it holds density maps, not points"),
        (
            {"train_data/images/a.jpg": None, "train_data/gt_fidt_map/a.h5": b"x", "test_data/images/b.jpg": None},
            "it holds density maps, not points",
        ),
        (
            {
                "scene_01_0/pngs_544_960/a.png": None,
                "scene_01_0/csv_den_maps_k15_s4_544_960/a.csv": b"0,0,0.1,0,0,0\n",
                "txt_list/train_list.txt": b"2 14 1 /scene_01_0 a 3\n",
            },
            "it holds density maps, not points",
        ),
        ({"s/pngs_544_960/a.png": None, "s/den_maps_k15_s4_544_960/a.mat": b"x"}, "it holds density maps, not points"),
        ({"images/a.jpg": None, "density_maps/train/a.mat": b"x"}, "it holds density maps, not points"),
        ({"images/a.jpg": None, "masks/a.png": None}, "it holds masks, not points"),
        ({"a.jpg": None, "counts.csv": b"image,count\na.jpg,3\n"}, "it holds counts, not points"),
        ({"a.jpg": None, "train.parquet": b"PAR1"}, ".parquet is not read, write it as CSV or JSON"),
        ({"a.jpg": None, "a.csv": b"0.0,0.1,0.0,0.0,0.2\n"}, "it holds density maps, not points"),
        ({"a.jpg": None, "a.json": b'{"labels": ["crowd"]}'}, "it holds 1 .jpg, 1 .json. Known: "),
        (
            {"a.jpg": None, "b.json": b'[{"id": 1, "verdict": "{}", "picture": "a.jpg"}]'},
            "b.json is of no known tool (its keys: id, verdict, picture), export COCO or CVAT XML from there; it holds 1 .jpg",
        ),
        ({"a.jpg": None, "notes.doc": b"x"}, "it holds 1 .jpg, 1 .doc. Known: shanghaitech, "),
    ],
)
def test_folders_without_points(files, message, tmp_path):
    for name, content in files.items():
        if content is None:
            layouts.picture(tmp_path / name)
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        find_layout(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and "train.csv with the columns image,points" in str(error.value)


def test_density_maps_as_npy(tmp_path):
    layouts.picture(tmp_path / "a.jpg")
    np.save(tmp_path / "a.npy", np.zeros((48, 64), np.float32))
    _, report = read_domain("X", tmp_path, progress=False)
    assert report.bad == [(tmp_path / "a.npy", "48x64 values are a density map, not points")]


def test_every_layout_has_a_case():
    assert {case.replace(",", " ").split()[0] for case in CASES} | {
        "beijing-brt", "jhu-crowd", "nwpu", "ucf-cc-50",  # in test_readers.py
    } == set(LAYOUTS)  # fmt: skip


@pytest.mark.parametrize(
    ("write", "file", "content", "reason"),
    [
        (exports.supervisely, "ds/ann/1.jpg.json", '{"objects": [{}]}', "objects with classTitle, geometryType and points"),
        (exports.supervisely, "ds/ann/1.jpg.json", "[", "not a JSON file"),
        (exports.darwin, "releases/latest/annotations/1.json", '{"item": {"name": "1.jpg"}, "annotations": [3]}', "its marks"),
        (exports.points_apart, "train/json/1.json", '{"points": [["a", "b"]]}', "coordinates are not 2 or 4 numbers"),
        (exports.geojson, "1.geojson", '{"type": "FeatureCollection", "features": [{"geometry": null}]}', "its marks"),
        (exports.JSON_PICTURES["of BDD100K"], "labels/det_train.json",
         '[{"name": "1.jpg", "labels": []}, {"name": "2.jpg", "labels": [{"box2d": {"x1": 2}}]}]', "picture 1 has a mark"),
        (exports.JSON_PICTURES["of BDD100K"], "labels/det_train.json",
         '[{"name": "1.jpg", "labels": []}, {"name": 3}]', "picture 1 has no name and marks"),
        (exports.TEXT_PICTURES["localisation"], "train_gt_loc.txt", "1.jpg 2 5 5 4 6 1\n", "a line of it is not as the first"),
        (followers.CASES["json-pictures of LabelU"], "task-1.json",
         '[{"result": "{\\"rotate\\": 90, \\"annotations\\": []}", "fileName": "1.jpg"}]', "picture 0 was turned by 90 degrees"),
        (followers.CASES["json-pictures of LabelU"], "task-1.json",
         '[{"fileName": "1.jpg", "result": {"lineTool": {"toolName": "lineTool", "result": [{}]}}}]', "marked neither"),
        (public_sets.caltech, "train/annotations/set00_V000_I01.txt", "% bbGt version=3\nperson 1 2 3 4\n", "no label with a box"),
        (exports.npz_beside, "1.npz", "no archive", "not a NumPy file"),
        (exports.counted_text, "1.txt", "5\n1 2\n", "5"),
        (exports.own_variable, "gt/1.mat", "text", "not a readable .mat file"),
        (variants.kitti, "training/label_2/1.txt", "Human head 1 2 3 4\n" * 3 + "Car 1\n", "no label with a box in pixels"),
        (variants.cvat_skeletons, "annotations.xml",
         '<annotations><image name="1.jpg"><polyline label="head" points="1,2;3,4"/></image></annotations>', "marked neither"),
        (exports.supervisely, "ds/ann/1.jpg.json",
         '{"objects": [{"classTitle": "head", "geometryType": "bitmap", "bitmap": {}}]}', "marked neither by a point"),
        (variants.label_studio_shapes, "project-1.json",
         '[{"image": "1.jpg", "annotator": 1, "annotation_id": 1, "a": [{"rle": [1], "brushlabels": ["head"]}]}]', "marked"),
        (variants.superannotate_shapes, "1.jpg.json",
         '{"metadata": {"name": "1.jpg"}, "instances": [{"className": "head", "type": "ellipse"}]}', "marked neither"),
    ],
)  # fmt: skip
def test_broken_exports(write, file, content, reason, tmp_path):
    write(tmp_path)
    (tmp_path / file).write_text(content)
    _, report = read_domain("X", tmp_path, progress=False)
    assert len(report.bad) >= 1 and reason in report.bad[0][1] and "\n" not in report.bad[0][1]


UNSEEN = {
    "Label Studio": ("a.json", [{"data": {"image": "1.jpg"}, "annotations": []}]),
    "Labelbox": ("a.ndjson", {"data_row": {"external_id": "1.jpg"}, "projects": {"p": {"labels": []}}}),
    "VoTT": ("a.json", {"assets": {"1": {"asset": {"name": "1.jpg", "state": 0}, "regions": []}}}),
    "FiftyOne": ("labels.json", {"classes": ["head"], "labels": {"1": None}}),
    "Scale": ("a.json", [{"params": {"attachment": "1.jpg"}, "status": "pending"}]),
    "SuperAnnotate": ("1.jpg.json", {"metadata": {"name": "1.jpg", "status": "NotStarted"}, "instances": []}),
    "LabelU": ("a.json", [{"id": 1, "result": "{}", "fileName": "1.jpg"}]),
    "TensorFlow": ("a.csv", "filename,xmin,ymin,xmax,ymax\n2.jpg,1,1,5,5\n"),
}


@pytest.mark.parametrize("tool", UNSEEN)
def test_pictures_not_labelled_yet_do_not_count_nobody(tool, tmp_path):
    name, content = UNSEEN[tool]
    for number in "12":
        layouts.picture(tmp_path / f"{number}.jpg")
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    records, report = read_domain("X", tmp_path, progress=False)
    assert report.bad == [] and report.notes["without an annotation, left out"][0].split(".")[0] == "1"
    assert all(record.image.name != "1.jpg" for rows in records.values() for record in rows)


@pytest.mark.parametrize("name", ["labels.csv", "labels.json"])
def test_corners_in_the_place_of_a_size(name, tmp_path):
    """A column or key bbox is a corner and a size; corners there give places outside the picture."""
    found = foreign._pictures(tmp_path, numbers="4")
    boxes = [[x + 200, y + 100, x + 210, y + 110] for x, y in found["4.jpg"]]
    rows = "".join(f'4.jpg,"{box}"\n' for box in boxes)
    listed = json.dumps([{"image": "4.jpg", "objects": [{"bbox": box} for box in boxes]}])
    (tmp_path / name).write_text("image,bbox\n" + rows if name.endswith("csv") else listed)
    _, report = read_domain("X", tmp_path, progress=False)
    assert len(report.bad) == 1 and "are they two corners" in report.bad[0][1]


def test_tracks_of_a_backup_are_refused(tmp_path):
    """CVAT's backup holds their key frames only: the frames between would count nobody."""
    foreign.cvat_backup(tmp_path)
    path = tmp_path / "annotations.json"
    content = json.loads(path.read_text())
    content[0]["tracks"] = [{"frame": 0, "label": "head", "shapes": []}]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a backup of CVAT with tracks, .*: export CVAT for video 1\.1"):
        read_domain("X", tmp_path, progress=False)


def test_a_broken_line_of_zooniverse(tmp_path):
    (tmp_path / "classifications.csv").write_text("annotations,subject_data,workflow_id\n[],{},1\n")
    with pytest.raises(UserError, match="line 2 is not as Zooniverse writes it"):
        read_domain("X", tmp_path, progress=False)


def test_two_coco_files_of_one_picture(tmp_path):
    """Which of them is right cannot be told: neither is taken silently."""
    foreign.coco_boxes(tmp_path)
    source = tmp_path / "annotations" / "instances_train2017.json"
    (source.with_name("corrected_train.json")).write_bytes(source.read_bytes())
    _, report = read_domain("X", tmp_path, progress=False)
    assert [reason for _, reason in report.bad] == [f"{name}.jpg is annotated twice" for name in "134"]


def test_a_label_that_cannot_be_printed(tmp_path):
    layouts.picture(tmp_path / "1.jpg", (320, 240))
    (tmp_path / "1.csv").write_text("label,x,y,image\nhead,5,9,1.jpg\n\0\x0ea,5,9,1.jpg\n")
    text = str(read_domain("X", tmp_path / "1.csv", progress=False)[1])
    assert "not counted: 1" in text and "\0" not in text and "\x0e" not in text


@pytest.mark.parametrize(
    ("folders", "write"), [(("jpgs", "jsons"), foreign.labelme), (("pngs", "mats"), foreign.own_mats)]
)
def test_folders_called_like_those_of_gcc(folders, write, tmp_path):
    """Their files tell that they are not: places are (x, y)."""
    expected = write(tmp_path / "own")["train"]
    for path in [*(tmp_path / "own").iterdir()]:
        folder = tmp_path / "own" / folders[path.suffix in (".json", ".mat")]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name.replace("_ann.mat", ".mat"))
    records, report = read_domain("X", tmp_path, progress=False)
    assert report.layout in ("labelme", "beside") and report.bad == []
    assert sum(len(record.points) for record in records["train"]) == sum(map(len, expected.values()))


def test_vscrowd_begins_without_heads(tmp_path):
    exports.vscrowd(tmp_path)
    for path in (tmp_path / "annotations").glob("*.txt"):
        path.write_text("0000\n" + path.read_text())
    assert read_domain("X", tmp_path, progress=False)[1].layout == "vscrowd"


def test_a_list_does_not_take_another_picture(tmp_path):
    """Of two pictures of one name the one in the named folder is meant, also if it is missing."""
    layouts.picture(tmp_path / "night" / "1.jpg")
    (tmp_path / "train.json").write_text('[{"image": "day/1.jpg", "points": [[1, 2]]}]')
    _, report = read_domain("X", tmp_path, progress=False)
    assert [reason for _, reason in report.bad] == ["no such image"]


def test_sizes_of_head_boxes(tmp_path):
    """Kept where every head has one, for NWPU-Crowd's thresholds; upright, and in the pixels of the cached image."""
    exports.processed(tmp_path / "json")
    foreign.roboflow(tmp_path / "coco")
    foreign.labelme(tmp_path / "points")
    foreign.mot(tmp_path / "persons")
    turned = layouts.nwpu(tmp_path / "mats")
    layouts.picture(turned / "images" / "0001.jpg", exif=_turned())
    points = layouts.POINTS["1"]
    boxes = [[x - 2, y - 3, x + 2, y + 3] for x, y in points]
    scipy.io.savemat(
        turned / "mats" / "0001.mat", {"annPoints": np.array(points, float), "annBoxes": np.array(boxes, float)}
    )
    known = {}
    for name in ("json", "coco", "points", "persons", "mats"):
        records = read_domain("X", tmp_path / name, progress=False)[0]
        known[name] = [record.sizes for rows in records.values() for record in rows if record.points is not None]
    for name in ("json", "coco"):
        assert all((sizes == 10).all() for sizes in known[name]) and sum(map(len, known[name])) > 4
    assert any(sizes is None for sizes in known["points"])
    assert {0 if sizes is None else len(sizes) for sizes in known["persons"]} == {0}
    assert known["mats"][0].tolist() == [[6, 4]] * len(points)
    (domain,) = load_domains([f"X={tmp_path / 'json'}"], cache=tmp_path / "cache", min_side=480, progress=False)
    assert domain.train[0].sizes.tolist() == [[20, 20]] * domain.train[0].count


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_yolos_lists_tell_folders_apart(tmp_path, separator):
    """At commit 4eb5a94 the file's name alone decided: both pictures were val, and lists of Windows said nothing."""
    for camera in "AB":
        layouts.picture(tmp_path / "images" / f"cam{camera}" / "0001.jpg", (320, 240))
        (tmp_path / "labels" / f"cam{camera}").mkdir(parents=True)
        (tmp_path / "labels" / f"cam{camera}" / "0001.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    for split, camera in (("train", "A"), ("val", "B")):
        (tmp_path / f"{split}.txt").write_text(separator.join(["D:", "sets", "images", f"cam{camera}", "0001.jpg"]))
    (tmp_path / "data.yaml").write_text("names: [head]\n")
    records, _ = read_domain("X", tmp_path, progress=False)
    assert {split: [r.name for r in rows] for split, rows in records.items() if rows} == {
        "train": ["camA/0001.jpg"],
        "val": ["camB/0001.jpg"],
    }


def test_a_picture_in_two_of_yolos_lists_is_of_the_last(tmp_path):
    """A train.txt of all pictures is common."""
    exports.yolo_lines(lambda x, y: f"0 {x} {y} 0.05 0.1")(tmp_path)
    (tmp_path / "train.txt").write_text("".join(f"./images/{n}.jpg\n" for n in (1, 2, 3, 4)))
    records, _ = read_domain("X", tmp_path, progress=False)
    assert [record.name for record in records["val"]] == ["2.jpg", "4.jpg"]


@pytest.mark.parametrize("write", [foreign.labelme, foreign.voc, exports.supervisely])
def test_frames_of_two_cameras_share_names(tmp_path, write):
    """At commit 4eb5a94 labels right beside their pictures were refused, or two pictures had one name."""
    for camera in "ab":
        write(tmp_path / "one" if write is exports.supervisely else tmp_path / camera)
        if write is exports.supervisely:
            (tmp_path / "one" / "ds").rename(tmp_path / "one" / camera)
        if write is foreign.voc:  # beside the pictures, as labelImg writes them
            for file in [p for p in (tmp_path / camera).rglob("*") if p.suffix in (".jpg", ".xml")]:
                file.rename(tmp_path / camera / file.name)
    records, report = read_domain("X", tmp_path, progress=False)
    assert report.bad == []
    names = [record.name for rows in records.values() for record in rows if not record.name.endswith("unlabelled.jpg")]
    assert len(names) == len(set(names)) == 8 and {Path(name).parts[0] for name in names} == {"a", "b"}


def test_a_region_of_label_studio_in_parts_is_one_head(tmp_path):
    """Its label and answers about it are elements of their own. At commit 4eb5a94 each was a head."""
    root = tmp_path / "data"
    layouts.picture(root / "1.jpg", (320, 240))
    box = {"x": 10, "y": 10, "width": 10, "height": 20, "rotation": 0}
    result = [
        {"id": "a", "type": "rectangle", "value": box},
        {"id": "a", "type": "labels", "value": {**box, "labels": ["Person"]}},
        {"id": "a", "type": "choices", "value": {**box, "choices": ["standing"]}},
        {"id": "b", "type": "keypointlabels", "value": {"x": 50, "y": 50, "width": 1, "keypointlabels": ["Person"]}},
        {"id": "b", "type": "rating", "value": {"x": 50, "y": 50, "width": 1, "rating": 3}},
        {"id": None, "type": "keypointlabels", "value": {"x": 60, "y": 50, "width": 1, "keypointlabels": ["Person"]}},
        {"id": None, "type": "keypointlabels", "value": {"x": 70, "y": 50, "width": 1, "keypointlabels": ["Person"]}},
    ]
    (root / "export.json").write_text(
        json.dumps([{"data": {"image": "/data/upload/1/1a2b3c4d-1.jpg"}, "annotations": [{"result": result}]}])
    )
    records, _ = read_domain("X", root, progress=False)
    np.testing.assert_allclose(records["train"][0].points, [[48, 24], [160, 120], [192, 120], [224, 120]])


def test_valid_csv_beside_train_csv(tmp_path):
    """docs/data.md promises the name. At commit 4eb5a94 it was dropped without a word."""
    for number, split in enumerate(("train", "valid", "test")):
        layouts.picture(tmp_path / f"{number}.jpg")
        (tmp_path / f"{split}.csv").write_text(f'image,points\n{number}.jpg,"[[1, 2]]"\n')
    for other in ("notes.csv", "train_old.csv", "test_results.csv"):
        (tmp_path / other).write_text("image,points\n0.jpg,[]\n")
    records, report = read_domain("X", tmp_path, progress=False)
    assert report.bad == []
    found = {split: [record.name for record in rows] for split, rows in records.items() if rows}
    assert found == {"train": ["0.jpg"], "val": ["1.jpg"], "test": ["2.jpg"]}


def test_points_of_predict_are_of_the_upright_picture(tmp_path):
    """At commit 4eb5a94 the heads of a phone's photograph were turned once more."""
    image = Image.new("RGB", (200, 100))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned: upright it has 100 x 200 pixels
    image.save(tmp_path / "1.jpg", exif=exif)
    (tmp_path / "1-points.csv").write_text("x,y,score\n80,150,0.9\n20,30,0.5\n")
    records, _ = read_domain("X", tmp_path, progress=False)
    np.testing.assert_allclose(records["train"][0].points, [[80, 150], [20, 30]])


def test_dots_of_two_scenes(tmp_path):
    """At commit 4eb5a94 both scenes' dots were laid on the second one's picture."""
    for number, scene in enumerate(("day1", "day2")):
        layouts.picture(tmp_path / scene / "images" / "1.png", (64, 48))
        dots = np.zeros((48, 64), np.uint8)
        dots[20, 10 + 40 * number] = 255
        (tmp_path / scene / "dots").mkdir()
        Image.fromarray(dots).save(tmp_path / scene / "dots" / "1.png")
    records, _ = read_domain("X", tmp_path, progress=False)
    found = {record.image.parts[-3]: record.points.tolist() for record in records["train"]}
    assert found == {"day1": [[10, 20]], "day2": [[50, 20]]}


def test_voc_goes_by_the_folder_before_the_name(tmp_path):
    """At commit 4eb5a94 test/train_station.jpg was trained on; and Roboflow's polygons beside a box were refused."""
    layouts.picture(tmp_path / "test" / "train_station.jpg", (320, 240))
    (tmp_path / "test" / "train_station.xml").write_text(
        "<annotation><filename>train_station.jpg</filename><object><name>head</name><bndbox><xmin>10</xmin><ymin>10</ymin>"
        "<xmax>30</xmax><ymax>40</ymax></bndbox><polygon><x1>10</x1><y1>10</y1><x2>30</x2><y2>40</y2></polygon></object></annotation>"
    )
    records, report = read_domain("X", tmp_path, progress=False)
    assert report.bad == [] and records["test"][0].points.tolist() == [[20, 25]]


def test_yolo_with_one_keypoint(tmp_path):
    """One that is not labelled leaves its box; and such files are no videos, though a line has eight numbers."""
    layouts.picture(tmp_path / "images" / "1.jpg", (320, 240))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("0 0.5 0.5 0.1 0.1 0 0 0\n0 0.25 0.25 0.1 0.1 0.26 0.24 2\n")
    (tmp_path / "data.yaml").write_text("names: [head]\nkpt_shape: [1, 3]\n")
    records, report = read_domain("X", tmp_path, progress=False)
    assert report.layout == "yolo" and report.bad == []
    np.testing.assert_allclose(records["train"][0].points, [[160, 120], [83.2, 57.6]])


@pytest.mark.parametrize("word", ["head", "-1"])
def test_a_class_in_words_of_kerass_boxes(tmp_path, word):
    root = tmp_path / "data"
    layouts.picture(root / "1.jpg", (320, 240))
    (root / "_annotations.txt").write_text(f"1.jpg 10,10,30,40,{word}\n")
    records, report = read_domain("X", root, progress=False)
    assert report.bad == [] and len(records["train"][0].points) == 1


@pytest.mark.parametrize(
    "name, lines",
    [
        ("_annotations.txt", ["1.jpg", "2.jpg 10,10,30,40,0"]),
        ("heads.txt", ["1.jpg", "2.jpg 20 25"]),
        ("heads.txt", ["1 0", "2 1 20 25 3 3 1"]),
        ("heads.csv", ["1.jpg,,,,,", "2.jpg,10,10,30,40,head"]),
    ],
)
def test_nobody_in_the_first_picture_of_a_list(tmp_path, name, lines):
    """At commit 25e2632: no known layout."""
    root = tmp_path / "data"
    for number in "12":
        layouts.picture(root / f"{number}.jpg", (320, 240))
    (root / name).write_text("\n".join(lines))
    records, report = read_domain("X", root, progress=False)
    assert report.bad == [] and [record.points.tolist() for record in records["train"]] == [[], [[20, 25]]]


def test_a_folder_above_tells_the_split(tmp_path):
    """test/train_station is test, also beside one file whose name tells a split."""
    for folder, name in (("train/hall", "1"), ("test/train_station", "test_2")):
        layouts.picture(tmp_path / "images" / folder / f"{name}.jpg", (320, 240))
        shapes = {"version": "5", "shapes": [{"label": "head", "points": [[5, 6]]}], "imagePath": f"{name}.jpg"}
        (tmp_path / "images" / folder / f"{name}.json").write_text(json.dumps(shapes))
    records, _ = read_domain("X", tmp_path, progress=False)
    found = {split: [record.image.stem for record in rows] for split, rows in records.items() if rows}
    assert found == {"train": ["1"], "test": ["test_2"]}


def test_classes_of_kerass_boxes(tmp_path):
    """At commit 4eb5a94 cars were counted, too."""
    root = tmp_path / "data"
    layouts.picture(root / "1.jpg", (320, 240))
    (root / "_annotations.txt").write_text("1.jpg 10,10,30,40,0 50,60,70,90,1\n")
    (root / "_classes.txt").write_text("car\nhead\n")
    records, _ = read_domain("X", root, progress=False)
    assert records["train"][0].points.tolist() == [[60, 75]]


@pytest.mark.parametrize("write", [foreign.coco_boxes, foreign.cvat_xml, foreign.label_studio])
def test_one_export_of_train_and_test(tmp_path, write):
    """The folders of the pictures give the split. At commit 4eb5a94 the test pictures were trained on."""
    write(tmp_path / "data")
    (file,) = [p for p in (tmp_path / "data").rglob("*.*") if p.suffix in (".json", ".xml") and "val" not in p.name]
    text = file.read_text()
    for name in [p.name for p in (tmp_path / "data").rglob("*.jpg")]:
        folder = tmp_path / "root" / "images" / ("test" if name[0] in "13" else "train")
        layouts.picture(folder / name, (320, 240))
        text = text.replace(f'"{name}', f'"{folder.name}/{name}')
    (tmp_path / "root" / f"export{file.suffix}").write_text(text)
    records, report = read_domain("X", tmp_path / "root", progress=False)
    found = {split: sorted(record.image.name[0] for record in rows) for split, rows in records.items() if rows}
    assert report.bad == [] and found["test"] == ["1", "3"] and set(found.get("train", [])) <= {"2", "4"}


def test_other_xml_beside_a_picture_is_no_annotation(tmp_path):
    """At commit 25e2632 such pictures were labelled, with nobody."""
    for number in "12":
        layouts.picture(tmp_path / "data" / f"{number}.jpg")
        (tmp_path / "data" / f"{number}.xml").write_text('<people><person x="10" y="12"/></people>')
    with pytest.raises(UserError, match="no known data set layout"):
        read_domain("X", tmp_path / "data", progress=False)


def test_equal_names_with_a_file_each_beside_them(tmp_path):
    """At commit 25e2632 three of the four were left out without a word."""
    for number, folder in enumerate((".", "day", "night", "day/night")):
        layouts.picture(tmp_path / "data" / folder / "1.jpg")
        head = {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [number, 5]},
            "properties": {"label": "head"},
        }
        text = json.dumps({"type": "FeatureCollection", "features": [head]})
        (tmp_path / "data" / folder / "1.geojson").write_text(text)
    records, report = read_domain("X", tmp_path / "data", progress=False)
    assert report.bad == [] and sorted(record.points[0, 0] for record in records["train"]) == [0, 1, 2, 3]


def test_a_name_that_a_deeper_folder_has_too(tmp_path):
    """COCO's 1.jpg is images/1.jpg, not images/a/1.jpg. At commit 25e2632 it was unusable."""
    names = ["1.jpg", "a/1.jpg", "b/1.jpg"]
    for name in names:
        layouts.picture(tmp_path / "data" / "images" / name, (64, 48))
    images = [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)]
    marks = [{"id": i, "image_id": i, "category_id": 1, "bbox": [10 * i, 5, 4, 4]} for i in range(3)]
    content = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "head"}]}
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(content))
    records, report = read_domain("X", tmp_path / "data", progress=False)
    assert report.bad == [] and sorted(record.points[0, 0] for record in records["train"]) == [2, 12, 22]
