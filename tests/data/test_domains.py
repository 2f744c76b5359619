"""The cache, the items it gives, and the command line's specifications."""

from __future__ import annotations

import gc
import io
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import layouts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dkpnet_ext.data import cache as image_cache
from dkpnet_ext.data import domains, load_domains, split_validation
from dkpnet_ext.data.cache import default_cache
from dkpnet_ext.data.domains import Item, parse_spec
from dkpnet_ext.errors import UserError


def load(root: Path, cache: Path, **options) -> list[Item]:
    (domain,) = load_domains([f"X={root}"], cache=cache, progress=False, **options)
    return domain.train + domain.val + domain.test


def files(cache: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_items(tmp_path):
    (domain,) = load_domains([f"QNRF={layouts.ucf_qnrf(tmp_path / 'data')}"], cache=tmp_path / "c", progress=False)
    assert (domain.name, domain.layout, domain.root) == ("QNRF", "ucf-qnrf", tmp_path / "data")
    assert [item.name for item in domain.train] == [f"QNRF/train/img_000{i}.jpg" for i in (1, 2, 3)]
    item = domain.train[0]
    image = item.read()
    assert isinstance(image, np.memmap)
    assert image.shape == (416, 555, 3) == (*item.size, 3)
    assert image.dtype == np.uint8
    assert item.points.dtype == np.float32
    assert item.count == 2
    assert item.scale == pytest.approx(555 / 64)
    expected = np.array(layouts.POINTS["1"]) * [555 / 64, 416 / 48]
    np.testing.assert_allclose(item.points, expected, rtol=1e-6)
    with Image.open(item.source) as source:
        resized = np.asarray(source.resize((555, 416), Image.Resampling.BICUBIC))
    assert np.array_equal(image, resized)


def test_reading_in_threads(tmp_path):
    """Parsing Python source in a thread, as `np.load` does with its header, fails where the collector lets another one run
    (Python before 3.11.8).
    """
    (domain,) = load_domains([f"QNRF={layouts.ucf_qnrf(tmp_path / 'data')}"], cache=tmp_path / "c", progress=False)
    expected = [item.read().copy() for item in domain.train]

    def read(number: int, depth: int) -> np.ndarray:
        return read(number, depth - 1) if depth else domain.train[number].read()

    def yield_to_others(*event) -> None:
        time.sleep(0)

    threshold = gc.get_threshold()
    gc.callbacks.append(yield_to_others)
    gc.set_threshold(20)
    try:
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(lambda i: read(i % len(expected), i % 5), range(1500)))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(yield_to_others)
    assert all(np.array_equal(image, expected[i % len(expected)]) for i, image in enumerate(images))


def test_nwpu_test_images_are_unlabelled(tmp_path):
    (domain,) = load_domains([f"N={layouts.nwpu(tmp_path / 'd')}"], cache=tmp_path / "c", progress=False)
    assert [item.name for item in domain.test] == ["N/test/0003.jpg"]
    assert [item.name for item in domain.unlabelled] == ["N/unlabelled/3610.jpg", "N/unlabelled/3611.jpg"]


def test_second_time_nothing_is_written(tmp_path):
    root = layouts.shanghaitech(tmp_path / "data")
    first = load(root, tmp_path / "cache")
    before = files(tmp_path / "cache")
    assert len(before) == 6
    assert all(a.image == b.image for a, b in zip(first, load(root, tmp_path / "cache"), strict=True))
    assert files(tmp_path / "cache") == before


def test_a_moved_folder_keeps_its_cache(tmp_path):
    root = layouts.shanghaitech(tmp_path / "data")
    load(root, tmp_path / "cache")
    before = files(tmp_path / "cache")
    root.rename(tmp_path / "elsewhere")
    load(tmp_path / "elsewhere", tmp_path / "cache")
    assert files(tmp_path / "cache") == before


def test_another_picture_under_the_same_name(tmp_path):
    root = layouts.csv_lists(tmp_path / "data")
    old = load(root, tmp_path / "cache")[0]
    Image.new("RGB", (64, 48), "white").save(old.source)
    new = load(root, tmp_path / "cache")[0]
    assert new.image != old.image
    assert (new.read() == 255).all()


def test_frames_that_differ_in_the_middle_alone(tmp_path):
    """Letterboxed frames that are not compressed. At commit 25e2632 all of them were the first."""
    root = tmp_path / "data"
    root.mkdir()
    for number in (1, 2):
        frame = np.zeros((240, 320, 3), np.uint8)
        frame[80:160] = 90 * number
        Image.fromarray(frame).save(root / f"{number}.bmp")
        os.utime(root / f"{number}.bmp", ns=(0, 0))
    (root / "train.csv").write_text("image,points\n1.bmp,[]\n2.bmp,[]\n")
    assert [item.read()[120, 0, 0] for item in load(root, tmp_path / "cache", min_side=64)] == [90, 180]


def test_limits_matter_only_where_they_change_the_size(tmp_path):
    root = layouts.csv_lists(tmp_path / "data")
    load(root, tmp_path / "cache", min_side=100, max_side=300)
    before = files(tmp_path / "cache")
    load(root, tmp_path / "cache", min_side=100, max_side=400)
    assert files(tmp_path / "cache") == before
    assert load(root, tmp_path / "cache", min_side=20, max_side=32)[0].size == (24, 32)


@pytest.mark.parametrize("limits", [(0, 100), (200, 100)])
def test_impossible_limits(limits, tmp_path):
    with pytest.raises(UserError, match="give 0 < min_side <= max_side"):
        load(layouts.csv_lists(tmp_path / "d"), tmp_path, min_side=limits[0], max_side=limits[1])


def test_half_a_file_is_replaced(tmp_path):
    """As a power failure may leave it."""
    root = layouts.csv_lists(tmp_path / "data")
    item = load(root, tmp_path / "cache")[0]
    whole = item.image.read_bytes()
    item.image.write_bytes(whole[:1000])
    load(root, tmp_path / "cache")
    assert item.image.read_bytes() == whole


def test_other_bytes_of_the_right_size_are_replaced(tmp_path):
    """A file system may keep the size and lose the content: the header tells."""
    root = layouts.csv_lists(tmp_path / "data")
    item = load(root, tmp_path / "cache")[0]
    whole = item.image.read_bytes()
    item.image.write_bytes(bytes(len(whole)))
    assert np.array_equal(load(root, tmp_path / "cache")[0].read(), np.load(io.BytesIO(whole)))
    assert item.image.read_bytes() == whole


def test_bytes_reach_the_disk_before_their_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(image_cache.os, "fsync", lambda number: done.append("fsync"))
    replace = image_cache.os.replace
    monkeypatch.setattr(image_cache.os, "replace", lambda *names: (done.append("replace"), replace(*names)))
    layouts.picture(tmp_path / "a.png")
    (tmp_path / "test.csv").write_text("image,points\na.png,[]\n")
    load(tmp_path, tmp_path / "cache")
    assert done == ["fsync", "replace"]


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    root = layouts.csv_lists(tmp_path / "data")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_cache.np, "save", full)
    with pytest.raises(UserError) as error:
        load(root, tmp_path / "cache")
    assert re.fullmatch(
        rf"image cache: {tmp_path / 'cache'}/images/.*\.npy: cannot be written \(No space left on device\); "
        "set DKPNET_CACHE to another folder",
        str(error.value),
    )
    assert files(tmp_path / "cache") == {}


def test_full_disk_is_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(UserError, match=r"X needs 0.0\d+ GB here and 9e-09 GB are free; set DKPNET_CACHE"):
        load(layouts.csv_lists(tmp_path / "data"), tmp_path / "cache")


def test_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the image cache"):
        load(layouts.csv_lists(tmp_path / "data"), tmp_path / "file" / "cache")


def _load_in_process(arguments: tuple[Path, Path]) -> list[bytes]:
    return [bytes(item.read()) for item in load(*arguments)]


def test_several_processes_at_once(tmp_path):
    root = layouts.shanghaitech(tmp_path / "data")
    with ProcessPoolExecutor(3, get_context("fork")) as pool:
        results = list(pool.map(_load_in_process, [(root, tmp_path / "cache")] * 6))
    assert all(result == results[0] for result in results)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@given(
    old=st.tuples(st.integers(16, 3000), st.integers(16, 3000)),
    new=st.tuples(st.integers(1, 2048), st.integers(1, 2048)),
    where=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
@settings(deadline=None)
def test_points_inside_stay_inside(old, new, where):
    """Also after rounding to float32, as near to the border as float64 knows."""
    points = np.minimum(np.array([where]) * old[::-1], np.nextafter(old[::-1], 0))
    x, y = domains._scale_points(points, old, new)[0]
    assert 0 <= x < new[1]
    assert 0 <= y < new[0]


def test_points_outside_stay_outside(tmp_path):
    layouts.picture(tmp_path / "a.png", (640, 480))
    (tmp_path / "test.csv").write_text('image,points\na.png,"[[640, 10], [-0.01, 5], [639.999999999, 479.9]]"\n')
    (item,) = load(tmp_path, tmp_path / "cache")
    assert item.count == 3
    inside = ((item.points >= 0) & (item.points < [640, 480])).all(axis=1)
    assert inside.tolist() == [False, False, True]


def test_report_is_shown(tmp_path, capsys):
    root = layouts.shanghaitech(tmp_path / "data")
    load_domains([f"SHA={root}"], cache=tmp_path / "cache")
    shown = capsys.readouterr().err
    assert f"SHA: layout shanghaitech in {root}\n" in shown
    assert re.search(r"  train +3 images +3 heads  \(0 to 2, mean 1.0 per image\)\n", shown)
    assert f"SHA: caching 6 images, 0.00 GB, in {tmp_path / 'cache'}\n" in shown


def test_default_cache(monkeypatch):
    monkeypatch.setenv("DKPNET_CACHE", "/somewhere")
    assert default_cache() == Path("/somewhere")
    monkeypatch.setenv("DKPNET_CACHE", "~/somewhere")
    assert default_cache() == Path.home() / "somewhere"
    monkeypatch.delenv("DKPNET_CACHE")
    assert default_cache() == Path.home() / ".cache" / "dkpnet_ext"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("SHA=data/part_A", ("SHA", Path("data/part_A"), None)),
        ("A=x=y", ("A", Path("x=y"), None)),
        ("own.set-1=data:list", ("own.set-1", Path("data"), "list")),
        ("A=with:colon/inside", ("A", Path("with:colon/inside"), None)),
        ("A=~/data", ("A", Path.home() / "data", None)),
    ],
)
def test_spec(spec, expected):
    assert parse_spec(spec) == expected


@pytest.mark.parametrize("spec", ["data/part_A", "=data", "A=", "a b=data", "../x=data", ""])
def test_spec_without_a_name(spec):
    with pytest.raises(UserError, match="write PATH, NAME=PATH, NAME=PATH:layout, or synthetic"):
        parse_spec(spec)


def test_a_path_is_named_after_itself(tmp_path, monkeypatch):
    """`train --data mine` works as `prepare mine` does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My Crowds").mkdir()
    (tmp_path / "a.list=1").mkdir()
    (tmp_path / "own.csv").touch()
    assert parse_spec("My Crowds") == ("My_Crowds", Path("My Crowds"), None)
    assert parse_spec("My Crowds:list") == ("My_Crowds", Path("My Crowds"), "list")
    assert parse_spec("./a.list=1") == ("a.list_1", Path("a.list=1"), None)
    (tmp_path / "lr=0.1").mkdir()
    assert parse_spec("lr=0.1") == ("lr_0.1", Path("lr=0.1"), None)
    assert parse_spec("own.csv") == ("own", Path("own.csv"), None)


def test_spec_with_unknown_layout():
    with pytest.raises(UserError, match=r"'nothing' is not a layout \(known: shanghaitech, "):
        parse_spec("A=data:nothing")


def test_a_folder_with_a_colon(tmp_path):
    root = layouts.csv_lists(tmp_path / "at_10:list")
    assert parse_spec(f"A={root}") == ("A", root, None)


def test_forced_layout(tmp_path):
    root = layouts.shanghaitech(tmp_path / "data")
    layouts.csv_lists(root)
    (domain,) = load_domains([f"X={root}:list"], cache=tmp_path / "cache", progress=False)
    assert domain.layout == "list"


def test_same_name_twice(tmp_path):
    with pytest.raises(UserError, match="two data sets are called 'A'"):
        load_domains(["A=x", "A=y"], cache=tmp_path, progress=False)


def some_items(count: int) -> list[Item]:
    none = np.zeros((0, 2), np.float32)
    return [Item(f"X/train/{i}.jpg", "X", Path("a"), (1, 1), none, 1.0, Path("b")) for i in range(count)]


@given(count=st.integers(0, 60), fraction=st.floats(0, 0.99), seed=st.integers(0, 5), order=st.randoms())
@settings(deadline=None)
def test_validation_split(count, fraction, seed, order):
    items = some_items(count)
    train, val = split_validation(items, fraction, seed)
    assert sorted(item.name for item in train + val) == sorted(item.name for item in items)
    expected = round(fraction * count)
    if fraction > 0:
        expected = min(max(expected, 1), max(count - 1, 0))
    assert len(val) == expected
    order.shuffle(items)
    assert {item.name for item in split_validation(items, fraction, seed)[1]} == {item.name for item in val}


def test_validation_split_depends_on_the_seed():
    items = some_items(100)
    chosen = [{item.name for item in split_validation(items, 0.2, seed)[1]} for seed in (0, 1)]
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_validation_fraction(fraction):
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\)"):
        split_validation(some_items(3), fraction)
