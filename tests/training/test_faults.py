"""What goes wrong around a training: disks, damaged files, other data, memory, workers, two runs in one folder."""

import dataclasses
import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest
import torch
from disk import largest_file
from lightning.fabric import Fabric

from dkpnet_ext.data import Domain
from dkpnet_ext.errors import UserError
from dkpnet_ext.evaluation.metrics import Metrics
from dkpnet_ext.files import OutputError, locked
from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.train import parse
from dkpnet_ext.training import PRESETS, Config, train
from dkpnet_ext.training import report as reports
from dkpnet_ext.training.checkpoint import belongs, fingerprint, load_state, restore, save_model, save_state
from dkpnet_ext.training.clustering import load_clusters, save_clusters
from dkpnet_ext.training.interruption import Interrupted, Stop, one_line, stop_signals
from dkpnet_ext.training.log import RunLog, read_metrics
from dkpnet_ext.training.run import make_fabric
from dkpnet_ext.training.stage import StageData


def picture(seed: int) -> tuple[np.ndarray, list]:
    """An image of 48 x 48 pixels with its points."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (48, 48, 3), dtype=np.uint8), rng.uniform(0, 48, (seed % 5 + 1, 2)).tolist()


def domain(name: str, start: int = 0, train: int = 6, test: int = 2) -> Domain:
    pairs = [picture(start + i) for i in range(train + test)]
    return Domain.from_arrays(name, train=pairs[:train], test=pairs[train:], min_side=48, max_side=64)


def tiny(output, **changes) -> Config:
    """Joint training of one epoch, one step."""
    config = parse(
        ["scratch", "--system", "jt", "--epochs", "1", "--batch", "4", "--crop", "48", "--min-side", "48", "--max-side", "64",
         "--channels", "8", "--workers", "0", "--device", "cpu", "--precision", "fp32", "--batch-norm", "frozen",
         "--output", str(output)]
    )  # fmt: skip
    config.data.data = ()
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on data sets from Python, its data and the records that its callback got."""
    sets, seen = [domain("a"), domain("b", 50)], []
    folder = train(tiny(tmp_path_factory.mktemp("finished") / "run"), sets, callback=seen.append)
    return folder, sets, seen


def one(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_callback_and_resume_of_a_finished_run(finished, capsys):
    folder, sets, seen = finished
    assert [(r["stage"], r.get("epoch")) for r in seen] == [("stage1", 1), ("test", None)]
    assert {"val", "val/a", "val/b", "loss/total", "lr"} <= seen[0].keys() and seen[1]["test/a"]["images"] == 2
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert train(Config(resume=folder), sets) == folder
    printed = capsys.readouterr().out
    assert "this run is finished" in printed and f"predict photo.jpg --checkpoint {folder}" in printed
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert not list(folder.rglob("*.tmp*"))


def test_resume_takes_no_options_and_asks_for_the_data(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / "results.md").unlink()
    with pytest.raises(UserError, match="give it alone"):
        parse(["--resume", str(folder), "--epochs", "7"])
    with pytest.raises(UserError, match="data sets given in Python"):
        train(parse(["--resume", str(folder)]))
    with pytest.raises(UserError, match="nowhere.*: not a run's configuration"):
        train(Config(resume=tmp_path / "nowhere"))
    moved = [domain("a"), domain("b", 50)]
    moved[0].train[0].points[0] += 1
    with pytest.raises(UserError, match="other data .images, points or split have changed"):
        train(Config(resume=folder), moved)
    with locked(folder):  # one's own process may: a second one may not, see test_files.py
        pass
    assert train(Config(resume=folder), finished[1]) == folder and (folder / "results.md").exists()


def test_fingerprint_holds_points_and_content(tmp_path):
    image, points = picture(3)
    torch.save(0, tmp_path / "x")

    def mark(image=image, points=points, name="a"):
        return fingerprint(Domain.from_arrays(name, train=[(image, points)], min_side=48, max_side=64).train)

    assert mark() == mark() and belongs(
        mark(), Domain.from_arrays("a", [(image, points)], min_side=48, max_side=64).train
    )
    other = image.copy()
    other[20, 20] ^= 1
    moved = [[points[0][0] + 0.5, points[0][1]], *points[1:]]
    assert len({mark(), mark(image=other), mark(points=moved), mark(name="b")}) == 4
    old = Domain.from_arrays("a", [(image, points)], min_side=48, max_side=64).train
    assert belongs(_old_mark(old), old) and not belongs(_old_mark(old), old * 2), "states of commit c572cb6"


def test_fingerprint_reads_all_of_a_file(tmp_path, monkeypatch):
    """A pixel in the middle of a large file that is not compressed; before, 64 KiB at either end were read."""
    monkeypatch.chdir(tmp_path)  # names hold the path
    pixels = bytearray(i * 7 % 251 for i in range(320 * 240 * 3))

    def items():
        (tmp_path / "g.ppm").write_bytes(b"P6 320 240 255\n" + pixels)
        (tmp_path / "f.ppm").write_bytes(b"P6 64 48 255\n" + pixels[: 64 * 48 * 3])
        memory = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
        images = [("f.ppm", [[3, 4]]), ("g.ppm", [[5, 6.5]]), (memory, [[1, 2], [3, 4]])]
        return Domain.from_arrays("a", images, min_side=48, max_side=400).train

    before = items()
    mark, version_2 = fingerprint(before), "2:dd6d4f29ac9e64a9b26c274dcc89d5b9"
    assert belongs(mark, before) and belongs(version_2, before), "states of commit 22391de"
    pixels[120 * 320 * 3] ^= 1
    after = items()
    assert not belongs(mark, after) and belongs(version_2, after)
    pixels[0] ^= 1
    assert not belongs(version_2, items())


def _old_mark(items) -> str:
    import hashlib

    return hashlib.sha256("\n".join(f"{item.name} {item.count}" for item in items).encode()).hexdigest()[:16]


def state(tmp_path) -> dict:
    return {
        "stage": "stage1", "epoch": 1, "batch": 0, "best": 0.5, "fingerprint": "2:0", "optimizer": {},
        "model": {"weight": torch.arange(5000.0)},
    }  # fmt: skip


@pytest.mark.parametrize("where", [0.3, 0.5, 0.9])
def test_a_flipped_bit_in_the_state_is_found(tmp_path, where):
    path = tmp_path / "state.pt"
    save_state(path, state(tmp_path))
    assert torch.equal(load_state(path)["model"]["weight"], torch.arange(5000.0))
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged training state") as error:
        load_state(path)
    one(error)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"text", {"epoch": 1}, [1, 2], {**{k: None for k in ("epoch", "rng")}}]
)
def test_a_foreign_state_is_one_line(tmp_path, content):
    path = tmp_path / "state.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match="training state") as error:
        load_state(path)
    one(error)


def test_a_state_of_another_model_is_one_line(tmp_path):
    small, large = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(small.parameters())
    small(torch.rand(1, 2)).sum().backward()
    optimizer.step()
    values = {"model": small.state_dict(), "optimizer": optimizer.state_dict()}
    restore(tmp_path, values, torch.nn.Linear(2, 2), torch.optim.Adam(small.parameters()))
    for wrong in (values, values | {"model": large.state_dict()}, values | {"model": {}}, values | {"optimizer": {}}):
        with pytest.raises(UserError, match="does not fit this run's model") as error:
            restore(tmp_path, wrong, large, torch.optim.Adam(large.parameters()))
        one(error)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1}', '{"NAME": 7}', '{"NAME": true}', '{"NAME": "0"}', "\xff", "3"]
)
def test_damaged_clusters_are_one_line(tmp_path, text):
    items, path = domain("a", train=1).train, tmp_path / "clusters.json"
    save_clusters(path, items, np.array([1]))
    assert load_clusters(path, items, 2) == [1]
    path.write_bytes(text.replace("NAME", items[0].name).encode("latin-1"))
    with pytest.raises(UserError, match="clusters.json: ") as error:
        load_clusters(path, items, 2)
    one(error)


def test_damaged_metrics_are_one_line_and_no_epoch_stands_twice(tmp_path):
    log = RunLog(tmp_path)
    for epoch in (1, 2):
        log({"stage": "stage1", "epoch": epoch, "val": 0.5})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "sta')  # cut off by a kill
    again = RunLog(tmp_path)
    again({"stage": "stage1", "epoch": 2, "val": 0.25})
    again.close()
    assert [(r["epoch"], r["val"]) for r in read_metrics(tmp_path / "metrics.jsonl")] == [(1, 0.5), (2, 0.25)]
    for text in ("x\n", "[]\n", "{}\n", '{"stage": 3}\n', "\xff\n"):
        (tmp_path / "metrics.jsonl").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match="metrics.jsonl: line 1 is damaged") as error:
            RunLog(tmp_path)
        one(error)


def test_a_full_disk_keeps_what_was_there(tmp_path):
    """At every write of training: what stood there stays, nothing half-written is left, the message is one line."""
    path, old = tmp_path / "state.pt", state(tmp_path)
    save_state(path, old)
    model = DKPNet("resnet18", channels=8, attention="none")
    save_model(model, tmp_path / "best")
    log = RunLog(tmp_path)
    log({"stage": "stage1", "epoch": 1})
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    items = domain("a", train=6).train
    writes = [
        lambda: save_state(path, old | {"epoch": 2}),
        lambda: save_model(model, tmp_path / "best"),
        lambda: log({"stage": "stage1", "epoch": 2}),
        lambda: save_clusters(tmp_path / "clusters.json", items, np.zeros(6, int)),
        lambda: Config().save(tmp_path / "config.json"),
    ]
    for write in writes:
        with largest_file(30), pytest.raises(OutputError, match="cannot be written") as error:
            write()
        one(error)
    log.close()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_training_on_a_full_disk_is_one_line(tmp_path, size):
    with largest_file(size), pytest.raises(UserError, match="cannot be written|limit") as error:
        train(tiny(tmp_path / "run"), [domain("a")])
    one(error)
    assert not list(tmp_path.rglob("*tmp*"))


@pytest.mark.parametrize(
    "raised, message",
    [
        (MemoryError(), "not enough memory; lower --batch"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough GPU memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nmore"),
            "not enough memory",
        ),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "fewer --workers"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "fewer --workers"),
        (
            UserError("Caught UserError in DataLoader worker process 0.\nOriginal Traceback\nUserError: a.png: bad"),
            "a.png",
        ),
        (FileNotFoundError(2, "No such file or directory", "cache/ab.npy"), "cache/ab.npy: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_the_machine_refuses_is_one_line(tmp_path, raised, message):
    stop = Stop()
    stop.folder = tmp_path
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "state.pt").touch()
    with pytest.raises(UserError) as error, one_line(stop):
        raise raised
    assert message in one(error)
    assert "Caught" in str(raised) or f"--resume {tmp_path}" in str(error.value)
    with pytest.raises(RuntimeError, match="a bug of ours"), one_line(stop):
        raise RuntimeError("a bug of ours")


def test_a_killed_worker_is_one_line(tmp_path, monkeypatch):
    from dkpnet_ext.data.dataset import CrowdDataset

    monkeypatch.setattr(CrowdDataset, "__getitem__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    config = tiny(tmp_path / "run")
    config.data.workers = 1
    with pytest.raises(UserError, match="a process that prepares batches was killed") as error:
        train(config, [domain("a")])
    one(error)


@pytest.mark.parametrize("looks", [{"cpu": 1}, {}], ids=["each pass", "as on a GPU"])
def test_a_loss_that_is_not_finite_is_one_line_and_never_saved(tmp_path, monkeypatch, looks):
    """Also where nobody looks at the pass in which it happens: before the epoch ends, and before a state is saved."""
    from dkpnet_ext.training import stage

    counted, usual = [], stage.loss_terms

    def spoilt(*arguments):
        counted.append(len(counted))
        terms = usual(*arguments)
        return terms | {"total": terms["total"] * torch.nan} if len(counted) == 2 else terms

    monkeypatch.setattr(stage, "loss_terms", spoilt)
    monkeypatch.setattr(stage, "_LOOK", looks)
    with pytest.raises(UserError, match="the loss is not finite .*total nan.* on ") as error:
        train(tiny(tmp_path / "run"), [domain("a", train=16)])
    one(error)
    assert len(counted) == (2 if looks else 4)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_a_folder_that_moves_away_is_one_line(tmp_path):
    folder = tmp_path / "run"

    def move(record):
        folder.rename(tmp_path / "elsewhere")

    with pytest.raises(UserError, match="run") as error:
        train(tiny(folder), [domain("a")], callback=move)
    assert "No such file or directory" in one(error)


def test_signals(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="nothing was written"), stop_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    with stop_signals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGTERM) is before
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, previous)
    worked = []
    thread = threading.Thread(target=lambda: stop_signals().__enter__() and worked.append(1))
    thread.start()
    thread.join()
    assert worked, "in another thread there are no handlers"


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc: no number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0: no number"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"LOCAL_WORLD_SIZE": "-1"}, "LOCAL_WORLD_SIZE=-1: no number"),
    ],
)
def test_torchruns_variables_without_torchrun(environment, message, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message) as error:
        make_fabric(Config(device="cpu"))
    one(error)


def test_pictures_never_fail_a_finished_run(tmp_path, finished, monkeypatch, capsys):
    folder, sets, _ = finished
    model = load_model(folder / "model")
    long = dataclasses.replace(sets[0].test[0], source=sets[0].test[0].source.with_name("ä" * 300))
    sets = [dataclasses.replace(sets[0], test=[long])]
    data = StageData(sets[0].train, [0] * 6, [0] * 6, sets[0].train)
    reports.write_pictures(model, sets, data, tiny(tmp_path), tmp_path, Fabric(accelerator="cpu"))
    assert len(list((tmp_path / "density").iterdir())) == 1 and capsys.readouterr().err == ""
    model = DKPNet("resnet18", channels=8, attention="se").eval()
    for vectors in (np.ones((6, 8)), np.ones((2, 8)), np.full((6, 8), np.nan)):
        monkeypatch.setattr(reports, "attention_vectors", lambda *_, v=vectors, **__: v)
        reports.write_pictures(model, sets, data, tiny(tmp_path), tmp_path, Fabric(accelerator="cpu"))
        assert "tsne.png: left out (" in capsys.readouterr().err and not (tmp_path / "tsne.png").exists()


def test_figures_in_words():
    def rows(model, mean, ridge, images=50):
        maes = {"a": model, "a, always its training mean": mean, "a, ridge on image statistics": ridge}
        return {name: Metrics(images, mae, mae, mae) for name, mae in maes.items()}

    assert reports.judge(rows(1, 2, 3), "a").startswith("- a: better than both trivial counters (")
    assert "better than always its training mean, but not than a regression" in reports.judge(rows(2, 3, 1), "a")
    assert "no better than always its training mean or a regression" in reports.judge(rows(3, 2, 1), "a")
    assert "no better than" in reports.judge(rows(np.nan, 2, 1), "a")
    assert "(3 images say little)" in reports.judge(rows(1, 2, 3, images=3), "a")


def test_without_test_images_the_reason_is_said(tmp_path, capsys):
    folder = train(tiny(tmp_path / "run"), [domain("a", train=12, test=0)])
    text = (folder / "results.md").read_text()
    assert "There are no test images" in text and "validation images, which chose" in text and "| a | 1 |" in text
    assert "There are no test images" in capsys.readouterr().out
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]).keys() == {"stage", "seconds"}


def test_too_many_clusters_and_names_given_twice(tmp_path):
    config = tiny(tmp_path / "run")
    config.model.system, config.cluster.num_clusters = "dkpnet", 3
    with pytest.raises(UserError, match="2 training images cannot form 3 clusters"):
        train(config, [domain("a", train=3)])
    with pytest.raises(UserError, match="same name"):
        train(config, [domain("a"), domain("a", 50)])
    with pytest.raises(UserError, match="domains is empty"):
        train(config, [])
    assert not (tmp_path / "run").exists()


def test_ten_lines_of_python(tmp_path, capsys):
    """What a notebook holds: own images, both stages, a callback."""
    from dkpnet_ext.training import PRESETS, train

    mine = [domain("street"), domain("square", 50)]
    config = tiny(tmp_path / "run", preset="quick")
    config.model.system = "dkpnet"
    config.cluster.num_clusters, config.cluster.num_sub = 2, 2
    history = []
    folder = train(config, domains=mine, callback=history.append)
    assert [r["stage"] for r in history] == ["stage1", "stage2", "test"]
    assert load_model(folder).count(mine[0].test[0].read()) >= 0
    assert config.data.data == () and config.resume is None and "quick" in PRESETS, (
        "the caller's settings are left alone"
    )


def test_presets_are_copied(tmp_path):
    assert PRESETS["quick"].config.preset == "quick" and "synthetic" in PRESETS["quick"].about
    before = json.dumps(dataclasses.asdict(PRESETS["quick"].config), default=str)
    mine = PRESETS["quick"].config
    mine.seed, mine.data.crop, mine.optim.epochs = 7, 16, 1
    assert json.dumps(dataclasses.asdict(PRESETS["quick"].config), default=str) == before, "each access is a copy"
    config = dataclasses.replace(PRESETS["quick"].config, output=tmp_path / "run", precision="auto", device="cpu")
    config.data = dataclasses.replace(config.data, crop=16)
    with pytest.raises(UserError, match="domains is empty"):
        train(config, [])
    assert json.dumps(dataclasses.asdict(PRESETS["quick"].config), default=str) == before


@pytest.mark.parametrize("name, meant", [("smal", "small"), ("paper-4joints", "paper-4joint"), ("quik", "quick")])
def test_a_presets_typo_proposes_the_nearest(name, meant):
    with pytest.raises(UserError, match=f"did you mean {meant}?"):
        parse([name])
