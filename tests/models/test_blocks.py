"""Blocks of a network in one pass: the same features, all of them found, the rest left alone."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

from dkpnet_ext.models import load_model
from dkpnet_ext.models.blocks import FusedBlock, fuse_blocks
from dkpnet_ext.models.convolutions import use_fast_convolutions
from dkpnet_ext.models.folding import fold_batch_norms
from dkpnet_ext.models.fpn import Mix

from .test_convolutions import lite0


def fused(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network).eval()
    fuse_blocks(network)
    return network


@pytest.mark.parametrize("size", [(64, 96), (52, 70)])  # TensorFlow's padding depends on the size
def test_same_features(size):
    folded = fold_batch_norms(lite0())
    fast, images = fused(folded), torch.randn(2, 3, *size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for got, want in zip(fast(images), folded(images), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
    for got, want in zip(fast(images), folded(images), strict=True):  # with a gradient
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


def test_every_block_and_the_stem():
    fast = fused(fold_batch_norms(lite0()))
    blocks = [m for m in fast.modules() if isinstance(m, FusedBlock)]
    assert len(blocks) == 11 and isinstance(fast.net.conv_stem, nn.Identity)
    assert blocks[0].expand.kernel_size == (3, 3) and [b.residual for b in blocks] == [
        False, False, True, False, True, False, True, True, False, True, True,
    ]  # fmt: skip
    inside = {id(m) for block in blocks for m in block.modules()}
    assert all(id(m) in inside for m in fast.modules() if isinstance(m, nn.Conv2d))
    assert use_fast_convolutions(fast) is fast  # which traces it


@pytest.mark.parametrize("size", [(64, 96), (61, 90)])
def test_first_block_normalises_and_pads_bytes(size):
    """As the network does it with an image of floats, which it still takes."""
    model = load_model().for_inference("torch")
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert model.normalised(images)[0] is images and model.normalised(images / 255)[0].shape[2:] == (64, 96)
    with torch.inference_mode():
        want = model(images / 255).density
        torch.testing.assert_close(model(images).density, want, rtol=1e-4, atol=1e-6)
        last = images.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(model(last).density, want, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model(images).density, want, rtol=1e-4, atol=1e-6)  # with a gradient: plain PyTorch


def test_mix():
    torch.manual_seed(0)
    mixes = nn.Sequential(Mix(64, 5), Mix(64, 3))
    images = torch.randn(1, 64, 13, 10)
    with torch.inference_mode():
        torch.testing.assert_close(fused(mixes)(images), mixes(images), rtol=1e-4, atol=1e-5)
    assert all(isinstance(m, FusedBlock) for m in fused(mixes))


@pytest.mark.parametrize("name", ["mobilenetv2_035", "mobilenetv3_small_050", "efficientnet_b0"])
def test_other_networks(name):
    """ReLU6 with PyTorch's padding; some blocks with ReLU; SiLU and squeeze-and-excitation, which stay."""
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True).eval()
    folded = fold_batch_norms(network)
    fast, images = fused(folded), torch.randn(1, 3, 64, 64)
    assert any(isinstance(m, FusedBlock) for m in fast.modules()) == (name != "efficientnet_b0")
    with torch.inference_mode():
        for got, want in zip(fast(images), folded(images), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4 * want.abs().max().item())


def test_batch_norms_that_are_not_folded_keep_their_blocks():
    assert not any(isinstance(m, FusedBlock) for m in fused(lite0()).modules())


def test_a_copy_of_a_prepared_model_has_its_own_memory():
    """At commit 25e2632 it kept addresses of the first one's weights: wrong counts, or the end of the process."""
    first = load_model().for_inference("torch")
    image = torch.randint(256, (3, 256, 256), dtype=torch.uint8)
    expected = first.count(image)
    blocks = [part for part in first.modules() for part in vars(part).values() if getattr(part, "calls", None)]
    assert blocks
    second, third = copy.deepcopy(first), pickle.loads(pickle.dumps(first))
    for part in (part for model in (second, third) for part in model.modules()):
        assert not any(getattr(value, "calls", None) for value in vars(part).values())
    del first, blocks
    assert second.count(image) == third.count(image) == pytest.approx(expected, rel=1e-6)
