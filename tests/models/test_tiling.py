"""An image in tiles gives the density of the image in one piece."""

import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from counters import alive

from dkpnet_ext.models import DKPNet, FiLM, MDKNet, MultiBranch, tiling

SIZE = (581, 503)  # no multiple of anything; with tiles of 160 px: 4 x 4 of them


FPN = {"neck": "fpn", "out_stride": 8, "link": "exp", "attention": "va"}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "TILE", 160)


def picture() -> torch.Tensor:
    torch.manual_seed(1)
    blurred = F.interpolate(torch.rand(1, 3, 40, 40), size=SIZE, mode="bicubic")[0].clamp(0, 1)
    return (200 * blurred + 55 * torch.rand(3, *SIZE)).to(torch.uint8)


def make(kind=DKPNet, **arguments):
    torch.manual_seed(0)
    model = alive(kind("hrnet_w18_small", num_domains=2, channels=32, **arguments)).eval()
    for parameter in model.parameters():  # biases and norms that padding could not be confused with
        if parameter.ndim == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (DKPNet, {"num_sub": 2}),
        (DKPNet, {"out_stride": 2}),
        (DKPNet, {"attention": "none"}),
        (DKPNet, {"head": "literal", "attention": "se"}),
        (DKPNet, {"head": "literal", "attention": "none"}),
        (MultiBranch, {"density_scale": 10.0}),
        (FiLM, {}),
        (MDKNet, {"latent_dim": 8}),
        (DKPNet, FPN),
        (DKPNet, {"neck": "fpn", "out_stride": 8, "link": "exp", "attention": "none"}),
    ],
)
def test_tiles_equal_the_whole(kind, arguments, monkeypatch):
    model, image = make(kind, **arguments), picture()
    whole = model.examine(image, as_is=True)
    monkeypatch.setattr(tiling, "LIMIT", 1)
    tiled = model.examine(image, as_is=True)
    assert tiled.density.shape == whole.density.shape
    torch.testing.assert_close(tiled.density, whole.density, rtol=0, atol=1e-3 * float(whole.density.abs().max()))
    assert float(tiled.density.sum()) == pytest.approx(float(whole.density.sum()), rel=1e-4)
    if whole.attention is None:
        assert tiled.attention is None
    else:
        torch.testing.assert_close(tiled.attention, whole.attention, rtol=0, atol=1e-5)


def test_features_are_recomputed_where_the_cache_is_full(monkeypatch):
    model, image = make(num_sub=2), picture()
    monkeypatch.setattr(tiling, "LIMIT", 1)
    runs = []
    features = model.features
    monkeypatch.setattr(model, "features", lambda images: runs.append(1) or features(images))
    kept = model.density(image, as_is=True)
    first = len(runs)
    monkeypatch.setattr(tiling, "CACHE", 300_000)
    recomputed = model.density(image, as_is=True)
    assert first == 16 + 2  # once per tile, and two strips to measure the reach
    assert 3 * first / 2 < len(runs) - first < 2 * 16 + 2
    assert torch.equal(kept, recomputed)


def test_the_pool_is_the_whole_images(monkeypatch):
    """With per-tile attention the result would be another: the picture's halves differ in brightness."""
    model, image = make(num_sub=2), picture()
    image[:, 300:] //= 4
    whole = model.attend(image, as_is=True)
    monkeypatch.setattr(tiling, "LIMIT", 1)
    torch.testing.assert_close(model.attend(image, as_is=True), whole, rtol=0, atol=1e-5)
    assert (model.attend(image[:, :160], as_is=True) - whole).abs().max() > 1e-4


def test_reach_is_where_the_effect_of_a_cut_ends():
    model = make(attention="none")
    reach = tiling.reach(model)
    assert reach % 16 == 0 and 0 < reach <= 256
    image = picture().unsqueeze(0)
    whole, cut = model.features(image)[0], model.features(image[:, :, 160:])[0]
    for a, b, r in zip(whole, cut, (4, 8, 16), strict=True):
        error = (a[:, :, 160 // r :] - b).abs().amax((0, 1, 3)) / a.abs().max()
        assert error[reach // r :].max() < 1e-4 < error[0]


def test_backbones_that_see_everything_are_announced(monkeypatch):
    torch.manual_seed(0)
    model = alive(DKPNet("efficientnet_b0", num_domains=1, channels=32)).eval()  # squeeze-and-excitation in its blocks
    monkeypatch.setattr(tiling, "LIMIT", 1)
    monkeypatch.setattr(tiling, "MAX_REACH", 256)
    with pytest.warns(UserWarning, match="approximate"):
        model.density(picture()[:, :64, :64], as_is=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().density(picture()[:, :64, :64], as_is=True)


@pytest.mark.parametrize("length", [16, 160, 176, 1600, 1616])
def test_split_covers_everything_once(length):
    tiles = tiling.split(length, 48, 16)
    assert tiles[0].start == 0 and tiles[-1].end == length
    assert all(a.end == b.start for a, b in pairwise(tiles))
    for tile in tiles:
        assert 0 < tile.end - tile.start <= tiling.TILE
        assert tile.first == max(tile.start - 48, 0) and tile.last == min(tile.end + 48, length)
        assert all(edge % 16 == 0 for edge in tile)


@pytest.mark.parametrize(
    ("dtype", "arguments"),
    [(torch.float64, {"num_sub": 2}), *((dtype, FPN) for dtype in (torch.float64, torch.bfloat16))],
)
def test_a_model_of_another_dtype(dtype, arguments, monkeypatch):
    """At commit 4eb5a94 it counted small pictures, and large ones not."""
    model, image = make(**arguments).to(dtype), picture()
    whole = model.examine(image, as_is=True)
    monkeypatch.setattr(tiling, "LIMIT", 1)
    with warnings.catch_warnings(action="ignore"):  # bfloat16's rounding hides how far the network sees
        tiled = model.examine(image, as_is=True)
    share = 1e-6 if dtype == torch.float64 else 0.1
    assert float(tiled.density.sum()) == pytest.approx(float(whole.density.sum()), rel=share)
