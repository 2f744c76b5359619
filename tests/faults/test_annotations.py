"""Damaged and odd annotation files in the layouts of public data sets."""

import json

import layouts
import numpy as np
import pytest
import scipy.io
from faults import Fault, answered

from dkpnet_ext.data import load_domains


def mat(**variables):
    """Bytes of a MATLAB file."""
    import io

    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


def info(location, number=None):
    """ShanghaiTech's structure with an own number of heads."""
    cell = np.empty((1, 1), object)
    location = np.asarray(location)
    count = len(location) if number is None else number
    cell[0, 0] = {"location": location, "number": np.array([[count]])}
    return mat(image_info=cell)


PAIR = np.array([[3.5, 4.0], [10.0, 20.0]])
MATLAB = [  # of GT_IMG_1.mat
    Fault("empty", b"", "GT_IMG_1.mat"),
    Fault("text", b"no MATLAB file", "GT_IMG_1.mat"),
    Fault("zeros", bytes(500), "GT_IMG_1.mat"),
    Fault("cut off", info(PAIR)[:180], "GT_IMG_1.mat"),
    Fault("cut off in the data", info(PAIR)[:-20], "GT_IMG_1.mat"),
    Fault("a MATLAB 7.3 file", b"MATLAB 7.3 MAT-file, HDF5" + bytes(500), "GT_IMG_1.mat"),
    Fault("another variable", mat(points=PAIR), "image_info"),
    Fault("image_info is a matrix of three columns", mat(image_info=np.ones((4, 3))), "GT_IMG_1.mat"),
    Fault("image_info is a word", mat(image_info="heads"), "GT_IMG_1.mat"),
    Fault("a number that disagrees", info(PAIR, 5), "5"),
    Fault("a number that is negative", info(PAIR, -1), "-1"),
    Fault("complex points", info(PAIR + 1j), "numbers"),
    Fault("logical points", info(PAIR > 5), "numbers"),
    Fault("points of three columns", info(np.ones((4, 3))), "shape"),
    Fault("points of one column", info(np.ones((4, 1))), "shape"),
    Fault("NaN points", info(PAIR * np.nan), "NaN"),
    Fault("infinite points", info(PAIR * np.inf), "infinite"),
    Fault("points are words", info(np.array([["a", "b"]])), "numbers|pairs"),
]
QNRF = [  # of Train/img_0001_ann.mat
    Fault("no annPoints", mat(points=PAIR), "annPoints"),
    Fault("annPoints of three columns", mat(annPoints=np.ones((4, 3))), "shape"),
    Fault("annPoints are complex", mat(annPoints=PAIR + 1j), "numbers"),
    Fault("annPoints are NaN", mat(annPoints=PAIR * np.nan), "NaN"),
    Fault("annPoints are text", mat(annPoints="abc"), "pairs|numbers|shape"),
    Fault("a picture as annotation", b"\xff\xd8\xff\xe0" + bytes(200), "img_0001_ann.mat"),
]
JHU = [  # of train/gt/0001.txt
    Fault("words", "a b c d e f\n", "0001.txt"),
    Fault("one number a line", "3\n4\n", "0001.txt"),
    Fault("NaN", "nan 4 5 5 1 0\n", "0001.txt"),
    Fault("text of a detector", "0 0.5 0.5 0.1 0.1 0.9\n0 0.2 0.3 0.1 0.1 0.8\n", "0001.txt"),
    Fault("not UTF-8", b"\xff\xfe\x00\x01", "0001.txt"),
]
NWPU = [  # of jsons/0001.json
    Fault("empty JSON", "", "0001.json"),
    Fault("a list", "[]", "0001.json"),
    Fault("no points", '{"human_num": 2}', "0001.json"),
    Fault("points are numbers", '{"points": [1, 2], "human_num": 2}', "0001.json"),
    Fault("points are words", '{"points": [["a", "b"]], "human_num": 1}', "0001.json"),
    Fault("a human_num that disagrees", json.dumps({"points": [[3, 4]], "human_num": 7}), "7"),
    Fault("cut off JSON", '{"points": [[3, ', "0001.json"),
]
TABLE = [*MATLAB, *QNRF, *JHU, *NWPU]


def refused(fault, root, path, tmp_path):
    content = fault.given if isinstance(fault.given, bytes) else fault.given.encode()
    path.write_bytes(content)
    answered(lambda: load_domains([f"X={root}"], cache=tmp_path / "cache", progress=False), fault.answer)


@pytest.mark.parametrize("fault", MATLAB, ids=lambda fault: fault.name)
def test_shanghaitech(fault, tmp_path):
    root = layouts.shanghaitech(tmp_path / "data")
    refused(fault, root, root / "train_data" / "ground_truth" / "GT_IMG_1.mat", tmp_path)


@pytest.mark.parametrize("fault", QNRF, ids=lambda fault: fault.name)
def test_ucf_qnrf(fault, tmp_path):
    root = layouts.ucf_qnrf(tmp_path / "data")
    refused(fault, root, root / "Train" / "img_0001_ann.mat", tmp_path)


@pytest.mark.parametrize("fault", JHU, ids=lambda fault: fault.name)
def test_jhu_crowd(fault, tmp_path):
    root = layouts.jhu_crowd(tmp_path / "data")
    (path, *_) = sorted((root / "train" / "gt").glob("*.txt"))
    refused(fault._replace(answer=fault.answer.replace("0001.txt", path.name)), root, path, tmp_path)


@pytest.mark.parametrize("fault", NWPU, ids=lambda fault: fault.name)
def test_nwpu(fault, tmp_path):
    root = layouts.nwpu(tmp_path / "data", annotations="jsons")
    refused(fault, root, root / "jsons" / "0001.json", tmp_path)
