"""The passes of training do not wait for a GPU, tried without one."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dkpnet_ext.models import DKPNet
from dkpnet_ext.training import losses, stage
from dkpnet_ext.training.config import LossConfig


@pytest.mark.filterwarnings("ignore:dkpnet_ext")
@pytest.mark.parametrize("loss, sigma", [("mse", 4.0), ("mse", 0.0), ("poisson", 0.0), ("zip", 0.0), ("ssim", 4.0)])
def test_a_pass_reads_no_value_and_makes_no_size_of_one(loss, sigma):
    """Tensors on a GPU that have shapes but no values: what asks for a value (item, bool, tolist) or makes a size of one
    (nonzero, a mask as an index) raises. The registered operators take part by their shapes only; PyTorch's engine for
    gradients does not take such tensors where there is no GPU, so the backward pass is left out."""
    with FakeTensorMode(), torch.device("cuda"):
        model = DKPNet("resnet18", channels=16, num_domains=2, num_sub=2, link=losses.LINKS[loss]).train()
        fabric = SimpleNamespace(
            device=torch.device("cuda"), global_rank=0, world_size=1, backward=lambda total: None,
            no_backward_sync=lambda module, enabled: nullcontext(),
        )  # fmt: skip
        optim = SimpleNamespace(batch=4, accumulate=1)
        setting = SimpleNamespace(loss=LossConfig(loss=loss, sigma=sigma), optim=optim)
        batch = SimpleNamespace(
            images=torch.zeros(4, 3, 64, 64, dtype=torch.uint8), labels=torch.zeros(4, dtype=torch.int64),
            points=torch.zeros(9, 2), offsets=torch.zeros(5, dtype=torch.int64), sides=torch.zeros(4), targets=None,
        )  # fmt: skip
        half_made = SimpleNamespace(config=setting, fabric=fabric, model=model, wrapped=model, images=4)
        _, output, terms = stage.forward_backward(half_made, batch, True)
        assert terms["total"].is_cuda and output.kl.shape == (4,)


@pytest.fixture
def gpu_autocast():
    """`torch.autocast` of a GPU, which PyTorch leaves off where there is none."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    yield
    torch.set_autocast_enabled("cuda", False)


@pytest.mark.filterwarnings("ignore:dkpnet_ext")
@pytest.mark.parametrize("backbone", ["hrnet_w18_small", "resnet18", "tf_efficientnet_lite0"])
def test_all_features_are_bfloat16_under_a_gpus_autocast(gpu_autocast, backbone):
    """Its list of what stays float32 is not the CPU's: nearest neighbours (HRNet's fusions) are on it."""
    with FakeTensorMode(), torch.device("cuda"):
        model = DKPNet(backbone, channels=16, num_domains=2, num_sub=2).train()
        seen = []
        model.backbone.register_forward_hook(lambda module, inputs, features: seen.extend(f.dtype for f in features))
        model(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    assert set(seen) == {torch.bfloat16}


def test_heads_per_cell():
    """Against a loop; heads outside, images without heads, an empty batch of heads."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(50, 2, generator=generator) * 60 - 10
    for ends in ([0, 0, 20, 20, 50], [0, 50], [0, 0, 0]):
        offsets = torch.tensor(ends)
        expected = torch.zeros(len(ends) - 1, 1, 5, 6)
        for image, (begin, end) in enumerate(pairwise(ends)):
            for x, y in (points[begin:end] / 8).floor().long().tolist():
                if 0 <= x < 6 and 0 <= y < 5:
                    expected[image, 0, y, x] += 1
        assert torch.equal(losses.count_cells(points[: ends[-1]], offsets, (40, 41), 8), expected)
