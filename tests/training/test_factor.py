"""One factor on a counter: the best one, judged by pictures that had no part in it, kept where adapting gained nothing."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from counters import alive

from dkpnet_ext.counting.export import export_model, run_exported
from dkpnet_ext.data import Domain
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.training import PRESETS, train
from dkpnet_ext.training.factor import find_factor, least_absolute, scaled_by_others


def test_the_factor_has_the_least_absolute_error():
    rng = np.random.default_rng(0)
    for count in (1, 2, 9):
        predicted, annotated = rng.uniform(0, 50, count), rng.integers(0, 90, count).astype(float)
        predicted[0] += 1
        predicted[1:2] = 0  # of no weight

        def error(factor, p=predicted, a=annotated):
            return np.abs(factor * p - a).sum()

        found = error(least_absolute(predicted, annotated))
        assert found <= min(error(factor) for factor in np.linspace(0, 40, 4001)) + 1e-9


def test_each_picture_is_judged_by_the_factor_of_the_others():
    predicted, annotated = np.array([1.0, 2.0, 10.0]), np.array([2.0, 4.0, 10.0])
    # The others' factors: 1 (10 outweighs 2), 1 (10 outweighs 1), 2.
    assert scaled_by_others(predicted, annotated).tolist() == [1, 2, 20]
    nothing = np.array([0.0, 3.0])  # the other counts nobody: no factor is known
    assert scaled_by_others(nothing, annotated[:2]).tolist() == [0, 3]


def items(annotated, domain="a"):
    return [SimpleNamespace(domain=domain, count=count) for count in annotated]


@pytest.mark.parametrize(
    "predicted, annotated, helps",
    [
        ([10, 20, 31, 40], [20, 40, 60, 80], True),  # all missed by the same share
        ([10, 20, 30, 40], [12, 17, 33, 37], False),  # no share in common: the factor of the others is worse
        ([1, 2, 3, 4], [100, 200, 300, 400], False),  # the counter sees nothing
        ([10, 20, 30, 40], [0, 0, 0, 20], False),  # most are empty: a factor of zero makes no counter
    ],
)
def test_where_a_factor_helps(predicted, annotated, helps, monkeypatch):
    monkeypatch.setattr("dkpnet_ext.training.factor.predict_counts", lambda *_, **__: np.array(predicted, float))
    model, all_items = SimpleNamespace(), items(annotated)
    found = find_factor(model, all_items[1:], all_items[:1])
    assert found.helps == helps and found.pictures == 4
    assert find_factor(model, [*all_items, *items([3], "b")], all_items[:1]) is None  # b may need another
    negatives = items([0, 0], "nobody")  # whose counts are not asked for
    assert find_factor(model, [*all_items[1:], *negatives], all_items[:1]) == found


@pytest.fixture(scope="module", params=["relu", "zip"])
def started(request, tmp_path_factory):
    """A counter's folder, eight pictures, its counts of them and labels of 30 heads on average, its counts times a factor."""
    torch.manual_seed(0)
    model = DKPNet("test_efficientnet", channels=32, domains=["old"], min_side=32, num_sub=1, link=request.param)
    model = alive(model).eval()
    folder = tmp_path_factory.mktemp("counter")
    model.save_pretrained(folder)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, high, (64, 64, 3), np.uint8) for high in (60, 90, 120, 150, 180, 210, 240, 255)]
    counts = np.array([model.count(picture) for picture in pictures])
    labels = [rng.uniform(0, 64, (round(30 * c), 2)) for c in counts / counts.mean()]
    return folder, pictures, counts, Domain.from_arrays("mine", list(zip(pictures, labels, strict=True)), min_side=32)


def configuration(output, start, lr):
    config = PRESETS["adapt"].config
    config.output, config.start, config.device, config.precision = output, str(start), "cpu", "fp32"
    config.data.crop, config.data.workers, config.optim.epochs, config.optim.lr = 64, 0, 1, lr
    return config


def test_a_factor_is_kept_where_no_epoch_was_better(started, tmp_path, monkeypatch):
    old, pictures, counts, domain = started
    monkeypatch.setattr("dkpnet_ext.training.stage.learning_rate", lambda *_: 0.0)
    folder = train(configuration(tmp_path / "run", old, lr=1e-3), [domain])
    new, factor = load_model(folder), 30 / counts.mean()
    for picture, count in zip(pictures, counts, strict=True):
        assert new.count(picture) == pytest.approx(factor * count, rel=0.05)
    saved = json.loads((folder / "model" / "config.json").read_text())
    before = load_model(old).density_scale
    assert saved["density_scale"] == new.density_scale == pytest.approx(before / factor, rel=0.05)
    text = (folder / "results.md").read_text()
    assert re.search(r"no epoch was better: the counter times \d\.\d+ is kept", text)
    unchanged = np.abs(counts - [item.count for item in domain.train]).mean()
    assert f"labelled pictures the counter's MAE is {unchanged:.2f} unchanged" in text


def test_gradients_that_are_not_finite_are_one_line(started, tmp_path):
    with pytest.raises(UserError, match="the loss is not finite") as caught:
        train(configuration(tmp_path / "run", started[0], lr=1.0), [started[-1]])
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module", params=["exp", "zip"])
def scaled(request, tmp_path_factory):
    """A counter of the packaged one's kind, in a folder as `try_factor` leaves it, its factor, and the counts without it."""
    torch.manual_seed(0)
    model = alive(
        DKPNet("test_efficientnet", channels=32, attention="none", neck="fpn", out_stride=8, link=request.param)
    ).eval()
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    factor, counts = 1.7, torch.tensor([model.count(image, as_is=True) for image in images])
    kept = DKPNet(**model.arguments | {"density_scale": model.density_scale / factor})
    kept.load_state_dict(model.state_dict())
    folder = tmp_path_factory.mktemp("scaled")
    kept.save_pretrained(folder)
    return folder, factor, images, counts


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_engines_count_with_the_factor(engine, scaled):
    folder, factor, images, counts = scaled
    if engine != "torch":
        pytest.importorskip(engine, reason="an engine's package is not installed")
    model = load_model(folder).for_inference(engine)
    found = torch.tensor([model.count(image, as_is=True) for image in images])
    torch.testing.assert_close(found, factor * counts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_exported_files_count_with_the_factor(suffix, scaled, tmp_path):
    folder, factor, images, counts = scaled
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="the export packages are not installed")
        pytest.importorskip("onnxscript", reason="the export packages are not installed")
    path = tmp_path / f"model{suffix}"
    export_model(load_model(folder), path)
    torch.testing.assert_close(run_exported(path, images)[1], factor * counts, rtol=1e-4, atol=1e-5)
