"""Any layout to any of three: read again, the same heads of the same pictures."""

from __future__ import annotations

import json

import foreign
import layouts
import numpy as np
import pytest
from PIL import Image

from dkpnet_ext.data.convert import convert
from dkpnet_ext.data.images import decode
from dkpnet_ext.data.readers import read_domain
from dkpnet_ext.errors import UserError

SOURCES = [
    foreign.coco_boxes,
    foreign.label_studio,
    foreign.fdst,
    foreign.mall,
    foreign.shanghaitech_like,
    foreign.npy_beside,
]


@pytest.mark.parametrize("to", ["list", "coco", "shanghaitech"])
@pytest.mark.parametrize("write", SOURCES)
def test_there_and_read_again(write, to, tmp_path):
    write(tmp_path / "old")
    old, _ = read_domain("X", tmp_path / "old", progress=False)
    labelled = sum(len(rows) for split, rows in old.items() if split != "unlabelled")
    assert convert(old, to, tmp_path / "new") == labelled
    new, report = read_domain("X", tmp_path / "new", progress=False)
    assert report.bad == [] and report.layout == to
    for split in ("train", "val", "test"):
        assert len(new[split]) == len(old[split])
        for a, b in zip(old[split], new[split]):
            np.testing.assert_allclose(b.points, a.points, atol=1e-9)
            assert b.size == a.size
            if a.region is None:
                assert np.array_equal(np.asarray(decode(b.image)), np.asarray(decode(a.image)))


@pytest.mark.parametrize("to", ["list", "coco", "shanghaitech"])
def test_turned_pictures(to, tmp_path):
    """ShanghaiTech's points are of the pixels as stored: the picture is turned for good. Lists and COCO keep the file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    layouts.picture(tmp_path / "a.jpg", (64, 48), exif=exif)
    (tmp_path / "train.csv").write_text('image,points\na.jpg,"[[40, 60]]"\n')
    old, _ = read_domain("X", tmp_path, progress=False)
    convert(old, to, tmp_path / "new")
    (record,) = read_domain("X", tmp_path / "new", progress=False)[0]["train"]
    assert record.size == (64, 48) and record.points.tolist() == [[40, 60]]
    assert record.image.suffix == (".png" if to == "shanghaitech" else ".jpg")


def test_names_that_collide(tmp_path):
    for name in ("a/1.jpg", "a_1.png", "b/1.jpg"):
        layouts.picture(tmp_path / name)
    (tmp_path / "train.csv").write_text(
        "image,points\n" + "".join(f"{n},[]\n" for n in ("a/1.jpg", "a_1.png", "b/1.jpg"))
    )
    old, _ = read_domain("X", tmp_path, progress=False)
    convert(old, "shanghaitech", tmp_path / "new")
    new, report = read_domain("X", tmp_path / "new", progress=False)
    assert report.bad == []
    assert {record.name for record in new["train"]} == {"a_1.jpg", "a_1-1.png", "b_1.jpg"}


@pytest.mark.parametrize("to", ["list", "coco", "shanghaitech"])
def test_odd_names(to, tmp_path):
    """At commit 25e2632 COCO's and ShanghaiTech's readers did not find half of these."""
    names = ["a.jpg", "sub/a.jpg", "2020.01.05 10.30.15", "x.JPG_large", "back\\slash.jpg", "10²3.jpg", "caf\udce9.jpg"]
    for number, name in enumerate(names):
        layouts.picture(tmp_path / "old" / f"{number}.jpg", (64, 48))
        path = tmp_path / "old" / name
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "old" / f"{number}.jpg").rename(path)
    rows = [{"image": name, "points": [[number, 5]]} for number, name in enumerate(names)]
    (tmp_path / "old" / "train.json").write_text(json.dumps(rows))
    old, report = read_domain("X", tmp_path / "old", progress=False)
    assert report.bad == []
    convert(old, to, tmp_path / "new")
    new, report = read_domain("X", tmp_path / "new", progress=False)
    assert report.bad == [] and sorted(r.points[0, 0] for r in new["train"]) == list(range(len(names)))


def test_a_folder_with_something_in_it(tmp_path):
    layouts.csv_lists(tmp_path / "old")
    old, _ = read_domain("X", tmp_path / "old", progress=False)
    with pytest.raises(UserError, match="not empty; name another folder with --into"):
        convert(old, "list", tmp_path / "old")
