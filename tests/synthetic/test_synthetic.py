"""The synthetic scenes: geometry, annotation, the conflict between the domains, files."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dkpnet_ext.errors import UserError
from dkpnet_ext.synthetic import figures, scenes
from dkpnet_ext.synthetic.camera import Camera
from dkpnet_ext.synthetic.photograph import paint
from dkpnet_ext.synthetic.places import SCENES, Scene, Thing
from dkpnet_ext.synthetic.scenes import COUNTED, DOMAINS, ensure, render

DIGEST = """
import hashlib, sys
from dkpnet_ext.synthetic.scenes import render
for domain in sys.argv[1:]:
    picture, points = render(domain, "test", 1, seed=5)
    print(hashlib.sha256(picture.tobytes() + points.tobytes()).hexdigest())
"""


def scene_of(domain: str, index: int) -> Scene:
    rng = np.random.default_rng([0, DOMAINS.index(domain), 0, index])
    return SCENES[domain](rng)


def test_same_bytes_in_another_process_and_order():
    here = []
    for domain in ("square", "stadium"):
        picture, points = render(domain, "test", 1, seed=5)
        here.append(hashlib.sha256(picture.tobytes() + points.tobytes()).hexdigest())
    command = [sys.executable, "-c", DIGEST, "stadium", "square"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert here == there[::-1]


def test_seed_split_and_index_each_give_another_picture():
    pictures = [
        render("station", *which)[0] for which in (("train", 0, 0), ("train", 0, 1), ("test", 0, 0), ("train", 1, 0))
    ]
    assert len({picture.tobytes() for picture in pictures}) == 4


@pytest.mark.parametrize("domain", DOMAINS)
def test_pictures_points_and_spread(domain):
    counts = []
    for index in range(14):
        picture, points = render(domain, "train", index)
        height, width = picture.shape[:2]
        assert picture.dtype == np.uint8 and picture.shape == (height, width, 3) and min(height, width) == 384
        assert points.dtype == np.float32 and points.shape == (len(points), 2)
        assert (points >= 0).all() and (points < (width, height)).all()
        counts.append(len(points))
    assert max(counts) >= 6 * min(counts)


def test_domains_are_of_unequal_size_with_a_minority():
    train = [scenes.SIZES[domain][0] for domain in DOMAINS]
    assert len(set(train)) == len(DOMAINS) >= 4 and max(train) >= 2 * min(train)


def test_projection_inverts_the_rays():
    camera = Camera(64, 48, 50.0, 0.4, 6.0)
    a, dy, dz = camera.rays()
    dy, dz = dy[dy[:, 0] < -0.05], dz[dy[:, 0] < -0.05]  # below the horizon
    t = camera.up / -dy  # where each row meets the ground
    x, z = t * a, t * dz + 0 * a
    u, v, depth = camera.project(x, np.zeros_like(x), z)
    np.testing.assert_allclose(u, np.arange(64)[None, :] + 0.5 + 0 * x, atol=1e-3)
    np.testing.assert_allclose(v, np.arange(48)[-len(t) :, None] + 0.5 + 0 * x, atol=1e-3)
    np.testing.assert_allclose(depth, t + 0 * x, rtol=1e-5)
    assert (np.diff(t[:, 0]) < 0).all()  # lower rows are nearer, so heads are larger there


@pytest.mark.parametrize("domain", DOMAINS)
def test_heads_follow_perspective_and_are_not_tiny(domain):
    people = [thing for thing in scene_of(domain, 3).things if COUNTED[domain].get(thing.kind)]
    size = np.array([thing.size for thing in people])
    depth = np.array([thing.depth for thing in people])
    np.testing.assert_allclose(size * depth, size[0] * depth[0], rtol=1e-6)
    assert size.min() > 4


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("size", [5.0, 12.0, 40.0])
def test_the_point_is_the_centre_of_the_head(size, mirror):
    palette = np.zeros((6, 3), np.float32)
    palette[[figures.HAIR - 1, figures.SKIN - 1]] = 1
    camera = Camera(200, 160, 100.0, 0.0, 1.6)
    thing = Thing("ball", "ball", 2, 6, False, palette, 90.3, 71.8, size, 5.0)
    scene = Scene(camera, np.zeros((160, 200, 3), np.float32), [thing], mirror=mirror)
    ((x, y),) = paint(scene, {"ball": True})
    head = scene.canvas[..., 0] > 0.25
    rows, columns = np.nonzero(head)
    assert abs(columns.mean() + 0.5 - x) < 0.5 and abs(rows.mean() + 0.5 - y) < 0.5
    assert abs(x - 90.3) <= 0.51 and abs(y - 71.8) <= 0.51  # placed on whole pixels
    assert head.any(0).sum() == pytest.approx(size, rel=0.3)


def test_a_hidden_head_is_not_annotated():
    palette = np.full((6, 3), 0.5, np.float32)
    camera = Camera(200, 160, 100.0, 0.0, 1.6)
    look = ("person", "person", 1, 5, False, palette)
    back, front = Thing(*look, 100.0, 60.0, 10.0, 9.0), Thing(*look, 100.0, 58.0, 14.0, 6.0)
    aside = Thing(*look, 30.0, 60.0, 10.0, 9.0)
    scene = Scene(camera, np.zeros((160, 200, 3), np.float32), [front, back, aside])
    points = paint(scene, {"person": True})
    assert sorted(round(float(y)) for _, y in points) == [58, 60] and sorted(points[:, 0] < 50) == [False, True]


# what one domain counts and another, where it occurs just as well, does not
CONFLICTS = [
    ("ball", "stadium", "square"),
    ("ball", "stadium", "street"),
    ("umbrella", "square", "street"),
    ("silhouette", "station", "square"),
    ("silhouette", "station", "street"),
]


@pytest.mark.parametrize(("kind", "counts", "ignores"), CONFLICTS)
def test_the_same_thing_counts_in_one_domain_and_not_in_another(kind, counts, ignores):
    assert COUNTED[counts][kind] and not COUNTED[ignores][kind]
    here, there = (
        [thing for index in range(12) for thing in scene_of(domain, index).things if thing.kind == kind]
        for domain in (counts, ignores)
    )
    assert len(here) >= 10 and len(there) >= 10
    assert {thing.shape for thing in here} == {thing.shape for thing in there}
    # sizes and colours of the one lie within those of the other for a good part
    for measure in (lambda thing: thing.size, lambda thing: float(thing.palette.mean())):
        a, b = (np.array([measure(thing) for thing in things]) for things in (here, there))
        low, high = max(a.min(), b.min()), min(a.max(), b.max())
        assert ((a >= low) & (a <= high)).mean() > 0.25 and ((b >= low) & (b <= high)).mean() > 0.25


def test_the_same_pixels_mean_different_counts():
    for domain, other in (("square", "street"), ("street", "station"), ("stadium", "square")):
        index = next(
            i
            for i in range(30)
            if any(
                COUNTED[domain].get(t.kind, False) != COUNTED[other].get(t.kind, False)
                for t in scene_of(domain, i).things
            )
        )
        one, two = scene_of(domain, index), scene_of(domain, index)
        own, foreign = paint(one, COUNTED[domain]), paint(two, COUNTED[other])
        np.testing.assert_array_equal(one.canvas, two.canvas)
        assert len(own) != len(foreign)


def test_street_leaves_out_the_far_figures_that_square_counts():
    far = [thing for index in range(8) for thing in scene_of("street", index).things if thing.kind == "far"]
    near = [thing for index in range(8) for thing in scene_of("street", index).things if thing.kind == "person"]
    crowd = [thing for index in range(4) for thing in scene_of("square", index).things if thing.kind == "person"]
    assert max(t.size for t in far) < 0.8 * min(t.size for t in near)  # a clear gap: the rule can be learned
    assert min(t.size for t in crowd) < max(t.size for t in far)  # and contradicts the other domain's
    assert not COUNTED["street"]["far"]


def test_unknown_names_and_negative_numbers():
    for arguments, message in (
        (("park", "train", 0), "unknown synthetic domain 'park': choose from square, street, stadium, station"),
        (("square", "val", 0), "unknown split 'val' of the synthetic data: choose from train, test"),
        (("square", "train", -1), "synthetic data needs index and seed from 0, got index -1, seed 0"),
    ):
        with pytest.raises(UserError) as error:
            render(*arguments)
        assert str(error.value) == message


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(scenes, "SIZES", dict.fromkeys(DOMAINS, (2, 1)))


def test_ensure_writes_once_what_render_gives(small, tmp_path, capsys):
    folders = ensure(tmp_path / "a", progress=True)
    assert tuple(folders) == DOMAINS
    assert capsys.readouterr().err.count("\n") == len(DOMAINS)
    for domain, folder in folders.items():
        assert f"v{scenes.VERSION}-seed0" in str(folder)
        for split, n in (("train", 2), ("test", 1)):
            with open(folder / f"{split}.csv") as file:
                rows = list(csv.DictReader(file))
            assert len(rows) == n
            for index, row in enumerate(rows):
                picture, points = render(domain, split, index)
                stored = np.asarray(Image.open(folder / row["image"]), np.float32)
                assert np.abs(stored - picture).mean() < 6  # JPEG
                np.testing.assert_allclose(np.array(json.loads(row["points"])).reshape(-1, 2), points, atol=0.006)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert ensure(tmp_path / "a", progress=True) == folders
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert capsys.readouterr().err == ""


def test_an_interrupted_ensure_leaves_nothing(small, tmp_path, monkeypatch):
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scenes, "render", fail)
        with pytest.raises(KeyboardInterrupt):
            ensure(tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_another_seed_gets_its_own_folder(small, tmp_path):
    assert ensure(tmp_path, 0, False)["square"] != ensure(tmp_path, 1, False)["square"]


def test_an_unwritable_root_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"below: cannot be written"):
        ensure(tmp_path / "file" / "below", progress=False)


def test_command(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scenes, "contact_sheet", functools.partial(scenes.contact_sheet, pool=4, columns=4))
    monkeypatch.setattr(sys, "argv", ["synthetic", str(tmp_path)])
    scenes.main()
    assert capsys.readouterr().out.count("=") == len(DOMAINS)
    assert Image.open(tmp_path / "contact_sheet.png").size == (1600, 1200)
    monkeypatch.setattr(sys, "argv", ["synthetic"])
    with pytest.raises(UserError, match=r"usage: python -m dkpnet_ext\.synthetic\.scenes OUT"):
        scenes.main()
