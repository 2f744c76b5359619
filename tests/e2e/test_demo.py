"""The demo page: its answers, and the page itself in a headless browser."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from counters import alive
from PIL import Image
from werkzeug.test import Client

from dkpnet_ext.counting.regions import count_regions
from dkpnet_ext.counting.webpage import DemoPage, domain_distances, serve
from dkpnet_ext.data.images import to_tensor
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def model() -> DKPNet:
    torch.manual_seed(0)
    return alive(
        DKPNet("hrnet_w18_small", num_sub=2, channels=64, num_domains=3, domains=("A", "B"), min_side=32)
    ).eval()


@pytest.fixture(scope="module")
def page(model) -> DemoPage:
    return DemoPage(model, "a <small> model", max_upload=200_000)


@pytest.fixture
def client(page) -> Client:
    return Client(page)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """101 x 70 px: the last cells reach over the edge."""
    path = tmp_path_factory.mktemp("photo") / "crowd <1>.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)).save(path)
    return path


def test_count_and_regions(client, model, photo):
    answer = client.post("/count", data=photo.read_bytes()).json
    assert answer["count"] == pytest.approx(model.count(photo), rel=1e-5)
    assert (answer["width"], answer["height"], answer["cells"]) == (101, 70, [104, 72])
    with urllib.request.urlopen(answer["heat"]) as heat:
        assert Image.open(heat).size == (26, 18)
    halves = [[[0, 0], [40.5, 0], [60, 70], [0, 70]], [[40.5, 0], [101, 0], [101, 70], [60, 70]]]
    sums = [client.post(f"/region/{answer['id']}", json=corners).json["count"] for corners in halves]
    assert sum(sums) == pytest.approx(answer["count"], abs=1e-6)
    assert abs(sums[0]) > 1e-6 and abs(sums[1]) > 1e-6


def test_a_picture_that_is_resized_to_be_counted(client, model, photo, monkeypatch):
    monkeypatch.setattr(model, "min_side", 140)  # twice as large
    answer = client.post("/count", data=photo.read_bytes()).json
    assert answer["count"] == pytest.approx(model.count(photo), rel=1e-5)
    assert answer["count"] != pytest.approx(model.count(photo, as_is=True), rel=1e-3)
    assert (answer["width"], answer["height"]) == (101, 70)
    assert answer["cells"] == pytest.approx([102, 70])  # 51 x 35 cells of 2 px
    halves = [[[0, 0], [101, 0], [101, 35], [0, 35]], [[0, 35], [101, 35], [101, 70], [0, 70]]]
    sums = [client.post(f"/region/{answer['id']}", json=corners).json["count"] for corners in halves]
    rows = model.density(photo)
    want = [float(rows[:17].sum() + rows[17].sum() / 2), float(rows[18:].sum() + rows[17].sum() / 2)]
    assert sums == pytest.approx(want, rel=1e-4)


def test_nearest_domain(client, model, photo):
    answer = client.post("/count", data=photo.read_bytes()).json
    with torch.inference_mode():
        mu = model(to_tensor(photo)[None]).mu[0]
        distances = (model.attention.centers - mu).square().sum(-1).sqrt().min(1).values
    assert [name for name, _ in answer["domains"]] == [f"cluster {i + 1} of 3" for i in distances.argsort()]
    assert answer["domains"][0][1] == pytest.approx(float(distances.min()), rel=1e-4)
    va = DKPNet("hrnet_w18_small", "va", channels=64, domains=("A", "B"))
    assert domain_distances(va, va.attention.centers[1, 0])[0] == ("B", 0.0)


def test_models_without_variational_attention(photo):
    client = Client(DemoPage(DKPNet("hrnet_w18_small", "none", channels=64).eval(), "jt"))
    assert client.post("/count", data=photo.read_bytes()).json["domains"] == []


def test_large_images_too(client, model, photo, monkeypatch):
    whole = client.post("/count", data=photo.read_bytes()).json
    monkeypatch.setattr("dkpnet_ext.models.tiling.LIMIT", 1000)
    tiled = client.post("/count", data=photo.read_bytes()).json
    assert tiled["count"] == pytest.approx(whole["count"], rel=1e-3)
    assert tiled["domains"][0][0] == whole["domains"][0][0]
    assert tiled["domains"][0][1] == pytest.approx(whole["domains"][0][1], rel=1e-3)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "image list.jpg: empty file (0 bytes)"),
        (b"name,count\n", 400, "image list.jpg: not a picture (JPEG, PNG, BMP, GIF, TIFF, WEBP, PPM are read)"),
        (bytes(200_001), 413, "the picture's file is larger than 0.2 MB; scale it down, or use the command predict"),
    ],
)
def test_bad_files(client, content, status, message):
    response = client.post("/count?name=../up/list.jpg", data=content)
    assert (response.status_code, response.json) == (status, {"error": message})


@pytest.mark.parametrize("corners", [None, "here", [], [[1, 2], [3, 4]], [[1], [2], [3]], [[0, 0], [9, 0], [0, None]]])
def test_bad_regions(client, photo, corners):
    identity = client.post("/count", data=photo.read_bytes()).json["id"]
    response = client.post(f"/region/{identity}", data=json.dumps(corners), content_type="application/json")
    assert (response.status_code, response.json) == (400, {"error": "a region needs at least three corners [x, y]"})


def test_what_is_not_there(client, page, photo):
    assert client.get("/../etc/passwd").status_code == client.get("/example/99").status_code == 404
    first = client.post("/count", data=photo.read_bytes()).json["id"]
    page.counted.clear()
    response = client.post(f"/region/{first}", json=[[0, 0], [9, 0], [9, 9]])
    assert (response.status_code, response.json["error"]) == (400, "this picture is no longer kept here; drop it again")


def test_page_needs_nothing_from_elsewhere(client):
    response = client.get("/")
    assert "a &lt;small&gt; model" in response.text
    assert set(re.findall(r"https?://[^\"'\s]+", response.text)) <= {"http://www.w3.org/2000/svg"}
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_addresses(page):
    server = serve(page, "127.0.0.1", 0)
    with pytest.raises(UserError, match=rf"cannot serve on 127.0.0.1 port {server.port} \(Address already in use\)"):
        serve(page, "127.0.0.1", server.port)
    with pytest.raises(UserError, match="cannot serve on 192.0.2.1 port 80"):
        serve(page, "192.0.2.1", 80)
    with pytest.raises(UserError, match="port 99999"):
        serve(page, "127.0.0.1", 99999)
    server.server_close()


def test_command(model, photo, tmp_path):
    model.save_pretrained(tmp_path / "model")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "dkpnet_ext.demo", "--checkpoint", str(tmp_path / "model"), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A suite that a script started in its background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        address = re.fullmatch(r"open (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", process.stdout.readline())[1]
        with urllib.request.urlopen(f"{address}/count?name=x", data=photo.read_bytes()) as response:
            assert json.load(response)["count"] == pytest.approx(model.count(photo), rel=1e-5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0 and "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


# ------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser test: playwright is not installed")
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        pytest.skip(f"no browser test: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, who runs tests in containers.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found[0], args=flags, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(page):
    server = serve(page, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def tab(browser, address, monkeypatch):
    picture = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    monkeypatch.setattr("dkpnet_ext.synthetic.scenes.render", lambda *which: (picture, np.ones((17, 2))))
    tab = browser.new_page(viewport={"width": 1280, "height": 850})
    tab.set_default_timeout(60_000)
    errors = []
    tab.on("pageerror", lambda error: errors.append(error))
    elsewhere = []
    tab.on("request", lambda request: None if request.url.startswith((address, "data:")) else elsewhere.append(request))
    tab.goto(address)
    yield tab
    assert errors == [] and elsewhere == []
    tab.close()


def spelled(count: float) -> str:
    return f"{0 if abs(count) < 0.05 else count:,.{1 if count < 99.5 else 0}f}".replace(".0", "")


def test_upload_overlay_and_regions(tab, model, photo):
    assert tab.locator("#invitation").is_visible() and tab.locator("#result").is_hidden()
    tab.locator("#file").set_input_files(photo)
    tab.locator("#picture").wait_for()
    assert tab.locator("#count").inner_text() == spelled(model.count(photo))
    assert tab.locator("#about").inner_text() == "101 × 70 px"
    assert re.fullmatch(r"cluster [123] of 3", tab.locator("#domain").inner_text())

    # The overlay is there, has the cells' size, and follows the slider.
    assert tab.locator("#heat").evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [26, 18]
    photo_box, heat_box = tab.locator("#photo").bounding_box(), tab.locator("#heat").bounding_box()
    assert heat_box["width"] / photo_box["width"] == pytest.approx(104 / 101, rel=0.01)
    before = tab.locator("#picture").screenshot()
    for value, opacity in (("0", "0"), ("100", "1")):
        tab.locator("#opacity").fill(value)
        assert tab.locator("#heat").evaluate("(image) => getComputedStyle(image).opacity") == opacity
    assert tab.locator("#picture").screenshot() != before

    # Corners and Enter make a region, whose sum appears in the list.
    def click(x: float, y: float, how: str = "click") -> None:
        position = {"x": x * photo_box["width"], "y": y * photo_box["height"]}
        getattr(tab.locator("#regions"), how)(position=position)

    for corner in ((0.2, 0.2), (0.8, 0.2), (0.5, 0.8)):
        click(*corner)
    tab.keyboard.press("Enter")
    region = tab.locator("#list b", has_text=re.compile(r"\d"))
    region.wait_for()
    shape = tab.locator("#regions polygon").get_attribute("points")
    corners = [[float(v) for v in pair.split(",")] for pair in shape.split()]
    assert corners == [pytest.approx(c, abs=1) for c in ([20.2, 14], [80.8, 14], [50.5, 56])]
    expected = count_regions(model.density(photo), {"drawn": [np.array(corners)]}, (70, 101), model.out_stride)
    assert region.inner_text() == spelled(expected["drawn"])

    click(0.1, 0.1)
    click(0.3, 0.1)
    tab.keyboard.press("Escape")
    assert tab.locator("#regions polyline").count() == 0
    click(0.1, 0.1)
    click(0.3, 0.1)
    click(0.3, 0.3, "dblclick")
    assert tab.locator("#list li").count() == 2
    tab.get_by_title("remove region 1").click()
    assert tab.locator("#list li").all_inner_texts()[0].startswith("region 2")
    assert tab.locator("#regions polygon").count() == 1


def test_bad_file_says_so_and_a_good_one_follows(tab, photo, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    tab.locator("#file").set_input_files(tmp_path / "notes.jpg")
    tab.locator("#problem").wait_for()
    assert tab.locator("#problem").inner_text().startswith("image notes.jpg: not a picture (JPEG, PNG,")
    (tmp_path / "large.png").write_bytes(bytes(200_001))
    tab.locator("#file").set_input_files(tmp_path / "large.png")
    tab.get_by_text("the picture's file is larger than 0.2 MB").wait_for()
    assert tab.locator("#picture").is_hidden() and tab.locator("#busy").is_hidden()
    tab.locator("#file").set_input_files(photo)
    tab.locator("#picture").wait_for()
    assert tab.locator("#problem").is_hidden()


def test_example_and_drop(tab, photo):
    tab.locator("[data-example='1']").click()
    tab.get_by_text("96 × 64 px, annotated: 17").wait_for()
    dropped = tab.evaluate_handle(
        """(bytes) => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "photo.png")); return data; }""",
        list(photo.read_bytes()),
    )
    tab.dispatch_event("#stage", "drop", {"dataTransfer": dropped})
    tab.get_by_text("101 × 70 px", exact=True).wait_for()
