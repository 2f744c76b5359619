"""The labelling page in a headless browser: a hundred clicks, a kill, two people on one picture, training afterwards."""

import json
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from browsers import serving, until
from counters import alive

from dkpnet_ext import annotate, train
from dkpnet_ext.annotation.page import AnnotatePage
from dkpnet_ext.annotation.store import Store
from dkpnet_ext.cli import run_command
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> DKPNet:
    torch.manual_seed(0)
    return alive(DKPNet("hrnet_w18_small", "none", channels=64, min_side=32)).eval()


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(1, 4):
        layouts.picture(tmp_path / "mine" / f"{number}.jpg", (400, 300))
    return tmp_path / "mine"


class Tab:
    """A tab with the page, and what the tests do in it, in pixels of the picture."""

    def __init__(self, browser, address: str, name: str = "") -> None:
        self.page = browser.new_page(viewport={"width": 1200, "height": 800})
        self.page.set_default_timeout(60_000)
        self.errors: list = []
        self.page.on("pageerror", lambda error: self.errors.append(error))
        self.elsewhere: list[str] = []
        self.page.on(
            "request", lambda r: None if r.url.startswith((address, "data:")) else self.elsewhere.append(r.url)
        )
        self.page.goto(f"{address}/#{name}")
        until(lambda: self.get("!!globalThis.annotate?.labels"))
        self.keys = self.page.keyboard

    def get(self, expression: str):
        return self.page.evaluate(f"() => {expression}")

    def place(self, x: float, y: float) -> tuple[float, float]:
        box = self.page.locator("#canvas").bounding_box()
        u, v = self.get(f"annotate.view.toScreen([{x}, {y}])")
        return box["x"] + u, box["y"] + v

    def click(self, x: float, y: float, button: str = "left") -> None:
        self.page.mouse.click(*self.place(x, y), button=button)

    def drag(self, start, end) -> None:
        self.page.mouse.move(*self.place(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(*((np.array(start) + end) / 2)))
        self.page.mouse.move(*self.place(*end))
        self.page.mouse.up()

    @property
    def points(self) -> list[list[float]]:
        return self.get("annotate.labels.now.points")

    @property
    def count(self) -> int:
        return int(self.page.locator("#count").inner_text())

    def saved(self) -> None:
        until(lambda: self.get("!annotate.labels.unsaved"))

    def close(self) -> None:
        assert self.errors == [] and self.elsewhere == []
        self.page.close()


@pytest.fixture
def page(folder, model) -> AnnotatePage:
    page = AnnotatePage(Store(folder), model, "tiny")
    page.proposed = {f"{n}.jpg": {"points": [[350, 20 * i] for i in (1, 2, 3)], "radius": 5} for n in (1, 2, 3)}
    return page


@pytest.fixture
def address(page):
    with serving(page) as address:
        yield address


def on_disk(folder: Path, name: str) -> dict:
    return Store(folder).get(name)._asdict()


def near(points, expected) -> bool:
    return np.shape(points) == np.shape(expected) and np.abs(np.subtract(points, expected)).max() < 0.8


def test_mouse(browser, address, folder):
    tab = Tab(browser, address)
    clicks = [[10 + 30 * column, 10 + 28 * row] for row in range(10) for column in range(10)]
    for x, y in clicks:
        tab.click(x, y)
    assert tab.count == 100 and near(tab.points, clicks)
    tab.saved()
    assert on_disk(folder, "1.jpg")["points"] == tab.points

    tab.drag(clicks[3], [150, 150])
    clicks[3] = [150, 150]
    assert near(tab.points, clicks)
    tab.click(*clicks[50], "right")
    del clicks[50]
    assert near(tab.points, clicks) and tab.count == 99
    tab.click(*clicks[7])  # on a head: not another one
    tab.page.mouse.dblclick(*tab.place(390, 290))  # a double click: one
    clicks.append([390, 290])
    assert near(tab.points, clicks)

    for key, lengths in (("u", (99, 100, 100)), ("r", (100, 99, 100)), ("Control+z", (99,)), ("Control+y", (100,))):
        for length in lengths:
            tab.keys.press(key)
            assert len(tab.points) == length, key

    # A region: its heads are not counted; removed again by a right click.
    inside = sum(x < 100 and y < 100 for x, y in clicks)
    tab.keys.press("i")
    for x, y in ((1, 1), (100, 1), (100, 100)):
        tab.click(x, y)
    tab.page.mouse.dblclick(*tab.place(1, 100))
    assert near(tab.get("annotate.labels.now.ignore"), [[[1, 1], [100, 1], [100, 100], [1, 100]]])
    assert tab.count == 100 - inside and len(tab.points) == 100
    tab.keys.press("i")
    tab.click(200, 200)
    tab.keys.press("Escape")
    tab.click(55, 55, "right")
    assert tab.count == 100
    tab.keys.press("u")
    tab.saved()
    row = tab.page.locator("#list button").first
    assert row.locator("b").inner_text() == str(100 - inside)
    assert on_disk(folder, "1.jpg") == tab.get("annotate.labels.now")

    # The wheel zooms at the cursor, a drag moves the view, and clicks still land where they should.
    tab.page.mouse.move(*tab.place(200, 150))
    before, scale = tab.place(200, 150), tab.get("annotate.view.scale")
    tab.page.mouse.wheel(0, -800)
    until(lambda: tab.get("annotate.view.scale") > 2.5 * scale)
    assert tab.place(200, 150) == pytest.approx(before, abs=1)  # a wheel is turned at whole pixels
    x, y = tab.place(225, 165)
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x + 50, y + 30, steps=3)
    tab.page.mouse.up()
    assert tab.place(225, 165) == pytest.approx((x + 50, y + 30), abs=0.01) and len(tab.points) == 100
    tab.click(214.5, 158.3)
    assert np.abs(np.subtract(tab.points[-1], [214.5, 158.3])).max() < 0.2
    tab.close()


def test_keyboard(browser, address, folder):
    tab = Tab(browser, address)
    until(lambda: len(tab.get("annotate.rings")) == 3)
    tab.keys.press("Space")  # the cursor begins in the middle
    assert tab.points == [[200, 150]]
    for _ in range(4):
        tab.keys.press("ArrowRight")
    tab.keys.press("Shift+ArrowDown")
    tab.keys.press("Space")
    step = 32 / tab.get("annotate.view.scale")
    assert near(tab.points, [[200, 150], [200 + step, 151]])
    tab.keys.press("m")  # picked up, moved, put down
    for _ in range(10):
        tab.keys.press("Shift+ArrowUp")
    tab.keys.press("m")
    assert near(tab.points, [[200, 150], [200 + step, 141]])
    tab.keys.press("Delete")
    assert len(tab.points) == 1

    tab.keys.press(".")  # the next ring: accepted; the one after: refused; the last with all in view
    tab.keys.press("Space")
    assert tab.points[1] == [350, 20]
    tab.keys.press(".")
    tab.keys.press("Delete")
    assert tab.get("annotate.rings") == [[350, 60]]
    tab.keys.press("p")
    assert tab.get("annotate.rings") == []
    tab.keys.press("p")
    tab.keys.press("a")
    assert tab.points == [[200, 150], [350, 20], [350, 60]]

    for key in ("+", "+", "-", "0"):
        tab.keys.press(key)
    tab.keys.press("i")
    for keys in (("Space",), 3 * ("ArrowLeft",), ("Space",), 3 * ("ArrowUp",), ("Space",)):
        for key in keys:
            tab.keys.press(key)
    tab.keys.press("Enter")
    assert len(tab.get("annotate.labels.now.ignore")[0]) == 3
    tab.keys.press("?")
    assert tab.page.locator("#help").is_visible()
    tab.keys.press("Escape")

    tab.saved()
    written, count = tab.get("annotate.labels.now"), tab.count
    tab.keys.press("Enter")  # finished; on to the next
    until(lambda: tab.get("annotate.labels?.name") == "2.jpg")
    until(lambda: (folder / "train.json").exists())
    (entry,) = json.loads((folder / "train.json").read_text())
    assert entry == {"image": "1.jpg", "points": written["points"], "ignore": written["ignore"]}
    totals = f"1 of 3 finished, {count} heads"  # at once, not only when the list is asked for again
    until(lambda: tab.page.locator("#totals").inner_text() == totals, 8)
    tab.keys.press("PageUp")
    until(lambda: tab.get("annotate.labels?.name") == "1.jpg")
    tab.keys.press("f")
    tab.saved()
    assert not (folder / "train.json").exists() and on_disk(folder, "1.jpg") == written
    tab.close()


def test_a_broken_picture_is_named_and_passed_by(browser, folder, model):
    """With the keyboard alone: of five pictures two cannot be decoded, one of them the last."""
    for name, size in (("2.jpg", 900), ("4.jpg", 900)):
        layouts.picture(folder / name, (400, 300))
        (folder / name).write_bytes((folder / name).read_bytes()[:size])  # its header is whole
    layouts.picture(folder / "0.jpg", (400, 300))
    with serving(AnnotatePage(Store(folder), model, "tiny")) as address:
        tab = Tab(browser, address)
        labelled = []
        for _ in range(3):
            name = tab.get("annotate.labels.name")
            labelled.append(name)
            tab.keys.press("p")
            for key in ("ArrowLeft", "Space", "ArrowUp", "ArrowUp", "Space"):
                tab.keys.press(key)
            assert tab.count == 2
            tab.saved()
            tab.keys.press("Enter")
            if name == "1.jpg":
                tab.page.get_by_text("2.jpg: cut off").wait_for()
                assert tab.get("annotate.labels") is None
                tab.keys.press("Enter")
            until(
                lambda name=name: tab.page.locator("#problem").is_visible() or tab.get("annotate.labels?.name") != name
            )
            if name != "3.jpg":
                until(lambda name=name: tab.get("annotate.labels?.name") not in (None, name))
        assert labelled == ["0.jpg", "1.jpg", "3.jpg"]
        tab.page.get_by_text("4.jpg: cut off").wait_for()
        tab.keys.press("Enter")
        tab.page.get_by_text("All pictures are finished but 2.jpg, 4.jpg: cannot be read.").wait_for()
        marks = tab.page.locator("#list i").all_inner_texts()
        assert marks == ["✓", "✓", "!", "✓", "!"]
        tab.close()
    assert [row["image"] for row in json.loads((folder / "train.json").read_text())] == labelled


def test_two_people_on_one_picture(browser, address, folder):
    one, two = Tab(browser, address), Tab(browser, address, "1.jpg")
    for tab in (one, two):
        assert tab.get("annotate.labels.name") == "1.jpg"
    one.click(100, 100)
    one.saved()
    two.click(200, 200)
    two.page.get_by_text("Somebody else changed 1.jpg").wait_for()
    assert near(two.points, [[100, 100]]) and on_disk(folder, "1.jpg")["points"] == one.points
    two.click(250, 250)  # on top of the other's
    two.saved()
    assert near(on_disk(folder, "1.jpg")["points"], [[100, 100], [250, 250]])
    one.click(10, 10)
    one.page.get_by_text("Somebody else changed 1.jpg").wait_for()
    assert near(one.points, [[100, 100], [250, 250]])
    one.keys.press("u")  # one's own again, knowingly
    one.saved()
    assert near(on_disk(folder, "1.jpg")["points"], [[100, 100], [10, 10]])
    # Whoever goes on to the next picture is not sent to one that somebody else shows.
    one.keys.press("Enter")
    until(lambda: one.get("annotate.labels?.name") == "2.jpg")
    two.keys.press("Enter")
    until(lambda: two.get("annotate.labels?.name") == "3.jpg")
    for tab in (one, two):
        tab.close()


def test_a_picture_of_20_megapixels(browser, folder, model):
    layouts.picture(folder / "0.jpg", (5472, 3648))
    page = AnnotatePage(Store(folder), model, "tiny")
    page.proposed = {"0.jpg": {"points": [], "radius": 5}}
    with serving(page) as address:
        tab = Tab(browser, address)
        assert tab.get("[annotate.labels.name, ...annotate.view.size]") == ["0.jpg", 5472, 3648]
        assert tab.get("annotate.view.levels.map((level) => level.width)") == [5472, 2736]
        tab.click(5000, 3000)
        tab.page.mouse.move(*tab.place(4000, 1000))
        for _ in range(6):
            tab.page.mouse.wheel(0, -1000)
        until(lambda: tab.get("annotate.view.scale") == 16)
        tab.click(4003.2, 1002.7)
        tab.saved()
        assert np.abs(np.subtract(tab.points[1], [4003.2, 1002.7])).max() <= 0.11
        assert np.abs(np.subtract(tab.points[0], [5000, 3000])).max() < 3
        tab.close()


def start(folder: Path, checkpoint: Path, port: int) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "dkpnet_ext.annotate", str(folder), "--checkpoint", str(checkpoint)]
    process = subprocess.Popen(
        [*command, "--port", str(port)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    lines = [process.stdout.readline() for _ in range(2)]
    found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", lines[1])
    assert found, (lines, process.stderr.read())
    return process, found[1]


def test_killed_in_the_middle_then_trained_on(browser, folder, model, tmp_path, monkeypatch, capfd):
    model.save_pretrained(tmp_path / "model")
    process, address = start(folder, tmp_path / "model", 0)
    try:
        monkeypatch.setattr(sys, "argv", ["annotate", str(folder), "--port", "0"])
        with pytest.raises(UserError, match=r"\.annotate: another process is writing to this folder"):
            annotate.main()  # a second server
        tab, other = Tab(browser, address), Tab(browser, address, "2.jpg")
        clicks = [[5 + 19 * column, 5 + 55 * row] for row in range(5) for column in range(20)]
        tab.keys.press("p")  # without proposals, which clicks would accept
        other.keys.press("p")
        for x, y in clicks:
            tab.click(x, y)
        process.send_signal(signal.SIGKILL)  # perhaps before the last click was saved
        process.wait()
        other.click(50, 60)  # a page that stays open: its clicks are saved later
        other.page.get_by_text("NOT SAVED").wait_for()
        tab.page.close()
        process, again = start(folder, tmp_path / "model", int(address.rpartition(":")[2]))
        assert again == address
        with urllib.request.urlopen(f"{address}/labels?name={urllib.parse.quote('1.jpg')}") as response:
            points = json.load(response)["points"]
        assert 99 <= len(points) <= 100 and near(points, clicks[: len(points)])
        other.saved()
        assert near(other.points, [[50, 60]])
        other.keys.press("f")
        other.page.locator("#list button").first.click()
        until(lambda: other.get("annotate.labels?.name") == "1.jpg")
        for _ in range(2):
            other.keys.press("Enter")  # 1.jpg, then 3.jpg, where nobody is
            until(
                lambda: (
                    other.get("annotate.labels && !annotate.labels.now.done")
                    or other.page.locator("#problem").is_visible()
                )
            )
        other.page.get_by_text("All pictures are finished.").wait_for()
        other.saved()
        assert len(json.loads((folder / "train.json").read_text())) == 3
        other.page.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0 and process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()

    monkeypatch.setattr("dkpnet_ext.data.negatives._SIZES", {"train": 4, "test": 2})
    monkeypatch.setenv("DKPNET_CACHE", str(tmp_path / "cache"))
    words = f"train small --data mine={folder} --system jt --weights None --epochs 1 --batch 2 --crop 64 --min-side 64"
    monkeypatch.setattr(sys, "argv", [*words.split(), "--output", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        run_command(train.main)
    shown = capfd.readouterr()
    assert not ended.value.code, shown.err
    assert "mine: layout list" in shown.err and re.search(r"train +3 images +(100|101) heads", shown.err)
