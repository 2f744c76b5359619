"""Damaged, foreign and made-up checkpoints."""

import json

import pytest
import torch
from counters import alive
from faults import Fault, answered
from safetensors.torch import load_file, save_file

from dkpnet_ext import load_model
from dkpnet_ext.models import DKPNet

WRONG = {
    "density_scale": (None, True, -100, 0, "100", 1e300, [1.0], {}),
    "head": ("x", None, 3),
    "min_side": ("x", -5, 0, 1.5, None, True),
    "max_side": ("x", -1, 0, None),
    "out_stride": (0, 3, "4", None),
    "channels": (0, -1, "512", 63, None, 10**9),
    "num_sub": (0, -2, "2", 1.5, None),
    "num_samples": (0, "x", None),
    "latent_dim": (0, -1, "16", None),
    "num_domains": (-1, "x", 1.5),
    "attention": ("x", 3),
    "backbone": ("x", 5, "", None),
    "domains": ("AB", 5, [1, 2]),
}
CONFIGS = [
    Fault(f"config.json: {key} is {json.dumps(value)}", {key: value}, f"{key}|other shapes")
    for key, values in WRONG.items()
    for value in values
]
TEXTS = [
    Fault("config.json is empty", "", "config.json"),
    Fault("config.json is a list", "[1, 2]", "JSON object"),
    Fault("config.json is no JSON", "{'a': 1}", "config.json"),
    Fault("config.json is cut off", '{"attention": "inva", ', "config.json"),
    Fault(
        "config.json is another project's", '{"model_type": "bert", "hidden_size": 768}', "config.json lacks|attention"
    ),
    Fault("config.json is deep", "[" * 100_000, "config.json"),
    Fault("config.json is binary", "\x00\x01\x02", "config.json"),
    Fault("density_scale is Infinity", '{"density_scale": Infinity}', "density_scale"),
    Fault("density_scale is NaN", '{"density_scale": NaN}', "density_scale"),
]


def change(state, **changes):
    return state | changes


WEIGHTS = [
    Fault("a tensor is missing", lambda s: {k: v for k, v in s.items() if k != "head.neck.weight"}, "head.neck.weight"),
    Fault("all of the head is missing", lambda s: {k: v for k, v in s.items() if not k.startswith("head.")}, "lacks"),
    Fault("no tensors", lambda s: {}, "lacks"),
    Fault("a foreign tensor", lambda s: change(s, foreign=torch.zeros(3)), "foreign"),
    Fault("another shape", lambda s: change(s, **{"head.neck.bias": torch.zeros(3)}), "head.neck.bias"),
    Fault("integers", lambda s: change(s, **{"head.neck.bias": torch.zeros(64, dtype=torch.int32)}), "head.neck.bias"),
    Fault("NaN", lambda s: change(s, **{"head.neck.bias": torch.full((64,), torch.nan)}), "not finite"),
    Fault("infinite", lambda s: change(s, **{"head.neck.bias": torch.full((64,), torch.inf)}), "not finite"),
    Fault("complex", lambda s: change(s, **{"head.neck.bias": torch.zeros(64, dtype=torch.complex64)}), "type|read"),
]
BYTES = [
    Fault("model.safetensors is empty", b"", "model.safetensors"),
    Fault("model.safetensors is text", b"these are no weights", "model.safetensors"),
    Fault("model.safetensors is a pickle", b"\x80\x04\x95\x00\x00", "model.safetensors"),
    Fault("model.safetensors has a lying header", b"\xff" * 8 + b"{}", "model.safetensors"),
    Fault("model.safetensors is cut off", None, "model.safetensors"),
]
NAMES = [
    Fault("no such folder", "nowhere/at/all", "no such folder"),
    Fault("no such run", "runs/NOPE", "no such folder"),
    Fault("an empty name", "", "checkpoint"),
    Fault("an empty folder", ".", "config.json is missing"),
    Fault("a file instead of a folder", "file.bin", "file.bin"),
    Fault("a pickle of another project", "weights.pth", "weights.pth"),
]
TABLE = [*CONFIGS, *TEXTS, *WEIGHTS, *BYTES, *NAMES]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder written by `save_pretrained`."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    alive(DKPNet("hrnet_w18_small", num_sub=2, channels=64, domains=("A", "B"))).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy whose files may be replaced, not written to: the weights are hard links."""
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    (tmp_path / "model.safetensors").hardlink_to(saved / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("fault", CONFIGS, ids=lambda fault: fault.name)
def test_configuration(fault, copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | fault.given))
    answered(lambda: load_model(copy), fault.answer)


@pytest.mark.parametrize("fault", TEXTS, ids=lambda fault: fault.name)
def test_configuration_file(fault, copy):
    text = fault.given
    if text.startswith('{"density_scale"'):
        text = (copy / "config.json").read_text().replace('"density_scale": 1.0', text[1:-1])
        assert "Infinity" in text or "NaN" in text
    (copy / "config.json").write_text(text)
    answered(lambda: load_model(copy), fault.answer)


@pytest.mark.parametrize("fault", WEIGHTS, ids=lambda fault: fault.name)
def test_weights(fault, copy, saved):
    (copy / "model.safetensors").unlink()
    save_file(fault.given(load_file(saved / "model.safetensors")), copy / "model.safetensors")
    answered(lambda: load_model(copy), fault.answer)


@pytest.mark.parametrize("fault", BYTES, ids=lambda fault: fault.name)
def test_weights_file(fault, copy, saved):
    (copy / "model.safetensors").unlink()
    content = (saved / "model.safetensors").read_bytes()[:-1000] if fault.given is None else fault.given
    (copy / "model.safetensors").write_bytes(content)
    answered(lambda: load_model(copy), fault.answer)


@pytest.mark.parametrize("fault", NAMES, ids=lambda fault: fault.name)
def test_name(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.bin").write_bytes(b"x")
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    answered(lambda: load_model(fault.given), fault.answer)
