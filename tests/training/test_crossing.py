"""Errors for the intervals of few labelled pictures: each counted by a counter that did not learn from it."""

import json

import numpy as np
import pytest
import torch
from counters import alive

from dkpnet_ext.data import Domain, split_validation
from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.training import PRESETS, crossing
from dkpnet_ext.training.adapt import interval_words
from dkpnet_ext.training.crossing import FILE, PARTS, crossed_errors
from dkpnet_ext.training.factor import Factor, scaled_by_others
from dkpnet_ext.training.interruption import Interrupted, Stop
from dkpnet_ext.training.run import make_fabric
from dkpnet_ext.training.stage import StageData


def pictures(name: str, count: int, seed: int = 0) -> Domain:
    rng = np.random.default_rng(seed)
    pairs = [(rng.integers(0, 256, (64, 64, 3), np.uint8), rng.uniform(0, 64, (5 + i % 7, 2))) for i in range(count)]
    return Domain.from_arrays(name, pairs, min_side=32)


class Run:
    """An adaptation that has just ended: its counter, settings, folder and pictures of ``mine`` (10) and others."""

    def __init__(self, folder, start, others=()):
        domains = [pictures("mine", 10), *others]
        parts = [split_validation(d.train, 0.2) for d in domains]
        train, val = ([item for part in parts for item in part[i]] for i in (0, 1))
        self.names = [d.name for d in domains]
        sources = [self.names.index(item.domain) for item in train]
        self.data = StageData(train, sources, sources, val)
        self.folder, self.stop = folder, Stop()
        folder.mkdir()
        self.config = PRESETS["adapt"].config
        self.config.start, self.config.device, self.config.precision = str(start), "cpu", "fp32"
        self.config.data.crop, self.config.data.workers, self.config.optim.epochs = 64, 0, 2 * PARTS
        self.config.loss.loss, self.config.optim.batch_norm = "mse", "frozen"

    def errors(self, *validations: float, factor: Factor | None = None) -> dict[str, np.ndarray]:
        """Of a run whose epochs had these validation errors."""
        rows = [json.dumps({"stage": "stage1", "epoch": i, "val": val}) for i, val in enumerate(validations)]
        (self.folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
        fabric = make_fabric(self.config)
        return crossed_errors(fabric, self.config, self.folder, self.stop, self.data, self.names, factor)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("counter")
    alive(DKPNet("test_efficientnet", channels=32, domains=["old"], min_side=32, num_sub=1)).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr("dkpnet_ext.training.stage.BATCHES", 2)


def test_no_counter_learned_from_what_it_counts(start, tmp_path, monkeypatch):
    learned, counted = [], []

    def open_stage(fabric, model, data, *rest):
        learned.append({item.name for item in data.train})
        assert len(data.labels) == len(data.sources) == len(data.train) and not data.val
        return true_open(fabric, model, data, *rest)

    def predict_all(fabric, model, items, precision):
        counted.append({item.name for item in items})
        return true_predict(fabric, model, items, precision)

    true_open, true_predict = crossing.open_stage, crossing.predict_all
    monkeypatch.setattr(crossing, "open_stage", open_stage)
    monkeypatch.setattr(crossing, "predict_all", predict_all)
    many = pictures("many", 95, seed=1)  # 19 of them are held out: enough
    run = Run(tmp_path / "run", start, [many])
    found = run.errors(1.0, 0.5)
    assert list(found) == ["mine"] and found["mine"].shape == (10,)
    mine = {item.name for item in [*run.data.train, *run.data.val] if item.domain == "mine"}
    others = {item.name for item in run.data.train if item.domain == "many"}
    assert len(learned) == len(counted) == PARTS and set().union(*counted) == mine
    for known, left in zip(learned, counted, strict=True):
        assert known == (mine - left) | others and len(left) in (2, 3)


def test_it_goes_on_after_a_signal(start, tmp_path, monkeypatch):
    whole, parts = Run(tmp_path / "whole", start), Run(tmp_path / "parts", start)
    expected = whole.errors(1.0, 0.5)["mine"]
    calls = []

    def train_epoch(stage, bar, stop):
        calls.append(stage.folder.name)
        stop.requested = len(calls) == 4
        return true_epoch(stage, bar, stop)

    true_epoch = crossing.train_epoch
    monkeypatch.setattr(crossing, "train_epoch", train_epoch)
    with pytest.raises(Interrupted, match=f"--resume {parts.folder}$"):
        parts.errors(1.0, 0.5)
    assert (parts.folder / "part1" / "state.pt").exists() and list(json.loads((parts.folder / FILE).read_text())) == [
        "0"
    ]
    parts.stop = Stop()
    assert parts.errors(1.0, 0.5)["mine"].tolist() == expected.tolist()
    assert calls == ["part0"] * 2 + ["part1"] * 3 + ["part2"] * 2 + ["part3"] * 2
    assert (
        not list(parts.folder.glob("part*")) and (parts.folder / FILE).read_text() == (whole.folder / FILE).read_text()
    )


def test_a_counter_that_stayed_has_errors_of_its_own(start, tmp_path):
    run = Run(tmp_path / "run", start)
    items, model = [*run.data.train, *run.data.val], load_model(start)
    counts = np.array([model.count(item.read(), as_is=True) for item in items])
    annotated = np.array([item.count for item in items])
    factor = Factor(2.0, 10, 1.0, 0.5)
    for known, predicted in ((None, counts), (factor, scaled_by_others(counts, annotated))):
        found = run.errors(0.5, 1.0, factor=known)["mine"]
        np.testing.assert_allclose(found, np.abs(annotated - predicted) / (predicted + 1), rtol=1e-4)
    assert not (run.folder / FILE).exists()


def test_too_few_pictures_have_none(start, tmp_path):
    run = Run(tmp_path / "run", start)
    run.data = StageData(run.data.train[:-2], run.data.labels[:-2], run.data.sources[:-2], run.data.val)
    assert run.errors(1.0, 0.5) == {}
    assert interval_words(None, {}) == ""  # nothing was measured
