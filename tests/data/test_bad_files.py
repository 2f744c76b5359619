"""A corpus of broken files, each with the one line that it must give."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import layouts
import numpy as np
import pytest
import scipy.io
from PIL import Image

from dkpnet_ext.data import load_domains
from dkpnet_ext.errors import UserError

FORMATS = "JPEG, PNG, BMP, GIF, TIFF, WEBP, PPM"


def png_header(path: Path, width: int, height: int) -> None:
    """A PNG that says it is huge, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def truncated(path: Path) -> None:
    layouts.picture(path)
    path.write_bytes(path.read_bytes()[:1500])


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (64, 48), color) for color in ("red", "green", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def floats(path: Path) -> None:
    Image.fromarray(np.zeros((48, 64), np.float32)).save(path)


IMAGES = {
    "empty.jpg": (lambda path: path.write_bytes(b""), "empty file (0 bytes)"),
    "text.jpg": (lambda path: path.write_text("<html>404</html>"), f"not a picture ({FORMATS} are read)"),
    "cut.jpg": (truncated, "cut off or corrupt: its pixels cannot be decoded"),
    "cut.png": (truncated, "cut off or corrupt: its pixels cannot be decoded"),
    "dot.png": (lambda path: layouts.picture(path, (1, 1)), "1x1 px is too small (at least 16 px a side)"),
    "bomb.png": (lambda path: png_header(path, 30_000, 30_000), "more than 178 megapixels by its header"),
    "moving.gif": (animated, "animated or several pages: save one frame as a still image"),
    "moving.png": (animated, "animated or several pages: save one frame as a still image"),
    "pages.tif": (animated, "animated or several pages: save one frame as a still image"),
    "floats.tif": (floats, "floating-point pixels: save it with 8 bits per channel"),
    "vector.jpg": (lambda path: Image.new("RGB", (64, 48)).save(path, "EPS"), f"not a picture ({FORMATS} are read)"),
    "folder.jpg": (lambda path: path.mkdir(), "a folder"),
    "absent.jpg": (lambda path: None, "no such image"),
}


def both_ways(root: Path, tmp_path: Path, file: Path, reason: str) -> None:
    """The file is fatal by default, in one line, and skipped on demand, by name; the good image beside it is kept."""
    with pytest.raises(UserError) as error:
        load_domains([f"X={root}"], cache=tmp_path / "cache", progress=False)
    assert str(error.value) == f"X: {file}: {reason}; repair it, or skip such with --on-bad skip"
    (domain,) = load_domains([f"X={root}"], cache=tmp_path / "cache", on_bad="skip", progress=False)
    assert [item.source.name for item in domain.train + domain.test] == ["good.png"]
    assert domain.report.bad == [(file, reason)]
    assert f"BAD {file}: {reason}" in str(domain.report)


@pytest.mark.parametrize("name", IMAGES)
def test_images(name, tmp_path):
    write, reason = IMAGES[name]
    root = tmp_path / "data"
    layouts.picture(root / "good.png")
    write(root / name)
    (root / "test.csv").write_text(f'image,points\n{name},"[[1, 1]]"\ngood.png,"[[1, 1]]"\n')
    both_ways(root, tmp_path, root / name, reason.replace("{path}", str(root / name)))


LISTS = {
    '"[[1, ""two""]]"': "line 2: points are not pairs of numbers",
    '"[[true, false]]"': "line 2: points are not pairs of numbers",
    '"[[1, 2], [3]]"': "line 2: points are not pairs of numbers",
    '"[[1, 2, 3]]"': "line 2: points have shape [1, 3], expected [N, 2] (x, y)",
    '"[1, 2]"': "line 2: points have shape [2], expected [N, 2] (x, y)",
    '"[[NaN, 2]]"': "line 2: points hold NaN or infinite values",
    '"[[1, Infinity]]"': "line 2: points hold NaN or infinite values",
    '"[[1, 2]"': "line 2: points are not a JSON list",
    "a\0b.csv": "line 2: points are not a JSON list",
    "": "line 2: no points (write [] for an image without people)",
}  # fmt: skip


@pytest.mark.parametrize("points", LISTS)
def test_lists(points, tmp_path):
    root = tmp_path / "data"
    layouts.picture(root / "good.png")
    layouts.picture(root / "bad.png")
    (root / "test.csv").write_text(f'image,points\nbad.png,{points}\ngood.png,"[[1, 1]]"\n')
    both_ways(root, tmp_path, root / "test.csv", LISTS[points])


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([[-3000, 20]], "1 of 1 points lie far outside the 64x48 image, like (-3000, 20)"),
        ([[1, 1], [20, 1e30], [1e300, 2]], "2 of 3 points lie far outside the 64x48 image, like (20, 1e+30)"),
    ],
)
def test_points_of_another_image(points, reason, tmp_path):
    root = tmp_path / "data"
    layouts.picture(root / "good.png")
    layouts.picture(root / "bad.png")
    (root / "test.csv").write_text(f'image,points\nbad.png,"{points}"\ngood.png,"[[1, 1]]"\n')
    both_ways(root, tmp_path, root / "bad.png", reason)


def test_one_wild_point_does_not_condemn_an_image(tmp_path):
    """It is counted as the annotators counted it, and noted."""
    layouts.picture(tmp_path / "a.png")
    (tmp_path / "test.csv").write_text('image,points\na.png,"[[1, 1], [5, 5], [1e300, -1e300]]"\n')
    (domain,) = load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", progress=False)
    assert domain.test[0].count == 3
    assert np.isfinite(domain.test[0].points).all()
    assert domain.report.notes["points outside"] == ["test/a.png"]


WHOLE_LISTS = {
    (
        "test.csv",
        b"place,points\na.png,[]\n",
    ): "no column 'image' in its first line (it has place,points; expected image,points)",
    ("test.csv", b""): "no column 'image' in its first line (the file is empty; expected image,points)",
    ("test.csv", b"image,points\na.png\n"): "line 2 has too few fields",
    ("test.csv", b"image,points\n\xff\xfe\n"): "not a text file (UTF-8)",
    ("test.csv", b'image,points\n"a.png,[]\n'): "not a CSV file (unexpected end of data)",
    ("test.csv", b"image,points\n,[]\n"): "line 2 has no image and points",
    ("test.csv", b"image,points\na.png,heads.csv\n"): None,
    ("test.json", b"{}"): 'not a list of {"image": ..., "points": [[x, y], ...]}',
    ("test.json", b"[1, 2"): "not a JSON file",
    ("test.json", b"[" * 100_000): "not a JSON file",
    ("test.json", b'["a"]'): "entry 0 has no image and points",
    ("test.json", b'[{"image": "a.png"}]'): "entry 0 has no image and points",
    ("test.json", b'[{"image": "a.png", "points": {"x": 1}}]'): "entry 0: points are not pairs of numbers",
    ("test.json", b'[{"image": "a.png", "points": [["1", "2"]]}]'): "entry 0: points are not pairs of numbers",
}


@pytest.mark.parametrize("case", WHOLE_LISTS, ids=lambda case: f"{case[0]} {case[1][:40]!r}")
def test_whole_lists(case, tmp_path):
    name, content = case
    layouts.picture(tmp_path / "a.png")
    (tmp_path / name).write_bytes(content)
    reason, file = WHOLE_LISTS[case], tmp_path / name
    if reason is None:
        reason, file = "no such annotation", tmp_path / "heads.csv"
    with pytest.raises(UserError) as error:
        load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", progress=False)
    assert str(error.value) == f"X: {file}: {reason}; repair it, or skip such with --on-bad skip"


def test_image_listed_twice(tmp_path):
    layouts.picture(tmp_path / "a.png")
    (tmp_path / "test.csv").write_text("image,points\na.png,[]\na.png,[]\n")
    with pytest.raises(UserError, match=r"line 3 lists a\.png again"):
        load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", progress=False)


def save(**variables: object):
    return lambda path: scipy.io.savemat(path, variables)


MATS = {
    "missing key": (save(annPoint=[[1.0, 2.0]]), "no 'annPoints' in it (it holds annPoint)"),
    "nothing": (save(), "no 'annPoints' in it (it holds nothing)"),
    "three columns": (save(annPoints=[[1.0, 2.0, 3.0]]), "points have shape [1, 3], expected [N, 2] (x, y)"),
    "a cube": (save(annPoints=np.ones((2, 2, 2))), "points have shape [2, 2, 2], expected [N, 2] (x, y)"),
    "text": (save(annPoints="hello"), "not a readable .mat file: 'annPoints' is neither numbers nor a cell or struct"),
    "a struct": (save(annPoints={"x": 1.0}), "points are not pairs of numbers"),
    "NaN": (save(annPoints=[[1.0, np.nan]]), "points hold NaN or infinite values"),
    "not a mat": (lambda path: path.write_text("1 2\n" * 99), "not a readable .mat file: it does not begin like one"),
    "empty file": (lambda path: path.write_bytes(b""), "not a readable .mat file: it does not begin like one"),
    "cut off": (
        lambda path: path.write_bytes(layouts.mat(path, "annPoints", [[1, 2]]).read_bytes()[:-9]),
        "not a readable .mat file: it ends too early",
    ),
    "version 7.3": (
        lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file, Platform".ljust(600)),
        "not a readable .mat file: it is of MATLAB's version 7.3: save it again with -v7",
    ),
    "absent": (lambda path: None, "no such annotation"),
}


@pytest.mark.parametrize("case", MATS)
def test_mat_files(case, tmp_path):
    write, reason = MATS[case]
    root = tmp_path / "data"
    layouts.picture(root / "Train" / "good.png")
    layouts.mat(root / "Train" / "good_ann.mat", "annPoints", [[1, 1]])
    layouts.picture(root / "Train" / "bad.png")
    write(root / "Train" / "bad_ann.mat")
    both_ways(root, tmp_path, root / "Train" / "bad_ann.mat", reason)


def test_annotation_without_its_image(tmp_path):
    root = tmp_path / "data"
    layouts.picture(root / "Train" / "good.png")
    layouts.mat(root / "Train" / "good_ann.mat", "annPoints", [[1, 1]])
    lonely = layouts.mat(root / "Train" / "lonely_ann.mat", "annPoints", [[1, 1]])
    both_ways(root, tmp_path, lonely, "an annotation without its image")


@pytest.mark.parametrize("value", [np.ones((2, 2)), {"number": 3.0}, "text"])
def test_image_info_of_another_shape(value, tmp_path):
    layouts.picture(tmp_path / "train_data/images/IMG_1.jpg")
    path = tmp_path / "train_data/ground_truth/GT_IMG_1.mat"
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, {"image_info": value})
    with pytest.raises(UserError) as error:
        load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", progress=False)
    if isinstance(value, str):
        assert "'image_info' is neither numbers nor a cell or struct" in str(error.value)
    else:
        assert f"{path}: image_info is not a struct with 'location', or a cell that holds one;" in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"human_num": 2, "points": [[1, 2]]}, "human_num is 2, but there are 1 points"),
        ({"human_num": 1}, "no list 'points' in it"),
        ([[1, 2]], "no list 'points' in it"),
        ({"points": [["a", "b"]]}, "points are not pairs of numbers"),
        ({"points": "many"}, "no list 'points' in it"),
        ({"points": [[10**400, 1]]}, "points are not pairs of numbers"),
    ],
)
def test_nwpu_json(content, reason, tmp_path):
    root = layouts.nwpu(tmp_path, "jsons")
    (root / "jsons" / "0002.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        load_domains([f"X={root}"], cache=tmp_path / "cache", progress=False)
    assert f"X: {root / 'jsons' / '0002.json'}: {reason};" in str(error.value)


def test_nwpu_list_with_a_strange_line(tmp_path):
    root = layouts.nwpu(tmp_path)
    (root / "train.txt").write_text("0001 1 2\n\n0002 1\n")
    with pytest.raises(UserError, match=r"train.txt: line 3 is neither 'id luminance level' nor 'id'"):
        load_domains([f"X={root}"], cache=tmp_path / "cache", progress=False)


@pytest.mark.parametrize("line", ["1 2", "a b 1 1 0 0", "1 2 3 4 5 6 7", "1"])
def test_jhu_text(line, tmp_path):
    root = layouts.jhu_crowd(tmp_path)
    path = root / "val" / "gt" / "0001.txt"
    path.write_text(f"3 4 12 14 1 0\n{line}\n")
    with pytest.raises(UserError) as error:
        load_domains([f"X={root}"], cache=tmp_path / "cache", progress=False)
    assert f"X: {path}: line 2 is not 'x y w h occlusion blur';" in str(error.value)


def test_several_bad_files_are_counted(tmp_path):
    root = layouts.shanghaitech(tmp_path / "data")
    for number in (1, 2):
        (root / "train_data/images" / f"IMG_{number}.jpg").write_bytes(b"")
    with pytest.raises(UserError) as error:
        load_domains([f"X={root}"], cache=tmp_path / "cache", progress=False)
    assert "IMG_1.jpg: empty file (0 bytes) (and 1 more bad files); repair it" in str(error.value)


def test_good_pictures_of_odd_kinds(tmp_path):
    """CMYK, 16 bits, palettes with transparency, gray: read, and RGB in the cache."""
    layouts.picture(tmp_path / "cmyk.jpg", mode="CMYK")
    layouts.picture(tmp_path / "palette.png", mode="P", transparency=3)
    layouts.picture(tmp_path / "alpha.png", mode="RGBA")
    layouts.picture(tmp_path / "bits.png", mode="1")
    Image.fromarray(np.full((48, 64), 700, np.uint16)).save(tmp_path / "deep.tif")
    names = ("cmyk.jpg", "palette.png", "alpha.png", "bits.png", "deep.tif")
    (tmp_path / "test.csv").write_text("image,points\n" + "".join(f"{name},[]\n" for name in names))
    (domain,) = load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", progress=False)
    for item in domain.test:
        assert item.read().shape == (416, 555, 3)
        assert item.read().dtype == np.uint8
