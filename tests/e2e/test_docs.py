"""Every example in docs/ that is marked `test` runs, on made-up data, as it is written."""

import importlib.util
import json
import re
import runpy
import shlex
import shutil
import sys
from dataclasses import replace
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
from dkpnet_ext.training import PRESETS

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)
# Words after `test`: packages that the example imports, and what else it needs (see `test_example`).
NEEDS = {"video": ("av",), "export": ("onnx", "onnxscript", "onnxruntime"), "quick": (), "pairs": ()}


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
    for split, numbers in (("train", range(1, 5)), ("test", range(5, 7))):  # docs/own-images.md: labelled by the page
        names = [f"{'test/' * (split == 'test')}{number}.jpg" for number in numbers]
        for name in names:
            layouts.picture(folder / "photos" / name, (96, 64))
        rows = [{"image": name, "points": [[20, 30], [60, 12.5]]} for name in names]
        (folder / "photos" / f"{split}.json").write_text(json.dumps(rows))
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
        if {"dkpnet_ext.predict", "dkpnet_ext.demo", "dkpnet_ext.annotate"} & set(words):
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


@pytest.fixture
def quick(monkeypatch, folder):
    """The preset of that name, small enough for seconds; the example's lines stay as they are."""
    config = PRESETS["quick"].config
    config.output, config.device, config.precision, config.eval_every = folder / "runs" / "python", "cpu", "fp32", 1
    config.data = replace(config.data, crop=64, min_side=64, max_side=128, workers=0, val_fraction=0.3)
    config.optim = replace(config.optim, epochs=1, batch=2)
    config.cluster = replace(config.cluster, num_clusters=2)
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], _config=config))
    yield
    shutil.rmtree(folder / "runs" / "python", ignore_errors=True)


def pairs() -> dict[str, list]:
    """Images and points in memory, as docs/python.md names them."""
    rng = np.random.default_rng(0)

    def some(number: int) -> list:
        return [(rng.integers(0, 255, (64, 96, 3), np.uint8), rng.integers(8, 56, (3 + n, 2))) for n in range(number)]

    return {f"{name}_{part}": some(number) for name in ("street", "square") for part, number in
            (("pairs", 6), ("test_pairs", 2))}  # fmt: skip


@pytest.mark.parametrize(("language", "words", "text"), EXAMPLES)
def test_example(language, words, text, run, request, folder):
    given: dict = {}
    for need in words[1:]:
        for package in NEEDS[need]:
            pytest.importorskip(package)
        if need in ("video", "quick"):
            request.getfixturevalue(need)
        if need == "pairs":
            given = pairs()
    if language == "python":
        exec(compile(text, "example", "exec"), given)
        if "callback" in text:
            assert [record["stage"] for record in given["history"]] == ["stage1", "stage2", "test"]
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


def documented() -> set[str]:
    """The names that the site documents with autodoc: `dkpnet_ext.ops.density` ..."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    return set(re.findall(r"\.\. auto(?:function|class|data):: ([\w.]+)", text))


@pytest.mark.parametrize(
    "name", ["dkpnet_ext", "dkpnet_ext.ops", "dkpnet_ext.models", "dkpnet_ext.data", "dkpnet_ext.training"]
)
def test_public_names_are_documented(name):
    """Each name of `__all__` has a docstring and a place on the site, perhaps under another package that exports it."""
    module, pages = importlib.import_module(name), documented()
    objects = {id(getattr(importlib.import_module(page.rpartition(".")[0]), page.rpartition(".")[2])) for page in pages}
    things = {public: getattr(module, public) for public in module.__all__ if callable(getattr(module, public))}
    # A NamedTuple without a docstring gets one that repeats its fields.
    bare = [name for name, thing in things.items() if (thing.__doc__ or f"{name}(").startswith(f"{name}(")]
    missing = [name for name, thing in things.items() if id(thing) not in objects]
    assert not bare and not missing
