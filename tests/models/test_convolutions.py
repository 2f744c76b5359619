"""Networks with our convolutions: the same features and gradients, the same parameter names."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dkpnet_ext.models.backbones import create_backbone
from dkpnet_ext.models.convolutions import FastConvolution, fold_for_training, use_fast_convolutions
from dkpnet_ext.ops import native
from dkpnet_ext.ops.backend import use_backend


def lite0(double: bool = False) -> nn.Module:
    torch.manual_seed(0)
    backbone = create_backbone("tf_efficientnet_lite0")
    for module in backbone.modules():  # statistics and scales that matter
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.1)
    return backbone.double() if double else backbone


def results(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    features = network(images)
    loss = sum(feature.square().mean() for feature in features)
    named = dict(network.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()))
    return dict(zip(named, grads, strict=True)) | {str(j): f.detach() for j, f in enumerate(features)}


def test_folded_for_training_is_the_network_of_the_statistics():
    backbone, images = lite0(double=True), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    folded = fold_for_training(backbone)
    assert folded.training and not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(parameter.requires_grad for parameter in folded.parameters())
    for got, want in zip(folded(images), backbone.eval()(images), strict=True):
        torch.testing.assert_close(got, want)


def test_every_convolution_but_the_stem_with_its_activation():
    fast = use_fast_convolutions(fold_for_training(lite0()))
    rest = [name for name, m in fast.named_modules() if isinstance(m, nn.Conv2d) and not isinstance(m, FastConvolution)]
    assert rest == ["net.conv_stem"]
    assert sum(isinstance(m, nn.ReLU6) for m in fast.modules()) == 1  # the stem's
    assert [m.activation for m in fast.net.blocks[1][0].modules() if isinstance(m, FastConvolution)] == [
        "relu6", "relu6", "none",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(64, 96), (52, 70)])  # TensorFlow's padding depends on the size
def test_same_features_and_gradients(size):
    folded = fold_for_training(lite0())
    fast = use_fast_convolutions(copy.deepcopy(folded))
    assert list(fast.state_dict()) == list(folded.state_dict())
    images = torch.randn(2, 3, *size).contiguous(memory_format=torch.channels_last)
    got, want = results(fast, images), results(folded, images)
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-3 * value.abs().max().item(), msg=name)
    fast.load_state_dict(folded.state_dict())
    again = use_fast_convolutions(fast)  # nothing is left to do
    with use_backend("reference"):
        for feature, value in zip(again(images), folded(images), strict=True):
            torch.testing.assert_close(feature, value)


def test_an_activation_in_place_after_them():
    """SiLU and hard swish, of most backbones, are not fused and change the convolution's output where it lies."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(8, 16, 1), nn.SiLU(inplace=True), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Hardswish(inplace=True)
    )  # fmt: skip
    fast = use_fast_convolutions(copy.deepcopy(plain))
    assert [m.activation for m in fast if isinstance(m, FastConvolution)] == ["none", "none"]
    images = torch.randn(2, 8, 12, 16).contiguous(memory_format=torch.channels_last)
    for network in (plain, fast):
        network(images).square().sum().backward()
    for got, want in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
def test_under_autocast():
    fast = use_fast_convolutions(fold_for_training(lite0())).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = fast(images)
    assert all(f.dtype == torch.bfloat16 and f.is_contiguous(memory_format=torch.channels_last) for f in features)
    sum(f.float().mean() for f in features).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in fast.parameters())


def test_what_does_not_fit_stays():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense, self.wide = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 7, groups=4)
            self.dilated = nn.Conv2d(4, 4, 3, dilation=2, groups=4)
            self.shared, self.norm, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU6()
            self.twice, self.gelu = nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.GELU()

        def forward(self, x):
            x = self.act(self.norm(self.shared(self.dilated(self.wide(self.dense(x))))))
            y = self.twice(x)
            return self.act(y) + self.gelu(y)

    torch.manual_seed(0)
    net = Net().eval()
    images = torch.randn(1, 3, 24, 24)
    want, fast = net(images), use_fast_convolutions(copy.deepcopy(net))
    kinds = {name: m.activation for name, m in fast.named_modules() if isinstance(m, FastConvolution)}
    assert kinds == {"shared": "none", "twice": "none"} and isinstance(fast.act, nn.ReLU6)
    torch.testing.assert_close(fast(images), want)


def test_gradients_have_the_parameters_strides():
    """DistributedDataParallel warns of others, and copies; at commit 4eb5a94 those of channels_last networks had not."""
    fast = use_fast_convolutions(fold_for_training(lite0())).to(memory_format=torch.channels_last)
    sum(feature.sum() for feature in fast(torch.rand(1, 3, 64, 64))).backward()
    assert {name for name, p in fast.named_parameters() if p.grad.stride() != p.stride()} == set()
