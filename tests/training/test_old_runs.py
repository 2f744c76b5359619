"""A run folder that commit c572cb6 wrote is still read: its models, settings, records and clusters.

`run-c572cb6` is what `train quick --crop 96 --min-side 96 --max-side 128 --batch 4 --num-clusters 2 --channels 16
--latent-dim 4 --epochs 1` left there, without its weights. `tensors.json` has their names and shapes and the counts that
c572cb6 gave with the numbers of `weight` (plain PyTorch, one thread).
"""

import json
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dkpnet_ext import DKPNet, load_model
from dkpnet_ext.training import Config, train
from dkpnet_ext.training.clustering import load_clusters
from dkpnet_ext.training.log import read_metrics

RUN = Path(__file__).parent / "run-c572cb6"
RECORDED = json.loads((RUN / "tensors.json").read_text())


def weight(name: str, shape: list[int]) -> torch.Tensor:
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        values = 1 + 0.1 * abs(values)
    elif len(shape) > 1:
        values = values * (2 / np.prod(shape[1:])) ** 0.5
    else:
        values = 0.1 * values + name.endswith("weight")
    return torch.from_numpy(np.asarray(values, np.float32))


@pytest.fixture
def run(tmp_path) -> Path:
    """The run folder with weights."""
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder)
    for part in ("stage1/best", "stage2/best", "model"):
        shapes = RECORDED["tensors"]["shared"] | RECORDED["tensors"][part]
        save_file({name: weight(name, shape) for name, shape in shapes.items()}, folder / part / "model.safetensors")
    return folder


@pytest.mark.parametrize("part", ["model", "stage1/best"])
def test_models_count_as_they_did(run, part):
    y, x = np.mgrid[:96, :128]
    waves = np.sin(x / 3), np.cos(y / 5), np.sin((x + y) / 7)
    picture = np.stack([127 + 120 * wave for wave in waves], -1).astype(np.uint8)
    model = load_model(run / part)
    assert isinstance(model, DKPNet) and model.system == ("va" if part == "stage1/best" else "dkpnet")
    assert model.count(picture) == pytest.approx(RECORDED["counts"][part], rel=1e-4)


def test_the_run_folder_is_a_model_before_and_after_its_end(run):
    assert load_model(run).domains == ("bright", "dark")
    for finished in ("model", "stage2"):
        shutil.rmtree(run / finished)
    assert load_model(run).arguments["attention"] == "va"  # stage I's


def test_settings_that_came_later_have_the_effect_of_before(run):
    config = Config.load(run / "config.json")
    assert (config.preset, config.model.system, config.cluster.num_clusters, config.optim.lr) == (
        "quick",
        "dkpnet",
        2,
        2e-3,
    )
    assert (config.data.crops, config.data.scale, config.data.negatives) == ("uniform", (1, 1), ())
    assert (config.model.neck, config.loss.loss) == ("paper", "mse")
    later = (
        config.optim.backbone_lr,
        config.optim.beta2,
        config.optim.clip,
        config.optim.ema,
        config.optim.frozen_stages,
    )
    assert later == (1, 0.999, 0, 0, 0)


def test_records_and_clusters(run):
    records = read_metrics(run / "metrics.jsonl")
    assert [record["stage"] for record in records] == ["stage1", "stage2", "test"]
    names = list(json.loads((run / "clusters.json").read_text()))
    labels = load_clusters(run / "clusters.json", [SimpleNamespace(name=name) for name in names], 2)
    assert set(labels) == {0, 1} and len(labels) == 14


def test_a_finished_run_is_recognised(run, capsys):
    assert train(Config(resume=run)) == run
    assert "this run is finished" in capsys.readouterr().out
