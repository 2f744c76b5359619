"""Options of `train` that cannot be right: refused before anything is written."""

import pytest
from faults import Fault, answered

from dkpnet_ext.train import parse

# Option, values that are refused. The answer names the option.
OPTIONS = {
    "--crop": ("0", "-1", "15", "99999", "1.5", "x", "nan"),
    "--min-side": ("0", "-5", "x", "1e3"),
    "--max-side": ("0", "-1", "ten"),
    "--val-fraction": ("-0.1", "1", "nan", "inf", "x"),
    "--flip": ("-0.1", "1.1", "nan", "inf", "-inf", "x"),
    "--jitter": ("-1", "0.6", "nan", "inf"),
    "--workers": ("-1", "100000", "1.5", "x"),
    "--channels": ("0", "-512", "1e9", "512.0"),
    "--latent-dim": ("0", "-1", "x", "10000000"),
    "--num-samples": ("0", "-1", "100000"),
    "--out-stride": ("0", "3", "4", "x"),
    "--density-scale": ("0", "-1", "nan", "inf", "1e-30"),
    "--head": ("x", "", "Folded"),
    "--num-clusters": ("0", "-3", "1000000", "x"),
    "--num-sub": ("0", "-1", "x", "1000000"),
    "--method": ("x", "agglomerative"),
    "--w-density": ("0", "-1", "nan", "inf"),
    "--w-kl": ("-1", "nan", "inf", "x"),
    "--w-lse": ("-1", "nan", "-inf"),
    "--w-logdet": ("-0.001", "nan", "1e300"),
    "--sigma": ("-1", "nan", "inf", "1e9"),
    "--epochs": ("0", "-1", "1e99", "x", "1.5"),
    "--batch": ("0", "-8", "x", "2.5"),
    "--accumulate": ("0", "-1", "x"),
    "--lr": ("0", "-1e-3", "nan", "inf", "x"),
    "--weight-decay": ("-1", "nan", "inf"),
    "--schedule": ("cosine2", ""),
    "--batch-norm": ("x", "eval"),
    "--bn-momentum": ("-0.1", "0", "1.5", "nan"),
    "--seed": ("-1", "1.5", "x", str(2**70)),
    "--eval-every": ("0", "-1", "x"),
    "--device": ("tpu", "cuda:99", "0"),
    "--precision": ("fp8", "64"),
    "--sampling": ("x",),
    "--on-bad": ("ignore",),
    "--ratio": ("-1", "nan", "inf", "0"),
    "--clip": ("-1", "nan", "inf"),
    "--ema": ("-0.1", "1", "nan"),
    "--beta2": ("0", "1", "nan"),
    "--frozen-stages": ("-1", "1.5"),
    "--backbone-lr": ("-1", "nan", "inf"),
    "--scale": ("1", "x"),
    "--neck": ("x", "paper"),
    "--loss": ("x", ""),
    "--no-such-option": ("1",),
}
TABLE = [Fault(f"{option} {value}", [option, value], option) for option, values in OPTIONS.items() for value in values]
TABLE += [
    Fault("an unknown preset", ["smal"], "preset smal"),
    Fault("two presets", ["quick", "small"], "small"),
    Fault("an option without its value", ["--crop"], "--crop"),
    Fault("passes that do not divide the batch", ["--batch", "8", "--accumulate", "3"], "multiple"),
    Fault("the shorter side above the longer", ["--min-side", "900", "--max-side", "800"], "--min-side 900"),
    Fault("a scale of no size", ["--crops", "covering", "--scale", "nan", "1"], "--scale"),
    Fault("scales in the wrong order", ["--crops", "covering", "--scale", "2", "1"], "--scale 2"),
    Fault("scales of crops that have none", ["--scale", "0.5", "2"], "--crops covering"),
    Fault("a share that is no number", ["--ratio", "1", "nan"], "--ratio"),
    Fault("an option with two equals signs", ["--epochs=5=6"], "--epochs"),
    Fault("half an option", ["quick", "--help-al"], "--help-al"),
    Fault("options beside --resume", ["--resume", "runs/x", "--epochs", "7"], "--resume"),
]
WHOLE = [  # what only a started training can tell
    Fault("an unknown system", ["--system", "x"], "system x"),
    Fault("part of a system's name", ["--system", "dkp"], "dkpnet"),
    Fault("a backbone with a slip", ["--backbone", "hrnet_w18_smal"], "hrnet_w18_small"),
    Fault("no data", ["small"], "--data"),
    Fault("a folder that is not there", ["small", "--data", "A=nowhere"], "nowhere"),
    Fault("weights that are not there", ["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    Fault("a run folder that is not there", ["--resume", "runs/nowhere"], "runs/nowhere"),
    Fault("an output that is a file", ["--output", "/dev/null"], "null"),
]


@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_refused(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answered(lambda: parse(fault.given), fault.answer)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", WHOLE, ids=lambda fault: fault.name)
def test_training_is_not_begun(fault, tmp_path, monkeypatch):
    from dkpnet_ext.training import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DKPNET_CACHE", str(tmp_path))
    answered(lambda: train(parse(fault.given)), fault.answer)
    assert not (tmp_path / "runs").exists()


TABLE = [*TABLE, *WHOLE]
