"""bayesian: the paper's formulas written out in float64, whose gradient is PyTorch's own; edges, compile."""

import pytest
import torch

from dkpnet_ext.ops import bayesian, native, use_backend

needs_cpp = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
each_backend = pytest.mark.parametrize("name", ["reference", pytest.param("cpp", marks=needs_cpp)])
each_form = pytest.mark.parametrize("form", ["paper", "2021"])


def make(*counts, size=(16, 13), seed=0):
    """(density, points, offsets, targets) of images with so many heads."""
    generator = torch.Generator().manual_seed(seed)
    density = torch.randn(len(counts), 1, *size, generator=generator) * 0.1 + 0.2
    points = torch.rand(sum(counts), 2, generator=generator) * torch.tensor([size[1] * 8.0, size[0] * 8.0])
    return density, points, torch.tensor([0, *counts]).cumsum(0), torch.rand(sum(counts), generator=generator)


def literal(density, points, targets, side, form, sigma=8.0):
    """The loss of one map [h, w]."""
    if not len(points):
        return density.sum().abs()
    y, x = (torch.arange(n, dtype=torch.float64) * 8 + 4 for n in density.shape)
    squared = (points[:, :1, None].double() - x) ** 2 + (points[:, 1:, None].double() - y[:, None]) ** 2
    nearest = squared.amin(0, keepdim=True)
    ground = (0.15 * side - nearest.sqrt()) ** 2 if form == "paper" else side**2 / (nearest + 1e-5)
    posterior = torch.softmax(-torch.cat([squared, ground]) / (2 * sigma**2), 0)
    counts = (posterior * density).sum((1, 2))
    return (targets.double() - counts[:-1]).abs().sum() + counts[-1].abs()


def check(name, density, points, offsets, targets, form, side=100.0):
    density = density.clone().requires_grad_()
    truth = density.detach().double().requires_grad_()
    with use_backend(name):
        losses = bayesian(density, points, offsets, side, targets=targets, form=form)
    wanted = torch.stack(
        [literal(truth[i, 0], points[a:b], targets[a:b], side, form) for i, (a, b) in
         enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))]
    )  # fmt: skip
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-6, atol=1e-6)
    weights = torch.arange(1.0, len(density) + 1)
    (got,) = torch.autograd.grad(losses @ weights, density)
    (want,) = torch.autograd.grad(wanted @ weights.double(), truth)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6)


@each_backend
@each_form
@pytest.mark.parametrize("size", [(16, 13), (1, 1), (1, 20), (9, 8)], ids=str)
def test_against_the_formulas(name, form, size):
    check(name, *make(40, 0, 1, 7, size=size), form)


@each_backend
@each_form
def test_many_heads(name, form):
    check(name, *make(2000, size=(32, 32)), form, side=256.0)


@each_backend
@each_form
def test_heads_on_borders_on_each_other_outside_and_far_away(name, form):
    density, _, _, _ = make(0, size=(60, 60))
    points = torch.tensor([[0.0, 0], [480, 480], [4, 4], [4, 4], [-300, 20], [1e30, 5]])
    check(name, density, points, torch.tensor([0, 6]), torch.ones(6), form, side=480.0)
    check(name, density, points[:1], torch.tensor([0, 1]), torch.ones(1), form, side=480.0)


@each_backend
@each_form
def test_cells_that_are_far_from_every_head(name, form):
    """Up to 670 pixels: exp(-distance^2 / (2 sigma^2)) is no number there, while its ratio between two heads is."""
    density, _, _, _ = make(0, size=(60, 60))
    points = torch.tensor([[3.0, 5], [9, 2], [20, 14], [1, 30]])
    check(name, density, points, torch.tensor([0, 4]), torch.full((4,), 0.5), form, side=1e5)


@each_backend
def test_default_targets_sides_and_no_density(name):
    density, points, offsets, _ = make(9, 5)
    with use_backend(name):
        one = bayesian(density, points, offsets, 128.0)
        each = bayesian(density, points, offsets, torch.tensor([128.0, 128.0]), targets=torch.ones(14), ratio=0.15)
        empty = bayesian(density * 0, points, offsets, 128.0)
    assert torch.equal(one, each)
    assert empty.tolist() == [9, 5]


@needs_cpp
def test_the_same_bits_for_any_number_of_threads():
    density, points, offsets, targets = make(300, 3, 200, size=(64, 64))
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            leaf = density.clone().requires_grad_()
            loss = bayesian(leaf, points, offsets, 512.0, targets=targets)
            results.append((loss.detach(), *torch.autograd.grad(loss.sum(), leaf)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for result in results for a, b in zip(result, results[0], strict=True))


@each_backend
def test_opcheck_and_compile(name):
    density, points, offsets, targets = make(6, 0, 2, size=(9, 9))
    density.requires_grad_()
    raw = density, points, offsets, targets, torch.full((3,), 72.0), 8, 8.0, "paper", 0.15, name
    torch.library.opcheck(torch.ops.dkpnet.bayesian.default, raw)

    def function(density):
        return bayesian(density * 2, points, offsets, 72.0).sum()

    with use_backend(name):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        got, want = (torch.autograd.grad(f(density), density)[0] for f in (compiled, function))
    assert torch.equal(got, want)


def test_bad_input():
    density, points, offsets, targets = make(4, 2)
    for arguments, options, message in [
        ((density[:1], points, offsets, 100.0), {}, "density"),
        ((density, points, offsets - 1, 100.0), {}, "offsets"),
        ((density, points * float("nan"), offsets, 100.0), {}, "finite"),
        ((density, points, offsets, torch.ones(3)), {}, "side"),
        ((density, points, offsets, 100.0), {"targets": targets[1:]}, "targets"),
        ((density, points, offsets, 100.0), {"form": "other"}, "form"),
        ((density, points, offsets, 100.0), {"sigma": 0.0}, "sigma"),
    ]:
        with pytest.raises(ValueError, match=message):
            bayesian(*arguments, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["paper", "2021"])
def test_cuda_agrees_with_plain_pytorch(form):
    density, points, offsets, targets = (t.cuda() for t in make(40, 0, 1, 700, size=(40, 37)))
    results = []
    for name in ("cuda", "cuda", "reference"):
        leaf = density.clone().requires_grad_()
        with use_backend(name):
            loss = bayesian(leaf, points, offsets, 100.0, targets=targets, form=form)
        results.append((loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*results[:2], strict=True)), "the same bits every run"
    torch.testing.assert_close(results[0], results[2], rtol=1e-5, atol=1e-5)
