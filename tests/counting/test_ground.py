"""People per square metre, on synthetic cameras whose geometry is known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from dkpnet_ext.counting.ground import (
    HEAD_HEIGHT,
    Ground,
    count_ground,
    ground_layer,
    ground_picture,
    on_ground,
    parse_points,
    planes,
    project,
    read_ground,
    words,
)
from dkpnet_ext.errors import UserError
from dkpnet_ext.synthetic.camera import Camera

SIZE = (384, 512)  # (H, W)


def camera(up: float = 9.0, tilt: float = 25.0, focal: float = 520.0) -> Camera:
    return Camera(512, 384, focal, np.radians(tilt), up)


def pixels(cam: Camera, x, z, h: float = 0.0) -> np.ndarray:
    x, z = np.asarray(x, float), np.asarray(z, float)
    u, v, _ = cam.project(x, np.full_like(x, h), z)
    return np.stack([u, v], 1)


def rectangle(cam: Camera, half: float = 4.0, near: float = 14.0, far: float = 22.0, turn: float = 0.0) -> Ground:
    """Its first corner is the near left one; turned about its middle by ``turn`` degrees."""
    x = np.array([-half, half, half, -half])
    z = np.array([near, near, far, far]) - (near + far) / 2
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    corners = pixels(cam, cos * x - sin * z, sin * x + cos * z + (near + far) / 2)
    return read_ground(corners, (2 * half, far - near))


@pytest.mark.parametrize("turn", [0, 1, 20, 45, 100])
@pytest.mark.parametrize(("up", "tilt", "focal"), [(9, 25, 520), (5, 30, 400), (15, 40, 600), (4, 18, 900)])
def test_the_camera_is_found(up, tilt, focal, turn):
    cam = camera(up, tilt, focal)
    middle = up / np.tan(np.radians(tilt))  # what it looks at
    ground = rectangle(cam, 1.0, middle - 1, middle + 1, turn)
    for order in (slice(None), slice(None, None, -1)):  # either way around
        found = planes(Ground(ground.corners[order], ground.size), SIZE)
        assert found.up == pytest.approx(up, rel=1e-6)
        heads = project(found.heads, np.array([[0, 0], [2, 0], [2, 2], [0, 2]]))
        corners = project(np.linalg.inv(camera_to_ground(cam)), ground.corners[order])
        assert heads == pytest.approx(pixels(cam, *corners.T, HEAD_HEIGHT), abs=1e-4)


def camera_to_ground(cam: Camera) -> np.ndarray:
    """The homography of the ground (x, z) to pixels, written out."""
    sin, cos, f = np.sin(cam.tilt), np.cos(cam.tilt), cam.focal
    depth = np.array([0, cos, cam.up * sin])
    down = np.array([0, -sin, cam.up * cos])
    across = np.array([f, 0, 0.0])
    return np.stack([across + cam.width / 2 * depth, f * down + cam.height / 2 * depth, depth])


def test_people_on_the_rectangle_and_the_densest_square():
    cam = camera()
    ground = rectangle(cam)
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-6, 6, 200), rng.uniform(12, 24, 200)
    x = np.append(x, rng.uniform(1.0, 2.0, 20))  # a dense patch of 1 m x 1 m, inside a square of 2 m x 2 m
    z = np.append(z, rng.uniform(18.0, 19.0, 20))
    heads = pixels(cam, x, z, HEAD_HEIGHT)
    found = on_ground(planes(ground, SIZE), ground.size, heads, np.ones(len(heads)))
    inside = (np.abs(x) < 4) & (z > 14) & (z < 22)
    assert found.people == inside.sum() and found.area == 64
    assert found.densest * 4 >= 20 and found.side == 2
    # Its corners are on the ground around the patch.
    corners = project(np.linalg.inv(camera_to_ground(cam)), found.where)
    low, high = corners.min(0), corners.max(0)
    assert (high - low) == pytest.approx([2, 2], abs=1e-6)
    assert (low <= [1.01, 18.01]).all() and (high >= [1.99, 18.99]).all()
    assert ((np.abs(x - corners[:, 0].mean()) < 1) & (np.abs(z - corners[:, 1].mean()) < 1)).sum() == found.densest * 4
    # On the ground, without the correction, heads lie too far away: (up / (up - 1.6))^2 as much area.
    where = project(np.linalg.inv(planes(ground, SIZE).ground), heads[inside])
    spread = np.ptp(where, axis=0) / np.ptp(np.stack([x, z], 1)[inside], axis=0)
    assert spread == pytest.approx(9 / (9 - HEAD_HEIGHT), rel=1e-6)


def test_a_density_is_counted_as_its_points_are():
    """Cells of 4 px, at a picture's own size and at half of it."""
    cam = camera()
    ground = rectangle(cam)
    rng = np.random.default_rng(1)
    heads = pixels(cam, rng.uniform(-5, 5, 150), rng.uniform(13, 23, 150), HEAD_HEIGHT)
    points = on_ground(planes(ground, SIZE), ground.size, heads, np.ones(150))
    for counted, cell in ((SIZE, 4), ((192, 256), 8)):
        density = torch.zeros(counted[0] // 4, counted[1] // 4)
        for x, y in heads:
            density[int(y // cell), int(x // cell)] += 1
        found = count_ground(density, ground, SIZE, 4, counted)
        assert found.people == pytest.approx(points.people, abs=3 * cell / 4)
        assert found.densest == pytest.approx(points.densest, abs=0.3 * cell / 4)
        spoken = json.loads(json.dumps(found.spoken()))
        assert spoken["people_per_square_metre"] == found.people / 64 and spoken["plane"] == "heads"
        assert spoken["camera_metres"] == 9.0 and len(spoken["densest_square"]["corners"]) == 4
        layer = np.asarray(ground_layer(found, ground, SIZE))
        assert layer.shape == (384, 512, 4) and (layer[..., 3] > 0).sum() > 1000
        picture = ground_picture(found, ground, Image.new("RGB", (512, 384)))
        assert picture.width >= 512 and picture.height > 384
    empty = count_ground(torch.zeros(96, 128), ground, SIZE, 4, SIZE)
    assert empty.people == empty.densest == 0


def test_straight_down_the_camera_is_not_told():
    """From above a rectangle is a rectangle, whatever the focal length."""
    ground = read_ground([[100, 100], [300, 100], [300, 200], [100, 200]], (20, 10))
    found = planes(ground, SIZE)
    assert found.up is None and (found.heads == found.ground).all()
    count = on_ground(found, ground.size, np.array([[200.0, 150.0], [50.0, 50.0]]), np.ones(2))
    assert count.people == 1 and "too low" in words(count.spoken()) and count.spoken()["camera_metres"] is None


@pytest.mark.parametrize(
    ("corners", "size", "message"),
    [
        ([[0, 0], [9, 0], [9, 9]], (1, 1), "four points"),
        ([[0, 0], [9, 0], [9, 9], [0]], (1, 1), "four points"),
        ("abcd", (1, 1), "four points"),
        (None, (1, 1), "four points"),
        ([[0, 0], [9, 0], [9, float("inf")], [0, 9]], (1, 1), "four points"),
        ([[0, 0], [9, 0], [9, 9], [0, 9]], (1,), "two lengths"),
        ([[0, 0], [9, 0], [9, 9], [0, 9]], (1, 0), "two lengths"),
        ([[0, 0], [9, 0], [9, 9], [0, 9]], (1, float("nan")), "two lengths"),
        ([[0, 0], [9, 0], [9, 9], [0, 9]], None, "two lengths"),
        ([[0, 0], [5, 0], [9, 0], [0, 9]], (1, 1), "three lie on one line"),
        ([[0, 0], [0, 0], [9, 9], [0, 9]], (1, 1), "two of the points are equal"),
        ([[0, 0], [9, 9], [9, 0], [0, 9]], (1, 1), "the points' order crosses"),
        ([[0, 0], [9, 0], [3, 3], [0, 9]], (1, 1), "the points' order crosses"),
    ],
)
def test_points_that_are_no_rectangle(corners, size, message):
    with pytest.raises(UserError, match=message) as error:
        read_ground(corners, size)
    assert "\n" not in str(error.value)


def test_points_outside_and_cameras_too_low():
    outside = read_ground([[0, 0], [513, 0], [500, 90], [0, 90]], (1, 1))
    with pytest.raises(UserError, match="a point lies outside of the picture of 512x384 px"):
        planes(outside, SIZE)
    low = rectangle(camera(up=1.8, tilt=5), 1.5, 6, 12)
    with pytest.raises(UserError, match=r"the camera is 1\.8 m up and looks along the heads"):
        planes(low, SIZE)


def test_places_whose_heads_are_not_in_the_picture_are_left_out():
    """The far edge is at the picture's upper border: the heads of those who stand there are above it."""
    cam = camera(tilt=40)
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-1, 1, 500), rng.uniform(10, 22, 500)
    ground = rectangle(cam, 1.0, 10, 22)
    heads = pixels(cam, x, z, HEAD_HEIGHT)
    inside = heads[:, 1] >= 0
    assert 20 < (~inside).sum() < 150
    found = on_ground(planes(ground, SIZE), ground.size, heads[inside], np.ones(inside.sum()))
    assert found.people == pytest.approx(inside.sum(), abs=8) and found.area == pytest.approx(
        24 * inside.mean(), rel=0.05
    )
    cut = on_ground(planes(ground, SIZE)._replace(picture=(100, 512)), ground.size, heads, np.ones(500))
    assert cut.people < found.people
    with pytest.raises(UserError, match="the heads of most people who stand there are outside of the picture"):
        on_ground(planes(ground, SIZE)._replace(picture=(20, 512)), ground.size, heads, np.ones(500))


def test_points_of_the_command_line():
    assert parse_points(["1,2", "3.5,4", "5,6", "7,8"]) == [[1, 2], [3.5, 4], [5, 6], [7, 8]]
    with pytest.raises(UserError, match="--ground: four points x,y"):
        parse_points(["1,2", "3;4", "5,6", "7,8"])
