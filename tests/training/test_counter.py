"""The parts of the `small` preset's recipe: likelihood of counts, negatives, averaged weights, frozen stages."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dkpnet_ext.data.negatives import load_negatives
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.models.backbones import create_backbone, freeze_stages
from dkpnet_ext.train import parse
from dkpnet_ext.training import train
from dkpnet_ext.training.average import averaged
from dkpnet_ext.training.config import DataConfig, OptimConfig
from dkpnet_ext.training.convolutions import depthwise_in_float32
from dkpnet_ext.training.losses import count_cells, poisson_loss
from dkpnet_ext.training.run import start_from
from dkpnet_ext.training.schedule import learning_rate
from dkpnet_ext.training.stage import shares

from .conftest import records


def test_cells_hold_every_head_inside_exactly_once():
    points = torch.tensor([[0.0, 0.0], [7.99, 15.99], [8.0, 0.0], [-0.1, 3.0], [40.0, 3.0], [39.9, 20.0]])
    counts = count_cells(points, torch.tensor([0, 3, 3, 6]), (21, 40), 8)
    assert counts.shape == (3, 1, 3, 5)
    assert counts.sum((1, 2, 3)).tolist() == [3, 0, 1]
    assert counts[0, 0, :2, :2].tolist() == [[1, 1], [1, 0]]
    assert counts[2, 0, 2, 4] == 1


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_loss_is_the_likelihood_of_block_counts(stride):
    torch.manual_seed(0)
    cells = 64 // stride
    density, counts = torch.rand(2, 1, cells, cells).double() + 0.01, torch.randint(0, 3, (2, 1, cells, cells)).double()
    expected = 0.0
    for side in (8, 16, 32):
        k = side // stride
        rate, count = (x.unfold(2, k, k).unfold(3, k, k).sum((4, 5)) for x in (density, counts))
        expected += float((rate - count * rate.log()).sum()) / 2 / 3
    assert float(poisson_loss(density, counts, stride)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_least_at_the_counts():
    counts = torch.full((1, 1, 8, 8), 2.0)
    rate = torch.full_like(counts, 2.0, requires_grad=True)
    poisson_loss(rate, counts, 8).backward()
    assert rate.grad.abs().max() < 1e-6
    assert poisson_loss(rate, counts, 8) < poisson_loss(rate * 1.1, counts, 8)


def test_dispersion_divides_an_images_gradient_by_a_root_of_its_count():
    torch.manual_seed(0)
    counts = torch.randint(0, 3, (2, 1, 8, 8)).double()
    density = (torch.rand(2, 1, 8, 8).double() + 0.5) * torch.tensor([0.1, 10.0]).double().view(2, 1, 1, 1)
    plain, divided = density.clone().requires_grad_(), density.clone().requires_grad_()
    poisson_loss(plain, counts, 8).backward()
    poisson_loss(divided, counts, 8, dispersion=0.1).backward()
    root = (1 + 0.1 * density.sum((1, 2, 3), keepdim=True)).sqrt()
    torch.testing.assert_close(divided.grad * root, plain.grad)
    assert float(root[1] / root[0]) > 5


def test_negatives_are_drawn_once_and_folders_give_theirs(tmp_path, monkeypatch):
    import dkpnet_ext.data.negatives as module

    monkeypatch.setattr(module, "_SIZES", {"train": 3, "test": 1})
    folder = tmp_path / "lawns"
    (folder / "deep" / "test").mkdir(parents=True)
    for name in ("a.png", "deep/b.png", "deep/test/c.png"):
        Image.fromarray(np.full((70, 90, 3), 80, np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    domain = load_negatives(["drawn", str(folder)], cache=tmp_path / "cache", min_side=64, progress=False)
    assert (len(domain.train), len(domain.test)) == (5, 2)
    assert {item.count for item in domain.train} == {0}
    assert len({item.name for item in domain.train}) == 5
    assert domain.train[0].read().shape == (512, 512, 3)
    assert [path.name for path, _ in domain.report.bad] == ["broken.jpg"]
    drawn = sorted((tmp_path / "cache" / "negatives").rglob("*.png"))
    stamps = [path.stat().st_mtime_ns for path in drawn]
    load_negatives(["drawn"], cache=tmp_path / "cache", min_side=64, progress=False)
    assert [path.stat().st_mtime_ns for path in drawn] == stamps
    with pytest.raises(UserError, match="no such folder"):
        load_negatives([str(tmp_path / "absent")], cache=tmp_path / "cache")


def test_negatives_that_are_none(tmp_path, capsys):
    """At commit 25e2632 training named the cache's folder in place of this one."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="negatives .*broken: no picture to train on can be read"):
        load_negatives([str(tmp_path / "broken")], cache=tmp_path / "cache")
    assert "1.jpg: not a picture" in capsys.readouterr().err


def test_shares_of_the_negatives():
    sources = [0] * 30 + [1] * 10 + [2] * 60
    assert shares(sources, DataConfig(ratio=(1, 2, 3))) == (1, 2, 3)
    assert shares(sources, DataConfig(negatives=("drawn",))) == pytest.approx([0.675, 0.225, 0.1])
    assert shares(sources, DataConfig(negatives=("drawn",), sampling="balanced")) == pytest.approx([0.45, 0.45, 0.1])
    assert shares(sources, DataConfig(negatives=("drawn",), ratio=(2, 1))) == pytest.approx([0.6, 0.3, 0.1])


def test_cosine_warms_up_and_ends_low():
    optim = OptimConfig(lr=1e-3, schedule="cosine")
    rates = [learning_rate(optim, i / 1000) for i in range(1000)]
    assert rates[0] == pytest.approx(4e-5)
    assert max(rates) == pytest.approx(1e-3, rel=1e-3)
    assert int(np.argmax(rates)) == 30
    assert rates[-1] == pytest.approx(2e-6, rel=0.05)


def test_the_average_follows_the_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    average = averaged(model, 0.9)
    values = []
    for step in range(3):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update_parameters(model)
        values.append(average.module.weight.item())
    # The first update copies; then the share that stays is (1 + n) / (10 + n) of n updates before.
    assert values == pytest.approx([0, 9 / 11, 9 / 11 * 3 / 12 + 2 * 9 / 12])


@pytest.mark.parametrize(("name", "stem"), [("tf_efficientnet_lite0", "net.conv_stem"), ("hrnet_w18_small", "conv1")])
def test_frozen_stages_are_the_first(name, stem):
    backbone = create_backbone(name)
    freeze_stages(backbone, 2)
    frozen = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    trained = [n for n, p in backbone.named_parameters() if p.requires_grad]
    assert frozen[0].startswith(stem)
    assert trained
    assert {n.split(".")[0] for n in frozen} <= {"net", "conv1", "bn1", "conv2", "bn2", "layer1"}


def test_the_recipe_trains_resumes_and_saves_the_average(domains, tmp_path, monkeypatch):
    import dkpnet_ext.data.negatives as module

    monkeypatch.setattr(module, "_SIZES", {"train": 4, "test": 1})
    arguments = [
        "small", *domains, "--weights", "None", "--crop", "64", "--min-side", "64", "--max-side", "128", "--batch", "4",
        "--workers", "0", "--eval-every", "1", "--device", "cpu", "--precision", "fp32", "--channels", "16",
    ]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(parse([*arguments, "--epochs", "2", "--output", str(whole)]))
    model = load_model(whole)
    assert (model.system, model.out_stride, model.arguments["neck"]) == ("jt", 8, "fpn")
    assert "heads on average on a picture without people" in (whole / "results.md").read_text()
    state = torch.load(whole / "stage1" / "state.pt", weights_only=True)
    kept = load_model(whole / "stage1" / "best").state_dict()["head.out.weight"]
    best = json.loads((whole / "metrics.jsonl").read_text().splitlines()[1])
    assert math.isfinite(best["val"])
    if state["best"] == best["val"]:
        assert torch.equal(kept, state["average"]["module.head.out.weight"])
    assert not torch.equal(kept, state["model"]["head.out.weight"])

    class Stopped(Exception):
        pass

    def stop(record):
        raise Stopped

    with pytest.raises(Stopped):
        train(parse([*arguments, "--epochs", "2", "--output", str(parts)]), callback=stop)
    train(parse(["--resume", str(parts)]))
    assert records(parts)[-1] == records(whole)[-1]


@pytest.mark.parametrize("neck, stride", [("fpn", 8), ("paper", 4)])
@pytest.mark.parametrize("link", ["relu", "zip"])
def test_a_loss_with_another_link_begins_with_a_last_layer_of_its_own(neck, stride, link):
    options = dict(
        backbone="mobilenetv3_small_050", attention="none", channels=16, neck=neck, out_stride=stride, domains=("a",)
    )
    trained, model = DKPNet(link="exp", **options), DKPNet(link=link, **options)
    before = {name: value.clone() for name, value in model.head.state_dict().items()}
    start_from(model, trained)
    for name, value in trained.head.state_dict().items():
        expected = before[name] if name.startswith(("conv3.", "out.")) else value
        assert torch.equal(model.head.state_dict()[name], expected), name


@pytest.mark.parametrize("attention", ["se", "va", "inva"])
@pytest.mark.parametrize("neck, stride", [("fpn", 8), ("paper", 4)])
def test_attention_begins_without_an_effect_on_a_trained_head(attention, neck, stride):
    options = dict(backbone="mobilenetv3_small_050", channels=16, neck=neck, out_stride=stride, domains=("a", "b"))
    trained = DKPNet(attention="none", **options).eval()
    model = DKPNet(attention=attention, latent_dim=4, **options).eval()
    start_from(model, trained)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    torch.testing.assert_close(model(images).density, trained(images).density, rtol=1e-4, atol=1e-6)


def test_training_begins_with_a_trained_counter(domains, tmp_path):
    small = [
        "small",
        *domains,
        "--weights",
        "starter",
        "--crop",
        "64",
        "--batch",
        "4",
        "--workers",
        "0",
        "--epochs",
        "1",
    ]
    small += ["--negatives", "--device", "cpu", "--precision", "fp32", "--lr", "1e-9", "--ema", "0"]
    train(parse([*small, "--output", str(tmp_path / "a")]))
    starter, trained = load_model(), load_model(tmp_path / "a")
    for name, value in starter.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=0, atol=1e-6)
    small[small.index("starter")] = str(tmp_path / "a")
    train(parse([*small, "--system", "va", "--output", str(tmp_path / "b")]))
    torch.testing.assert_close(load_model(tmp_path / "b").head.out.weight, starter.head.out.weight, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="built otherwise"):
        train(parse([*small, "--channels", "16", "--output", str(tmp_path / "c")]))
    with pytest.raises(UserError, match="no such file or checkpoint"):
        train(parse([*small, "--weights", str(tmp_path / "absent"), "--output", str(tmp_path / "d")]))


def test_the_average_has_depthwise_convolutions_of_its_own():
    """At commit 25e2632 those of a copy ran with the weights of the trained model."""
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=4))
    depthwise_in_float32(model)
    average, x = averaged(model, 0.9), torch.rand(1, 4, 8, 8)
    expected = average(x)
    torch.nn.init.zeros_(model[0].weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(average(x), expected) and not torch.equal(model(x), expected)
