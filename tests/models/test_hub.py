"""Checkpoints: what is saved comes back, what is damaged or foreign is one line, old folders still load."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import torch
from counters import alive
from safetensors.torch import load_file, save_file

from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet, MultiBranch, list_systems, load_model, registry
from dkpnet_ext.models.hub import STARTER

ARGUMENTS = {"backbone": "test_efficientnet", "channels": 32, "domains": ["A", "B"]}
# config.json as commit c572cb6 wrote it.
OLD = {
    "attention": "inva", "backbone": "test_efficientnet", "channels": 32, "density_scale": 100.0, "domains": ["A", "B"],
    "head": "folded", "latent_dim": 8, "max_side": 2048, "min_side": 256, "neck_norm": False, "num_domains": 2,
    "num_samples": 1, "num_sub": 2, "out_stride": 4,
}  # fmt: skip
OLD_MB = {
    k: v for k, v in OLD.items() if k not in ("attention", "head", "latent_dim", "neck_norm", "num_samples", "num_sub")
}


def new(kind, config):
    torch.manual_seed(0)
    return alive(kind(**{k: v for k, v in config.items() if k != "neck_norm"})).eval()


def write(folder, config, model):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("heads.1.neck")}  # shared with heads.0
    save_file(state, folder / "model.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder written by hand, and its model; tests copy what they change."""
    folder, model = tmp_path_factory.mktemp("saved"), new(DKPNet, OLD)
    write(folder, OLD, model)
    return folder, model


def refused(source, match, load=load_model):
    with pytest.raises(UserError, match=match) as caught:
        load(source)
    assert "\n" not in str(caught.value)


def test_packaged_starter(monkeypatch, tmp_path):
    if not (STARTER / "model.safetensors").is_file():
        pytest.skip("the starter model is not part of this tree")
    monkeypatch.chdir(tmp_path)
    model = load_model()
    assert isinstance(model, DKPNet) and model.system == "jt" and model.domains == ("SHA", "SHB", "BRT", "negatives")
    image = torch.arange(3 * 64 * 64, dtype=torch.uint8).view(3, 64, 64)
    counts = [m.count(image) for m in (model, load_model("starter"), DKPNet.from_pretrained(STARTER))]
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("kind, config", [(DKPNet, OLD), (MultiBranch, OLD_MB)])
def test_folder_of_an_old_run_without_the_systems_name(kind, config, tmp_path):
    """A run's own config.json is no model's; its final model wins over the best of its stages."""
    run, model = tmp_path / "runs" / "old", new(kind, config)
    (run / "stage1").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"preset": "quick", "seed": 0, "model": {"system": "dkpnet"}}))
    refused(run, "model.safetensors is missing")
    images = torch.rand(1, 3, 32, 32)
    for place, scale in (("stage1/best", 1.0), ("stage2/best", 10.0), ("model", 100.0)):
        write(run / place, config | {"density_scale": scale}, model)
        loaded = load_model(run)
        assert type(loaded) is kind and loaded.density_scale == scale and not loaded.training
        torch.testing.assert_close(loaded(images).density * scale, model(images).density * 100)
        assert kind.from_pretrained(run).density_scale == scale


# Of the large networks with attention one will do.
SAVED = [name for name in list_systems() if name.partition("-")[0] in ("dkpnet", "mb", "mcnn") or "-" not in name]


@pytest.mark.parametrize("system", SAVED)
def test_every_system_comes_back(system, tmp_path):
    stage = len(registry.get(system).stages)
    model = alive(registry.create(system, stage, **ARGUMENTS, num_domains=2, num_sub=2, latent_dim=8)).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["system"] == model.system == system
    assert not list(tmp_path.glob("*.bin")), "never a pickle"
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model) and loaded.system == system and loaded.arguments == model.arguments
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(images).density, model(images).density)


BROKEN = {
    **{f"density_scale {value}": {"density_scale": value} for value in (True, 0, -100, float("inf"), float("nan"), "100", None)},
    **{f"min_side {value}": {"min_side": value} for value in ("x", -5, 0, 256.5, None)},
    "max_side below min_side": {"max_side": 10},
    "head x": {"head": "x"},
    "head none": {"head": None},
    "attention x": {"attention": "x"},
    "attention list": {"attention": []},
    "out_stride 3": {"out_stride": 3},
    "out_stride text": {"out_stride": "4"},
    "channels 0": {"channels": 0},
    "channels too many": {"channels": 10**12},
    "num_sub 0": {"num_sub": 0},
    "num_samples 0": {"num_samples": 0},
    "num_domains -1": {"num_domains": -1},
    "latent_dim none": {"latent_dim": None},
    "domains a text": {"domains": "AB"},
    "domains none": {"domains": None},
    "domains numbers": {"domains": [1, 2]},
    "backbone a number": {"backbone": 3},
    "neck_norm": {"neck_norm": True},
    "system x": {"system": "x"},
    "system list": {"system": ["dkpnet"]},
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_configuration_out_of_range_is_one_line(case, tmp_path, saved):
    (changes,) = BROKEN[case].items()
    (tmp_path / "config.json").write_text(json.dumps(OLD | dict([changes])))
    (tmp_path / "model.safetensors").symlink_to(saved[0] / "model.safetensors")
    refused(tmp_path, changes[0])
    refused(tmp_path, changes[0], DKPNet.from_pretrained)


@pytest.mark.parametrize("missing", sorted(OLD.keys() - {"neck_norm"}))
def test_a_missing_argument_is_not_guessed(missing, tmp_path, saved):
    """density_scale above all: with the default instead of 100, every count is a hundred times too large."""
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in OLD.items() if k != missing}))
    (tmp_path / "model.safetensors").symlink_to(saved[0] / "model.safetensors")
    if missing != "attention":  # without it, it looks like an old MultiBranch
        refused(tmp_path, f"config.json lacks {missing}")
    refused(tmp_path, f"config.json lacks {missing}", DKPNet.from_pretrained)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\x00", "[" * 100_000])
def test_a_configuration_that_is_no_object(text, tmp_path, saved):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").symlink_to(saved[0] / "model.safetensors")
    refused(tmp_path, "config.json")


WEIGHTS = {
    "lacks head.conv1.bias": lambda state: state.pop("head.conv1.bias"),
    "has unknown surprise": lambda state: state.update(surprise=torch.zeros(1)),
    "other shapes for head.conv3.bias": lambda state: state.update({"head.conv3.bias": torch.zeros(2)}),
    "another type for head.conv3.bias": lambda state: state.update({"head.conv3.bias": torch.zeros(1, dtype=torch.int64)}),
    "not finite in head.conv3.weight": lambda state: state["head.conv3.weight"].view(-1)[3].fill_(float("nan")),
    "not finite in attention.centers": lambda state: state["attention.centers"].view(-1)[0].fill_(float("-inf")),
}  # fmt: skip


@pytest.mark.parametrize("match", WEIGHTS)
def test_weights_that_do_not_fit_are_one_line(match, tmp_path, saved):
    state = load_file(saved[0] / "model.safetensors")
    WEIGHTS[match](state)
    (tmp_path / "config.json").write_text(json.dumps(OLD))
    save_file(state, tmp_path / "model.safetensors")
    refused(tmp_path, match)
    refused(tmp_path, match, DKPNet.from_pretrained)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}"])
def test_damaged_weights(content, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(OLD))
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path, "model.safetensors cannot be read")


def test_a_model_of_another_class_names_the_right_call(tmp_path):
    new(MultiBranch, OLD_MB).save_pretrained(tmp_path)
    refused(tmp_path, "system mb; open it with load_model", DKPNet.from_pretrained)


def test_arguments_in_place_of_the_saved_ones(saved):
    literal = load_model(saved[0], head="literal")
    assert literal.head.form == "literal"
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(literal(images).density, saved[1](images).density, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["runs/NOPE", "NOPE", "a/b/c", "/NOPE/x", "./NOPE", "x" * 300, "a\0b"])
def test_a_folder_that_does_not_exist_asks_no_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dkpnet_ext.models.hub._download", lambda *_: pytest.fail("asked a hub"))
    refused(name, "no such folder")
    (tmp_path / "mine").mkdir()
    refused("mine/typo", "no such folder")


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda *_: "http://127.0.0.1:9/nobody-listens")
    download, offline = huggingface_hub.hf_hub_download, []

    def counted(*arguments, **options):
        offline.append(options["local_files_only"])
        return download(*arguments, **options)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", counted)
    refused("owner/name", "cannot be reached")
    assert offline == [True]  # else the client tries for 25 seconds


def test_a_model_made_for_inference_cannot_be_saved(tmp_path):
    model = new(DKPNet, OLD).for_inference()
    with pytest.raises(UserError, match="cannot be saved"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_system_of_ones_own(tmp_path):
    """One class with a decorator: it trains, saves and loads like the others."""

    @registry.register("mine", "a system of a test", {"attention": "se"})
    class Mine(DKPNet):
        system = "mine"

    try:
        assert "mine" in list_systems()
        model = registry.create("mine", **ARGUMENTS, num_domains=2, num_sub=2)
        model.save_pretrained(tmp_path)
        assert type(load_model(tmp_path)) is Mine
        refused(tmp_path, "open it with load_model", DKPNet.from_pretrained)
        with pytest.raises(ValueError, match="registered twice"):
            registry.register("mine", "again")(Mine)
    finally:
        del registry._systems["mine"]
    refused(tmp_path, "'mine' is none of dkpnet, va, se, jt, mb, canet")
    refused("mine", "unknown; dkpnet", registry.get)
    with pytest.raises(TypeError, match="no system takes chanels"):
        registry.create("dkpnet", chanels=3)


def test_others_may_read_a_saved_model(tmp_path):
    """safetensors leaves its files to their owner alone: the account that serves a model could not read it."""
    model = load_model()
    model.save_pretrained(tmp_path)
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert model.calibration is not None and {path.stat().st_mode for path in tmp_path.iterdir()} == {usual}
