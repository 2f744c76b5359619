"""Adapting a trained counter: it begins as it is, ends no worse on the held-out pictures, and says both errors."""

import json
import re

import numpy as np
import pytest
import torch

from dkpnet_ext.data import Domain, split_validation
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import load_model
from dkpnet_ext.train import parse
from dkpnet_ext.training import PRESETS, Config, train

from .conftest import records


def blobs(count: int, seed: int = 0, most: int = 9) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures of up to ``most`` bright squares on noise: the packaged model does not know them as people."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        image = rng.integers(0, 120, (128, 128, 3), dtype=np.uint8)
        points = rng.integers(8, 120, (int(rng.integers(0, most)) + 1, 2)) if most else np.empty((0, 2))
        for x, y in points.astype(int):
            image[y - 5 : y + 6, x - 5 : x + 6] = 255
        pairs.append((image, points))
    return pairs


def configuration(output, **optim) -> Config:
    config = PRESETS["adapt"].config
    config.output, config.device, config.precision = output, "cpu", "fp32"
    config.data.crop, config.data.workers = 96, 0
    for name, value in ({"epochs": 2, "batch": 4} | optim).items():
        setattr(config.optim, name, value)
    return config


@pytest.fixture(scope="module")
def mine() -> Domain:
    starter = load_model()
    return Domain.from_arrays("mine", blobs(10), min_side=starter.min_side // 2, max_side=starter.max_side)


def error(model, domain: Domain) -> float:
    """MAE on the pictures that an adaptation holds out."""
    held = split_validation(domain.train, 0.2)[1]
    assert len(held) == 2
    return float(np.mean([abs(model.count(item.read(), as_is=True) - item.count) for item in held]))


def crossed(folder, domain: Domain) -> np.ndarray:
    """Relative errors of the pictures in a run's crossed.json, ascending."""
    parts = json.loads((folder / "crossed.json").read_text())
    part_of = np.random.default_rng(0).permutation(10) % 4
    held = split_validation(domain.train, 0.2)[1]
    items = [item for item in domain.train if item not in held] + held
    assert sorted(len(part["mine"]) for part in parts.values()) == [2, 2, 3, 3]
    counts = np.empty(10)
    for part, found in parts.items():
        counts[part_of == int(part)] = found["mine"]
    return np.sort([abs(item.count - count) / (count + 1) for item, count in zip(items, counts, strict=True)])


def test_it_begins_with_the_counter_and_ends_better(mine, tmp_path):
    seen = []
    folder = train(configuration(tmp_path / "run", lr=2e-3), [mine], seen.append)
    before, after = error(load_model(), mine), error(load_model(folder), mine)
    assert seen[0]["epoch"] == 0 and seen[0]["val/mine"] == pytest.approx(before, rel=1e-3)
    assert [record.get("epoch") for record in seen] == [0, 1, 2, None]
    assert after < before / 2
    found = re.search(r"MAE ([\d.]+) before, ([\d.]+) after; epoch \d is kept", (folder / "results.md").read_text())
    assert [float(number) for number in found.groups()] == pytest.approx([before, after], abs=0.02)
    assert load_model(folder).domains == (*load_model().domains, "mine")
    assert (
        "Intervals of mine: from the errors on 10 labelled pictures, each left out of"
        in (folder / "results.md").read_text()
    )
    errors = crossed(folder, mine)
    known = load_model(folder).calibration
    assert known.pictures == {"mine": 10, "": 10} and not list(folder.glob("part*"))
    assert known.quantiles[80]["mine"] == pytest.approx(errors[8]) and known.quantiles[90]["mine"] == errors[9]
    assert load_model(folder).arguments["link"] == "zip" and Config.load(folder / "config.json").model.neck == "fpn"


def test_a_worse_counter_is_never_kept(mine, tmp_path, capsys):
    folder = train(configuration(tmp_path / "run", epochs=1, lr=1.0), [mine])
    before = load_model().state_dict()
    assert all(torch.equal(value, before[name]) for name, value in load_model(folder).state_dict().items())
    assert "no epoch was better: the counter is unchanged" in capsys.readouterr().out


@pytest.mark.parametrize("system", ["jt", "va", "dkpnet"])
def test_any_system_of_a_run_goes_on_and_resumes(system, run, domains, tmp_path, monkeypatch):
    monkeypatch.setattr("dkpnet_ext.training.stage.BATCHES", 3)
    source = run("--system", system, "--epochs", "1", "--output", tmp_path / "source", "--crop", "64")
    command = [
        "--from",
        str(source),
        "--data",
        domains[1],
        *domains[-2:],
        "--crop",
        "64",
        "--batch",
        "2",
        "--epochs",
        "2",
    ]
    command += ["--workers", "0", "--device", "cpu", "--precision", "fp32"]
    old = load_model(source)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(parse([*command, "--output", str(whole)]))
    new = load_model(whole)
    assert new.system == old.system and new.link == old.link == "relu"
    if system != "jt":
        (count, sub, _), added = old.attention.centers.shape, new.attention.centers
        assert added.shape[:2] == (count + 1, sub) and new.arguments["num_domains"] == count + 1

    def stop(record):  # its first epoch is saved then
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parse([*command, "--output", str(parts)]), callback=stop)
    train(parse(["--resume", str(parts)]))
    assert records(parts)[:3] == records(whole)[:3]


def test_the_new_centre_is_the_mean_latent(run, mine):
    from dkpnet_ext.models import DKPNet
    from dkpnet_ext.training.adapt import extend

    torch.manual_seed(0)
    old = DKPNet("resnet18", attention="va", domains=("a", "b"), channels=16, latent_dim=4).eval()
    new, labels = extend(old, ["mine"], mine.train, [0] * 10)
    mu = torch.cat([old.examine(item.read(), as_is=True).mu for item in mine.train])
    assert labels == [2] * 10
    torch.testing.assert_close(new.attention.centers[2, 0], mu.mean(0))
    torch.testing.assert_close(new.attention.centers[:2], old.attention.centers)


def test_what_cannot_be_adapted_is_one_line(mine, run, tmp_path):
    def attempt(message: str, domain: Domain = mine, start: str = "starter") -> None:
        config = configuration(tmp_path / "out")
        config.start = start
        with pytest.raises(UserError, match=message) as caught:
            train(config, [domain])
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()

    attempt("absent", start=str(tmp_path / "absent"))
    attempt("no head is labelled on the held-out", Domain.from_arrays("empty", blobs(5, most=0)))
    attempt("label two images or more", Domain.from_arrays("one", blobs(1)))
    branches = run("--system", "mb", "--epochs", "1", "--output", tmp_path / "mb", "--crop", "64")
    attempt("system mb has parts for each of its data sets", start=str(branches))


@pytest.mark.parametrize(
    "options, message",
    [
        (["--system", "dkpnet"], "--system dkpnet: --from starter takes the counter as it is, with --system jt"),
        (
            ["--backbone=hrnet_w40"],
            "--backbone hrnet_w40: .* with --backbone tf_efficientnet_lite0; leave --backbone out",
        ),
        (["--out-stride", "4", "--neck", "paper"], "--neck paper: .* with --neck fpn"),
        (["--min_side", "300"], "--min-side 300: .* with --min-side 256"),
        (["--weights", "imagenet"], "--weights imagenet: .* with --weights None"),
        (["--batch-norm", "train"], "--batch-norm train: .* with --batch-norm folded"),
        (["--loss", "mse"], "--loss mse: .* with --loss zip"),
    ],
)
def test_an_option_that_contradicts_the_counter_is_one_line(options, message, capsys):
    """``--system dkpnet`` and ``--backbone hrnet_w40`` are the preset's own values: giving them counts all the same."""
    for preset in ("adapt", "small"):
        with pytest.raises(UserError, match=message) as caught:
            parse([preset, "--from", "starter", "--data", "mine=x", *options])
        assert "\n" not in str(caught.value)


def test_an_option_that_repeats_the_counters_passes():
    config = parse(["--from", "starter", "--data", "mine=x", "--system", "jt", "--neck", "fpn", "--out-stride", "8"])
    assert (config.model.system, config.model.weights, config.optim.batch_norm) == ("jt", None, "folded")


def test_settings_in_python_that_contradict_the_counter(mine, tmp_path):
    config = configuration(tmp_path / "out")
    config.model.backbone = "resnet18"
    with pytest.raises(UserError, match="--backbone resnet18: --from starter takes the counter as it is"):
        train(config, [mine])
    assert not (tmp_path / "out").exists()


def test_from_alone_is_the_preset():
    assert parse(["--data", "mine=x", "--from=starter"]).preset == "adapt"
    assert parse(["adapt", "--data", "mine=x"]).start == "starter"
    assert parse(["small", "--from", "starter", "--data", "mine=x"]).preset == "small"
