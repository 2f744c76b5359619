"""Every example in docs/ that is marked `test` runs, on made-up data, as it is written."""

import importlib.util
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from counters import alive
from PIL import Image
from werkzeug.serving import BaseWSGIServer

from dkpnet_ext import webserver
from dkpnet_ext.cli import run_command
from dkpnet_ext.models import DKPNet
from dkpnet_ext.models.hub import STARTER

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)
NEEDS = {"video": ("av",), "export": ("onnx", "onnxscript", "onnxruntime")}  # a word after `test`: what it imports


def blocks() -> list[tuple[str, str, list[str], str]]:
    """(page, language, words of the info string, text) of each fenced block."""
    return [
        (page.relative_to(ROOT / "docs").as_posix(), language, words.split(), text)
        for page in sorted((ROOT / "docs").rglob("*.md"))
        for language, words, text in FENCE.findall(page.read_text(encoding="utf-8"))
    ]


EXAMPLES = [
    pytest.param(language, words, text, id=f"{page}: {text.splitlines()[0]}")
    for page, language, words, text in blocks()
    if words[:1] == ["test"]
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the examples name: pictures, data sets, a video, a run; and the files that the pages themselves show."""
    folder = tmp_path_factory.mktemp("docs")
    layouts.picture(folder / "photo.jpg", (96, 64))
    for number in range(1, 7):
        layouts.picture(folder / "mine" / "pictures" / f"{number}.jpg", (96, 64))
    layouts.picture(folder / "pictures" / "1.jpg", (96, 64))
    layouts.shanghaitech(folder / "ShanghaiTech" / "part_A")
    for _, _, words, text in blocks():
        for word in words:
            if word.startswith("file="):
                (folder / word[5:]).write_text(text, encoding="utf-8")
    (folder / "examples").symlink_to(ROOT / "examples")
    torch.manual_seed(0)
    model = alive(DKPNet("hrnet_w18_small", num_sub=2, channels=64, num_domains=2, domains=("mine", "SHA")))
    for place in ("model", "stage2/best"):
        model.save_pretrained(folder / "runs" / "mine" / place)
    return folder


@pytest.fixture(scope="module")
def video(folder) -> None:
    import av

    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        picture = np.asarray(Image.open(folder / "photo.jpg"))
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def run(folder, tmp_path_factory, monkeypatch, capfd):
    """Run one command line in this process (a new one would spend most of its time on imports)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DKPNET_CACHE", str(folder / "cache"))
    # docs/demo.md: the page ends at once, and takes a free port, whichever the example names.
    monkeypatch.setattr(BaseWSGIServer, "serve_forever", lambda self: self.server_close())
    serve = webserver.serve
    monkeypatch.setattr(webserver, "serve", lambda page, host, port: serve(page, host, 0))
    # Drawing all 670 takes most of a minute.
    monkeypatch.setattr("dkpnet_ext.data.negatives._SIZES", {"train": 4, "test": 2})

    def run(line: str) -> None:
        python, *words = shlex.split(line, comments=True)
        assert python == "python", line
        if "dkpnet_ext.predict" in words or "dkpnet_ext.demo" in words:
            if "--checkpoint" not in words and not (STARTER / "model.safetensors").is_file():
                pytest.skip("the starter model is not part of this tree")
        with pytest.raises(SystemExit) as ended:
            if words[0] == "-m":
                monkeypatch.setattr(sys, "argv", words[1:])
                run_command(importlib.import_module(words[1]).main)
            else:
                monkeypatch.setattr(sys, "argv", words)
                runpy.run_path(words[0], run_name="__main__")
                sys.exit(0)
        shown = capfd.readouterr()
        assert not ended.value.code, f"{line}\n{shown.out}\n{shown.err}"

    return run


@pytest.mark.parametrize(("language", "words", "text"), EXAMPLES)
def test_example(language, words, text, run, request):
    for need in words[1:]:
        for package in NEEDS[need]:
            pytest.importorskip(package)
        if need == "video":
            request.getfixturevalue("video")
    if language == "python":
        exec(compile(text, "example", "exec"), {})
    else:
        assert language == "bash"
        for line in text.splitlines():
            run(line)


def test_every_command_has_a_page():
    commands = {path.stem for path in (ROOT / "dkpnet_ext").glob("*.py") if "__main__" in path.read_text()}
    pages = {page.removesuffix(".md") for page, *_ in blocks()}
    assert commands - pages == {"info"}  # which takes no arguments
    tested = {page.removesuffix(".md") for page, _, words, _ in blocks() if words[:1] == ["test"]}
    assert commands - {"info"} <= tested
    operators = {path.stem for path in (ROOT / "docs" / "operators").glob("*.md")} - {"index"}
    assert {f"operators/{name}" for name in operators} <= tested


def test_links_and_blocks():
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for page, language, _, text in blocks():
        if language == "json":
            json.loads(text)
        for line in text.splitlines() if language == "bash" else ():
            module = re.search(r"-m (dkpnet_ext\.\w+)", line)
            assert module is None or importlib.util.find_spec(module[1]), f"{page}: {line}"
