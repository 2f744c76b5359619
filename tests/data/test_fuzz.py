"""Annotation files with random damage: a data set is read, or refused in one line; never a traceback, never nonsense.

The damage is done to whole files of every layout and met through `read_domain`, as a user's would be; the single
readers are fuzzed in test_readers.py.
"""

import itertools
import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exports
import followers
import foreign
import layouts
import numpy as np
import public_sets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dkpnet_ext.data.readers import read_domain
from dkpnet_ext.errors import UserError

FILES = {  # how the data set is made, and which of its files is damaged
    "shanghaitech": (layouts.shanghaitech, "train_data/ground_truth/GT_IMG_1.mat"),
    "ucf-qnrf": (layouts.ucf_qnrf, "Train/img_0001_ann.mat"),
    "nwpu-json": (lambda root: layouts.nwpu(root, "jsons"), "jsons/0001.json"),
    "nwpu-list": (layouts.nwpu, "train.txt"),
    "jhu-crowd": (layouts.jhu_crowd, "train/gt/0001.txt"),
    "csv": (layouts.csv_lists, "train.csv"),
    "points-csv": (layouts.csv_lists, "heads/1.csv"),
    "json": (layouts.json_lists, "train.json"),
}
FOREIGN = {  # likewise, of labelling tools and other sets: fewer tries each, as there are many
    "labelme": (foreign.labelme, "1.json"),
    "coco": (foreign.coco_boxes, "annotations/instances_train2017.json"),
    "coco-keypoints": (foreign.coco_keypoints, "person_keypoints_train.json"),
    "cvat-xml": (foreign.cvat_xml, "annotations.xml"),
    "cvat-backup": (foreign.cvat_backup, "annotations.json"),
    "cvat-manifest": (foreign.cvat_backup, "data/manifest.jsonl"),
    "datumaro": (foreign.datumaro, "annotations/default.json"),
    "via": (foreign.via_project, "via_region_data.json"),
    "fdst": (foreign.fdst, "train_data/7/1.json"),
    "label-studio": (foreign.label_studio, "project-1.json"),
    "label-studio-min": (foreign.label_studio_min, "export.json"),
    "yolo": (foreign.yolo, "labels/train/1.txt"),
    "yolo-names": (foreign.yolo, "data.yaml"),
    "cclabeler": (foreign.cclabeler, "data/jsons/1.json"),
    "csv-points": (foreign.makesense_points, "labels.csv"),
    "csv-boxes": (foreign.boxes_csv, "train_labels.csv"),
    "json-lines": (foreign.json_lines, "train.jsonl"),
    "path-list": (foreign.path_lists, "part_B_train.json"),
    "pairs-list": (foreign.p2pnet, "train.list"),
    "pairs-text": (foreign.p2pnet, "train/scene01/1.txt"),
    "npy": (foreign.npy_beside, "train/1.npy"),
    "cell-counter": (exports.cell_counter, "CellCounter_1.xml"),
    "napari": (exports.napari, "1.csv"),
    "boxes-string": (exports.boxes_string, "train.csv"),
    "label-studio-csv": (exports.label_studio_csv, "project-1-at-2026-01-01.csv"),
    "labelme-xml": (exports.labelme_xml, "Annotations/1.xml"),
    "vott": (exports.JSON_PICTURES["of VoTT"], "vott-json-export/mine-export.json"),
    "sagemaker": (exports.JSON_PICTURES["of SageMaker"], "output.manifest"),
    "prodigy": (exports.JSON_PICTURES["of Prodigy"], "annotations.jsonl"),
    "imglab": (exports.imglab, "training.xml"),
    "brainwash": (exports.brainwash, "brainwash_train.idl"),
    "wider-person": (exports.wider_person, "Annotations/1.jpg.txt"),
    "vscrowd": (exports.vscrowd, "annotations/train_001.txt"),
    "own-mat": (foreign.own_mats, "45_ann.mat"),
    "mall-roi": (foreign.mall, "perspective_roi.mat"),
    "ucsd": (foreign.ucsd, "vidf-cvpr/vidf1_33_003_frame_full.mat"),
    "worldexpo-roi": (foreign.worldexpo, "train_label/200608/roi.mat"),
    "rgbt-cc": (foreign.rgbt_cc, "train/1_GT.json"),
    "fsc-147": (foreign.fsc147, "annotation_FSC147_384.json"),
    "fsc-147-split": (foreign.fsc147, "Train_Test_Val_FSC_147.json"),
    "visdrone": (foreign.visdrone, "VisDrone2019-DET-train/annotations/1.txt"),
    "dronecrowd": (foreign.dronecrowd, "annotations/00001.txt"),
    "dronecrowd-list": (foreign.dronecrowd, "trainlist.txt"),
    "carpk": (foreign.carpk, "ImageSets/train.txt"),
    "crowdhuman": (foreign.crowdhuman, "annotation_train.odgt"),
    "mot": (foreign.mot, "train/MOT20-01/gt/gt.txt"),
    "dots": (foreign.dot_images, "001dots.png"),
    "labelu": (followers.CASES["json-pictures of LabelU"], "task-1.json"),
    "segments": (followers.segments, "x-v1.json"),
    "openlabel": (followers.CASES["json-pictures of OpenLABEL"], "anything.json"),
    "edge-impulse": (followers.CASES["json-pictures of Edge Impulse"], "images/bounding_boxes.labels"),
    "zooniverse": (followers.zooniverse, "heads-classifications.csv"),
    "caltech": (public_sets.caltech, "train/annotations/set00_V000_I01.txt"),
    "exdark": (public_sets.exdark, "ExDark_Annno/People/2015_06241.jpg.txt"),
    "citypersons": (public_sets.city_persons, "annotations/anno_train.mat"),
    "drone-rgbt": (public_sets.drone_rgbt, "Train/GT_/1R.xml"),
    "moving-drone-crowd": (public_sets.moving_drone_crowd, "annotations/scene_1/1.csv"),
    "sense-crowd": (public_sets.sense_crowd, "label_list_all/a_b_s1.txt"),
    "gcc": (public_sets.gcc, "scene_01_0/mats/1534540881.mat"),
    "gcc-json": (public_sets.gcc_jsons, "scene_01_0/jsons/1534540881.json"),
    "gcc-list": (public_sets.gcc, "txt_list/train_list.txt"),
    "venice": (public_sets.venice, "venice/train_data/ground-truth/4896_000062.mat"),
}

# What random bytes would take ages to spell.
PIECES = (
    b"NaN", b"-Infinity", b"1e999", b"-1e30", b"9" * 400, b"9" * 5000, b"1_0", b"0x1", b"null", b"true", b"{}", b"[]",
    b'"', b"'", b"[", b"]", b"{", b"}", b",", b":", b"\n", b"\r", b" ", b"\0", b"\\u0000", b"\\ud800", b"\xef\xbb\xbf",
    b"\xff\xfe", "é٣".encode(), b"[" * 60, b"[" * 100_000, b"..", b"/", b"\xff\xff\xff\x7f", b"\x0e\0\0\0", b"\x0f\0\0\0",
)  # fmt: skip

edits = st.lists(
    st.tuples(
        st.integers(0, 2**16),  # where, modulo the length
        st.integers(0, 3) | st.integers(0, 2**16),  # how many bytes go
        st.sampled_from(PIECES) | st.binary(max_size=8),  # what comes instead
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for place, gone, piece in changes:
        place %= len(content) + 1
        content = content[:place] + piece + content[place + gone :]
    return content


def read_or_refuse(root: Path) -> None:
    try:
        records, report = read_domain("X", root, progress=False)
        for split in records.values():
            for record in split:
                assert record.points is None or record.points.shape == (len(record.points), 2)
                assert record.points is None or np.isfinite(record.points).all()
        for _, reason in report.bad:
            assert reason and reason.isprintable()
        assert "\0" not in str(report)
        report.raise_if_bad()
    except UserError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module", params=FILES)
def data_set(request, tmp_path_factory) -> tuple[Path, Path, bytes]:
    make, name = FILES[request.param]
    root = make(tmp_path_factory.mktemp(request.param))
    read_domain("X", root, progress=False)[1].raise_if_bad()  # whole, it is read
    return root, root / name, (root / name).read_bytes()


@given(changes=edits)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_file(data_set, changes):
    root, path, content = data_set
    path.write_bytes(damaged(content, changes))
    read_or_refuse(root)


@pytest.fixture(scope="module", params=FOREIGN)
def foreign_set(request, tmp_path_factory) -> tuple[Path, Path, bytes]:
    make, name = FOREIGN[request.param]
    root = tmp_path_factory.mktemp(request.param)
    make(root)
    read_domain("X", root, progress=False)[1].raise_if_bad()
    return root, root / name, (root / name).read_bytes()


@given(changes=edits)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_foreign_file(foreign_set, changes):
    root, path, content = foreign_set
    path.write_bytes(damaged(content, changes))
    read_or_refuse(root)


NAME = re.compile(rb"[\w-]+\.(png|jpe?g|csv|mat|npy)\b")
LONG = b"9" * 400  # longer than any file system's names


def name_too_long(root: Path, path: Path, content: bytes) -> None:
    """Every name of a file in it is longer than a name can be; then only the first one."""
    for count in (0, 1):
        path.write_bytes(NAME.sub(LONG + rb".\1", content, count=count))
        read_or_refuse(root)


def test_name_too_long(data_set):
    name_too_long(*data_set)


def test_name_too_long_in_a_foreign_file(foreign_set):
    name_too_long(*foreign_set)


def test_points_that_are_no_name(tmp_path):
    (tmp_path / "train.csv").write_text(f"image,points\n1.png,{LONG.decode()}\n")
    read_or_refuse(tmp_path)


WRONG = (
    b"null",
    b"[]",
    b"{}",
    b"7",
    b'"x"',
    b"[[]]",
    b"[null]",
    b"[{}]",
    b'{"a": 1}',
    b"[" * 100_000,
    b"\xff\xfe",
    b"",
)


def test_foreign_files_of_another_kind(foreign_set):
    """Each value of a JSON file replaced by another type, one after the other; and the whole file by something else."""
    root, path, content = foreign_set
    for whole in WRONG:
        path.write_bytes(whole)
        read_or_refuse(root)
    if path.suffix == ".json":
        for changed in itertools.islice(replaced(json.loads(content)), 0, None, 5):
            path.write_text(json.dumps(changed))
            read_or_refuse(root)


def replaced(value: Any) -> Iterator[Any]:
    """Copies of a JSON value with one inner value replaced, one of each kind of place."""
    yield from (None, 3, "x", [], {}, -1e308, [[[1]]])
    if isinstance(value, dict):
        for key in list(value)[:8]:
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: inner} for inner in replaced(value[key]))
    elif isinstance(value, list) and value:
        yield from ([inner, *value[1:]] for inner in replaced(value[0]))


@given(content=st.binary(max_size=300))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_file(data_set, content):
    root, path, _ = data_set
    path.write_bytes(content)
    read_or_refuse(root)


def test_every_truncation(data_set):
    root, path, content = data_set
    for length in range(0, len(content), max(len(content) // 60, 1)):
        path.write_bytes(content[:length])
        read_or_refuse(root)


@given(changes=edits)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_inside_a_compressed_variable(tmp_path_factory, changes):
    """MATLAB compresses each variable: damage before that gives a sound stream with broken contents."""
    root = tmp_path_factory.getbasetemp() / "compressed"
    if not root.exists():
        layouts.shanghaitech(root)
    whole = (root / "train_data/ground_truth/GT_IMG_2.mat").read_bytes()
    packed = zlib.compress(damaged(whole[128:], changes))
    path = root / "train_data/ground_truth/GT_IMG_1.mat"
    path.write_bytes(whole[:128] + struct.pack("<II", 15, len(packed)) + packed)
    read_or_refuse(root)
