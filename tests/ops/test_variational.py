"""variational: values, gradients, noise, selection, errors, and life inside compile, export and CUDA graphs."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.autograd import gradcheck, gradgradcheck

from dkpnet_ext.ops import reference, variational
from dkpnet_ext.ops.backend import use_backend

NAMES = ("z", "kl", "lse", "logdet2", "selected", "dmu", "dlogvar", "dcenters", "dprior_logvar")


def make(batch, dim, domains, subs, dtype=torch.float32, device="cpu", scale=1.0, seed=0):
    """(mu, logvar, centers, prior_logvar), labels: leaves that require a gradient, values exact in ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, dim), (batch, dim), (domains, subs, dim), (domains, dim)
    leaves = [(scale * torch.randn(shape, generator=generator)).to(device, dtype).requires_grad_() for shape in shapes]
    return leaves, torch.randint(domains, (batch,), generator=generator).to(device)


def results(backend, leaves, labels, **options):
    """All outputs and all gradients, with upstream gradients that differ from element to element."""
    with use_backend(backend):
        out = variational(*leaves, labels, **options)
        loss = sum(
            (t * torch.linspace(0.5, 1.5, t.numel(), device=t.device).view_as(t).to(t.dtype)).sum() for t in out[:4]
        )
        return *out, *torch.autograd.grad(loss, leaves)


def reference_results(dtype, leaves, labels, eps, **options):
    """The same in plain PyTorch, computed in ``dtype`` from the very same values."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in leaves]
    return results("reference", leaves, labels, eps=eps.to(dtype), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 3, 32, 257])
@pytest.mark.parametrize("dim", [1, 7, 64, 128, 512])
def test_errors_against_float64(backend, device, dtype, batch, dim, error_rule):
    large = batch * dim > 2**15  # fewer of these, for the sake of time
    shapes = [(1, 1), (5, 2), (17, 8)] if large else itertools.product((1, 2, 5, 17), (1, 2, 3, 8))
    samples = 2 if dim == 7 else 1
    for (domains, subs), seed in itertools.product(shapes, range({0: 1, 1: 8, 3: 3}.get(batch, 1))):
        leaves, labels = make(batch, dim, domains, subs, dtype, device, seed=seed)
        eps = torch.randn(samples, batch, dim, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
        got = results(backend, leaves, labels, eps=eps)
        plain = reference_results(dtype, leaves, labels, eps)
        truth = reference_results(torch.float64, leaves, labels, eps)
        assert torch.equal(got[4], truth[4])
        for index, name in enumerate(NAMES):
            if name != "selected":
                error_rule.add(name, got[index], plain[index], truth[index])
    error_rule.check(lambda name: 3 if name.startswith("d") else 2)


@given(
    st.integers(0, 6), st.integers(1, 40), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_any_shape_in_float64(batch, dim, domains, subs, samples, seed):
    leaves, labels = make(batch, dim, domains, subs, torch.float64, seed=seed)
    eps = torch.randn(samples, batch, dim, dtype=torch.float64)
    options = dict(eps=eps, seed=torch.tensor([seed]), dropout=0.2, batch_offset=seed)
    for name, a, b in zip(
        NAMES, results("cpp", leaves, labels, **options), results("reference", leaves, labels, **options)
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


def test_gradcheck(backend, device):
    if backend == "triton":
        pytest.skip("the Triton kernels have no float64")
    leaves, labels = make(4, 5, 3, 2, torch.float64, device)
    eps = torch.randn(2, 4, 5, dtype=torch.float64, device=device)
    with use_backend(backend):
        assert gradcheck(lambda *t: variational(*t, labels, eps=eps)[:4], leaves)


def test_gradgradcheck_of_the_reference():
    leaves, labels = make(3, 4, 3, 2, torch.float64, scale=0.5)
    eps = torch.randn(2, 3, 4, dtype=torch.float64)
    with use_backend("reference"):
        assert gradcheck(lambda *t: variational(*t, labels, eps=eps)[:4], leaves)
        assert gradgradcheck(lambda *t: variational(*t, labels, eps=eps)[:4], leaves)


def test_second_derivative_is_one_clear_error(backend, device):
    leaves, labels = make(3, 4, 2, 1, device=device)
    with use_backend(backend):
        (gradient,) = torch.autograd.grad(variational(*leaves, labels).kl.sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative.*use_backend\\('reference'\\)"):
        gradient.sum().backward()


def test_opcheck(backend, device):
    leaves, labels = make(3, 7, 3, 2, device=device)
    seed = torch.tensor([3], device=device)
    forward = torch.ops.dkpnet.variational.default
    torch.library.opcheck(forward, (*leaves, labels, seed, None, 2, 0.2, 5, backend))
    detached = [t.detach() for t in leaves]
    *out, selected, probabilities = forward(*detached, labels, seed, None, 2, 0.2, 5, backend)
    upstream = [torch.ones_like(t) for t in out]
    args = (*upstream, *detached, labels, seed, None, selected, probabilities, 5, backend)
    torch.library.opcheck(torch.ops.dkpnet.variational_backward.default, args)


def test_only_some_outputs_used(backend, device):
    """Outputs without an upstream gradient count as zeros."""
    leaves, labels = make(3, 7, 3, 2, device=device)
    seed = torch.tensor([3], device=device)
    for index in range(4):
        grads = []
        for name in (backend, "reference"):
            with use_backend(name):
                out = variational(*leaves, labels, seed=seed)
            grads.append(torch.autograd.grad(out[index].sum(), leaves, allow_unused=True))
        for got, want in zip(*grads):
            torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want)


def test_strided_and_expanded_inputs(backend, device):
    leaves, labels = make(6, 14, 4, 2, device=device)
    mu, logvar, centers, prior_logvar = (t.detach() for t in leaves)
    views = (
        mu[::2, ::2],
        logvar[0, 1::2].expand(3, 7),
        centers.transpose(0, 1)[..., ::2].transpose(0, 1),
        prior_logvar[:, :7],
    )
    labels = labels[1].expand(3)
    dense = [t.contiguous().requires_grad_() for t in views]
    views = [t.requires_grad_() for t in views]
    seed = torch.tensor([3], device=device)
    for a, b in zip(
        results(backend, views, labels, seed=seed), results(backend, dense, labels.contiguous(), seed=seed)
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [30.0, -30.0])
@pytest.mark.parametrize("which", ["logvar", "prior_logvar", "both", "opposite"])
def test_extreme_variances(backend, device, size, which):
    leaves, labels = make(5, 64, 3, 2, device=device, scale=0.5)
    with torch.no_grad():
        if which != "prior_logvar":
            leaves[1].fill_(size)
        if which != "logvar":
            leaves[3].fill_(-size if which == "opposite" else size)
    check_extreme(backend, leaves, labels)


def test_extreme_logits(backend, device):
    """z . u of the order of 1e4: the softmax is all but one-hot, nothing overflows."""
    leaves, labels = make(5, 64, 3, 2, device=device)
    with torch.no_grad():
        leaves[2].mul_(1e4 / 8)
    check_extreme(backend, leaves, labels)


def check_extreme(backend, leaves, labels):
    eps = torch.randn(1, *leaves[0].shape, generator=torch.Generator().manual_seed(1)).to(labels.device)
    got, truth = results(backend, leaves, labels, eps=eps), reference_results(torch.float64, leaves, labels, eps)
    for name, a, b in zip(NAMES, got, truth):
        assert torch.isfinite(a).all(), name
        # float32 carries these values to about its precision, relative to the largest.
        assert (a.double() - b).abs().max() <= 1e-5 * b.abs().max(), name


def test_same_bits_every_time(backend, device):
    leaves, labels = make(37, 65, 5, 3, device=device)
    seed = torch.tensor([11], device=device)
    first = results(backend, leaves, labels, seed=seed, dropout=0.2, num_samples=3)
    for _ in range(3):
        assert all(map(torch.equal, first, results(backend, leaves, labels, seed=seed, dropout=0.2, num_samples=3)))


def test_same_bits_on_any_number_of_threads():
    leaves, labels = make(257, 128, 5, 2)
    before = torch.get_num_threads()
    try:
        outcomes = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outcomes.append(results("cpp", leaves, labels, seed=torch.tensor([1]), num_samples=4))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, outcomes[0], outcomes[1])) and all(map(torch.equal, outcomes[0], outcomes[2]))


def noise(backend, device, batch, dim, samples=1, seed=5, first=0):
    zeros = torch.zeros(batch, dim, device=device)
    with use_backend(backend):
        out = variational(
            zeros, zeros, zeros[:1, None].expand(1, 1, dim) if batch else zeros.new_zeros(1, 1, dim),
            zeros.new_zeros(1, dim), torch.zeros(batch, dtype=torch.int64, device=device),
            seed=torch.tensor([seed], device=device), num_samples=samples, batch_offset=first,
        )  # fmt: skip
    return out.z.cpu()


def test_noise_is_the_reference_noise(backend, device):
    for batch, dim, samples, seed, first in [
        (5, 7, 3, 1, 0),
        (33, 128, 1, -(2**62), 10**10),
        (3, 513, 2, 2**63 - 1, 1),
    ]:
        got = noise(backend, device, batch, dim, samples, seed, first)
        want = noise("reference", "cpu", batch, dim, samples, seed, first)
        ulp = (got.view(torch.int32).long() - want.view(torch.int32).long()).abs()
        assert ulp[got.sign() == want.sign()].max() <= 2 and (got.sign() != want.sign()).sum() == 0


def test_noise_is_normal_and_independent(backend, device):
    values = noise(backend, device, 512, 128, 2).double()
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3
    count = values.numel()
    bound = 5 / count**0.5  # five standard deviations of a sample correlation
    flat = values.transpose(0, 1).flatten()
    for lag in (1, 2, 3, 4, 5, 128, 256):
        assert abs(torch.mean(flat[lag:] * flat[:-lag])) < bound, f"lag {lag}"
        assert abs(torch.mean(flat[lag:].square() * flat[:-lag].square()) - 1) < 3 * bound, f"squares, lag {lag}"
    other = noise(backend, device, 512, 128, 2, seed=6).double()
    assert abs(torch.mean(values * other)) < bound
    # 128 x 128 correlations between coordinates: the largest of 8128 normal deviates stays below 5.
    columns = values.flatten(0, 1)
    correlations = torch.corrcoef(columns.T) - torch.eye(128)
    assert correlations.abs().max() < 5 / columns.shape[0] ** 0.5


def test_first_draws_what_one_process_would(backend, device):
    leaves, labels = make(8, 9, 3, 2, device=device)
    seed = torch.tensor([4], device=device)
    whole = results(backend, leaves, labels, seed=seed, dropout=0.5, num_samples=2)
    mu, logvar = leaves[0][3:], leaves[1][3:]
    with use_backend(backend):
        part = variational(mu, logvar, *leaves[2:], labels[3:], seed=seed, dropout=0.5, num_samples=2, batch_offset=3)
    assert torch.equal(part.z, whole[0][:, 3:]) and torch.equal(part.selected, whole[4][3:])


def test_ties_take_the_lowest_index(backend, device):
    leaves, labels = make(4, 6, 3, 3, device=device)
    with torch.no_grad():
        leaves[2].copy_(leaves[2][:, :1].expand_as(leaves[2]).clone())
    with use_backend(backend):
        assert (variational(*leaves, labels).selected == 0).all()


def test_dropout_selects_as_the_reference(backend, device):
    leaves, labels = make(200, 16, 5, 3, device=device)
    seed = torch.tensor([9], device=device)
    chosen = []
    for name in (backend, "reference"):
        with use_backend(name):
            chosen.append(variational(*leaves, labels, seed=seed, dropout=0.2).selected)
    assert torch.equal(*chosen)
    with use_backend(backend):
        plain = variational(*leaves, labels, seed=seed).selected
    assert 0.02 < (plain != chosen[0]).float().mean() < 0.5  # it does something, but not too much


def test_gradient_reaches_selected_centres_only(backend, device):
    leaves, labels = make(2, 6, 4, 8, device=device)
    *_, selected, _, _, dcenters, _ = results(backend, leaves, labels)
    used = torch.zeros(4, 8, dtype=torch.bool, device=device)
    for c in range(4):
        used[c, selected[:, c]] = True
    assert (dcenters.abs().amax(-1) > 0).equal(used)


def test_seed_comes_from_the_default_generator(backend, device):
    leaves, labels = make(4, 6, 2, 1, device=device)
    with use_backend(backend):
        torch.manual_seed(3)
        a, b = variational(*leaves, labels).z, variational(*leaves, labels).z
        torch.manual_seed(3)
        c = variational(*leaves, labels).z
    assert torch.equal(a, c) and not torch.equal(a, b)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_computes_float32(backend, device, low):
    leaves, labels = make(4, 6, 2, 2, low, device)
    wide = [t.detach().float().requires_grad_() for t in leaves]
    seed = torch.tensor([2], device=device)
    for name in (backend, "reference"):
        with torch.autocast(device, dtype=torch.bfloat16), use_backend(name):
            out = variational(leaves[0], leaves[1], *wide[2:], labels, seed=seed)  # mixed, as in a model
            want = variational(*wide, labels, seed=seed)
        assert out.z.dtype == torch.float32 and all(map(torch.equal, out, want))
        out.kl.sum().backward()
        assert leaves[0].grad.dtype == low
    with torch.autocast(device, dtype=torch.bfloat16):
        raw = torch.ops.dkpnet.variational(*leaves[:2], *wide[2:], labels, seed, None, 1, 0.0, 0, backend)
    assert raw[0].dtype == torch.float32


def test_wrong_arguments_are_one_line_errors(backend, device):
    (mu, logvar, centers, prior), labels = make(4, 6, 3, 2, device=device)
    cases = [
        (ValueError, "logvar", dict(logvar=logvar[:3])),
        (ValueError, "centers", dict(centers=centers[..., :5])),
        (ValueError, "centers", dict(centers=centers[0])),
        (ValueError, "prior_logvar", dict(prior_logvar=prior[:2])),
        (ValueError, "labels", dict(labels=labels[:3])),
        (TypeError, "int64", dict(labels=labels.int())),
        (TypeError, "int64", dict(labels=torch.full((4,), float("nan"), device=device))),
        (TypeError, "centers must be torch.float32", dict(centers=centers.double())),
        (TypeError, "float32, bfloat16", dict(mu=labels[:, None].expand(4, 6))),
        (ValueError, "eps", dict(eps=torch.zeros(4, 6, device=device))),
        (ValueError, "seed", dict(seed=torch.zeros(2, dtype=torch.int64, device=device))),
        (ValueError, "num_samples", dict(num_samples=0)),
        (ValueError, "dropout", dict(dropout=1.0)),
        (ValueError, "logvar must be .* on meta", dict(logvar=logvar.to("meta"))),
        (ValueError, "labels must be .* on meta", dict(labels=labels.to("meta"))),
    ]
    for error, match, change in cases:
        options = dict(mu=mu, logvar=logvar, centers=centers, prior_logvar=prior, labels=labels) | change
        with use_backend(backend), pytest.raises(error, match=match) as caught:
            variational(**options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cpp", "reference"])
def test_wrong_values_on_the_cpu(name):
    leaves, labels = make(4, 6, 3, 2)
    for index, argument in enumerate(("mu", "logvar", "centers", "prior_logvar")):
        spoilt = [t.detach().clone() for t in leaves]
        spoilt[index].view(-1)[5] = float("nan")
        with use_backend(name), pytest.raises(ValueError, match=f"{argument} contains NaN"):
            variational(*spoilt, labels)


def with_label(leaves, labels, eps, upstream, name, device):
    """The six outputs and the four gradients, on any backend (plain PyTorch has no probabilities: None)."""
    tensors = [t.detach().to(device).requires_grad_() for t in leaves]
    labels, eps = labels.to(device), eps.to(device)
    if name == "reference":
        with use_backend(name):
            out = *variational(*tensors, labels, eps=eps, num_samples=2), None
    else:
        out = torch.ops.dkpnet.variational(*tensors, labels, None, eps, 2, 0.0, 0, name)
    return out, torch.autograd.grad(out[:4], tensors, [u.to(device) for u in upstream])


@pytest.mark.parametrize("bad", [-1, 3, 2**40])
@pytest.mark.parametrize(
    "name", ["reference", "cpp", *(pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda", "triton"))]
)
def test_a_wrong_label_spoils_its_own_image_only(name, bad):
    device = "cuda" if name in ("cuda", "triton") else "cpu"
    leaves, labels = make(5, 6, 3, 2)
    eps, image, others = torch.randn(2, 5, 6), 2, [0, 1, 3, 4]
    upstream = [torch.randn(2, 5, 6), *(torch.randn(5) for _ in range(3))]
    wrong = labels.clone()
    wrong[image] = bad
    out, grads = with_label(leaves, wrong, eps, upstream, name, device)
    z, kl, lse, logdet2, selected, probabilities = out
    for term in (kl, lse, logdet2, grads[0][:, 0], grads[1][:, 0]):
        assert term.isnan().tolist() == [b == image for b in range(5)]
    assert grads[0][image].isnan().all() and grads[1][image].isnan().all()
    if probabilities is not None:
        assert probabilities.isnan().all(-1).tolist() == [[b == image for b in range(5)]] * 2
    right = with_label(leaves, labels, eps, upstream, name, device)[0]
    assert torch.equal(z, right[0]) and torch.equal(selected, right[4])  # the label plays no part in these

    def rest(t, axis):
        return t.index_select(axis, torch.tensor(others))

    parts = [rest(leaves[0], 0), rest(leaves[1], 0), *leaves[2:]], rest(labels, 0), rest(eps, 1)
    without, without_grads = with_label(
        *parts, [rest(upstream[0], 1), *(rest(u, 0) for u in upstream[1:])], name, device
    )
    for got, want in zip((kl, lse, logdet2, grads[0], grads[1]), (*without[1:4], *without_grads[:2])):
        torch.testing.assert_close(got[others], want)
    torch.testing.assert_close(grads[2:], without_grads[2:])


@pytest.mark.parametrize("difference", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize(
    "name", ["reference", "cpp", *(pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda", "triton"))]
)
def test_kl_near_the_prior(name, difference):
    """A collapsed posterior: KL is half the square of small differences, which a sum of its terms loses."""
    device = "cuda" if name in ("cuda", "triton") else "cpu"
    check_kl_near_the_prior(name, difference, device)


def near_the_prior(difference, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    prior = torch.randn(2, 16, generator=generator)
    centers, labels = torch.randn(2, 1, 16, generator=generator), torch.tensor([0, 1, 1])
    shift = difference * (1 + torch.rand(3, 16, generator=generator))
    leaves = centers[labels, 0], prior[labels] + shift, centers, prior
    return [t.to(device).requires_grad_() for t in leaves], labels.to(device)


def check_kl_near_the_prior(name, difference, device="cpu"):
    leaves, labels = near_the_prior(difference, device)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    eps = torch.zeros(1, 3, 16, device=device)
    with use_backend(name):
        kl = variational(*leaves, labels, eps=eps).kl
        grads = torch.autograd.grad(kl.sum(), (leaves[1], leaves[3]))
    x = exact[1] - exact[3][labels]
    truth = 0.5 * (torch.expm1(x) - x).sum(1)
    torch.testing.assert_close(kl.double(), truth, rtol=1e-4, atol=0)
    for got, want in zip(grads, torch.autograd.grad(truth.sum(), (exact[1], exact[3]))):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=0)


def loss_of(*tensors, seed):
    out = variational(*tensors, seed=seed, dropout=0.2, num_samples=2)
    return out.z.square().sum() + out.kl.sum() + out.lse.sum() + out.logdet2.sum()


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile(backend, device, compiler):
    leaves, labels = make(6, 9, 3, 2, device=device)
    seed = torch.tensor([7], device=device)
    torch._dynamo.reset()
    compiled = torch.compile(loss_of, fullgraph=True, backend=compiler)
    with use_backend(backend):
        want = torch.autograd.grad(loss_of(*leaves, labels, seed=seed), leaves)
        got = torch.autograd.grad(compiled(*leaves, labels, seed=seed), leaves)
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(5, 8)
        self.centers = torch.nn.Parameter(torch.randn(3, 2, 4))
        self.prior_logvar = torch.nn.Parameter(torch.zeros(3, 4))

    def forward(self, x, labels, seed):
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return variational(mu, logvar, self.centers, self.prior_logvar, labels, seed=seed)


def test_export(backend, device):
    module = Small().to(device)
    inputs = (
        torch.randn(6, 5, device=device),
        torch.tensor([0, 1, 2, 0, 1, 2], device=device),
        torch.tensor([1], device=device),
    )
    with use_backend(backend):
        batch = torch.export.Dim("batch", min=2, max=64)
        program = torch.export.export(module, inputs, dynamic_shapes=({0: batch}, {0: batch}, None))
        assert any("dkpnet.variational" in str(node.target) for node in program.graph.nodes)
        inputs = inputs[0][:3], inputs[1][:3], inputs[2]
        for got, want in zip(program.module()(*inputs), module(*inputs)):
            assert torch.equal(got, want)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_cuda_graph(name):
    """Forward and backward are captured: no host synchronisation, no allocation of their own, the current stream."""
    leaves, labels = make(8, 16, 3, 2, device="cuda")
    seed = torch.tensor([1], device="cuda")
    with use_backend(name):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                torch.autograd.grad(loss_of(*leaves, labels, seed=seed), leaves)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = torch.autograd.grad(loss_of(*leaves, labels, seed=seed), leaves)
        seed.fill_(123)
        with torch.no_grad():
            leaves[0].normal_()
        graph.replay()
        for got, want in zip(captured, torch.autograd.grad(loss_of(*leaves, labels, seed=seed), leaves)):
            assert torch.equal(got, want)


def test_reference_needs_no_compiled_module():
    """The operator's own contract: reference and public function are the same function of the same noise."""
    leaves, labels = make(4, 6, 3, 2)
    seed = torch.tensor([1])
    with use_backend("reference"):
        out = variational(*leaves, labels, seed=seed, num_samples=2)
    want = reference.variational(*leaves, labels, seed=seed, eps=None, num_samples=2, dropout=0.0, batch_offset=0)
    assert all(map(torch.equal, out, want))


def test_scores_that_are_no_numbers_choose_the_first(backend, device):
    """An infinite mu times a centre of 0. At commit 4eb5a94 plain PyTorch chose the last sub-component, the loops the first."""
    mu = torch.tensor([[torch.inf, 0.0, 0.0, 0.0]], device=device)
    centers = torch.ones(1, 3, 4, device=device)
    centers[..., 0] = 0
    labels = torch.zeros(1, dtype=torch.int64, device=device)
    with use_backend(backend):
        out = variational(mu, 0 * centers[0, :1], centers, 0 * centers[0, :1], labels, eps=0 * centers[:, :1])
    assert out.selected.tolist() == [[0]]
