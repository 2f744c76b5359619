"""reweight: values, gradients, layouts, errors, and life inside compile, export and CUDA graphs."""

from __future__ import annotations

import time
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from dkpnet_ext.ops import reweight
from dkpnet_ext.ops.backend import use_backend

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def make(shape, dtype=torch.float32, device="cpu", layout=torch.contiguous_format, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).to(device, dtype).contiguous(memory_format=layout)
    return x.requires_grad_(), torch.rand(shape[:2], generator=generator).to(device, dtype).requires_grad_()


def results(backend, x, attention):
    with use_backend(backend):
        out = reweight(x, attention)
    upstream = torch.linspace(-1, 1, out.numel(), device=x.device).view_as(out).to(out.dtype)
    return out, *torch.autograd.grad(out, (x, attention), upstream)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    "shape",
    [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (1, 1, 1, 1), (3, 5, 7, 9), (2, 64, 1, 1), (2, 130, 13, 11), (2, 8, 63, 65),
     (1, 3, 101, 103), (257, 2, 3, 5)],
    ids=str,
)  # fmt: skip
def test_errors_against_float64(backend, device, shape, layout, dtype, error_rule):
    x, attention = make(shape, dtype, device, layout)
    got, plain = results(backend, x, attention), results("reference", x, attention)
    truth = results("reference", *(t.detach().double().requires_grad_() for t in (x, attention)))
    for index, name in enumerate(("out", "dx", "dattention")):
        error_rule.add(name, got[index], plain[index], truth[index])
    error_rule.check(lambda name: 3 if name.startswith("d") else 2)
    if x.numel():
        assert got[0].stride() == x.stride() == got[1].stride()


@given(st.tuples(*(st.integers(0, 9) for _ in range(4))), st.sampled_from(LAYOUTS), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_any_shape_in_float64(shape, layout, seed):
    x, attention = make(shape, torch.float64, layout=layout, seed=seed)
    for a, b in zip(results("cpp", x, attention), results("reference", x, attention)):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_gradcheck(backend, device, layout):
    if backend == "triton":
        pytest.skip("the Triton kernels have no float64")
    inputs = make((2, 3, 3, 2), torch.float64, device, layout)
    with use_backend(backend):
        assert gradcheck(reweight, inputs)


def test_gradgradcheck_of_the_reference():
    with use_backend("reference"):
        assert gradgradcheck(reweight, make((2, 3, 2, 2), torch.float64))


def test_second_derivative_is_one_clear_error(backend, device):
    x, attention = make((2, 3, 4, 5), device=device)
    with use_backend(backend):
        (gradient,) = torch.autograd.grad(reweight(x, attention).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative.*use_backend\\('reference'\\)"):
        gradient.sum().backward()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_opcheck(backend, device, layout):
    x, attention = make((2, 3, 4, 5), device=device, layout=layout)
    torch.library.opcheck(torch.ops.dkpnet.reweight.default, (x, attention, backend))
    x, attention = x.detach(), attention.detach()
    torch.library.opcheck(torch.ops.dkpnet.reweight_backward.default, (x.clone(), x, attention, backend))


def test_strided_expanded_and_misaligned_inputs(backend, device):
    base = torch.randn(4, 6, 10, 12, device=device)
    weights = torch.rand(4, 12, device=device)
    cases = [
        (base[:, :, ::2, 1::2], weights[:, ::2]),
        (base[:1].expand(4, 6, 10, 12), weights[:1, :6].expand(4, 6)),
        (base.transpose(2, 3), weights[:, :6].t().contiguous().t()),
        # Contiguous, but not at a multiple of 16 bytes: the vectorised path must not be taken.
        (base.flatten()[1:1441].view(2, 6, 10, 12), weights.flatten()[1:13].view(2, 6)),
        (base.flatten()[1:961].view(2, 5, 12, 8).permute(0, 3, 1, 2), weights.flatten()[1:17].view(2, 8)),
    ]
    for x, attention in cases:
        got = results(backend, x.requires_grad_(), attention.requires_grad_())
        dense = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        for a, b in zip(got, results("reference", dense, attention.detach().clone().requires_grad_())):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        x.requires_grad_(False), attention.requires_grad_(False)


def test_a_channel_slice_stays_channels_last(backend, device):
    whole, attention = make((2, 12, 5, 6), device=device, layout=torch.channels_last)
    x = whole.detach()[:, 2:9].requires_grad_()
    out, dx, _ = results(backend, x, attention.detach()[:, 2:9].requires_grad_())
    assert out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous()
    torch.testing.assert_close(out, x * attention[:, 2:9, None, None])
    assert dx.shape == x.shape


def test_frozen_attention_costs_one_multiplication(backend, device):
    x, attention = make((2, 8, 5, 6), device=device)
    with use_backend(backend), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        (dx,) = torch.autograd.grad(reweight(x, attention.detach()).sum(), x)
    called = [event.key for event in profile.key_averages() if event.key.startswith("dkpnet::")]
    assert called == ["dkpnet::reweight"]
    torch.testing.assert_close(dx, attention.detach()[:, :, None, None].expand_as(x))


def test_upstream_gradient_of_another_layout(backend, device):
    for layout in LAYOUTS:
        x, attention = make((2, 8, 5, 6), device=device, layout=layout)
        with use_backend(backend):
            summed = torch.autograd.grad(reweight(x, attention).sum(), (x, attention))  # an expanded gradient
            other = torch.autograd.grad(reweight(x, attention).transpose(2, 3).contiguous().sin().sum(), (x, attention))
        with use_backend("reference"):
            for got, f in ((summed, torch.sum), (other, lambda t: t.sin().sum())):
                want = torch.autograd.grad(f(reweight(x, attention)), (x, attention))
                for a, b in zip(got, want):
                    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_extreme_values(backend, device):
    x, attention = make((2, 3, 4, 5), device=device)
    with torch.no_grad():
        x.view(-1)[:4] = torch.tensor([float("inf"), float("nan"), 3e38, -3e38], device=device)
        attention[0, 0] = 2.0
    for a, b in zip(results(backend, x, attention), results("reference", x, attention)):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_same_bits_every_time(backend, device):
    for layout in LAYOUTS:
        x, attention = make((3, 37, 41, 43), device=device, layout=layout)
        first = results(backend, x, attention)
        for _ in range(3):
            assert all(map(torch.equal, first, results(backend, x, attention)))


def test_same_bits_on_any_number_of_threads():
    before = torch.get_num_threads()
    try:
        # Of one image with many channels, channels_last, threads take narrower stripes of channels.
        for layout, shape in (
            (LAYOUTS[0], (4, 70, 41, 43)),
            (LAYOUTS[1], (4, 70, 41, 43)),
            (LAYOUTS[1], (1, 600, 21, 23)),
        ):
            x, attention = make(shape, layout=layout)
            outcomes = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                outcomes.append(results("cpp", x, attention))
            assert all(map(torch.equal, outcomes[0], outcomes[1])) and all(map(torch.equal, outcomes[0], outcomes[2]))
    finally:
        torch.set_num_threads(before)


def test_float16_is_as_vectorised_as_bfloat16():
    """Scalar conversions take ten times as long. Processor time, in turns: what else the machine does matters little."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for layout in LAYOUTS:
            inputs = {dtype: make((1, 512, 48, 48), dtype, layout=layout) for dtype in (torch.bfloat16, torch.float16)}
            seconds = {dtype: [] for dtype in inputs}
            for _ in range(9):
                for dtype, (x, attention) in inputs.items():
                    start = time.process_time()
                    torch.ops.dkpnet.reweight(x.detach(), attention.detach(), "cpp")
                    seconds[dtype].append(time.process_time() - start)
            assert median(seconds[torch.float16]) < 3 * median(seconds[torch.bfloat16]), layout
    finally:
        torch.set_num_threads(threads)


def test_attention_of_another_dtype(backend, device):
    """Under autocast the features are often narrower than the weights: the result has the features' dtype."""
    x, attention = make((2, 3, 4, 5), torch.bfloat16, device)[0], torch.rand(2, 3, device=device, requires_grad=True)
    out, _, dattention = results(backend, x, attention)
    assert out.dtype == torch.bfloat16 and dattention.dtype == torch.float32


def test_wrong_arguments_are_one_line_errors(backend, device):
    x, attention = make((2, 3, 4, 5), device=device)
    cases = [
        (ValueError, "needs x \\[B, K, H, W\\]", x[0], attention),
        (ValueError, "needs x \\[B, K, H, W\\]", x, attention[:, :2]),
        (ValueError, "attention on meta", x, attention.to("meta")),
        (TypeError, "floating point", x.int(), attention),
    ]
    for error, match, *arguments in cases:
        with use_backend(backend), pytest.raises(error, match=match) as caught:
            reweight(*arguments)
        assert "\n" not in str(caught.value)


def loss_of(x, attention):
    return reweight(x, attention).square().sum()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_compile(backend, device, layout):
    x, attention = make((2, 3, 4, 5), device=device, layout=layout)
    torch._dynamo.reset()
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    with use_backend(backend):
        want = torch.autograd.grad(loss_of(x, attention), (x, attention))
        for a, b in zip(torch.autograd.grad(compiled(x, attention), (x, attention)), want):
            torch.testing.assert_close(a, b)


def test_export(backend, device):
    class Module(torch.nn.Module):
        def forward(self, x):
            return reweight(x, torch.sigmoid(x.mean((2, 3))))

    x = torch.randn(2, 3, 6, 5, device=device)
    with use_backend(backend):
        rows = torch.export.Dim("rows", min=2, max=64)
        program = torch.export.export(Module(), (x,), dynamic_shapes=({2: rows},))
        assert any("dkpnet.reweight" in str(node.target) for node in program.graph.nodes)
        assert torch.equal(program.module()(x[:, :, :4]), Module()(x[:, :, :4]))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_cuda_graph(name, layout):
    x, attention = make((2, 8, 9, 11), device="cuda", layout=layout)
    with use_backend(name):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                torch.autograd.grad(loss_of(x, attention), (x, attention))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = torch.autograd.grad(loss_of(x, attention), (x, attention))
        with torch.no_grad():
            x.normal_()
        graph.replay()
        for got, want in zip(captured, torch.autograd.grad(loss_of(x, attention), (x, attention))):
            assert torch.equal(got, want)


def test_torch_func_runs_the_reference():
    """torch.func.grad of an operator alone; a forced kernel is one line that says why not."""
    y = torch.rand(2, 3)
    x = torch.randn(2, 3, 4, 5)
    gradient = torch.func.grad(lambda x: reweight(x, y).square().sum())(x)
    torch.testing.assert_close(gradient, 2 * x * y[:, :, None, None].square())
    batched = torch.func.vmap(reweight, in_dims=(0, None))(torch.stack([x, x]), y)
    torch.testing.assert_close(batched[1], x * y[:, :, None, None])
    with use_backend("cpp"), pytest.raises(RuntimeError, match="under torch.func, not on 'cpp'"):
        torch.func.grad(lambda x: reweight(x, y).sum())(x)
