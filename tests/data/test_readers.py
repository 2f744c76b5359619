"""Every layout, as the files lie on a user's disk, and what a reader says about them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import layouts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from dkpnet_ext.data import images
from dkpnet_ext.data.images import decode, inspect_image, mirror
from dkpnet_ext.data.readers import BadFile, base, find_layout, jhu_crowd, nwpu, read_domain, shanghaitech
from dkpnet_ext.data.regions import region_mask
from dkpnet_ext.errors import UserError

ALL = {"1": 2, "2": 1, "3": 0}  # heads of layouts.POINTS
CASES = {
    "official ShanghaiTech": (layouts.shanghaitech, "shanghaitech", {"train": 3, "test": 3}),
    "ShanghaiTech of the mirror": (
        lambda root: layouts.shanghaitech(root, "ground-truth"),
        "shanghaitech",
        {"train": 3, "test": 3},
    ),
    "UCF-QNRF": (layouts.ucf_qnrf, "ucf-qnrf", {"train": 3, "test": 3}),
    "UCF_CC_50": (layouts.ucf_cc_50, "ucf-cc-50", {"train": 3, "test": 2}),
    "NWPU mats": (layouts.nwpu, "nwpu", {"train": 2, "test": 1, "unlabelled": 2}),
    "NWPU jsons, parts, one token": (
        lambda root: layouts.nwpu(root, "jsons", tuple(f"images_part{i}" for i in range(1, 6)), 1),
        "nwpu",
        {"train": 2, "test": 1, "unlabelled": 2},
    ),
    "JHU-Crowd++": (layouts.jhu_crowd, "jhu-crowd", {"train": 3, "val": 3, "test": 3}),
    "Beijing-BRT": (layouts.beijing_brt, "beijing-brt", {"train": 3, "test": 3}),
    "CSV": (layouts.csv_lists, "list", {"train": 3, "test": 3}),
    "JSON": (layouts.json_lists, "list", {"train": 3, "val": 3, "test": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_layout(case, tmp_path):
    write, layout, counts = CASES[case]
    # macOS' leftovers and notes of one's own lie in such folders.
    root = write(tmp_path / "data")
    for folder in [path.parent for path in root.rglob("*.*g")]:
        (folder / "._IMG_1.jpg").write_bytes(b"\0\5\26\7")
        (folder / "Thumbs.db").write_bytes(b"junk")
    records, report = read_domain("X", root, progress=False)
    assert report.layout == layout
    assert report.bad == []
    assert {split: len(rows) for split, rows in records.items() if rows} == counts
    for rows in records.values():
        for record in rows:
            assert record.size == (48, 64)
            assert record.image.exists()
            if record.split == "unlabelled":
                assert record.points is None
                continue
            number = {"40": "1", "41": "1", "50": "1"}.get(record.image.stem, record.image.stem[-1])
            if layout == "ucf-cc-50":
                number = "1"
            expected = np.array(layouts.POINTS[number]).reshape(-1, 2)
            if layout == "jhu-crowd":
                expected = np.round(expected)  # its annotations are whole numbers
            assert np.array_equal(record.points, expected)
    assert sum(report.heads["train"]) == sum(len(record.points) for record in records["train"])


def test_order_is_by_number(tmp_path):
    for number in (1, 2, 10, 9):
        layouts.picture(tmp_path / "train_data/images" / f"IMG_{number}.jpg")
        layouts.shanghai_mat(tmp_path / "train_data/ground_truth" / f"GT_IMG_{number}.mat", [[1, 1]])
    records, _ = read_domain("X", tmp_path, progress=False)
    assert [record.name for record in records["train"]] == ["IMG_1.jpg", "IMG_2.jpg", "IMG_9.jpg", "IMG_10.jpg"]


def test_nwpu_parts_hold_every_image(tmp_path):
    parts = tuple(f"images_part{i}" for i in range(1, 6))
    records, _ = read_domain("X", layouts.nwpu(tmp_path, "jsons", parts), progress=False)
    folders = {record.image.parent.name for rows in records.values() for record in rows}
    assert folders == set(parts)


def test_single_list_file_is_a_test_split(tmp_path):
    root = layouts.csv_lists(tmp_path)
    records, _ = read_domain("X", root / "train.csv", progress=False)
    assert [len(records[split]) for split in ("train", "val", "test")] == [0, 0, 3]


def test_long_inline_list(tmp_path):
    """20,000 heads on one CSV line are more than the csv module's default limit of 128 KiB."""
    layouts.picture(tmp_path / "a.png", (640, 480))
    points = [[i % 640, i // 640] for i in range(20_000)]
    (tmp_path / "test.csv").write_text(f'image,points\na.png,"{points}"\n')
    records, _ = read_domain("X", tmp_path, progress=False)
    assert np.array_equal(records["test"][0].points, points)


def test_list_written_by_excel(tmp_path):
    """A byte order mark, CRLF, further columns, and a comma and a line break inside quotes."""
    layouts.picture(tmp_path / "a, b.png")
    text = 'id,image,points\r\n7,"a, b.png","[[1, 2],\r\n[3, 4]]"\r\n'
    (tmp_path / "test.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    records, _ = read_domain("X", tmp_path, progress=False)
    assert records["test"][0].points.tolist() == [[1, 2], [3, 4]]


def test_layout_is_found_one_folder_below(tmp_path):
    layouts.shanghaitech(tmp_path / "part_A_final")
    assert find_layout(tmp_path)[0] == tmp_path / "part_A_final"


def test_two_data_sets_below_are_not_guessed(tmp_path):
    layouts.shanghaitech(tmp_path / "part_A")
    layouts.shanghaitech(tmp_path / "part_B")
    with pytest.raises(UserError, match=r"several data sets here, name one of them: .*part_A, .*part_B"):
        find_layout(tmp_path)


def test_forced_layout(tmp_path):
    """A folder that looks like two layouts is read as told."""
    layouts.shanghaitech(tmp_path)
    layouts.ucf_qnrf(tmp_path)
    assert read_domain("X", tmp_path, progress=False)[1].layout == "shanghaitech"
    assert read_domain("X", tmp_path, "ucf-qnrf", progress=False)[1].layout == "ucf-qnrf"


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (None, "no known data set layout here"),
        ("nothing", "'nothing' is not a layout (known: shanghaitech, ucf-qnrf, "),
        ("jhu-crowd", "no images in the 'jhu-crowd' layout here"),
    ],
)
def test_nothing_to_read(layout, message, tmp_path):
    with pytest.raises(UserError) as error:
        read_domain("X", tmp_path, layout, progress=False)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        read_domain("X", tmp_path / "nowhere", progress=False)


def test_notes(tmp_path):
    """What is usable, but worth knowing, is listed by kind."""
    save = {
        "gray.jpg": lambda path: layouts.picture(path, mode="L"),
        "cmyk.jpg": lambda path: layouts.picture(path, mode="CMYK"),
        "png.jpg": lambda path: layouts.picture(path, format="PNG"),
        "deep.png": lambda path: Image.fromarray(np.full((48, 64), 40_000, np.uint16)).save(path),
        "turned.jpg": lambda path: layouts.picture(path, exif=_exif(6)),
        "empty.png": layouts.picture,
        "outside.png": layouts.picture,
    }
    rows = ["image,points"]
    for name, write in save.items():
        write(tmp_path / name)
        rows.append(f'{name},"{[[1, 1], [2, 2], [-1, 3]] if name == "outside.png" else [[1, 1]]}"')
    rows[6] = "empty.png,[]"
    (tmp_path / "test.csv").write_text("\n".join(rows))
    _, report = read_domain("X", tmp_path, progress=False)
    assert report.bad == []
    assert {note: [name.removeprefix("test/") for name in names] for note, names in report.notes.items()} == {
        "grayscale": ["gray.jpg", "deep.png"],
        "CMYK": ["cmyk.jpg"],
        "wrong suffix": ["png.jpg"],
        "16-bit": ["deep.png"],
        "EXIF orientation": ["turned.jpg"],
        "no heads": ["empty.png"],
        "points outside": ["outside.png"],
    }
    text = str(report)
    assert "test            7 images          8 heads  (0 to 3, mean 1.1 per image)" in text
    assert "grayscale: 2 (test/gray.jpg, test/deep.png)" in text


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_points_turn_with_the_pixels(orientation, suffix, tmp_path):
    """Research sets are annotated on the stored pixels: a white spot stays under its head after turning upright."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[8:16, 40:48] = 255
    for split in ("Train", "Test"):
        (tmp_path / split).mkdir()
        path = tmp_path / split / f"img_0001{suffix}"
        Image.fromarray(pixels).save(path, exif=_exif(orientation))
        layouts.mat(path.with_name("img_0001_ann.mat"), "annPoints", [[40, 8], [47.9, 15.9], [44, 12.5]])
    records, _ = read_domain("X", tmp_path, progress=False)
    record = records["train"][0]
    image = np.asarray(decode(record.image))
    assert image.shape[:2] == record.size == ((48, 64) if orientation < 5 else (64, 48))
    columns, rows = np.floor(record.points).astype(int).T
    assert (image[rows, columns] > 200).all()
    assert image.mean() < 20  # and nothing else is white


def test_points_of_a_list_are_upright(tmp_path):
    """People annotate what they see: the points of a list stay where they are."""
    layouts.picture(tmp_path / "a.jpg", (64, 48), exif=_exif(6))
    (tmp_path / "test.csv").write_text('image,points\na.jpg,"[[40, 60]]"\n')
    records, report = read_domain("X", tmp_path, progress=False)
    assert records["test"][0].size == (64, 48)
    assert records["test"][0].points.tolist() == [[40, 60]]
    assert "points outside" not in report.notes


def test_png_with_exif_behind_its_pixels(tmp_path):
    """The header check and the decoder agree on an orientation that stands after the image data."""
    path = layouts.picture(tmp_path / "a.png", (64, 48))
    data = path.read_bytes()
    chunk = b"eXIf" + _exif(6).tobytes()[6:]
    chunk = (len(chunk) - 4).to_bytes(4, "big") + chunk + PngImagePlugin._crc32(chunk).to_bytes(4, "big")
    end = data.index(b"IEND") - 4
    path.write_bytes(data[:end] + chunk + data[end:])
    assert inspect_image(path).size == (64, 48) == decode(path).size[::-1]


@given(st.floats(0, 1000, exclude_max=True), st.integers(1000, 5000))
@settings(deadline=None)
def test_mirror_moves_pixels(value, length):
    assert np.floor(mirror(np.array(value), length)) == length - 1 - np.floor(value)


def test_16_bit_is_scaled(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((20, 20), 32768, np.uint16)).save(path)
    assert (np.asarray(decode(path)) == 128).all()


def test_decoding_to_a_small_size_keeps_the_picture(tmp_path):
    """The short cut for large JPEGs gives what decoding and resizing in full gives."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    path = tmp_path / "large.jpg"
    coarse.resize((1600, 1200), Image.Resampling.BICUBIC).save(path, quality=95, exif=_exif(6))
    small = np.asarray(decode(path, (200, 150))).astype(int)
    full = decode(path).resize((150, 200), Image.Resampling.BICUBIC)
    assert small.shape == (200, 150, 3)
    assert np.abs(small - np.asarray(full)).max() <= 8
    assert np.abs(small - np.asarray(full)).mean() < 1


def test_huge_but_legitimate_image(tmp_path):
    """NWPU's largest, 4028 x 19044 px, is read, at a fraction of its size where that is all that is needed."""
    path = tmp_path / "large.jpg"
    Image.new("L", (4028, 19044), 128).save(path, quality=30)
    assert inspect_image(path).size == (19044, 4028)
    size = images.limited_size((19044, 4028), 416, 2048)
    assert size == (2048, 433)
    image = np.asarray(decode(path, size))
    assert image.shape == (2048, 433, 3)
    assert (image == 128).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((600, 800), (600, 800)),
        ((208, 400), (416, 800)),
        ((4096, 2000), (2048, 1000)),
        ((100, 5000), (41, 2048)),  # both limits cannot hold: the longest side wins
        ((416, 2048), (416, 2048)),
        ((16, 16), (416, 416)),
    ],
)
def test_limits(size, expected):
    assert images.limited_size(size, 416, 2048) == expected


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_fuzz_annotations(data):
    """No bytes make an annotation reader fail with anything but one line."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz"
        path.write_bytes(data)
        for read in (
            lambda: base.read_mat(path, "annPoints"),
            lambda: nwpu.read_nwpu_json(path),
            lambda: jhu_crowd.read_jhu_text(path),
            lambda: base.read_xy_csv(path),
            lambda: inspect_image(path),
        ):
            with pytest.raises(BadFile) as error:
                read()
                raise BadFile(path, "read")  # a few bytes can be a valid, empty annotation
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["annPoints", "image_info"])
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_fuzz_mat_files(key, position, value, tmp_path_factory):
    """A .mat file with one wrong byte is read as points or refused in one line."""
    path = tmp_path_factory.getbasetemp() / f"{key}.mat"
    if key == "annPoints":
        layouts.mat(path, key, [[1, 2], [3, 4]])
    else:
        layouts.shanghai_mat(path, [[1, 2], [3, 4]])
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        points = base.read_mat(path, key) if key == "annPoints" else shanghaitech.read_image_info(path)
        assert points.ndim == 2
        assert points.shape[1] == 2
        assert np.isfinite(points).all()
    except BadFile as error:
        assert "\n" not in str(error)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=3),
        max_leaves=20,
    )
)
@settings(max_examples=300, deadline=None)
def test_fuzz_points(value):
    """Whatever a JSON file holds in place of points is points or one line."""
    try:
        points = base.as_points(value, Path("x"))
        assert points.ndim == 2
        assert points.shape[1] == 2
        assert np.isfinite(points).all()
    except BadFile as error:
        assert "\n" not in str(error)


real = pytest.mark.skipif("DKPNET_TEST_DATA" not in os.environ, reason="DKPNET_TEST_DATA is not set")


@real
@pytest.mark.parametrize(
    ("folder", "layout", "counts", "heads"),
    [
        ("ShanghaiTech/part_A", "shanghaitech", {"train": 300, "test": 91}, 162_413),
        ("ShanghaiTech/part_B", "shanghaitech", {"train": 400, "test": 158}, 49_151),
        ("Beijing-BRT", "beijing-brt", {"train": 180, "test": 70}, 2_261),
        ("UCF_CC_50", "ucf-cc-50", {"train": 6}, None),
    ],
)
def test_real_data(folder, layout, counts, heads):
    root = Path(os.environ["DKPNET_TEST_DATA"]) / "data" / folder
    records, report = read_domain("X", root, progress=False)
    assert report.layout == layout
    assert report.bad == []
    assert {split: len(rows) for split, rows in records.items() if rows} == counts
    if heads is not None:
        assert sum(report.heads["train"]) == heads
    if folder == "UCF_CC_50":
        assert len(report.notes["grayscale"]) == 6
        assert [name.removeprefix("train/") for name in report.notes["points outside"]] == ["1.jpg", "6.jpg"]


def test_a_list_may_ignore_regions(tmp_path):
    """Polygons of `ignore` are left out, where they overlap too; their heads and pixels with them."""
    picture = np.full((40, 60, 3), 200, np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    ignore = [[[0, 0], [30, 0], [30, 20], [0, 20]], [[20, 10], [50, 10], [50, 30], [20, 30]]]
    entry = {"image": "a.png", "points": [[5, 5], [25, 15], [45, 25], [55, 35]], "ignore": ignore}
    (tmp_path / "train.json").write_text(json.dumps([entry]))
    records, report = read_domain("mine", tmp_path, progress=False)
    assert report.bad == [] and report.notes["heads outside the region of interest, left out"] == ["train/a.png"]
    (record,) = records["train"]
    assert record.points.tolist() == [[55, 35]]
    expected = np.ones((40, 60), bool)
    expected[:20, :30] = expected[10:30, 20:50] = False
    assert (region_mask(record.region, record.size, record.size) == expected).all()
    half = region_mask(record.region, record.size, (20, 30))
    assert (half == expected[::2, ::2]).all()
    (tmp_path / "train.json").unlink()
    (tmp_path / "train.csv").write_text(
        "image,points,ignore\n" + f'a.png,"[[5, 5], [55, 35]]","{json.dumps(ignore)}"\n'
    )
    assert read_domain("mine", tmp_path, progress=False)[0]["train"][0].points.tolist() == [[55, 35]]


@pytest.mark.parametrize("ignore", [[[1, 2]], [[[0, 0], [1, 1]]], "[[", {"a": 1}, 7, [[[0, 0], [1, 1], [2, None]]]])
def test_ignored_regions_that_are_none(tmp_path, ignore):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    (tmp_path / "train.json").write_text(json.dumps([{"image": "a.png", "points": [], "ignore": ignore}]))
    _, report = read_domain("mine", tmp_path, progress=False)
    reason = "entry 0: ignore is no list of polygons [[x, y], [x, y], [x, y], ...]"
    assert report.bad == [(tmp_path / "train.json", reason)]
