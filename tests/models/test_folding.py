"""Folded batch norms: none is left, and the features are the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dkpnet_ext.models.backbones import create_backbone
from dkpnet_ext.models.folding import fold_batch_norms


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", ["hrnet_w18_small", "tf_efficientnet_lite0"])
def test_same_features_without_batch_norms(name):
    torch.manual_seed(0)
    backbone = create_backbone(name).eval()
    for module in backbone.modules():  # statistics and scales that matter
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    backbone.double()
    folded = fold_batch_norms(backbone)
    assert norms(backbone) > 10 and norms(folded) == 0
    images = torch.randn(2, 3, 64, 80, dtype=torch.float64)
    with torch.inference_mode():
        for got, want in zip(folded(images), backbone(images), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * want.abs().max().item())


def test_a_norm_whose_convolution_is_needed_elsewhere_stays():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return x + self.norm(x)

    assert norms(fold_batch_norms(Shared())) == 1
