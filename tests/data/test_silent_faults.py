"""What was once read wrongly without a word: each is now read rightly, named in the report, or refused in one line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import layouts
import numpy as np
import pytest
import scipy.io
from PIL import Image

from dkpnet_ext.data import Domain, load_domains
from dkpnet_ext.data.images import BadFile, decode, inspect_image, open_image, read_image
from dkpnet_ext.data.readers import read_domain
from dkpnet_ext.errors import UserError


def read(root: Path):
    records, report = read_domain("X", root, progress=False)
    points = {
        record.name: record.points.tolist() for rows in records.values() for record in rows if record.points is not None
    }
    return points, report


def refused(root: Path) -> str:
    with pytest.raises(UserError) as error:
        read_domain("X", root, progress=False)[1].raise_if_bad()
    assert "\n" not in str(error.value)
    return str(error.value)


def csv_list(root: Path, *rows: str, name: str = "train.csv", header: str = "image,points") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join([header, *rows]) + "\n")
    return root


# Points.


def test_fractions_of_the_whole_set_become_pixels(tmp_path):
    for name in "ab":
        layouts.picture(tmp_path / f"{name}.png")
    csv_list(tmp_path, 'a.png,"[[0.5, 0.25], [0.125, 1.0]]"', 'b.png,"[[0.75, 0.5]]"')
    points, report = read(tmp_path)
    assert points == {"a.png": [[32, 12], [8, 48]], "b.png": [[48, 24]]}
    assert report.notes["points are fractions of the picture, made pixels"] == ["train/a.png", "train/b.png"]


def test_fractions_in_one_picture_are_refused(tmp_path):
    for name in "ab":
        layouts.picture(tmp_path / f"{name}.png")
    csv_list(tmp_path, 'a.png,"[[0.5, 0.25], [0.125, 0.5]]"', 'b.png,"[[30, 20]]"')
    assert "a.png: its 2 points all lie in pixel (0, 0): are they fractions?" in refused(tmp_path)


def test_one_head_in_the_corner_is_no_fraction(tmp_path):
    layouts.picture(tmp_path / "a.png")
    assert read(csv_list(tmp_path, 'a.png,"[[0.5, 0.25]]"'))[0] == {"a.png": [[0.5, 0.25]]}


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.1 0.1 0.87", "0 320 240 20 20 0.5"])
def test_detections_are_no_jhu_annotation(line, tmp_path):
    root = layouts.jhu_crowd(tmp_path)
    (root / "train/gt/0001.txt").write_text(line + "\n")
    assert "line 1 is not 'x y w h occlusion blur': occlusion is 1 to 3, blur 0 or 1" in refused(root)


def test_numbers_beyond_50_are_not_ucf_cc_50(tmp_path):
    for number in (1, 45, 51):
        layouts.picture(tmp_path / f"{number}.jpg")
        layouts.mat(tmp_path / f"{number}_ann.mat", "annPoints", [[1, 1]])
    try:
        records, _ = read_domain("X", tmp_path, progress=False)
    except UserError:
        return
    assert [len(records[split]) for split in ("train", "val", "test")] == [3, 0, 0]


def test_number_that_disagrees_with_the_locations(tmp_path):
    root = layouts.shanghaitech(tmp_path)
    cell = np.empty((1, 1), object)
    cell[0, 0] = {"location": np.ones((2, 2)), "number": 3.0}
    scipy.io.savemat(root / "train_data/ground_truth/GT_IMG_1.mat", {"image_info": cell})
    assert "GT_IMG_1.mat: number is 3, but there are 2 points" in refused(root)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.array([[1 + 5j, 2]]), "not a readable .mat file: 'annPoints' holds complex numbers"),
        (np.array([[True, False]]), "points are not pairs of numbers"),
    ],
)
def test_complex_or_logical_points(points, reason, tmp_path):
    root = layouts.ucf_qnrf(tmp_path)
    scipy.io.savemat(root / "Train/img_0001_ann.mat", {"annPoints": points})
    assert f"img_0001_ann.mat: {reason}" in refused(root)


# Lists.


def test_one_image_under_two_spellings(tmp_path):
    layouts.picture(tmp_path / "a.png")
    assert "line 3 lists ./a.png again (after train.csv, line 2)" in refused(
        csv_list(tmp_path, "a.png,[]", "./a.png,[]")
    )


def test_one_image_in_csv_and_json(tmp_path):
    layouts.picture(tmp_path / "a.png")
    csv_list(tmp_path, "a.png,[]", name="test.csv")
    (tmp_path / "test.json").write_text('[{"image": "a.png", "points": [[1, 1]]}]')
    assert "test.json: entry 0 lists a.png again (after test.csv, line 2)" in refused(tmp_path)


@pytest.mark.parametrize(
    ("row", "header", "reason"),
    [
        ("a.png,[[1, 2]]", "image,points", 'line 2 has too many fields; points need quotes: a.jpg,"[[1, 2]]"'),
        ("a.png,[],[]", "image,points,points", "two columns are called 'points'"),
        ('a.png,"[]"', "picture,points", "no column 'image' in its first line (it has picture,points; expected"),
    ],
)
def test_columns(row, header, reason, tmp_path):
    layouts.picture(tmp_path / "a.png")
    assert reason in refused(csv_list(tmp_path, row, header=header))


def test_list_written_on_windows(tmp_path):
    layouts.picture(tmp_path / "pictures" / "a.png")
    (tmp_path / "heads.csv").write_text("x,y\n1,2\n")
    assert read(csv_list(tmp_path, "pictures\\a.png,.\\heads.csv"))[0] == {"pictures/a.png": [[1, 2]]}


def test_two_images_share_one_annotation(tmp_path):
    root = layouts.shanghaitech(tmp_path / "A")
    layouts.picture(root / "train_data/images/IMG_1.png")
    assert "IMG_1.png: it shares its annotation GT_IMG_1.mat with IMG_1.jpg" in refused(root)
    for name in "ab":
        layouts.picture(tmp_path / "B" / f"{name}.png")
    (tmp_path / "B/heads.csv").write_text("x,y\n1,2\n")
    assert "line 3: heads.csv is already the annotation of line 2" in refused(
        csv_list(tmp_path / "B", "a.png,heads.csv", "b.png,heads.csv")
    )
    root = layouts.nwpu(tmp_path / "C")
    layouts.picture(root / "images/0001.png")
    assert "0001.jpg: it shares its annotation with images/0001.png" in refused(root)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("names", [["a"], ["copy", "a"]])
def test_train_is_test(names, split, tmp_path, capsys):
    """Refused by whatever reads data for training or evaluation, under another name, too. It was named only."""
    for name in "abc":
        layouts.picture(tmp_path / f"{name}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "b.png").read_bytes())
    csv_list(tmp_path, "a.png,[]", "b.png,[]")
    csv_list(tmp_path, *(f"{name}.png,[]" for name in names), name=f"{split}.csv")
    with pytest.raises(UserError, match=f"picture.* of {split} .* in train, too.*give {split} its own"):
        load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", progress=False)
    load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", on_bad="skip")  # as `prepare`, which lists it
    assert f"BAD {tmp_path}: " in capsys.readouterr().err
    csv_list(tmp_path, "c.png,[]", *(f"{name}.png,[]" for name in names), name=f"{split}.csv")
    load_domains([f"X={tmp_path}"], cache=tmp_path / "cache")
    assert f"the same picture in train and {split}: {len(names)} ({names[0]}.png" in capsys.readouterr().err


@pytest.mark.parametrize("given, split", [("", "train"), ("test.csv", "test")])
def test_one_split_alone(given, split, tmp_path):
    """There is nothing to compare it with."""
    layouts.picture(tmp_path / "a.png")
    csv_list(tmp_path, "a.png,[]", name=f"{split}.csv")
    (domain,) = load_domains([f"X={tmp_path / given}"], cache=tmp_path / "cache", progress=False)
    assert [item.source.name for item in getattr(domain, split)] == ["a.png"]


def test_train_is_test_in_python(tmp_path):
    path, other = layouts.picture(tmp_path / "a.png"), layouts.picture(tmp_path / "b.png")
    with pytest.raises(UserError, match="mine: the images of test are all in train, too"):
        Domain.from_arrays("mine", train=[(path, []), (other, [])], test=[(path, [])])


def test_one_wrong_list_is_a_few_lines(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{"image": f"{i}.png"} for i in range(300)]))
    _, report = read(tmp_path)
    assert len(report.bad) == 300
    assert len(str(report).splitlines()) == 5
    assert str(report).endswith("train.json: 297 more like these")


# Other tools' files that are whole.


def test_image_info_written_by_scipy(tmp_path):
    root = layouts.shanghaitech(tmp_path)
    points = np.array([[3.5, 4.25], [59, 40]])
    structured = np.zeros((1, 1), dtype=[("location", object), ("number", object)])
    structured[0, 0] = (points, np.array([[2]], np.uint16))
    cell, bare = np.empty((1, 1), object), np.empty((1, 1), object)
    cell[0, 0], bare[0, 0] = structured, {"location": points}
    for number, info in enumerate(({"location": points, "number": 2}, cell, bare), 1):
        scipy.io.savemat(root / f"train_data/ground_truth/GT_IMG_{number}.mat", {"image_info": info})
    found = read_domain("X", root, progress=False)[0]["train"]
    assert [record.points.tolist() for record in found] == [points.tolist()] * 3


def test_nwpu_with_other_suffixes_and_objects(tmp_path):
    root = layouts.nwpu(tmp_path, "jsons")
    for old, new in (("0001.jpg", "0001.png"), ("0002.jpg", "0002.JPEG")):
        (root / "images" / old).unlink()
        layouts.picture(root / "images" / new)
    content = {"human_num": 2, "points": [{"x": 1, "y": 2}], "boxes": [{"sx": 3, "sy": 4, "ex": 13, "ey": 24}]}
    (root / "jsons/0001.json").write_text(json.dumps(content))
    points, report = read(root)
    assert report.bad == []
    assert points["0001.png"] == [[1, 2], [8, 14]]
    assert points["0002.JPEG"] == [[10, 20]]


# Pictures.


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}], ids=str)
@pytest.mark.parametrize("behind", [b"", b"\xff", bytes(5000), b"\xff\xd9" + bytes(5000)])
def test_jpeg_without_its_end_marker(behind, options, tmp_path):
    """Every pixel is there, whatever a camera, a download or a disk put in the marker's place."""
    path = layouts.picture(tmp_path / "a.jpg", **{"quality": 90} | options)
    whole, content = np.asarray(read_image(path)), path.read_bytes()
    path.write_bytes(content[:-2] + behind)
    assert np.array_equal(np.asarray(read_image(path)), whole)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}], ids=str)
@pytest.mark.parametrize("behind", [b"", bytes(50_000), b"\xff\xd9"], ids=len)
def test_jpeg_that_is_cut_off(behind, options, tmp_path):
    """Where a single pixel or scan is missing, the picture is refused, also if zeros were laid out for the rest."""
    path = layouts.picture(tmp_path / "a.jpg", **{"quality": 90} | options)
    content = path.read_bytes()
    scans = [found.start() for found in re.finditer(b"\xff\xda", content)][1:]
    for end in (-3, -10, -40, len(content) // 2, *scans, *(scan - 1 for scan in scans)):
        if behind == b"\xff\xd9" and (scans or end != len(content) // 2):
            continue  # a few pixels of the last block, or the finest details: nothing tells
        path.write_bytes(content[:end] + behind)
        with pytest.raises(UserError, match="cut off or corrupt"):
            read_image(path)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_whole_jpeg_that_ends_in_gray(mode, tmp_path):
    Image.new(mode, (64, 48), 128 if mode == "L" else (128, 128, 128)).save(tmp_path / "a.jpg")
    assert np.asarray(read_image(tmp_path / "a.jpg")).shape == (48, 64, 3)


@pytest.mark.parametrize("most", [255, 4095, 65535])
def test_bits_that_are_used(most, tmp_path):
    """Sensors of 12 bits write files of 16: the picture is not nearly black, and the report says what was done."""
    ramp = np.linspace(0, most, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    pixels = np.asarray(decode(tmp_path / "a.png"))
    assert pixels.min() == 0 and pixels.max() == 255
    notes = inspect_image(tmp_path / "a.png").notes
    assert ("12 bits in 16, brightened" in notes) == (most == 4095)
    assert ("8 bits in 16, brightened" in notes) == (most == 255)


@pytest.mark.parametrize("value", [-1, 65536])
def test_32_bits_are_refused(value, tmp_path):
    Image.fromarray(np.full((48, 64), value, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(BadFile, match="32-bit pixels: save it with 8 or 16 bits"):
        decode(tmp_path / "a.tif")
    with pytest.raises(BadFile, match="32-bit pixels: save it with 8 or 16 bits"):
        inspect_image(tmp_path / "a.tif")


def test_what_is_no_file_is_not_opened(tmp_path):
    """A pipe would wait for ever, /dev/zero never end, PostScript start Ghostscript."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(BadFile, match="a pipe or device, not a file"):
            open_image(path)
    os.mkfifo(tmp_path / "train.csv")
    assert "train.csv: a pipe or device, not a file" in refused(tmp_path)
    layouts.picture(tmp_path / "B" / "a.png")
    assert "zero: a pipe or device, not a file" in refused(csv_list(tmp_path / "B", "a.png,/dev/zero"))
    Image.new("RGB", (64, 48)).save(tmp_path / "mask.eps")
    with pytest.raises(BadFile, match="not a picture"):
        open_image(tmp_path / "mask.eps")


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_pictures_of_phones(suffix, tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = 200
    if suffix == ".heic":
        pillow_heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / f"a{suffix}", quality=90)
    else:
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}", quality=95)
    read = np.asarray(read_image(tmp_path / f"a{suffix}")).astype(int)
    assert np.abs(read - pixels).max() < 12
    assert inspect_image(tmp_path / f"a{suffix}").size == (48, 64)
    monkeypatch.setattr("dkpnet_ext.data.images._formats", lambda: ["JPEG", "PNG"])
    with pytest.raises(UserError, match="HEIC or AVIF: pip install pillow-heif, or save it as JPEG"):
        read_image(tmp_path / f"a{suffix}")
