"""Files go in, results come out beside each other, and nothing of the user's is overwritten."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from counters import alive
from PIL import Image

from dkpnet_ext import predict
from dkpnet_ext.counting.ground import read_ground
from dkpnet_ext.counting.pictures import count_pixels
from dkpnet_ext.counting.prediction import LISTING, predict_files
from dkpnet_ext.data.images import limited_size
from dkpnet_ext.errors import UserError
from dkpnet_ext.evaluation.inference import predict_counts
from dkpnet_ext.models import DKPNet


@pytest.fixture
def photo(tmp_path):
    """A function from a name to a picture file of 40 x 30 px."""

    def make(name: str, size: tuple[int, int] = (40, 30)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
        return path

    return make


def listed(output: Path) -> dict[str, dict]:
    return {Path(entry["file"]).name: entry for entry in json.loads((output / LISTING).read_text())}


@pytest.fixture(scope="module")
def limited() -> DKPNet:
    """A model for images of 64 to 96 px."""
    torch.manual_seed(0)
    arguments = {"num_sub": 2, "channels": 64, "domains": ("A", "B"), "min_side": 64, "max_side": 96}
    return alive(DKPNet("hrnet_w18_small", **arguments)).eval()


@pytest.mark.parametrize("size", [(307, 205), (40, 30), (200, 20), (96, 70)])
def test_every_way_in_counts_at_the_size_of_the_training(limited, photo, tmp_path, size):
    """On commit c572cb6 `predict` and `count` took the picture's own size and `evaluate` the model's."""
    from dkpnet_ext.data import load_domains

    path = photo("large.png", size)
    (tmp_path / "test.json").write_text(json.dumps([{"image": "large.png", "points": [[3, 4]]}]))
    sides = {"min_side": limited.min_side, "max_side": limited.max_side}
    (domain,) = load_domains([f"X={tmp_path}"], cache=tmp_path / "cache", progress=False, **sides)
    (expected,) = predict_counts(limited, domain.test)
    h, w = limited_size(size[::-1], 64, 96)

    (found,) = predict_files(limited, [path], tmp_path / "out")
    assert found.count == pytest.approx(expected, rel=1e-5)
    assert (found.size, found.counted_size) == ((size[1], size[0]), (h, w))
    image = Image.open(path)
    for given in (path, image, np.asarray(image), torch.from_numpy(np.array(image)).permute(2, 0, 1)):
        assert limited.count(given) == pytest.approx(expected, rel=1e-5)
    assert limited.density(path).shape == (-(-h // 4), -(-w // 4))
    torch.testing.assert_close(limited.attend(path), limited.examine(path).attention[0])

    (plain,) = predict_files(limited, [path], tmp_path / "out", as_is=True)
    assert plain.count == pytest.approx(limited.count(path, as_is=True), rel=1e-5)
    assert plain.counted_size == plain.size
    if size != (96, 70):
        assert plain.count != pytest.approx(expected, rel=1e-3)


def test_regions_are_in_the_pictures_pixels(limited, photo):
    image = Image.open(photo("wide.png", (200, 60)))
    found = count_pixels(limited, image)
    assert found.counted == (29, 96)
    halves = {"left": [np.array([[0, 0], [100, 0], [100, 60], [0, 60]], float)], "right": np.zeros((60, 200), bool)}
    halves["right"][:, 100:] = True
    counts = found.in_regions(halves)
    assert sum(counts.values()) == pytest.approx(found.heads, rel=1e-6)
    assert min(counts.values()) > 0.2 * found.heads


def test_people_per_square_metre(limited, photo, tmp_path, monkeypatch, capsys):
    path = photo("wide.png", (307, 205))
    words = ["--ground", "30,170", "270,170", "220,60", "80,60", "--ground-size", "10", "20"]
    limited.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["predict", str(path), "--checkpoint", str(tmp_path / "model"), *words])
    predict.main()
    entry = listed(tmp_path / "predictions")["wide.png"]
    ground = read_ground([[30, 170], [270, 170], [220, 60], [80, 60]], (10, 20))
    expected = count_pixels(limited, Image.open(path)).on_ground(ground).spoken()
    assert entry["ground"].keys() == expected.keys()
    assert entry["ground"]["people"] == pytest.approx(expected["people"], rel=1e-3) and expected["people"] > 0
    assert entry["outputs"] == ["wide-density.png", "wide-ground.png"]
    with Image.open(tmp_path / "predictions" / "wide-ground.png") as picture:
        assert picture.width >= 307 and picture.height > 205
    assert re.search(r"; [\d.]+ people on 200 square metres: [\d.]+ per square metre", capsys.readouterr().out)

    # Points that do not fit one picture are its line; the others follow.
    small, ground = photo("small.png"), read_ground([[30, 170], [270, 170], [220, 60], [80, 60]], (10, 20))
    first, second = predict_files(limited, [small, path], tmp_path / "out", ground=ground)
    assert first.error == "ground: a point lies outside of the picture of 40x30 px" and second.ground is not None
    for wrong in (["--ground", *words[1:5]], words[5:], ["--ground", "1,2", "3,4", "5,6", "7;8", *words[5:]]):
        monkeypatch.setattr("sys.argv", ["predict", str(path), *wrong])
        with pytest.raises(UserError, match="^(--ground|ground: )"):
            predict.main()


@pytest.mark.parametrize(
    ("corners", "size", "reason"),
    [
        ([[30, 170], [270, 170], [220, 60], [80, 60]], (1, 2), "by these points the camera is 1.1 m up"),
        ([[130, 25], [177, 25], [170, 2], [137, 2]], (4, 8), "the heads of most people who stand there are outside"),
    ],
)
def test_a_picture_whose_ground_says_nothing_is_counted_all_the_same(corners, size, reason, limited, photo, tmp_path):
    """At commit 41a985a there was no count, no overlay and no points of it."""
    path = photo("wide.png", (307, 205))
    (plain,) = predict_files(limited, [path], tmp_path / "plain", points=True)
    (found,) = predict_files(limited, [path], tmp_path / "out", points=True, ground=read_ground(corners, size))
    assert found.error is None and found.ground is None and found.count == plain.count
    assert found.outputs == plain.outputs and not list((tmp_path / "out").glob("*-ground.png"))
    entry = listed(tmp_path / "out")["wide.png"]
    assert entry["ground"] is None and entry["count"] == found.count
    said = predict.line(found)
    assert f"no people per square metre: {reason}" in said and "\n" not in said


def test_points_are_as_many_as_the_count_and_lie_in_the_picture(limited, photo, tmp_path):
    path = photo("wide.png", (200, 60))
    (found,) = predict_files(limited, [path], tmp_path / "out", points=True)
    assert found.outputs == ["wide-density.png", "wide-points.geojson", "wide-points.csv"]
    assert listed(tmp_path / "out")["wide.png"]["outputs"] == found.outputs
    features = json.loads((tmp_path / "out" / found.outputs[1]).read_text())["features"]
    rows = np.loadtxt(tmp_path / "out" / found.outputs[2], delimiter=",", skiprows=1, ndmin=2)
    assert len(features) == len(rows) == round(found.count) > 3
    np.testing.assert_allclose(rows, limited.locate(path), atol=0.006)
    np.testing.assert_allclose([f["geometry"]["coordinates"] for f in features], rows[:, :2])
    np.testing.assert_allclose([f["properties"]["score"] for f in features], rows[:, 2])
    assert rows[:, 0].max() > 100 and rows[:, 0].max() < 200
    (again,) = predict_files(limited, [path], tmp_path / "plain")
    assert again.outputs == ["wide-density.png"]
    pictures = [np.asarray(Image.open(tmp_path / name / "wide-density.png")) for name in ("out", "plain")]
    assert not np.array_equal(*pictures)  # the points are drawn


def test_a_result_does_not_overwrite_an_input(model, photo, tmp_path):
    first, second = photo("x.png"), photo("x-density.png")
    content = second.read_bytes()
    list(predict_files(model, [first, second], tmp_path))
    assert second.read_bytes() == content
    assert listed(tmp_path)["x.png"]["outputs"] == ["x-2-density.png"]
    assert listed(tmp_path)["x-density.png"]["outputs"] == ["x-density-density.png"]


def test_a_foreign_file_is_not_overwritten(model, photo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x-density.png").write_text("mine")
    list(predict_files(model, [photo("x.png")], tmp_path / "out"))
    assert (tmp_path / "out" / "x-density.png").read_text() == "mine"
    (tmp_path / "out" / LISTING).write_text('{"mine": 1}')
    with pytest.raises(UserError, match="not a list of this command's results"):
        list(predict_files(model, [photo("x.png")], tmp_path / "out"))


def test_a_second_call_keeps_what_the_first_said(model, photo, tmp_path):
    output = tmp_path / "out"
    list(predict_files(model, [photo("a/x.png"), photo("y.png")], output))
    (found,) = predict_files(model, [photo("b/x.png", (50, 30))], output)
    assert found.outputs == ["x-2-density.png"] and found.notes == ["written as x-2"]
    entries = json.loads((output / LISTING).read_text())
    assert [entry["outputs"] for entry in entries] == [["x-density.png"], ["y-density.png"], ["x-2-density.png"]]
    list(predict_files(model, [tmp_path / "a" / "x.png"], output))  # again: its own results are replaced
    entries = json.loads((output / LISTING).read_text())
    assert sorted(entry["outputs"][0] for entry in entries) == ["x-2-density.png", "x-density.png", "y-density.png"]


def test_other_options_keep_the_name(model, photo, tmp_path):
    """At commit 3418349 the third call wrote photo-2, since photo-points.csv was nobody's after the second."""
    path, output = photo("photo.png"), tmp_path / "out"
    with_points = None
    for points in (True, False, True):
        (found,) = predict_files(model, [path], output, points=points)
        assert not found.notes or "written as" not in " ".join(found.notes)
        entry = listed(output)["photo.png"]
        with_points = with_points or entry["outputs"]
        assert sorted(entry["outputs"] + entry.get("older", [])) == sorted(with_points)
    assert sorted(p.name for p in output.iterdir() if not p.name.startswith(".")) == sorted([LISTING, *with_points])


def test_stopped_in_the_middle(model, photo, tmp_path, monkeypatch):
    files = [photo(f"{name}.png") for name in "abc"]
    with closing(predict_files(model, files, tmp_path / "out")) as results:
        next(results)
    # What had been begun was finished, and nothing is in the folder that is not named.
    found = listed(tmp_path / "out")
    assert list(found) in (["a.png"], ["a.png", "b.png"])
    present = {p.name for p in (tmp_path / "out").iterdir()} - {".lock"}
    assert {LISTING, *(e["outputs"][0] for e in found.values())} == present

    count = model.examine
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return count(*arguments, **options)

    monkeypatch.setattr(model, "examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(predict_files(model, files[1:], tmp_path / "out"))
    assert list(listed(tmp_path / "out")) == ["a.png", "b.png", "c.png"]
    assert listed(tmp_path / "out")["c.png"]["error"] == "stopped (KeyboardInterrupt)"


TOO_LITTLE = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
    ),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", TOO_LITTLE, ids=lambda error: type(error).__name__)
def test_too_little_memory_for_one_file(error, model, photo, tmp_path, monkeypatch, capsys):
    """The others are counted, and the command says that one was not; before, it ended there."""
    from dkpnet_ext import predict

    for name in "abc":
        photo(f"in/{name}.png", (40, 30 + ord(name)))
    examine = model.examine

    def examine_small(image, **options):
        if image.shape[1] == 30 + ord("b"):
            raise error
        return examine(image, **options)

    monkeypatch.setattr(model, "examine", examine_small)
    monkeypatch.setattr("dkpnet_ext.models.load_model", lambda _: model)
    monkeypatch.setattr(model, "for_inference", lambda *engine: model)
    monkeypatch.setattr(
        "sys.argv", ["dkpnet predict", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--as-is"]
    )
    with pytest.raises(UserError, match="1 of the files could not be counted"):
        predict.main()
    shown = capsys.readouterr()
    assert shown.out.count(".png: ") == 2 and f"results in {tmp_path / 'out'}" in shown.out
    assert shown.err == f"error: {tmp_path / 'in' / 'b.png'}: not enough memory to count it; scale it down or cut it\n"
    entries = listed(tmp_path / "out")
    assert list(entries) == ["a.png", "b.png", "c.png"] and "not enough memory" in entries["b.png"]["error"]


def test_a_bug_ends_the_run(model, photo, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(model, "examine", broken)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        list(predict_files(model, [photo("a.png")], tmp_path / "out"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://example.org/crowd.jpg", "an address; download"),
        ("rtsp://camera/1", "an address; download"),
        ("0", "a camera's number is not read"),
        ("nothing-*.jpg", "no file fits this pattern"),
    ],
)
def test_inputs_that_are_no_files(model, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        list(predict_files(model, [Path(given)], tmp_path / "out"))


def test_patterns_and_folders_name_each_file_once(model, photo, tmp_path):
    for name in ("a.png", "b.png", "[c].png"):
        photo(name)
    given = [tmp_path / "?.png", tmp_path / "[c].png", tmp_path / "a.png", tmp_path]
    found = list(predict_files(model, given, tmp_path / "out"))
    assert [Path(f.file).name for f in found] == ["a.png", "b.png", "[c].png"]


def test_folders_among_what_a_pattern_names(model, photo, tmp_path):
    """Their pictures are counted; one without any is passed over, and so are hidden files, which no pattern names either."""
    (tmp_path / "in" / "pictures" / ".thumbnails").mkdir(parents=True)
    for name in ("in/pictures/a.png", "in/pictures/.thumbnails/b.png", "in/photo.png"):
        photo(name)
    (tmp_path / "in" / "papers").mkdir()
    found = list(predict_files(model, [tmp_path / "in" / "p*"], tmp_path / "out"))
    assert sorted(Path(f.file).name for f in found) == ["a.png", "photo.png"]
    with pytest.raises(UserError, match="no file fits this pattern"):
        list(predict_files(model, [tmp_path / "in" / "pap*"], tmp_path / "out"))


def test_links_in_a_folder(model, photo, tmp_path):
    """One to nothing is named, not left out; one to itself ended the command in a traceback."""
    photo("in/a.png")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    (tmp_path / "in" / "out").symlink_to("out")
    a, gone, loop = predict_files(model, [tmp_path / "in"], tmp_path / "out")
    assert a.count is not None and "gone.png" in gone.error and "loop.png" in loop.error
    with pytest.raises(UserError, match="cannot be written"):
        list(predict_files(model, [tmp_path / "in"], tmp_path / "in" / "out"))


def test_an_animation_is_named(model, photo, tmp_path):
    picture = Image.open(photo("x.png"))
    picture.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", picture.size)])
    (found,) = predict_files(model, [tmp_path / "moving.gif"], tmp_path / "out")
    assert found.notes == ["an animation: the first of 2 frames is counted"]


def test_pictures_of_phones_are_not_left_out(model, photo, tmp_path):
    """HEIC and AVIF in a folder are read, or named; on commit c572cb6 they were left out silently."""
    folder = tmp_path / "phone"
    folder.mkdir()
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    buffer = io.BytesIO()
    try:
        Image.open(photo("x.png")).save(buffer, "AVIF")
    except (KeyError, OSError):  # a Pillow built without it
        buffer.write(b"\0\0\0\x18ftypavif" + bytes(64))
    (folder / "IMG_2.avif").write_bytes(buffer.getvalue())
    heic, avif = predict_files(model, [folder], tmp_path / "out")
    assert "IMG_1.HEIC" in heic.error and ("pillow-heif" in heic.error or "cannot be decoded" in heic.error)
    assert avif.count is not None or "AVIF" in avif.error


@pytest.mark.parametrize("stem", ["x" * 246, "é" * 123])
def test_a_long_name(stem, model, photo, tmp_path):
    """It leaves no room for the endings of its results, whose names are cut; before, the run ended there."""
    path = photo("a.png").rename(tmp_path / f"{stem}.png")
    found = list(predict_files(model, [path, photo("b.png")], tmp_path / "out"))
    assert [f.error for f in found] == [None, None]
    assert (tmp_path / "out" / found[0].outputs[0]).is_file() and found[0].notes[0].startswith("written as ")
    assert found[0].outputs[0].endswith("-density.png") and len(found[0].outputs[0].encode()) < 255


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"two\nlines.png", "Zoë \u202e.png".encode()])
def test_any_name(model, photo, tmp_path, name):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    try:
        path.write_bytes(photo("x.png").read_bytes())
    except OSError:
        pytest.skip("this disk takes no such name")
    (found,) = predict_files(model, [path], tmp_path / "out")
    assert found.error is None and (tmp_path / "out" / found.outputs[0]).is_file()
    assert json.loads((tmp_path / "out" / LISTING).read_text())[0]["file"] == str(path)


def test_a_cut_animation_does_not_end_the_rest(limited, photo, tmp_path):
    """Pillow raises IndexError or struct.error where a GIF ends; at commit 4eb5a94 the next picture was not counted."""
    frames = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8)) for i in range(3)]
    frames[0].save(tmp_path / "whole.gif", save_all=True, append_images=frames[1:], duration=100)
    content = (tmp_path / "whole.gif").read_bytes()
    (tmp_path / "whole.gif").unlink()
    for number, end in enumerate(np.linspace(len(content) * 0.3, len(content) - 1, 40).astype(int)):
        (tmp_path / f"cut{number:02}.gif").write_bytes(content[:end])
    last = photo("last.png")
    found = list(predict_files(limited, [*sorted(tmp_path.glob("cut*.gif")), last], tmp_path / "out"))
    assert len(found) == 41 and found[-1].error is None
    assert any(each.error is None for each in found[:-1]), "its first frame is whole"


def test_one_name_in_two_folders_is_two_pictures(limited, photo, tmp_path, monkeypatch):
    """At commit 4eb5a94 the second call replaced the first one's results: files were known by the path that was given."""
    for folder, name in (("one", "one/p.png"), ("two", "two/p.png")):
        photo(name, (40, 30) if folder == "one" else (44, 30))
        monkeypatch.chdir(tmp_path / folder)
        list(predict_files(limited, [Path("p.png")], tmp_path / "out"))
    entries = json.loads((tmp_path / "out" / LISTING).read_text())
    assert [entry["outputs"] for entry in entries] == [["p-density.png"], ["p-2-density.png"]]
    assert [Path(entry["path"]).parent.name for entry in entries] == ["one", "two"]
    list(predict_files(limited, [tmp_path / "two" / "p.png"], tmp_path / "out"))
    entries = json.loads((tmp_path / "out" / LISTING).read_text())
    assert [entry["outputs"] for entry in entries] == [["p-density.png"], ["p-2-density.png"]], "the same file again"


def test_two_calls_do_not_share_a_folder(limited, photo, tmp_path):
    """Each would write the list of its own pictures over the other's."""
    path, output = photo("a.png"), tmp_path / "out"
    output.mkdir()
    hold = "import sys; from dkpnet_ext.files import locked; from pathlib import Path\n"
    hold += "with locked(Path(sys.argv[1])):\n print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, output], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="another process is writing to this folder"):
            list(predict_files(limited, [path], output))
        other.stdin.close()
    assert len(list(predict_files(limited, [path], output))) == 1


def test_a_name_that_no_disk_takes(limited, photo, tmp_path):
    found = list(predict_files(limited, [Path("a" * 300 + ".png"), photo("b.png")], tmp_path / "out"))
    assert "File name too long" in found[0].error and found[1].error is None
