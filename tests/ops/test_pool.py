"""pool: values, gradients, layouts, and how many launches pool and head take."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from dkpnet_ext.ops import head, native, pool, pooled_features, reference, use_backend


def make(size, sides, dtype=torch.float32, layout=torch.contiguous_format):
    generator = torch.Generator().manual_seed(0)
    branches = [
        torch.randn(2, 3 + j, *side, generator=generator).to(dtype).contiguous(memory_format=layout)
        for j, side in enumerate(sides)
    ]
    channels = sum(branch.shape[1] for branch in branches)
    return branches, torch.randn(7, channels, generator=generator), torch.randn(7, generator=generator), size


CASES = {
    "multiples": ((12, 16), [(12, 16), (6, 8), (3, 4)]),
    "one axis is no multiple": ((12, 16), [(12, 16), (6, 5)]),
    "no multiples": ((13, 17), [(13, 17), (7, 9), (4, 5), (1, 1)]),
}


def definition(branches, weight, bias, size):
    """Upsample, concatenate, 1x1 convolution, mean: float64."""
    upsampled = [F.interpolate(b.double(), size=size, mode="bilinear", align_corners=False) for b in branches]
    return F.linear(torch.cat(upsampled, 1).mean((2, 3)), weight.double(), bias.double())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_mean_of_the_necks_output(name, dtype, layout):
    case = make(*CASES[name], dtype, layout)
    got, truth = pool(*case), definition(*case)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.double(), truth, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(got, reference.pool(*case), rtol=2e-6, atol=2e-6)
    assert pooled_features is pool


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    branches, weight, bias, size = make(*CASES[name], torch.float64)
    inputs = [t.double().requires_grad_() for t in (*branches, weight, bias)]
    assert gradcheck(lambda *t: pool(t[:-2], t[-2], t[-1], size), inputs)


def test_wrong_arguments_are_one_line_errors():
    branches, weight, bias, size = make(*CASES["multiples"])
    for call in (
        lambda: pool([], weight, bias, size),
        lambda: pool([branches[0][0]], weight, bias, size),
        lambda: pool(branches, weight[:, 1:], bias, size),
    ):
        with pytest.raises(ValueError, match="^pool: ") as caught:
            call()
        assert "\n" not in str(caught.value)


VIEWS = {"view", "_unsafe_view", "unsqueeze", "squeeze", "expand", "transpose", "t", "permute", "detach", "alias", "slice",
         "split", "split_with_sizes", "select", "as_strided", "unflatten"}  # fmt: skip


class Launches(TorchDispatchMode):
    """The operators called that do something: on a GPU each is a launch, or more."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name not in VIEWS and not name.startswith("empty") and not name.startswith("new_empty"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def paper_case():
    branches, *_ = make((24, 24), [(24, 24), (12, 12), (6, 6)])
    channels = sum(branch.shape[1] for branch in branches)
    shapes = [(512, channels), (512,), (64, 512), (64,), (32, 64), (32,), (1, 32), (1,)]
    return branches, torch.rand(2, 512), [torch.randn(shape) / 10 for shape in shapes], (24, 24)


def test_number_of_launches():
    branches, attention, parameters, size = paper_case()
    with Launches() as launches:
        pool(branches, parameters[0], parameters[1], size)
    assert len(launches.names) <= 6, launches.names
    if native.missing:
        pytest.skip(native.missing)
    with use_backend("cpp"), Launches() as launches:
        head(branches, attention, *parameters, size)
    assert len(launches.names) <= 20, launches.names


def test_a_frozen_backbone_pays_no_product_of_the_features_size():
    """The fine branch's gradient is a matrix product at full size, the coarser ones' are downsampled."""
    if native.missing:
        pytest.skip(native.missing)
    branches, attention, parameters, size = paper_case()
    counts = {}
    for frozen in (True, False):
        leaves = [t.detach().requires_grad_() for t in parameters]
        features = [branch.detach().requires_grad_(not frozen) for branch in branches]
        with use_backend("cpp"):
            density = head(features, attention, *leaves, size)
            with Launches() as launches:
                density.sum().backward()
        counts[frozen] = launches.names.count("bmm")
        assert all(t.grad is not None for t in leaves)
        assert all((t.grad is None) == frozen for t in features)
    assert counts[False] - counts[True] == len(branches)  # the data's product of every branch


def test_head_under_torch_func():
    branches, attention, parameters, size = paper_case()
    weight = torch.func.grad(lambda w: head(branches, attention, w, *parameters[1:], size).sum())(parameters[0])
    leaf = parameters[0].clone().requires_grad_()
    with use_backend("reference"):
        (want,) = torch.autograd.grad(head(branches, attention, leaf, *parameters[1:], size).sum(), leaf)
    torch.testing.assert_close(weight, want, rtol=1e-3, atol=1e-3)
