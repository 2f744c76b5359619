"""People per square metre on the page, in a headless browser: a scene whose camera and people are known, corners clicked on it."""

import re

import numpy as np
import pytest
import torch
from browsers import serving
from counters import alive
from PIL import Image

from dkpnet_ext.counting import webpage
from dkpnet_ext.counting.ground import HEAD_HEIGHT
from dkpnet_ext.counting.pictures import Counted
from dkpnet_ext.models import DKPNet
from dkpnet_ext.synthetic.camera import Camera

HEIGHT, WIDTH, STRIDE = 384, 512, 4
HALF, NEAR, FAR = 4.0, 14.0, 22.0  # metres: the rectangle is 8 m wide and 8 m deep


def people() -> np.ndarray:
    """Where people stand on the rectangle, (x, z) in metres [N, 2]: one for each square metre or so, and a group of 16."""
    rng = np.random.default_rng(0)
    spread = rng.uniform([-3.4, 14.6], [3.4, 21.4], (50, 2))
    group = rng.uniform([0.5, 17.5], [1.5, 18.5], (16, 2))
    return np.concatenate([spread, group])


def densest(where: np.ndarray) -> float:
    """People per square metre in the densest square of 2 m with sides along the rectangle's, tried every 5 cm."""
    shifts = np.arange(-HALF, HALF - 2 + 0.01, 0.05)
    corners = np.stack(np.meshgrid(shifts, shifts + HALF + NEAR), -1).reshape(-1, 1, 2)
    inside = (where[None] >= corners) & (where[None] < corners + 2)
    return inside.all(2).sum(1).max() / 4


@pytest.mark.parametrize(("up", "tilt", "focal"), [(9.0, 25.0, 520.0), (6.0, 20.0, 480.0)])
def test_a_known_camera_and_known_people(browser, tmp_path, monkeypatch, up, tilt, focal):
    cam, where = Camera(WIDTH, HEIGHT, focal, np.radians(tilt), up), people()

    def pixels(ground: np.ndarray, height: float) -> np.ndarray:
        u, v, _ = cam.project(ground[:, 0], np.full(len(ground), height), ground[:, 1])
        return np.stack([u, v], 1)

    density = torch.zeros(HEIGHT // STRIDE, WIDTH // STRIDE)
    for u, v in pixels(where, HEAD_HEIGHT).astype(int) // STRIDE:
        density[v, u] += 1
    counted = Counted(density, (HEIGHT, WIDTH), (HEIGHT, WIDTH), STRIDE)
    monkeypatch.setattr(webpage, "count_pixels", lambda *_, **__: counted)
    corners = pixels(np.array([[-HALF, NEAR], [HALF, NEAR], [HALF, FAR], [-HALF, FAR]]), 0.0)
    assert (corners > 0).all() and (corners < [WIDTH, HEIGHT]).all()
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(tmp_path / "scene.png")

    model = alive(DKPNet("hrnet_w18_small", "none", channels=64, min_side=32)).eval()
    with serving(webpage.DemoPage(model, "m")) as address:
        tab = browser.new_page(viewport={"width": 1280, "height": 850})
        tab.set_default_timeout(60_000)
        tab.goto(address)
        tab.locator("#file").set_input_files(tmp_path / "scene.png")
        tab.locator("#picture").wait_for()
        box = tab.locator("#photo").bounding_box()
        for u, v in corners:
            tab.locator("#regions").click(position={"x": u / WIDTH * box["width"], "y": v / HEIGHT * box["height"]})
        tab.keyboard.press("Enter")
        tab.locator("#list b", has_text=re.compile(r"\d")).wait_for()
        for number, side in (("1", 2 * HALF), ("2", FAR - NEAR)):
            tab.locator(f"#side-{number}").fill(str(side))
        tab.get_by_role("button", name="Count", exact=True).click()
        tab.locator("#per-metre").wait_for()
        said = tab.locator("#crowded").inner_text()
        tab.close()
    pattern = r"([\d.]+) people on ([\d.]+) m²: ([\d.]+) per m², ([\d.]+) in .* The camera is ([\d.]+) m up\."
    found, area, mean, most, height = map(float, re.match(pattern, said).groups())
    assert (found, area) == (pytest.approx(len(where), rel=0.03), 64)
    assert mean == pytest.approx(len(where) / 64, rel=0.03)
    assert most == pytest.approx(densest(where), rel=0.1)
    assert height == pytest.approx(up, rel=0.03)
