"""pointwise: values, gradients, layouts, errors, and life inside compile and autocast."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from dkpnet_ext.ops import backend as backends
from dkpnet_ext.ops import pointwise
from dkpnet_ext.ops.backend import use_backend

from .test_depthwise import DTYPES, NAMES, check_rule, copies, needs_cpp, off_kinks, results


def make(batch=2, channels=24, width=40, size=(11, 14), dtype=torch.float32, layout=torch.channels_last, seed=0):
    """(x, weight, bias), leaves that need a gradient; x of the dtype, the rest float32."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    x = draw(batch, channels, *size, scale=3).to(dtype).contiguous(memory_format=layout)
    weight, bias = draw(width, channels, 1, 1, scale=channels**-0.5), draw(width) + 2
    return tuple(t.requires_grad_() for t in (x, weight, bias))


def literal(x, weight, bias, activation):
    out = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype))
    return {"none": out, "relu": out.clamp_min(0), "relu6": out.clamp(0, 6)}[activation]


def under(backend):
    def function(*arguments):
        with use_backend(backend):
            return pointwise(*arguments)

    return function


def check_errors(inputs, activation, rule):
    dtype = inputs[0].dtype
    got, plain = results(under("cpp"), inputs, activation), results(literal, copies(inputs, dtype), activation)
    truth = results(literal, copies(inputs, torch.float64), activation)
    for name, mine, theirs, exact in zip(NAMES, got, plain, truth, strict=True):
        rule.add(name, mine.to(dtype), theirs, exact)


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_errors_against_float64(activation, dtype, error_rule):
    for channels, width, size in ((3, 5, (9, 12)), (16, 96, (16, 16)), (24, 144, (21, 13)), (130, 24, (6, 33))):
        check_errors(make(4, channels, width, size, dtype), activation, error_rule)
    check_rule(error_rule)


@needs_cpp
@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 40), width=st.integers(1, 70),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)), activation=st.sampled_from(["none", "relu", "relu6"]),
)  # fmt: skip
def test_any_shape(batch, channels, width, size, activation):
    inputs = make(batch, channels, width, size)
    exact_inputs = copies(inputs, torch.float64)
    keep = off_kinks(literal(*exact_inputs, "none"))
    got = results(under("cpp"), inputs, activation, keep=keep)
    expected = results(literal, exact_inputs, activation, keep=keep)
    for name, mine, exact in zip(NAMES, got, expected, strict=True):
        torch.testing.assert_close(mine, exact.float(), rtol=1e-4, atol=1e-4, msg=name)


@needs_cpp
def test_without_onednn_activations(monkeypatch):
    """Where torch cannot be asked for a convolution with an activation, the values are the same."""
    import sys

    inputs = make()
    for activation in ("none", "relu", "relu6"):
        want = results(under("cpp"), inputs, activation)
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["dkpnet_ext.ops.pointwise"], "fuses", lambda dtype: False)
            got = results(under("cpp"), inputs, activation)
        for mine, other in zip(got, want, strict=True):
            torch.testing.assert_close(mine, other)


@needs_cpp
def test_long_sums(error_rule):
    inputs = tuple(t.detach().abs().requires_grad_() for t in make(2, 5, 6, (300, 310)))
    check_errors(inputs, "none", error_rule)
    check_rule(error_rule)


@needs_cpp
def test_empty_batch():
    out, *grads = results(under("cpp"), make(0), "relu")
    assert out.shape == (0, 40, 11, 14)
    assert all((grad == 0).all() for grad in grads)


@needs_cpp
def test_other_layouts():
    x, weight, bias = make(3, 24, 16, (12, 16))
    wide = torch.randn(3, 40, 24, 16).contiguous(memory_format=torch.channels_last)
    for view in (
        x.detach().contiguous(), x.detach().transpose(2, 3), wide[:, 8:32, ::2], x.detach()[:1].expand(3, -1, -1, -1),
        wide.flatten()[3 : 3 + x.numel()].view(3, 12, 16, 24).permute(0, 3, 1, 2),  # not at a multiple of 16 bytes
    ):  # fmt: skip
        inputs = tuple(t.detach().requires_grad_() for t in (view, weight, bias))
        got = results(under("cpp"), inputs, "relu6")
        assert got[0].is_contiguous(memory_format=torch.channels_last)
        expected = results(literal, copies(inputs, torch.float64), "relu6")
        for name, mine, exact in zip(NAMES, got, expected, strict=True):
            torch.testing.assert_close(mine, exact.float(), rtol=1e-4, atol=1e-4, msg=name)


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_twice(dtype):
    inputs = make(3, 40, 150, (60, 58), dtype)
    first, second = results(under("cpp"), inputs, "relu6"), results(under("cpp"), inputs, "relu6")
    assert all(map(torch.equal, first, second))


@needs_cpp
def test_number_of_threads_changes_no_bit_of_the_bias():
    inputs, threads, outcomes = make(3, 4, 150, (60, 58)), torch.get_num_threads(), []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            outcomes.append(results(under("cpp"), inputs, "relu6")[3])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*outcomes)


@needs_cpp
def test_partial_gradients():
    x, weight, bias = make()
    _, dx, dweight, dbias = results(under("cpp"), (x, weight, bias), "relu6")
    upstream = torch.randn((2, 40, 11, 14), generator=torch.Generator().manual_seed(1))
    with use_backend("cpp"):
        (got,) = torch.autograd.grad(pointwise(x, weight.detach(), bias.detach(), "relu6"), x, upstream)
        assert torch.equal(got, dx)
        got = torch.autograd.grad(pointwise(x.detach(), weight, bias, "relu6"), (weight, bias), upstream)
        assert torch.equal(got[0], dweight) and torch.equal(got[1], dbias)


@needs_cpp
def test_nan_reaches_the_output_and_the_weights():
    """With an activation oneDNN makes a NaN of the output 0; the weight's gradient shows it all the same."""
    x, weight, bias = make()
    with torch.no_grad():
        x[0, 1, 4, 4] = torch.nan
    out, *_ = results(under("cpp"), (x, weight, bias), "none")
    assert out.isnan().sum() == 40 and out[0, :, 4, 4].isnan().all()
    for activation in ("none", "relu", "relu6"):
        _, _, dweight, _ = results(under("cpp"), (x, weight, bias), activation)
        assert dweight[:, 1].isnan().all() and not dweight[:, 0].isnan().any()


@needs_cpp
def test_autocast_decides_the_dtype():
    x, weight, _ = make()
    with torch.autocast("cpu", torch.bfloat16):
        out = pointwise(x, weight)
    assert out.dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(out.float().sum(), weight)
    assert grad.dtype == torch.float32


def test_gradcheck_of_the_reference():
    inputs = copies(make(2, 3, 4, (3, 2)), torch.float64)
    assert gradcheck(lambda x, weight, bias: under("reference")(x, weight, bias, "relu6"), inputs)


@needs_cpp
def test_second_derivative_is_one_clear_error():
    x, weight, bias = make()
    (grad,) = torch.autograd.grad(pointwise(x, weight, bias).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative.*use_backend\('reference'\)"):
        grad.sum().backward()


def test_what_does_not_fit_is_an_error():
    x, weight, bias = make()
    with pytest.raises(ValueError, match="weight"):
        pointwise(x, weight[:, :5], bias)
    with pytest.raises(ValueError, match="bias"):
        pointwise(x, weight, bias[:5])
    with pytest.raises(ValueError, match="activation"):
        pointwise(x, weight, bias, "gelu")


@needs_cpp
def test_beyond_the_loops():
    x, weight, bias = make()
    with pytest.raises(RuntimeError, match="cpp.*float64"):
        under("cpp")(x.double(), weight, bias)
    backends._warned.clear()
    with pytest.warns(UserWarning, match="pointwise on cpu runs on 'reference'.*float64"):
        out = pointwise(x.double(), weight.double(), bias.double(), "relu")
    torch.testing.assert_close(out, literal(x.double(), weight.double(), bias.double(), "relu"))


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    for batch, size in ((2, (11, 14)), (0, (11, 14)), (1, (1, 1))):
        x, weight, bias = make(batch, size=size, dtype=dtype)
        for inputs in ((x, weight, bias), (x.detach(), weight, bias), (x, weight.detach(), bias.detach())):
            torch.library.opcheck(torch.ops.dkpnet.pointwise.default, (*inputs, "relu6", "cpp"))


@needs_cpp
def test_torch_compile():
    inputs = make(dtype=torch.bfloat16)

    def function(x, weight, bias):
        return pointwise(x, weight, bias, "relu6") * 2

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for got, want in zip(results(compiled, inputs), results(function, inputs), strict=True):
        assert torch.equal(got, want)
