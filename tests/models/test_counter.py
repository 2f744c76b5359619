"""What people call: pictures of every kind, many threads, inputs and arguments that are refused."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from counters import alive
from PIL import Image

import dkpnet_ext
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet, FiLM, MDKNet, MultiBranch

ARGUMENTS = {"backbone": "test_efficientnet", "channels": 32, "domains": ["A", "B"], "min_side": 32}
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)


def make(kind=DKPNet, **changes):
    torch.manual_seed(0)
    return alive(kind(**ARGUMENTS | changes))


def pictures(folder):
    Image.fromarray(PIXELS).save(folder / "x.png")
    file = io.BytesIO((folder / "x.png").read_bytes())
    alpha = np.dstack([PIXELS, np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)])
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    return [folder / "x.png", str(folder / "x.png"), file, Image.fromarray(PIXELS), PIXELS, alpha, tensor]


def test_pictures_of_every_kind_alone_and_in_a_list(tmp_path):
    model = make().eval()
    want = model.count(PIXELS)
    assert want > 0
    assert [model.count(picture) for picture in pictures(tmp_path)] == [want] * 7
    everything = pictures(tmp_path)
    assert model.count(everything) == [want] * 7 and model.count(tuple(everything[:2])) == [want] * 2
    assert model.count([]) == []
    assert all(torch.equal(d, model.density(PIXELS)) for d in model.density(everything[:2]))
    assert all(torch.equal(y, model.attend(PIXELS)) for y in model.attend(everything[3:5]))
    assert [float(output.mu.sum()) for output in model.examine([PIXELS])] == [float(model.examine(PIXELS).mu.sum())]


def test_a_training_model_counts_the_same_in_many_threads():
    """Unguarded, one thread ends the evaluation mode that another one counts in."""
    model = make().train()
    frozen = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
    images = [np.roll(PIXELS, i, 0) for i in range(8)]
    want = [make().eval().count(image) for image in images]
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(model.count, images * 16)) == pytest.approx(want * 16, rel=1e-6)
    assert [m.training for m in model.modules()] == modes and not frozen.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_threads_evaluate_side_by_side():
    model, inside = make(), []
    with ThreadPoolExecutor(2) as pool, model.evaluating():
        with pytest.raises(UserError, match="no such image"):
            model.count("absent.png")
        inside.append(pool.submit(model.count, PIXELS).result(timeout=600))  # waits for nobody
        assert not model.training
    assert inside and model.training


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(1, 3, 32, 32) * 255,
        torch.randn(1, 3, 32, 32) * 2,  # normalised
        torch.full((1, 3, 32, 32), float("nan")),
        torch.zeros(1, 3, 32, 32, dtype=torch.int32),
        torch.zeros(1, 1, 32, 32),
        torch.zeros(3, 32, 32),
        torch.zeros(1, 3, 0, 32),
    ],
)
@pytest.mark.parametrize("kind", [DKPNet, MultiBranch])
def test_images_of_another_range_or_shape_are_refused(kind, images):
    with pytest.raises(ValueError, match=r"\[0, 1\]|\[B, 3, H, W\]"):
        make(kind).eval()(images)


def test_pictures_that_are_none_are_refused(tmp_path):
    model = make().eval()
    for bad in (PIXELS.astype(np.float32), torch.rand(3, 32, 32) * 255, 3, None):
        with pytest.raises(TypeError, match="uint8|possible"):
            model.count(bad)
    for bad in ("absent.png", io.BytesIO(b"no picture"), [PIXELS, "absent.png"]):
        with pytest.raises(UserError) as caught:
            model.count(bad)
        assert "\n" not in str(caught.value)


def test_a_density_that_is_not_finite_is_no_count():
    model = make().eval()
    torch.nn.init.constant_(model.head.conv3.bias, float("nan"))
    with pytest.raises(UserError, match="not finite"):
        model.count(PIXELS)


@pytest.mark.parametrize("kind", [MultiBranch, FiLM, MDKNet])
def test_labels_that_are_no_domains_are_refused(kind):
    model = make(kind).train()
    for label in (-1, 2):
        with pytest.raises(ValueError, match="the domains are 0 to 1"):
            model(torch.rand(2, 3, 32, 32), torch.tensor([0, label]))
    assert model(torch.rand(2, 3, 32, 32), torch.tensor([0, 1])).density.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "changes",
    [
        *({"density_scale": value} for value in (0, -1, float("nan"), float("inf"), True, "1")),
        *({"num_sub": value} for value in (0, -1, 1.5, True)),
        *({"num_samples": value} for value in (0, None)),
        *({"min_side": value} for value in (-5, 0, "x")),
        {"head": "x"},
        {"attention": "x"},
        {"attention": "va", "num_sub": 2},
        {"domains": "AB"},
        {"domains": []},
        {"num_domains": -1},
        {"latent_dim": 0},
        {"channels": 0},
        {"out_stride": 3},
        {"max_side": 31},
    ],
    ids=str,
)
def test_constructors_refuse(changes):
    with pytest.raises(ValueError, match=next(iter(changes))) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)
    if changes.keys() <= {"density_scale", "min_side", "max_side", "domains", "num_domains", "channels", "out_stride"}:
        with pytest.raises(ValueError, match=next(iter(changes))):
            make(MultiBranch, **changes)


def test_tab_completion_shows_the_public_names():
    names = {"CounterOutput", "CrowdCounter", "DKPNet", "MultiBranch", "list_systems", "load_model"}
    assert names <= set(dir(dkpnet_ext)) and all(getattr(dkpnet_ext, name) for name in names)
    with pytest.raises(AttributeError, match="nope"):
        _ = dkpnet_ext.nope
