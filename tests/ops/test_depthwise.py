"""depthwise: values, gradients, paddings, layouts, errors, and life inside compile and autocast."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from dkpnet_ext.ops import backend as backends
from dkpnet_ext.ops import depthwise, native
from dkpnet_ext.ops.backend import use_backend

needs_cpp = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
DTYPES = [torch.float32, torch.bfloat16]
NAMES = ("out", "grad of x", "grad of weight", "grad of bias")


def make(batch=2, channels=24, size=(11, 14), kernel=3, dtype=torch.float32, layout=torch.channels_last, seed=0):
    """(x, weight, bias), leaves that need a gradient; x of the dtype, the rest float32."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    # Values of which some lie beyond either end of a ReLU6.
    x = draw(batch, channels, *size, scale=3).to(dtype).contiguous(memory_format=layout)
    weight, bias = draw(channels, 1, kernel, kernel, scale=2 / kernel), draw(channels) + 2
    return tuple(t.requires_grad_() for t in (x, weight, bias))


def literal(x, weight, bias, stride, padding, activation):
    out = F.conv2d(F.pad(x, padding), weight.to(x.dtype), bias.to(x.dtype), stride, groups=x.shape[1])
    return {"none": out, "relu": out.clamp_min(0), "relu6": out.clamp(0, 6)}[activation]


def results(function, inputs, *arguments, keep=None):
    """[out, grad of x, of weight, of bias]; the gradient arrives where keep is true, by default everywhere."""
    out = function(*inputs, *arguments)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    upstream = upstream if keep is None else upstream * keep
    return [out.detach(), *torch.autograd.grad(out, inputs, upstream)]


def off_kinks(values):
    """Where roundings move no value to the other side of a kink of ReLU6, whose slope jumps there."""
    return (values.abs() > 1e-3) & ((values - 6).abs() > 1e-3)


def under(backend):
    def function(*arguments):
        with use_backend(backend):
            return depthwise(*arguments)

    return function


def copies(inputs, dtype):
    return tuple(t.detach().to(dtype).requires_grad_() for t in inputs)


def check_errors(inputs, arguments, rule):
    dtype = inputs[0].dtype
    got, plain = results(under("cpp"), inputs, *arguments), results(literal, copies(inputs, dtype), *arguments)
    for name, mine, theirs, exact in zip(
        NAMES, got, plain, results(literal, copies(inputs, torch.float64), *arguments), strict=True
    ):
        rule.add(name, mine.to(dtype), theirs, exact)


def check_rule(rule):
    rule.check(lambda name: 3 if name.startswith("grad") else 2)


def paddings(kernel):
    """None, symmetric, TensorFlow's at stride 2, and the most."""
    return [(0,) * 4, (kernel // 2,) * 4, (kernel // 2 - 1, kernel // 2) * 2, (kernel - 1,) * 4]


@pytest.fixture(params=[True, False], ids=["oneDNN", "our loops"])
def onednn(request, monkeypatch):
    """Who runs forward: our loops do where torch has no oneDNN for the dtype."""
    if not request.param:
        monkeypatch.setattr(sys.modules["dkpnet_ext.ops.depthwise"], "fuses", lambda dtype: False)


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.usefixtures("onednn")
def test_errors_against_float64(kernel, stride, activation, dtype, error_rule):
    # Enough values that roundings to either side of an activation's kink befall plain PyTorch as well.
    for channels, size in ((3, (9, 12)), (24, (16, 16)), (80, (21, 13)), (130, (6, 33))):
        for padding in paddings(kernel):
            inputs = make(4, channels, size, kernel, dtype)
            check_errors(inputs, (stride, padding, activation), error_rule)
    check_rule(error_rule)


@needs_cpp
@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 70), height=st.integers(1, 20), width=st.integers(1, 20),
    kernel=st.sampled_from([3, 5]), stride=st.sampled_from([1, 2]), sides=st.lists(st.integers(0, 4), min_size=4, max_size=4),
)  # fmt: skip
def test_any_shape(batch, channels, height, width, kernel, stride, sides):
    left, right, top, bottom = padding = tuple(min(p, kernel - 1) for p in sides)
    if height + top + bottom < kernel or width + left + right < kernel:
        return
    inputs = make(batch, channels, (height, width), kernel)
    exact_inputs = copies(inputs, torch.float64)
    keep = off_kinks(literal(*exact_inputs, stride, padding, "none"))
    got = results(under("cpp"), inputs, stride, padding, "relu6", keep=keep)
    expected = results(literal, exact_inputs, stride, padding, "relu6", keep=keep)
    for name, mine, exact in zip(NAMES, got, expected, strict=True):
        torch.testing.assert_close(mine, exact.float(), rtol=1e-4, atol=1e-4, msg=name)


@needs_cpp
def test_long_sums(error_rule):
    """Gradients of parameters are sums over many pixels, of one sign here."""
    inputs = tuple(t.detach().abs().requires_grad_() for t in make(2, 5, (300, 310)))
    check_errors(inputs, (1, (1,) * 4, "none"), error_rule)
    check_rule(error_rule)


@needs_cpp
def test_empty_batch():
    out, *grads = results(under("cpp"), make(0), 2, (1,) * 4, "relu")
    assert out.shape == (0, 24, 6, 7)
    assert all((grad == 0).all() for grad in grads)


@needs_cpp
def test_other_layouts():
    x, weight, bias = make(3, 24, (12, 16))
    wide = torch.randn(3, 40, 24, 16).contiguous(memory_format=torch.channels_last)
    for view in (
        x.detach().contiguous(), x.detach().transpose(2, 3), wide[:, 8:32, ::2], x.detach()[:1].expand(3, -1, -1, -1),
        wide.flatten()[3 : 3 + x.numel()].view(3, 12, 16, 24).permute(0, 3, 1, 2),  # not at a multiple of 16 bytes
    ):  # fmt: skip
        for scale in (weight, weight.detach().expand(-1, -1, 3, 3).transpose(2, 3)):
            inputs = tuple(t.detach().requires_grad_() for t in (view, scale, bias))
            got = results(under("cpp"), inputs, 1, (1,) * 4, "relu6")
            assert got[0].is_contiguous(memory_format=torch.channels_last)
            expected = results(literal, copies(inputs, torch.float64), 1, (1,) * 4, "relu6")
            for name, mine, exact in zip(NAMES, got, expected, strict=True):
                torch.testing.assert_close(mine, exact.float(), rtol=1e-4, atol=1e-4, msg=name)


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.usefixtures("onednn")
def test_number_of_threads_changes_no_bit(dtype):
    inputs, threads, outcomes = make(3, 150, (20, 18), 5, dtype), torch.get_num_threads(), []
    try:
        for count in (1, 1, 4):
            torch.set_num_threads(count)
            outcomes.append(results(under("cpp"), inputs, 2, (1, 2, 1, 2), "relu6"))
    finally:
        torch.set_num_threads(threads)
    for other in outcomes[1:]:
        assert all(map(torch.equal, outcomes[0], other))


@needs_cpp
def test_partial_gradients():
    """What is frozen gets none; the rest gets what it gets with everything trained."""
    x, weight, bias = make()
    arguments = (1, (1,) * 4, "relu6")
    _, dx, dweight, dbias = results(under("cpp"), (x, weight, bias), *arguments)
    upstream = torch.randn(dx.shape, generator=torch.Generator().manual_seed(1))
    with use_backend("cpp"):
        assert torch.equal(
            torch.autograd.grad(depthwise(x, weight.detach(), bias.detach(), *arguments), x, upstream)[0], dx
        )
        got = torch.autograd.grad(depthwise(x.detach(), weight, bias, *arguments), (weight, bias), upstream)
        assert torch.equal(got[0], dweight) and torch.equal(got[1], dbias)
        (got,) = torch.autograd.grad(depthwise(x.detach(), weight.detach(), bias, *arguments), bias, upstream)
        assert torch.equal(got, dbias)


@needs_cpp
@pytest.mark.parametrize("onednn", [True, False])
def test_nan_and_infinity(onednn, monkeypatch):
    """oneDNN's activations make a NaN 0, as those of `pointwise`."""
    if not onednn:
        monkeypatch.setattr(sys.modules["dkpnet_ext.ops.depthwise"], "fuses", lambda dtype: False)
    elif not sys.modules["dkpnet_ext.ops.depthwise"].fuses(torch.float32):
        pytest.skip("torch without oneDNN")
    x, weight, bias = make(1, 4, (9, 9))
    with torch.no_grad():
        x[0, 1, 4, 4], x[0, 2, 4, 4] = torch.nan, torch.inf
        weight[2] = 1
    for activation in ("none", "relu", "relu6"):
        got, want = (f(x, weight, bias, 1, (1,) * 4, activation) for f in (under("cpp"), literal))
        if onednn and activation != "none":
            assert want.isnan().sum() == 9
            want = want.nan_to_num(0, torch.inf)
        torch.testing.assert_close(got, want, equal_nan=True)
        assert got.isnan().sum() == (0 if onednn and activation != "none" else 9)


@needs_cpp
@pytest.mark.parametrize("sides", [(0, 1), (1, 2), (1, 1), (2, 2)])
@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_tensorflows_padding(kernel, stride, sides):
    """One more at the far ends, at even and odd sizes."""
    for size in ((12, 9), (7, 16)):
        x, weight, bias = make(2, 20, size, kernel)
        padding = (*sides, *sides)
        got, want = (f(x, weight, bias, stride, padding, "relu6") for f in (under("cpp"), literal))
        torch.testing.assert_close(got, want)


@needs_cpp
def test_no_bias_and_one_number_of_padding():
    x, weight, bias = make()
    with use_backend("cpp"):
        assert torch.equal(depthwise(x, weight, padding=1), depthwise(x, weight, 0 * bias, 1, (1, 1, 1, 1), "none"))


@needs_cpp
def test_autocast_decides_the_dtype():
    x, weight, bias = make()
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise(x, weight, bias, 1, 1)
    assert out.dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(out.float().sum(), weight)
    assert grad.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16), use_backend("reference"):
        assert depthwise(x.double(), weight.double(), bias.double(), 1, 1).dtype == torch.float64, "as F.conv2d"


def test_gradcheck_of_the_reference():
    inputs = copies(make(2, 3, (5, 6)), torch.float64)
    for activation in ("none", "relu6"):

        def function(x, weight, bias, activation=activation):
            return under("reference")(x, weight, bias, 2, (0, 1, 0, 1), activation)

        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


@needs_cpp
def test_second_derivative_is_one_clear_error():
    x, weight, bias = make()
    (grad,) = torch.autograd.grad(depthwise(x, weight, bias, 1, 1).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative.*use_backend\('reference'\)"):
        grad.sum().backward()


def test_what_does_not_fit_is_an_error():
    x, weight, bias = make()
    with pytest.raises(ValueError, match="weight"):
        depthwise(x, weight[:5], bias)
    with pytest.raises(ValueError, match="bias"):
        depthwise(x, weight, bias[:5])
    with pytest.raises(ValueError, match="padding"):
        depthwise(x, weight, bias, 1, 3)
    with pytest.raises(ValueError, match="smaller than the kernel"):
        depthwise(x[:, :, :1], weight, bias)
    with pytest.raises(ValueError, match="activation"):
        depthwise(x, weight, bias, activation="gelu")
    with pytest.raises(TypeError, match="floating point"):
        depthwise(x.int(), weight, bias)


@needs_cpp
def test_beyond_the_loops():
    x, weight, bias = make(kernel=7, size=(12, 12))
    for arguments, reason in (((x, weight, bias), "kernels of 3 and 5"), ((x.double(), weight, bias), "float64")):
        with pytest.raises(RuntimeError, match=f"cpp.*{reason}"):
            under("cpp")(*arguments)
    with pytest.raises(RuntimeError, match="triton"):
        under("triton")(*arguments)
    backends._warned.clear()
    with pytest.warns(UserWarning, match="depthwise on cpu runs on 'reference'.*kernels of 3 and 5"):
        out = depthwise(x, weight, bias, 3, 2, "relu")
    torch.testing.assert_close(out, literal(x, weight, bias, 3, (2,) * 4, "relu"))


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    for batch, size in ((2, (11, 14)), (0, (11, 14)), (1, (1, 1))):
        x, weight, bias = make(batch, size=size, dtype=dtype)
        for stride, inputs in (
            (1, (x, weight, bias)),
            (2, (x.detach(), weight, bias)),
            (2, (x, weight, bias.detach())),
        ):
            torch.library.opcheck(torch.ops.dkpnet.depthwise.default, (*inputs, stride, 1, 1, 1, 1, "relu6", "cpp"))


@needs_cpp
def test_torch_compile():
    inputs = make(dtype=torch.bfloat16)

    def function(x, weight, bias):
        return depthwise(x, weight, bias, 2, (0, 1, 0, 1), "relu6") * 2

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for got, want in zip(results(compiled, inputs), results(function, inputs), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("bias", [torch.arange(16.0)[::2], torch.ones(1).expand(8)])
def test_a_bias_of_any_stride(bias):
    """At commit 25e2632 oneDNN read it as if it were dense."""
    x, weight = torch.randn(1, 8, 9, 9), torch.randn(8, 1, 3, 3)
    ours = depthwise(x, weight, bias, padding=1, activation="relu6")
    torch.testing.assert_close(ours, F.conv2d(x, weight, bias, padding=1, groups=8).clamp(0, 6))
