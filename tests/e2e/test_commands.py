"""predict, evaluate and info as a user runs them: what is printed, what is written, how bad input ends."""

import csv
import importlib
import io
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from counters import alive
from PIL import Image

from dkpnet_ext.cli import run_command
from dkpnet_ext.models import DKPNet, load_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    alive(DKPNet("hrnet_w18_small", num_sub=2, channels=64, domains=("A", "B"), min_side=32)).save_pretrained(folder)
    return folder


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command in this process, in an empty folder: run("predict", ...) -> exit status, stdout, stderr."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(command: str, *arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
        module = importlib.import_module(f"dkpnet_ext.{command}")
        with pytest.raises(SystemExit) as ended:
            run_command(module.main)
        shown = capsys.readouterr()
        return ended.value.code or 0, shown.out, shown.err

    return call


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "predict", "prepare", "reproduce", "export", "demo", "annotate", "info"]
)
def test_help(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0 and f"python -m dkpnet_ext.{command}" in out


def test_predict_as_a_process(checkpoint, photo, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dkpnet_ext.predict", photo, "--checkpoint", checkpoint],
        cwd=tmp_path, capture_output=True, text=True, env={**__import__("os").environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{photo}: ")
    assert (tmp_path / "predictions" / "photo-density.png").is_file()


def test_predict_picture(run, checkpoint, photo):
    status, out, err = run("predict", photo, "--checkpoint", checkpoint)
    assert (status, err) == (0, "")
    count = load_model(checkpoint).count(photo)
    assert out.splitlines() == [f"{photo}: {count:.1f}", "results in predictions"]
    (found,) = json.loads(Path("predictions/predictions.json").read_text())
    assert found["count"] == pytest.approx(count, rel=1e-5) and found["size"] == [50, 70]
    assert found["outputs"] == ["photo-density.png"]
    assert found["counted_size"] == [50, 70]
    assert Image.open("predictions/photo-density.png").height > 50  # a caption below


def test_predict_says_what_it_resized(run, checkpoint, photo):
    for path, picture in (("wide.png", (3000, 40)), ("small.png", (20, 10))):
        Image.new("RGB", picture, (90, 120, 90)).save(path)
    status, out, _ = run("predict", "wide.png", "small.png", photo, "--checkpoint", checkpoint)
    lines = out.splitlines()
    assert status == 0 and lines[0].endswith(" (resized from 3000x40 to 2048x27 px)")
    assert lines[1].endswith(" (resized from 20x10 to 64x32 px)") and "resized" not in lines[2]
    sizes = [entry["counted_size"] for entry in json.loads(Path("predictions/predictions.json").read_text())]
    assert sizes == [[27, 2048], [32, 64], [50, 70]]
    status, out, _ = run("predict", "small.png", "--checkpoint", checkpoint, "--as-is")
    assert status == 0 and "resized" not in out


def test_predict_folder_with_broken_files_among_good_ones(run, checkpoint, photo, tmp_path):
    folder = tmp_path / "many"
    (folder / "deeper").mkdir(parents=True)
    for target in ("a.jpg", "deeper/a.jpg"):
        (folder / target).write_bytes(photo.read_bytes())
    (folder / "b.jpg").write_bytes(photo.read_bytes()[:900])
    (folder / "c.png").write_bytes(b"")
    (folder / "d.mp4").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("not a picture, and not named like one")
    status, out, err = run("predict", folder, tmp_path / "gone.jpg", "--checkpoint", checkpoint)
    assert status == 2
    assert [line.split(":")[0] for line in out.splitlines()[:-1]] == [
        str(folder / "a.jpg"),
        str(folder / "deeper/a.jpg"),
    ]
    lines = err.splitlines()
    assert len(lines) == 5 and all(line.startswith("error: ") for line in lines)
    for line, name in zip(lines, ("b.jpg", "c.png", "d.mp4", "gone.jpg", "4 of the files"), strict=True):
        assert name in line
    assert sorted(p.name for p in Path("predictions").glob("[!.]*")) == [
        "a-2-density.png",
        "a-density.png",
        "predictions.json",
    ]
    listed = json.loads(Path("predictions/predictions.json").read_text())
    assert sum(entry["error"] is None for entry in listed) == 2 and len(listed) == 6


def test_predict_odd_but_valid_pictures(run, checkpoint, photo, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    picture = Image.open(photo)
    Image.new("L", (1, 1), 77).save(folder / "1x1.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (40, 30), np.uint16)).save(folder / "deep.png")
    picture.convert("P").save(folder / "moving.gif", save_all=True, append_images=[Image.new("P", picture.size)])
    picture.crop((0, 0, 70, 3)).save(folder / "thin.webp")
    (folder / "named_png.png").write_bytes(photo.read_bytes())
    status, out, err = run("predict", folder, "--checkpoint", checkpoint)
    assert (status, err) == (0, "") and len(out.splitlines()) == 6 + 1 and "the first of 2 frames" in out
    assert len(list(Path("predictions").glob("*-density.png"))) == 6


def test_predict_regions(run, checkpoint, photo, tmp_path):
    mask = np.ones((50, 70), np.uint8)
    mask[:, 33:] = 2
    Image.fromarray(mask).save(tmp_path / "mask.png")
    status, out, _ = run("predict", photo, "--checkpoint", checkpoint, "--regions", tmp_path / "mask.png")
    (found,) = json.loads(Path("predictions/predictions.json").read_text())
    assert status == 0 and found["regions"].keys() == {"1", "2"}
    assert sum(found["regions"].values()) == pytest.approx(found["count"], rel=1e-6)
    assert f"; 1 {found['regions']['1']:.1f}; 2 {found['regions']['2']:.1f}" in out


def test_predict_video(run, checkpoint, tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in (0, 90, 180):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    status, out, err = run("predict", tmp_path / "v.mp4", "--checkpoint", checkpoint, "--output", "out")
    assert (status, err) == (0, "") and "on average in 3 frames" in out
    assert sorted(p.name for p in Path("out").glob("[!.]*")) == [
        "predictions.json",
        "v-counts.csv",
        "v-counts.png",
        "v-density.mp4",
    ]


def test_large_pictures_are_tiled(run, checkpoint, photo, monkeypatch):
    from dkpnet_ext.models import tiling

    expected = load_model(checkpoint).count(photo)
    monkeypatch.setattr(tiling, "LIMIT", 1000)
    monkeypatch.setattr(tiling, "TILE", 32)
    calls = []
    predict = tiling.predict
    monkeypatch.setattr(tiling, "predict", lambda *a: calls.append(1) or predict(*a))
    run("predict", photo, "--checkpoint", checkpoint)
    (found,) = json.loads(Path("predictions/predictions.json").read_text())
    assert calls and found["count"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to count"),
        ([""], "an empty argument"),
        (["EMPTY"], "no picture or video in this folder"),
        (["PHOTO", "--checkpoint", "nowhere"], "no such folder"),
        (["PHOTO", "--checkpoint", "EMPTY"], "config.json"),
        (["PHOTO", "--checkpoint", "BROKEN"], "checkpoint"),
        (["PHOTO", "--regions", "nowhere.json"], "regions nowhere.json: no such file"),
        (["PHOTO", "--output", "PHOTO/below"], "cannot be written"),
        (["PHOTO", "--precision", "fp16", "--device", "cpu"], "needs a GPU"),
    ],
)
def test_predict_refusals_are_one_line(run, checkpoint, photo, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "broken" / name).write_bytes((checkpoint / name).read_bytes()[:200])
    for word, path in (("PHOTO", photo), ("EMPTY", tmp_path / "empty"), ("BROKEN", tmp_path / "broken")):
        arguments = [a.replace(word, str(path)) for a in arguments]
    if "--checkpoint" not in arguments:
        arguments += ["--checkpoint", checkpoint]
    status, out, err = run("predict", *arguments)
    assert status == 2 and out == ""
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_checkpoint_of_another_architecture(run, checkpoint, photo, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((checkpoint / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"channels": 32}))
    (other / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    status, _, err = run("predict", photo, "--checkpoint", other)
    assert status == 2 and err.startswith(f"error: checkpoint {other}") and err.count("\n") == 1


@pytest.fixture
def own_data(tmp_path) -> Path:
    """Six pictures in the list layout; picture i has i annotated heads."""
    folder = tmp_path / "own"
    folder.mkdir()
    entries = []
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 80, 3), np.uint8)).save(folder / f"{i}.png")
        entries.append({"image": f"{i}.png", "points": [[10 + j, 20] for j in range(i)]})
    (folder / "test.json").write_text(json.dumps(entries))
    return folder


def test_evaluate(run, checkpoint, own_data, tmp_path):
    common = ("--data", f"OWN={own_data}", "--cache", tmp_path / "cache", "--min-side", 64)
    status, out, _ = run("evaluate", checkpoint, *common)
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(Path("evaluation/counts.csv").read_text())))
    assert [(r["domain"], r["image"], r["annotated"]) for r in rows] == [("OWN", f"{i}.png", str(i)) for i in range(6)]
    model = load_model(checkpoint)
    predicted = [model.count(own_data / f"{i}.png") for i in range(6)]
    np.testing.assert_allclose([float(r["predicted"]) for r in rows], predicted, atol=2e-3)
    mae = np.abs(np.array(predicted) - np.arange(6)).mean()
    assert f"| OWN | 6 | {mae:.2f} |" in out and "RMSE (papers: MSE)" in out
    assert Path("evaluation/table.md").read_text() in out
    metrics = json.loads(Path("evaluation/metrics.json").read_text())["OWN"]
    assert metrics["mae"] == pytest.approx(mae, rel=1e-5) == metrics["game"][0] and len(metrics["game"]) == 4
    assert metrics["false_count"] == pytest.approx(predicted[0], rel=1e-4)  # picture 0 has no head
    assert "| False count | GAME(1) | GAME(2) | GAME(3) |" in out

    status, other, _ = run("evaluate", checkpoint, *common, "--nine-patch", "--output", "nine")
    assert status == 0 and other.splitlines()[2] != out.splitlines()[2] and "GAME" not in other


def test_evaluate_of_a_run_folder(run, checkpoint, own_data, tmp_path):
    arguments = ("--data", f"OWN={own_data}", "--cache", tmp_path / "cache", "--min-side", 64)
    expected = run("evaluate", checkpoint, *arguments)[:2]
    for folder in ("stage1/best", "stage2/best", "model"):  # as a run goes on; each replaces the one before
        (tmp_path / "run" / folder).mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            (tmp_path / "run" / folder / name).write_bytes((checkpoint / name).read_bytes())
        assert run("evaluate", tmp_path / "run", *arguments)[:2] == expected
        (tmp_path / "run" / folder / "config.json").write_text("{}")


def test_evaluate_bad_file(run, checkpoint, own_data, tmp_path):
    (own_data / "3.png").write_bytes((own_data / "3.png").read_bytes()[:-2000])
    arguments = ("evaluate", checkpoint, "--data", f"OWN={own_data}", "--cache", tmp_path / "cache")
    status, out, err = run(*arguments)
    assert status == 2 and out == "" and "3.png" in err.splitlines()[-1] and err.splitlines()[-1].startswith("error: ")
    status, out, err = run(*arguments, "--on-bad", "skip")
    assert status == 0 and "| OWN | 5 |" in out and "3.png" in err


def test_nwpu_submission(run, checkpoint, tmp_path, monkeypatch):
    from dkpnet_ext.evaluation import submission

    root = tmp_path / "NWPU"
    (root / "images").mkdir(parents=True)
    (root / "jsons").mkdir()
    for i, split in ((1, "train"), (3110, "val"), (3611, "test"), (3610, "test")):
        Image.new("RGB", (64, 64), (i % 256, 90, 90)).save(root / "images" / f"{i:04d}.jpg")
        if split != "test":
            (root / "jsons" / f"{i:04d}.json").write_text(json.dumps({"points": [[3, 4]], "human_num": 1}))
        with (root / f"{split}.txt").open("a") as file:
            file.write(f"{i:04d}\n" if split == "test" else f"{i:04d} 1 1\n")
    arguments = (
        "evaluate",
        checkpoint,
        "--data",
        f"NWPU={root}",
        "--cache",
        tmp_path / "cache",
        "--submission",
        "s.txt",
    )
    status, _, err = run(*arguments)
    assert status == 2 and "2 lines; the test set has 1500 images" in err
    monkeypatch.setattr(submission, "IMAGES", 2)
    status, out, _ = run(*arguments)
    assert status == 0 and "| NWPU | 1 |" in out
    lines = Path("s.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["3610", "3611"]
    model = load_model(checkpoint).for_inference()
    expected = model.count(root / "images" / "3610.jpg")
    assert float(lines[0].split()[1]) == pytest.approx(max(expected, 0), abs=2e-4)


def test_submission_needs_unlabelled_images(run, checkpoint, own_data, tmp_path):
    status, _, err = run(
        "evaluate", checkpoint, "--data", f"OWN={own_data}", "--cache", tmp_path / "cache", "--submission", "s.txt"
    )
    assert status == 2 and "NWPU" in err.splitlines()[-1] and not Path("s.txt").exists()


def test_info(run):
    status, out, _ = run("info")
    assert status == 0
    assert f"torch        {version('torch')}" in out
    table = [line for line in out.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table] == [
        "| backend", "| cuda", "| triton", "| reference", "| cpp", "| reference",
    ]  # fmt: skip
    assert "| reference | cpu | yes | yes | yes | yes | yes | yes |" in table
    reasons = {line[1 : line.index(")")] for line in out.splitlines() if line.startswith("(")}
    assert reasons == {
        cell[4:-1] for line in table for cell in line.strip("| ").split(" | ") if cell.startswith("no (")
    }
