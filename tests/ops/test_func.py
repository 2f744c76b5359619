"""`torch.func.grad` and forward mode of every operator: the gradient of plain PyTorch, or one line that says why there is none."""

import pytest
import torch
from torch.autograd import forward_ad

from dkpnet_ext import ops

POINTS, OFFSETS = torch.tensor([[10.0, 12.0], [40.5, 3.0], [5.0, 5.0]]), torch.tensor([0, 2, 3])


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def variational(mu):
    labels, seed = torch.tensor([0, 1, 2, 0]), torch.tensor([7])
    out = ops.variational(mu, random(4, 16), random(3, 2, 16), random(3, 16), labels, seed=seed)
    return out.kl.sum() + out.lse.sum() + out.z.square().sum()


BRANCHES = [random(2, 8, 16, 16), random(2, 16, 8, 8)]
LAYERS = random(64, 64), random(64), random(32, 64), random(32), random(1, 32), random(1)
DIFFERENTIABLE = {  # a function of one tensor, and that tensor's shape
    "variational": (variational, (4, 16)),
    "attended_head": (
        lambda y: ops.attended_head(BRANCHES, y, random(64, 24), random(64), *LAYERS, (16, 16)).square().sum(),
        (2, 64),
    ),
    "head": (
        lambda y: ops.head(BRANCHES, y, random(64, 24), random(64), *LAYERS, (16, 16)).square().sum(),
        (2, 64),
    ),
    "pool": (lambda w: ops.pool(BRANCHES, w, random(64), (16, 16)).square().sum(), (64, 24)),
    "pooled_features": (lambda w: ops.pooled_features(BRANCHES, w, random(64), (16, 16)).square().sum(), (64, 24)),
    "reweight": (lambda x: ops.reweight(x, random(2, 8)).square().sum(), (2, 8, 4, 4)),
    "depthwise": (lambda x: ops.depthwise(x, random(8, 1, 3, 3), padding=1).square().sum(), (2, 8, 6, 6)),
    "pointwise": (lambda x: ops.pointwise(x, random(4, 8, 1, 1)).square().sum(), (2, 8, 6, 6)),
}
BLOCK = ops.InvertedResidual(None, (random(8, 1, 3, 3), None), (random(4, 8, 1, 1), None))
DIFFERENTIABLE["inverted_residual"] = (lambda x: ops.inverted_residual(x, BLOCK, 1).square().sum(), (2, 8, 6, 6))
POINTWISE = ops.Projection(random(4, 8, 1, 1))
DIFFERENTIABLE["projection"] = (lambda x: ops.projection(x, POINTWISE).square().sum(), (2, 8, 6, 6))
REFUSED = {
    "transport": lambda density: ops.transport(density, POINTS, OFFSETS).objective.sum(),
    "bayesian": lambda density: ops.bayesian(density, POINTS, OFFSETS, 48.0).sum(),
}
CONSTANT = {  # targets: not differentiable, said in the docstring
    "density": lambda points: ops.density(points, OFFSETS, (48, 64)).sum(),
    "knn_sigma": lambda points: ops.knn_sigma(points, OFFSETS).sum(),
}


def test_all_operators_are_here():
    functions = {name for name in ops.__all__ if name.islower()} - {"use_backend"}
    assert functions == DIFFERENTIABLE.keys() | REFUSED.keys() | CONSTANT.keys()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient(name):
    function, shape = DIFFERENTIABLE[name]
    x = random(*shape).requires_grad_()
    with ops.use_backend("reference"):
        (expected,) = torch.autograd.grad(function(x), x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(torch.func.grad(function)(x.detach()), expected)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name):
    message = f"dkpnet_ext: {name} does not run under torch.func; take its gradient with torch.autograd.grad"
    with pytest.raises(RuntimeError) as error:
        torch.func.grad(REFUSED[name])(random(2, 1, 6, 8))
    assert str(error.value) == message


@pytest.mark.parametrize("name", CONSTANT)
def test_targets_have_no_gradient(name):
    assert not torch.func.grad(CONSTANT[name])(POINTS).any()
    assert "not differentiable" in getattr(ops, name).__doc__


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_forward_mode(name):
    """At commit 4eb5a94 projection and inverted_residual lost the tangent without a word, others refused."""
    function, shape = DIFFERENTIABLE[name]
    x, direction = random(*shape), random(*shape) - 0.5
    with torch.enable_grad():
        grad = torch.func.grad(function)(x)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(x, direction))).tangent
    torch.testing.assert_close(tangent, (grad * direction).sum(), rtol=1e-4, atol=1e-4)
