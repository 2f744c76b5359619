"""projection: values, the coarser features, layouts, dtypes, threads, gradients by plain PyTorch, and calls that are kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dkpnet_ext.ops import Projection, inverted_residual, native, projection
from dkpnet_ext.ops.backend import use_backend

from .test_depthwise import DTYPES, needs_cpp
from .test_inverted_residual import make as make_block


def make(channels=40, width=64, size=(12, 18), batch=2, dtype=torch.float32, activation="none", out=None, coarse=True):
    """(x of the dtype, weights, coarse)"""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    x = draw(batch, channels, *size, scale=2).to(dtype).contiguous(memory_format=torch.channels_last)
    weights = Projection(draw(width, channels, 1, 1, scale=channels**-0.5), draw(width) + 1, activation, out)
    half = draw(batch, width, size[0] // 2, size[1] // 2).to(out or dtype)
    return x, weights, half.contiguous(memory_format=torch.channels_last) if coarse else None


def literal(x, weights, coarse, dtype=None):
    dtype = dtype or x.dtype
    y = F.conv2d(x.to(dtype), weights.weight.to(dtype), weights.bias.to(dtype))
    if coarse is not None:
        y = y + F.interpolate(coarse.to(dtype), scale_factor=2.0)
    return {"none": lambda t: t, "relu": F.relu, "relu6": F.relu6}[weights.activation](y)


def ours(*arguments):
    with torch.inference_mode(), use_backend("cpp"):
        return projection(*arguments)


CASES = (
    dict(), dict(coarse=False), dict(channels=112), dict(channels=64, width=1, coarse=False), dict(channels=7),
    dict(channels=300, width=24, size=(2, 2)),
)  # fmt: skip


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_errors_against_float64(activation, dtype, error_rule):
    for arguments in CASES:
        x, weights, coarse = make(dtype=dtype, activation=activation, **arguments)
        got = ours(x, weights, coarse)
        assert got.dtype == dtype and got.is_contiguous(memory_format=torch.channels_last)
        error_rule.add("out", got, literal(x, weights, coarse), literal(x, weights, coarse, torch.float64))
    error_rule.check(lambda name: 2)


@needs_cpp
def test_float32_of_bfloat16_rounds_nothing_to_bfloat16(error_rule):
    for arguments in CASES:
        x, weights, coarse = make(dtype=torch.bfloat16, out=torch.float32, **arguments)
        got = ours(x, weights, coarse)
        assert got.dtype == torch.float32
        error_rule.add("out", got, literal(x.float(), weights, coarse), literal(x, weights, coarse, torch.float64))
    error_rule.check(lambda name: 2)


@needs_cpp
def test_without_the_processors_dot_products(monkeypatch, error_rule):
    monkeypatch.setattr(native.module, "BF16_DOT_PRODUCTS", False)
    for channels in (40, 300):
        x, weights, coarse = make(channels, dtype=torch.bfloat16)
        truth = literal(x, weights, coarse, torch.float64)
        error_rule.add("out", ours(x, weights, coarse), literal(x, weights, coarse), truth)
        assert weights.packed(torch.bfloat16)[0].dtype == torch.float32
    error_rule.check(lambda name: 2)


@needs_cpp
@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 70), width=st.integers(1, 100), dtype=st.sampled_from(DTYPES),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)), coarse=st.booleans(),
)  # fmt: skip
def test_any_shape(batch, channels, width, dtype, size, coarse):
    size = tuple(2 * side for side in size) if coarse else size
    x, weights, half = make(channels, width, size, batch, dtype, coarse=coarse)
    truth = literal(x, weights, half, torch.float64)
    # The bound of the arithmetic: every weight is rounded to the dtype and so is the result; the sum is one of float32.
    absolute = Projection(weights.weight.abs(), weights.bias.abs(), weights.activation)
    terms = literal(x.abs(), absolute, None if half is None else half.abs(), torch.float64)
    unit, summing = torch.finfo(dtype).eps / 2, (channels + 4) * torch.finfo(torch.float32).eps / 2
    bound = 1.01 * (unit * (terms + truth.abs()) + summing * terms)
    excess = ((ours(x, weights, half).double() - truth).abs() / bound).max()
    assert excess <= 1, f"the largest error is {excess:.2f} times the bound"


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_number_of_threads_changes_no_bit(dtype):
    threads, outcomes = torch.get_num_threads(), []
    arguments = make(size=(90, 66), dtype=dtype)  # more than twenty chunks
    try:
        for count in (1, 1, 2, 4, 64):
            torch.set_num_threads(count)
            outcomes.append(ours(*arguments))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(outcomes[0], other) for other in outcomes[1:])


@needs_cpp
def test_other_layouts_and_no_pixels():
    x, weights, coarse = make()
    assert torch.equal(ours(x.contiguous(), weights, coarse.contiguous()), ours(x, weights, coarse))
    wide = torch.randn(2, 80, 12, 36).contiguous(memory_format=torch.channels_last)[:, 8:48, :, ::2]
    torch.testing.assert_close(ours(wide, weights, coarse), literal(wide, weights, coarse), rtol=1e-4, atol=1e-4)
    assert ours(x[:0], weights).shape == (0, 64, 12, 18)


@needs_cpp
def test_nan_stays():
    for activation in ("none", "relu", "relu6"):
        x, weights, _ = make(activation=activation)
        x[1, 3, 4, 4] = torch.nan
        got = ours(x, weights)
        assert torch.equal(got.isnan(), literal(x, weights, None).isnan()) and got.isnan().any()


@needs_cpp
def test_kept_calls_compute_the_same_as_new_ones():
    """With the same shapes the checks are not made again; other shapes, dtypes and modes are new calls."""
    x, weights, coarse = make()
    block_x, block = make_block()
    with torch.inference_mode():
        first = projection(x, weights, coarse), inverted_residual(block_x, block, 1)
        for _ in range(2):
            assert torch.equal(projection(2 * x, weights, coarse), ours(2 * x, weights, coarse))
            assert torch.equal(inverted_residual(2 * block_x, block, 1), literal_block(2 * block_x, block))
        assert torch.equal(projection(x, weights, coarse), first[0])
        assert torch.equal(inverted_residual(block_x, block, 1), first[1])
        assert projection(x.bfloat16(), weights).dtype == torch.bfloat16
        with pytest.raises(ValueError, match="needs x"):
            projection(x[:, :5], weights, coarse)
        for sides in range(1, 100):
            projection(x[:, :, :1, :1].expand(-1, -1, 1, sides).contiguous(memory_format=torch.channels_last), weights)
    assert 0 < len(weights.calls) <= native.CALLS and len(block.calls) == 1
    x.requires_grad_()
    assert projection(x, weights, coarse).requires_grad


def literal_block(x, block):
    """The block without kept calls."""
    block.calls.clear()
    with use_backend("cpp"):
        return inverted_residual(x, block, 1)


@needs_cpp
def test_gradients_are_plain_pytorchs():
    x, weights, coarse = make(activation="relu")
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(projection(leaf, weights, coarse).square().sum(), leaf)
    (want,) = torch.autograd.grad(literal(other, weights, coarse).square().sum(), other)
    torch.testing.assert_close(grad, want)


@needs_cpp
def test_autocast_decides_the_dtype():
    x, weights, _ = make()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x, weights), ours(x.bfloat16(), weights))


def test_what_does_not_fit_is_an_error():
    x, weights, coarse = make()
    for arguments, message in (
        ((x[:, :5], weights), r"needs x \[B, 40, H, W\]"), ((x, weights, coarse[:, :5]), "coarse must be"),
        ((x[:, :, :11], weights, coarse), "even sides"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            projection(*arguments)
    for arguments in ((x.long(), weights), (x, weights, coarse.double())):
        with pytest.raises(TypeError, match="int64|float64"):
            projection(*arguments)
    with pytest.raises(ValueError, match="weight"):
        Projection(torch.zeros(4, 8, 3, 3))
    with pytest.raises(ValueError, match="activation"):
        Projection(torch.zeros(4, 8, 1, 1), None, "gelu")


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck_and_compile(dtype):
    x, weights, coarse = make(dtype=dtype, activation="relu6")
    with use_backend("cpp"), torch.inference_mode():
        compiled = torch.compile(lambda x, c, w=weights: projection(x, w, c) * 2, backend="aot_eager")
        assert torch.equal(compiled(x, coarse), ours(x, weights, coarse) * 2)
    raw = torch.ops.dkpnet.projection.default
    torch.library.opcheck(raw, (x, *weights.packed(dtype), coarse, 64, "relu6", dtype, "cpp"))
