"""inverted_residual: values, paddings, layouts, threads, gradients by plain PyTorch, errors, and life inside compile."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dkpnet_ext.ops import InvertedResidual, inverted_residual, native
from dkpnet_ext.ops.backend import use_backend

from .test_depthwise import DTYPES, needs_cpp


def make(
    channels=8, expanded=48, width=24, kernel=3, stride=1, size=(11, 14), batch=2, first=(1, 1), dtype=torch.float32, **rest
):  # fmt: skip
    """(x of the dtype, weights); first: kernel and stride of the expansion, (0, 1) for none."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    x = draw(batch, channels, *size, scale=2).to(dtype).contiguous(memory_format=torch.channels_last)
    expand = None
    if first[0]:
        inputs = channels * first[0] ** 2
        expand = draw(expanded, channels, first[0], first[0], scale=inputs**-0.5), draw(expanded)
    else:
        expanded = channels
    filters = draw(expanded, 1, kernel, kernel, scale=2 / kernel), draw(expanded)
    project = draw(width, expanded, 1, 1, scale=expanded**-0.5), draw(width)
    return x, InvertedResidual(expand, filters, project, expand_stride=first[1], stride=stride, **rest)


def literal(x, weights, padding, expand_padding=(0, 0, 0, 0)):
    act = {"none": lambda t: t, "relu": F.relu, "relu6": F.relu6}[weights.activation]
    convert = [
        None if pair is None else [t.to(x.dtype) for t in pair]
        for pair in (weights.expand, weights.depthwise, weights.project)
    ]
    expand, filters, project = convert
    y = x if expand is None else act(F.conv2d(F.pad(x, expand_padding), *expand, weights.expand_stride))
    y = act(F.conv2d(F.pad(y, padding), *filters, weights.stride, groups=y.shape[1]))
    y = F.conv2d(y, *project)
    return y + x if weights.residual else y


def ours(*arguments):
    with torch.inference_mode(), use_backend("cpp"):
        return inverted_residual(*arguments)


CASES = {  # of EfficientNet-Lite0 and of the head, thinner
    "expanded": (dict(channels=16, expanded=96, width=24, stride=2, size=(16, 24)), ((0, 1, 0, 1),)),
    "residual": (dict(channels=24, expanded=144, width=24, size=(21, 26), residual=True), ((1,) * 4,)),
    "five": (dict(channels=40, expanded=240, width=40, kernel=5, size=(12, 17), residual=True), ((2,) * 4,)),
    "five, stride 2": (dict(channels=24, expanded=144, width=40, kernel=5, stride=2, size=(13, 18)), ((1, 2, 1, 2),)),
    "wide": (dict(channels=80, expanded=480, width=112, size=(9, 16)), ((1,) * 4,)),
    "without": (dict(channels=64, width=64, kernel=5, size=(15, 9), first=(0, 1), residual=True), ((2,) * 4,)),
    "the image": (dict(channels=3, expanded=32, width=16, size=(22, 34), first=(3, 2)), ((1,) * 4, (0, 1, 0, 1))),
}  # fmt: skip


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_errors_against_float64(activation, dtype, error_rule):
    for arguments, padding in CASES.values():
        x, weights = make(dtype=dtype, activation=activation, **arguments)
        plain, truth = literal(x, weights, *padding), literal(x.double(), weights, *padding)
        got = ours(x, weights, *padding)
        assert got.is_contiguous(memory_format=torch.channels_last)
        error_rule.add("out", got, plain, truth)
    error_rule.check(lambda name: 2)


@needs_cpp
def test_without_the_processors_dot_products(monkeypatch, error_rule):
    monkeypatch.setattr(native.module, "BF16_DOT_PRODUCTS", False)
    for arguments, padding in CASES.values():
        x, weights = make(dtype=torch.bfloat16, **arguments)
        plain, truth = literal(x, weights, *padding), literal(x.double(), weights, *padding)
        error_rule.add("out", ours(x, weights, *padding), plain, truth)
        assert weights.packed(torch.bfloat16).project.dtype == torch.float32
    error_rule.check(lambda name: 2)


@needs_cpp
@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2), channels=st.integers(1, 40), expanded=st.integers(1, 100), width=st.integers(1, 60),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)), kernel=st.sampled_from([3, 5]), stride=st.sampled_from([1, 2]),
    first=st.sampled_from([(0, 1), (1, 1), (3, 1), (3, 2)]), sides=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    more=st.tuples(st.integers(0, 2), st.integers(0, 2)), dtype=st.sampled_from(DTYPES),
)  # fmt: skip
def test_any_shape(batch, channels, expanded, width, size, kernel, stride, first, sides, more, dtype):
    padding, near = tuple(min(p, kernel - 1) for p in sides), first[0] // 2
    around = (near, near + more[0], near, near + more[1]) if first[0] else (0,) * 4  # more at the right and the bottom
    x, weights = make(channels, expanded, width, kernel, stride, size, batch, first, dtype)
    middle = [
        (side + sum(ends) - max(first[0], 1)) // first[1] + 1
        for side, ends in zip(size, (around[2:], around[:2]), strict=True)
    ]
    if middle[0] + sum(padding[2:]) < kernel or middle[1] + sum(padding[:2]) < kernel:
        with pytest.raises(ValueError, match="smaller than the kernel"):
            ours(x, weights, padding, around)
        return
    truth = literal(x.double(), weights, padding, around)
    tolerance = 1e-4 if dtype == torch.float32 else 0.03 * (1 + truth.abs().max().item())
    torch.testing.assert_close(ours(x, weights, padding, around).double(), truth, rtol=1e-4, atol=tolerance)


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_padding_of_a_pointwise_expansion(dtype, error_rule):
    """At commit 4eb5a94 the next row's, or image's, values stood where zeros belong."""
    padding = (1, 1, 1, 1), (0, 1, 0, 1)
    x, weights = make(batch=3, dtype=dtype)
    x = torch.cat([x[:1], torch.full_like(x, 100.0)])[:1]
    error_rule.add(
        "out", ours(x, weights, *padding), literal(x, weights, *padding), literal(x.double(), weights, *padding)
    )
    error_rule.check(lambda name: 2)


@needs_cpp
def test_another_default_device():
    """Its own buffers are the CPU's; at commit 4eb5a94 the process crashed."""
    x, weights = make()
    with torch.device("meta"):
        got = ours(x, weights, 1)
    torch.testing.assert_close(got, ours(x, weights, 1), rtol=0, atol=0)


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_number_of_threads_changes_no_bit(dtype):
    threads, outcomes = torch.get_num_threads(), []
    x, weights = make(kernel=5, size=(40, 18), residual=True, width=8, dtype=dtype)
    try:
        for count in (1, 1, 2, 4, 64):
            torch.set_num_threads(count)
            outcomes.append(ours(x, weights, 2))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(outcomes[0], other) for other in outcomes[1:])


@needs_cpp
def test_other_layouts():
    _, weights = make(size=(12, 16))
    wide = torch.randn(3, 30, 24, 16).contiguous(memory_format=torch.channels_last)
    x, image = make(**CASES["the image"][0])
    got = [ours(view, image, *CASES["the image"][1]) for view in (x, x.contiguous(), x.contiguous()[:, :, :, 1:-1])]
    assert torch.equal(got[0], got[1]) and got[1].is_contiguous(memory_format=torch.channels_last)
    for view in (wide[:, 8:16, ::2], wide[:, 8:16].contiguous(), wide[:1, :8].transpose(2, 3), wide[:0, :8]):
        torch.testing.assert_close(ours(view, weights, 1), literal(view, weights, (1,) * 4), rtol=1e-4, atol=1e-4)


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bytes_are_what_the_table_says(dtype):
    """In both layouts, with rows and columns of padding beyond the window's; plain PyTorch, which looks them up, agrees."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (2, 3, 22, 34), dtype=torch.uint8, generator=generator)
    table = torch.randn(3, 256, generator=generator)
    _, weights = make(**CASES["the image"][0], table=table)
    values = torch.stack([table[c][x[:, c].long()] for c in range(3)], 1).to(dtype)
    padding, first = (1,) * 4, (0, 11, 0, 7)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = ours(x, weights, padding, first)
        assert got.dtype == dtype and torch.equal(got, ours(values, weights, padding, first))
        for view in (x.contiguous(memory_format=torch.channels_last), x.expand(2, -1, -1, -1)[:, :, :, :]):
            assert torch.equal(got, ours(view, weights, padding, first))
        wide = torch.nn.functional.pad(x, (3, 5, 2, 2))[:, :, 2:-2, 3:-5]
        assert torch.equal(got, ours(wide, weights, padding, first))
        with use_backend("reference"):
            plain = inverted_residual(x, weights, padding, first)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(plain, got, rtol=1e-4, atol=tolerance)
    with pytest.raises(TypeError, match="uint8"):
        inverted_residual(x, make(**CASES["the image"][0])[1], padding, first)
    with pytest.raises(ValueError, match="table"):
        make(**CASES["the image"][0], table=table[:2])


@needs_cpp
def test_nan_stays():
    for activation in ("none", "relu", "relu6"):
        x, weights = make(activation=activation)
        x[0, 3, 4, 4] = torch.nan
        got = ours(x, weights, 1)
        assert torch.equal(got.isnan(), literal(x, weights, (1,) * 4).isnan()) and got.isnan().any()


@needs_cpp
def test_gradients_are_plain_pytorchs():
    x, weights = make(residual=True, width=8)
    leaf = x.clone().requires_grad_()
    out = inverted_residual(leaf, weights, 1)
    (grad,) = torch.autograd.grad(out.square().sum(), leaf)
    other = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(literal(other, weights, (1,) * 4).square().sum(), other)
    torch.testing.assert_close(grad, want)
    torch.testing.assert_close(ours(x, weights, 1), out.detach(), rtol=1e-4, atol=1e-4)


@needs_cpp
def test_autocast_decides_the_dtype():
    x, weights = make()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x, weights, 1), ours(x.bfloat16(), weights, 1))
    assert ours(x, weights, 1).dtype == torch.float32


def test_what_does_not_fit_is_an_error():
    x, weights = make()
    for arguments, message in (
        ((x[:, :5], weights, 1), r"needs x \[B, 8, H, W\]"), ((x, weights, 3), "padding .* is 0 to 2"),
        ((x[:, :, :1], weights), "smaller than the kernel"), ((x, make(residual=True)[1], 1), "cannot be added"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            inverted_residual(*arguments)
    with pytest.raises(TypeError, match="int64"):
        inverted_residual(x.long(), weights, 1)
    expand, filters, project = weights.expand, weights.depthwise, weights.project
    two = filters[0].expand(-1, 2, 3, 3), None
    for arguments, message in (
        ((expand, filters, (project[0][:, :5], None)), "project"), ((expand, two, project), "depthwise"),
        (((expand[0][:5], None), filters, project), "expand must give 48"), ((expand, (filters[0], project[1]), project), "bias"),
        ((expand, filters, (project[0].expand(-1, -1, 3, 3), None)), "kernel of 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            InvertedResidual(*arguments)
    with pytest.raises(ValueError, match="activation"):
        InvertedResidual(expand, filters, project, activation="gelu")
    with pytest.raises(ValueError, match="strides"):
        InvertedResidual(expand, filters, project, stride=0)


@needs_cpp
def test_beyond_the_loops():
    x, weights = make(kernel=7, size=(12, 12))
    with pytest.raises(RuntimeError, match="cpp.*kernels of 3 and 5"):
        ours(x, weights, 3)
    with pytest.raises(RuntimeError, match="cpp.*float64"):
        ours(x.double(), make()[1], 1)
    with pytest.raises(RuntimeError, match="triton"), use_backend("triton"):
        inverted_residual(x, weights, 3)
    with pytest.warns(UserWarning, match="inverted_residual on cpu runs on 'reference'.*kernels of 3 and 5"):
        out = inverted_residual(x, weights, 3)
    torch.testing.assert_close(out, literal(x, weights, (3,) * 4))


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck_and_compile(dtype):
    for arguments, padding in (CASES["five, stride 2"], CASES["the image"], CASES["without"]):
        x, weights = make(dtype=dtype, **arguments)
        with use_backend("cpp"), torch.inference_mode():
            compiled = torch.compile(
                lambda x, w=weights, p=padding: inverted_residual(x, w, *p) * 2, backend="aot_eager"
            )
            assert torch.equal(compiled(x), ours(x, weights, *padding) * 2)
        first = (
            []
            if weights.expand is None
            else [weights.expand[0].shape[2], weights.expand_stride, *(*padding, (0,) * 4)[1]]
        )
        window = [weights.depthwise[0].shape[2], weights.stride, *padding[0]]
        torch.library.opcheck(
            torch.ops.dkpnet.inverted_residual.default,
            (x, *weights.packed(dtype), first, window, weights.project[0].shape[0], "relu6", weights.residual, "cpp"),
        )
