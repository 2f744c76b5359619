"""Labels on disk: drafts and lists, versions, what was there before."""

import json
import os
from pathlib import Path

import layouts
import numpy as np
import pytest

from dkpnet_ext.annotation.store import UNTOUCHED, Conflict, Labels, Store, checked
from dkpnet_ext.data import load_domains
from dkpnet_ext.data.readers import find_layout, read_domain
from dkpnet_ext.errors import UserError
from dkpnet_ext.files import OutputError

SQUARE = [[10.0, 10.0], [30.0, 10.0], [30.0, 30.0], [10.0, 30.0]]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("1.jpg", "2.png", "street/3.jpg", "test/4.jpg"):
        layouts.picture(tmp_path / "mine" / name, (96, 64))
    return tmp_path / "mine"


def test_drafts_and_lists(folder, tmp_path):
    store = Store(folder)
    assert list(store.pictures) == ["1.jpg", "2.png", "street/3.jpg", "test/4.jpg"]
    draft = Labels([[5.0, 6.5]], [], False)
    version = store.put("street/3.jpg", draft, UNTOUCHED.version)
    assert version == draft.version != UNTOUCHED.version
    assert not (folder / "train.json").exists()  # a draft is not trained on
    with pytest.raises(UserError, match="no known data set layout"):
        find_layout(folder)
    assert Store(folder).get("street/3.jpg") == draft

    finished = Labels([[5.0, 6.5], [20.0, 20.0], [40.0, 41.5]], [SQUARE], True)
    assert finished.heads == 2
    store.put("street/3.jpg", finished, version)
    store.put("1.jpg", Labels([], [], True), UNTOUCHED.version)
    store.put("test/4.jpg", Labels([[1.0, 2.0]], [], True), UNTOUCHED.version)
    assert not list((folder / ".annotate").rglob("*.json"))
    again = Store(folder)
    assert again.get("street/3.jpg") == finished and again.get("1.jpg").done and not again.get("2.png").done
    assert json.loads((folder / "train.json").read_text()) == [
        {"image": "1.jpg", "points": []},
        {"image": "street/3.jpg", "points": finished.points, "ignore": [SQUARE]},
    ]

    # What `train` reads: the head in the ignored region is left out, its pixels are painted over.
    (domain,) = load_domains([f"mine={folder}"], cache=tmp_path / "cache", min_side=32, progress=False)
    assert domain.layout == "list"
    assert {item.name: item.points.tolist() for item in (*domain.train, *domain.test)} == {
        "mine/train/1.jpg": [],
        "mine/train/street/3.jpg": [[5, 6.5], [40, 41.5]],
        "mine/test/test/4.jpg": [[1, 2]],
    }
    pixels = np.load(domain.train[1].image)
    assert (pixels[10:30, 10:30] == pixels[10, 10]).all() and pixels.std() > 1

    # Not finished after all: a draft again, and out of the list.
    again.put("street/3.jpg", finished._replace(done=False), finished.version)
    assert [entry["image"] for entry in json.loads((folder / "train.json").read_text())] == ["1.jpg"]
    assert Store(folder).get("street/3.jpg") == finished._replace(done=False)
    again.put("1.jpg", UNTOUCHED, Labels([], [], True).version)
    assert not (folder / "train.json").exists()


def test_a_change_of_something_else_is_refused(folder):
    store = Store(folder)
    mine, theirs = Labels([[1.0, 1.0]], [], False), Labels([[2.0, 2.0]], [], False)
    store.put("1.jpg", theirs, UNTOUCHED.version)
    with pytest.raises(Conflict, match=r"1\.jpg: somebody else changed it") as conflict:
        store.put("1.jpg", mine, UNTOUCHED.version)
    assert conflict.value.labels == theirs == Store(folder).get("1.jpg")
    store.put("1.jpg", mine, theirs.version)
    assert Store(folder).get("1.jpg") == mine


@pytest.mark.parametrize("done", [False, True])
def test_a_full_disk_changes_nothing(folder, monkeypatch, done):
    store = Store(folder)
    before = Labels([[1.0, 1.0]], [], done)
    store.put("1.jpg", before, UNTOUCHED.version)

    def full(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        for labels in (Labels([[2.0, 2.0]], [], False), Labels([[2.0, 2.0]], [], True)):
            with pytest.raises(OutputError, match="No space left"):
                store.put("1.jpg", labels, before.version)
    assert store.get("1.jpg") == before == Store(folder).get("1.jpg")
    assert not [path for path in folder.rglob(".*.tmp*")]


@pytest.mark.parametrize("step", ["draft", "list"])
def test_killed_between_draft_and_list(folder, monkeypatch, step):
    """The list counts where both are there: at most the last change is lost."""
    store = Store(folder)
    draft, finished = Labels([[1.0, 1.0]], [], False), Labels([[1.0, 1.0], [2.0, 2.0]], [], True)
    before, after = (draft, finished) if step == "list" else (finished, draft)
    store.put("1.jpg", before, UNTOUCHED.version)
    if step == "list":  # killed before the draft is removed
        monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        store.put("1.jpg", after, before.version)
        expected = finished
    else:  # killed before the list is written
        monkeypatch.setattr(store, "_write_list", lambda name, labels: None)
        store.put("1.jpg", after, before.version)
        expected = finished
    monkeypatch.undo()
    assert Store(folder).get("1.jpg") == expected


def test_lists_that_are_there_already(folder):
    """Their pictures are finished; entries of other pictures and other fields stay."""
    (folder / "other.txt").write_text("?")
    rows = [
        {"image": "2.png", "points": [[3, 4], [5.125, 6]], "note": "noon"},
        {"image": "../away/9.jpg", "points": [[1, 1]]},
        {"image": "a" * 300 + ".jpg", "points": [[1, 1]]},
    ]
    (folder / "train.json").write_text(json.dumps(rows))
    (folder / "val.json").write_text(json.dumps({"1.jpg": [[7, 8]]}))
    store = Store(folder)
    assert store.get("2.png") == Labels([[3, 4], [5.125, 6]], [], True) and store.get("1.jpg").points == [[7, 8]]
    store.put("2.png", Labels([[3.0, 4.0]], [], True), store.get("2.png").version)
    store.put("1.jpg", Labels([[7.0, 9.0]], [], True), store.get("1.jpg").version)
    written = json.loads((folder / "train.json").read_text())
    assert written == [{"image": "2.png", "points": [[3, 4]], "note": "noon"}, *rows[1:]]
    assert json.loads((folder / "val.json").read_text()) == [{"image": "1.jpg", "points": [[7, 9]]}]


@pytest.mark.parametrize("row", [{"file_name": "2.png"}, {"image": "3.jpg"}])
def test_every_list_that_training_reads_is_taken_up(folder, row):
    """Other words for a picture, and one in a folder below. At commit 4eb5a94 such a picture had no labels here, and labelling
    it made a second row, which training refused."""
    (folder / "train.json").write_text(json.dumps([row | {"points": [[3, 4], [5, 6]]}]))
    store = Store(folder)
    name = "2.png" if "file_name" in row else "street/3.jpg"
    labels = store.get(name)
    assert labels == Labels([[3, 4], [5, 6]], [], True)
    store.put(name, Labels([[1.0, 2.0]], [], True), labels.version)
    assert json.loads((folder / "train.json").read_text()) == [row | {"points": [[1.0, 2.0]]}]
    records, report = read_domain("X", folder, progress=False)
    assert report.bad == [] and [len(record.points) for record in records["train"]] == [1]


def test_folders_that_are_no_good(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures in this folder"):
        Store(tmp_path / "empty")
    (folder / "train.csv").write_text('image,points\n1.jpg,"[[1, 2]]"\n')
    with pytest.raises(UserError, match="labelled already, in the layout list.*make it a list first: python -m"):
        Store(folder)
    (folder / "train.csv").unlink()
    layouts.shanghaitech(tmp_path / "sha")
    with pytest.raises(UserError, match="in the layout shanghaitech"):
        Store(tmp_path / "sha")
    for content in (
        "[",
        '"1.jpg"',
        '[{"image": "1.jpg", "points": 3}]',
        '[{"image": "1.jpg", "points": [], "ignore": 3}]',
    ):
        (folder / "train.json").write_text(content)
        with pytest.raises(UserError, match=r"train\.json: "):
            Store(folder)
    (folder / "train.json").unlink()
    store = Store(folder)
    store.put("1.jpg", Labels([[1.0, 1.0]], [], False), UNTOUCHED.version)
    for content in ("", "[]", '{"points": [[1, null]], "ignore": []}'):
        (folder / ".annotate" / "1.jpg.json").write_text(content)
        with pytest.raises(UserError, match=r"1\.jpg\.json: "):
            Store(folder)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"points": [], "ignore": []},
        {"points": [], "ignore": [], "done": 1},
        {"points": {}, "ignore": [], "done": True},
        {"points": [[1]], "ignore": [], "done": True},
        {"points": [[1, float("nan")]], "ignore": [], "done": True},
        {"points": [["1", "2"]], "ignore": [], "done": True},
        {"points": [], "ignore": [[[1, 2], [3, 4]]], "done": True},
        {"points": [], "ignore": [3], "done": True},
        {"points": [[0, 0]] * 100_001, "ignore": [], "done": True},
        {"points": [], "ignore": [SQUARE] * 1001, "done": True},
    ],
    ids=lambda content: str(content)[:40],
)
def test_labels_that_are_none(content):
    with pytest.raises(UserError, match=r"labels are points \[\[x, y\]"):
        checked(content)


def test_heads_outside_agree_with_the_reader(folder):
    rng = np.random.default_rng(0)
    store = Store(folder)
    rings = [rng.uniform(0, 60, (n, 2)).round(1).tolist() for n in (3, 4, 7)]
    labels = Labels(rng.integers(0, [96, 64], (200, 2)).astype(float).__add__(0.5).tolist(), rings, True)
    store.put("1.jpg", labels, UNTOUCHED.version)
    records, _ = read_domain("mine", folder, progress=False)
    assert 0 < len(records["train"][0].points) == labels.heads < 200


def test_a_name_that_begins_with_a_space(tmp_path):
    """At commit 25e2632 its labels were gone when the folder was opened again."""
    layouts.picture(tmp_path / " 1.jpg")
    Store(tmp_path).put(" 1.jpg", Labels([[3, 4]], [], True), UNTOUCHED.version)
    assert Store(tmp_path).get(" 1.jpg").points == [[3, 4]]


def test_the_first_folder_that_tells_a_split_counts(tmp_path):
    layouts.picture(tmp_path / "test" / "train station" / "1.jpg")
    Store(tmp_path).put("test/train station/1.jpg", Labels([[3, 4]], [], True), UNTOUCHED.version)
    assert (tmp_path / "test.json").is_file() and not (tmp_path / "train.json").exists()
