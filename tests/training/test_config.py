"""Settings: what is refused, how it is said, and what is read again."""

import dataclasses
import json
import math
import re

import pytest

from dkpnet_ext.errors import UserError
from dkpnet_ext.train import parse
from dkpnet_ext.training import PRESETS, Config
from dkpnet_ext.training.config import _settings

BAD = [
    ("crop", 0), ("crop", -5), ("crop", 10**9), ("crop", 1.5), ("crop", True), ("flip", math.nan), ("flip", -0.1),
    ("flip", 1.1), ("jitter", -1.0), ("jitter", math.nan), ("jitter", 0.6), ("min_side", 0), ("min_side", -3),
    ("max_side", 0), ("max_side", 10**7), ("min_side", 4096), ("val_fraction", 1.0), ("val_fraction", -0.1),
    ("val_fraction", math.nan), ("ratio", (1.0, -1.0)), ("ratio", (0.0, 0.0)), ("ratio", (math.nan, 1.0)),
    ("ratio", (math.inf, 1.0)), ("workers", -1), ("workers", 10**6), ("sampling", "both"), ("on_bad", "ignore"),
    ("data", "a=b"), ("cache", 3), ("channels", 0), ("channels", 10**9), ("latent_dim", 0), ("latent_dim", -4),
    ("num_samples", 0), ("num_samples", 10**4), ("out_stride", 3), ("out_stride", 4.0), ("density_scale", 0.0),
    ("density_scale", -1.0), ("density_scale", math.nan), ("density_scale", math.inf), ("density_scale", "1"),
    ("head", "bent"), ("weights", 5), ("backbone", None), ("num_clusters", 0), ("num_clusters", -1), ("num_clusters", 10**6),
    ("num_sub", 0), ("num_sub", 2.0), ("method", "magic"), ("w_density", 0.0), ("w_density", -1.0), ("w_kl", -1.0),
    ("w_kl", math.nan), ("w_lse", math.inf), ("w_logdet", -0.1), ("sigma", -1.0), ("sigma", 1e9), ("sigma", math.nan),
    ("epochs", 0), ("epochs", -1), ("epochs", 10**9), ("stage2_from", "stage3"), ("batch", 0), ("batch", -8),
    ("batch", 10**9), ("accumulate", 0), ("accumulate", 3), ("lr", 0.0), ("lr", -1e-3), ("lr", math.inf), ("lr", math.nan),
    ("weight_decay", -1.0), ("weight_decay", math.inf), ("schedule", "linear"), ("batch_norm", "off"), ("bn_momentum", 0.0),
    ("bn_momentum", math.nan), ("bn_momentum", 2.0), ("sync_batch_norm", 1), ("seed", -1), ("seed", 2**70),
    ("seed", 2**32 - 1), ("seed", 0.5), ("eval_every", 0), ("eval_every", -1), ("device", "tpu"), ("precision", "fp8"),
    ("channels_last", "yes"), ("output", 3), ("resume", 3), ("optim", None), ("data", None),
]  # fmt: skip


def changed(name, value, preset="quick") -> Config:
    config = PRESETS[preset].config
    groups = [config, *(getattr(config, g) for g in ("data", "model", "cluster", "loss", "optim"))]
    group = config if value is None and name == "data" else [g for g in groups if hasattr(g, name)][-1]
    setattr(group, name, value)
    return config


@pytest.mark.parametrize("name, value", BAD, ids=lambda v: str(v)[:20])
def test_what_cannot_be_right_is_one_line(name, value):
    with pytest.raises(UserError, match=name.replace("_", ".")) as error:
        changed(name, value).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_pass_and_every_number_has_a_range(preset):
    config = PRESETS[preset].config
    config.check()
    for name, hint, value in _settings(config):
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "out_stride":
            assert "Range" in str(hint), name


@pytest.mark.parametrize("arguments", [["--crop", "0"], ["--lr", "inf"], ["--seed", str(2**70)], ["--flip", "nan"]])
def test_the_command_checks(arguments):
    with pytest.raises(UserError, match=f"^{arguments[0]} .* must be "):
        parse(["quick", *arguments])


def test_help_is_what_people_need_first(capsys):
    with pytest.raises(SystemExit):
        parse(["small", "--help"])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 30 and len(re.findall(r"(?m)^  --", shown)) == 10
    assert "--resume FOLDER" in shown and re.search(r"--epochs N .*\(62\)", shown) and "paper-4joint: " in shown
    assert re.search(r"All options: .*train small --help-all$", shown.strip())
    for option in re.findall(r"(?m)^  (--[\w-]+)", shown):
        assert option.strip("-").replace("-", "_") in {name for name, _, _ in _settings(PRESETS["small"].config)}


def test_all_options_on_demand(capsys):
    with pytest.raises(SystemExit):
        parse(["small", "--help-all"])
    shown = capsys.readouterr().out
    for name, _, _ in _settings(PRESETS["small"].config):
        assert name == "preset" or f"--{name.replace('_', '-')} " in shown or f"--{name.replace('_', '-')}," in shown


def old_configuration() -> dict:
    """config.json as commit c572cb6 wrote it."""
    values = json.loads(json.dumps(dataclasses.asdict(PRESETS["small"].config), default=str))
    return values | {"output": "runs/old", "data": values["data"] | {"data": ["A=x", "B=y"], "cache": "somewhere"}}


def test_old_configuration_is_read(tmp_path):
    file = tmp_path / "config.json"
    values = old_configuration()
    file.write_text(json.dumps(values))
    config = Config.load(file)
    assert (
        config.data.data == ("A=x", "B=y")
        and str(config.data.cache) == "somewhere"
        and str(config.output) == "runs/old"
    )
    assert json.loads(json.dumps(dataclasses.asdict(config), default=str)) == values
    del values["data"]["ratio"]  # as if the setting were newer than the file
    file.write_text(json.dumps(values))
    assert Config.load(file) == config


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v["data"].update(crop="400"), "crop"),
        (lambda v: v["data"].update(crop=400.5), "crop"),
        (lambda v: v["data"].update(crop=0), "--crop 0: must be"),
        (lambda v: v["optim"].update(epoch=5), "epoch"),
        (lambda v: v["optim"].update(lr=None), "lr"),
        (lambda v: v["optim"].update(lr=math.nan), "--lr nan: must be"),
        (lambda v: v["data"].update(sampling="both"), "sampling"),
        (lambda v: v["data"].update(data="A=x"), "data"),
        (lambda v: v.update(optim=[1, 2]), "optim"),
        (lambda v: v.pop("optim"), "missing"),
    ],
)
def test_foreign_configuration_is_one_line(tmp_path, change, message):
    values = old_configuration()
    change(values)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match="config.json: ") as error:
        Config.load(file)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"seed": 1}', "[" * 100_000, "\xff"])
def test_what_is_no_configuration_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="not a run's configuration") as error:
        Config.load(tmp_path / "config.json")
    assert "\n" not in str(error.value)
