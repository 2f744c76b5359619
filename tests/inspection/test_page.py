"""The page that `python -m dkpnet_ext.prepare` writes, and the command."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser

import layouts
import numpy as np
import pytest
from PIL import Image

from dkpnet_ext import prepare
from dkpnet_ext.cli import run_command
from dkpnet_ext.data import load_domains, split_validation
from dkpnet_ext.inspection.page import _histogram, write_page


class Page(HTMLParser):
    """Every tag and attribute, the text, the pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: list[tuple[str, Image.Image]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            values = dict(attributes)
            data = base64.b64decode(values["src"].removeprefix("data:image/jpeg;base64,"))
            self.pictures.append((values["alt"], Image.open(io.BytesIO(data))))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the command with the arguments; its exit status and the page."""

    def run(*arguments):
        page = tmp_path / "out" / "page.html"
        extra = ["--output", str(page), "--cache", str(tmp_path / "cache"), "--min-side", "48"]
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments), *extra])
        with pytest.raises(SystemExit) as stop:
            run_command(prepare.main)
        return stop.value.code, Page(page.read_text()) if page.exists() else None

    return run


def test_page(command, tmp_path):
    """Everything that a person should see before training is on the page."""
    root = layouts.csv_lists(tmp_path / "our data")
    picture = Image.new("RGB", (64, 48), "black")
    picture.save(root / "pictures" / "white.png")
    (root / "pictures" / "broken.png").write_bytes(b"")
    with (root / "train.csv").open("a") as file:
        file.write('pictures/white.png,"[[32, 24], [32, 24], [99, 1]]"\npictures/broken.png,[]\n')
    status, page = command(root)
    assert status == 1  # one file is unusable
    assert "our_data" in page.text
    assert f"{root / 'pictures' / 'broken.png'}" in page.text
    assert "empty file (0 bytes)" in page.text
    assert "our_data/train/pictures/white.png: 3 heads; 1 of 3 points outside the image; 1 points given twice" in (
        page.text
    )
    # train and test share two pictures: each is its own near-duplicate
    assert "Near-duplicates between training and test images: 2" in page.text
    drawn = next(image for name, image in page.pictures if name.endswith("white.png"))
    red = np.asarray(drawn.convert("RGB")).astype(int)
    assert red[24, 32, 0] > 150 > red[24, 32, 1]  # the head, drawn on black
    assert red[5, 5].max() < 30


def test_names_cannot_break_the_page(command, tmp_path):
    name = '<script>alert(1)</script> & "quotes".png'
    layouts.picture(tmp_path / "data" / "x.png").rename(tmp_path / "data" / name.replace("/", "_"))
    quoted = name.replace("/", "_").replace('"', '""')
    (tmp_path / "data" / "test.csv").write_text(f'image,points\n"{quoted}",[]\n')
    status, page = command(f"A={tmp_path / 'data'}:list")
    assert status == 0
    assert "script" not in page.tags
    assert page.pictures[0][0] == "A/test/" + name.replace("/", "_")


def test_names_that_are_not_utf8(command, tmp_path):
    """Of an old archive. At commit 25e2632 a traceback, after all had been read."""
    for number in range(3):
        layouts.picture(tmp_path / "data" / "a.jpg").rename(tmp_path / "data" / f"caf\udce9_{number}.jpg")
    rows = [{"image": f"caf\udce9_{number}.jpg", "points": [[9, 9]]} for number in range(3)]
    (tmp_path / "data" / "train.json").write_text(json.dumps(rows))
    status, page = command(f"X={tmp_path / 'data'}")
    assert status == 0 and "caf" in page.text
    (domain,) = load_domains([f"X={tmp_path / 'data'}"], cache=tmp_path / "cache", progress=False)
    assert [len(part) for part in split_validation(domain.train, 0.3)] == [2, 1]


def test_dots_lie_on_the_heads_of_a_narrow_picture(tmp_path):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (64, 2000), (200, 200, 200)).save(tmp_path / "data" / "1.png")
    (tmp_path / "data" / "train.csv").write_text('image,points\n1.png,"[[32, 1900]]"\n')
    (domain,) = load_domains([f"X={tmp_path / 'data'}"], cache=tmp_path, min_side=64, progress=False)
    write_page([domain], tmp_path / "page.html")
    _, picture = Page((tmp_path / "page.html").read_text()).pictures[0]
    pixels = np.asarray(picture, int)
    red = np.argwhere(pixels[..., 0] - pixels[..., 1] > 100)
    assert abs(red.mean(axis=0)[0] - 0.95 * picture.height) < 2


def test_unlabelled_images(command, tmp_path):
    _, page = command(f"NWPU={layouts.nwpu(tmp_path / 'data')}")
    assert re.search(r"unlabelled\s*2\s", page.text)
    assert "NWPU/unlabelled/3610.jpg: no labels" in page.text


def test_nothing_there(command, tmp_path, capsys):
    assert command(tmp_path / "nowhere") == (2, None)
    assert capsys.readouterr().err == (
        f"error: '{tmp_path / 'nowhere'}': no such file or folder; "
        "write PATH, NAME=PATH, NAME=PATH:layout, or synthetic\n"
    )


def test_page_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    domains = load_domains([f"A={layouts.csv_lists(tmp_path / 'd')}"], cache=tmp_path / "c", progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: write_page(domains, tmp_path / "file" / "page.html"))
    assert stop.value.code == 2
    assert re.fullmatch(
        r"error: .*/page\.html: cannot be written \(.*\); choose another page with --output\n", capsys.readouterr().err
    )


def test_histogram():
    rows = [(heads, images) for heads, images, _ in _histogram(np.array([1, 2, 3, 3, 9]))]
    assert rows == [("1", 1), ("2-3", 3), ("4-7", 0), ("8-15", 1)]
    assert _histogram(np.array([0, 0]))[0] == ("0", 2, 1.0)


def test_findings_are_printed(command, tmp_path, capsys):
    """What the page shows of twins and doubled points stands on the terminal as well, the first few of each kind."""
    root = layouts.csv_lists(tmp_path / "our data")
    with (root / "train.csv").open("a") as file:
        for number in range(7):
            layouts.picture(root / "pictures" / f"more{number}.png", mode="L")
            file.write(f'pictures/more{number}.png,"[[32, 24], [32, 24]]"\n')
    command(root)
    shown = capsys.readouterr()
    assert "our_data/train/pictures/more0.png: 1 points given twice" in shown.out
    assert re.search(r"our_data: \d+ more like these on the page", shown.out)
    twin = "our_data/test/pictures/1.png shows almost the same picture as our_data/train/pictures/1.png"
    assert twin in shown.out
    assert "the same picture in train and test: 2 (pictures/1.png" in shown.err


def test_conversion(command, tmp_path, monkeypatch, capsys):
    root = layouts.csv_lists(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    status, _ = command(f"A={root}", "--to", "shanghaitech", "--into", "new")
    assert status == 0
    assert "A: 6 images written to new/A in the layout shanghaitech" in capsys.readouterr().out
    assert (tmp_path / "new/A/test_data/ground_truth/GT_pictures_1.mat").is_file()
