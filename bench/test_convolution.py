"""Convolutions on the CPU against oneDNN: depthwise and pointwise forward + backward, a backbone of them, blocks for inference.

Shapes are EfficientNet-Lite0's on crops of 256; of the blocks on an image of 1024 x 768. Freed memory is kept for everyone
(`dkpnet_ext.memory`), so that no page fault of a fresh array is counted.
"""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from measure import both_errors, short

from dkpnet_ext.memory import keep_freed_memory
from dkpnet_ext.models.backbones import create_backbone
from dkpnet_ext.models.convolutions import fold_for_training, use_fast_convolutions
from dkpnet_ext.ops import InvertedResidual, depthwise, inverted_residual, pointwise

BATCH = 12
# kernel, stride, channels, side of the input
DEPTHWISE = [(5, 2, 144, 64), (5, 1, 240, 32), (3, 2, 96, 128), (3, 1, 144, 64)]
# kernel, stride, channels, expanded, width, size of the input
BLOCKS = [(3, 2, 16, 96, 24, (384, 512)), (3, 1, 24, 144, 24, (192, 256)), (5, 1, 112, 672, 112, (48, 64))]
# channels in, channels out, side, activation
POINTWISE = [(16, 96, 128, "relu6"), (144, 40, 32, "none")]


@pytest.fixture(autouse=True)
def one_thread():
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain_depthwise(x, weight, bias, stride, padding):
    left, right, top, _ = padding
    if left == right:
        sides = (top, left)
    else:
        x, sides = F.pad(x, padding), (0, 0)
    return F.relu6(F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), stride, sides, groups=x.shape[1]))


def plain_pointwise(x, weight, bias, activation):
    out = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype))
    return F.relu6(out) if activation == "relu6" else out


def leaves(*shapes, dtype):
    """x of the dtype, channels_last; weight and bias float32."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    weight /= weight[0].numel() ** 0.5
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    return tuple(t.requires_grad_() for t in (x, weight, bias))


def both_ways(function, inputs, upstream):
    out = function(*inputs)
    return out, *torch.autograd.grad(out, inputs, upstream.to(out.dtype))


def columns(functions, inputs, upstream, plain):
    truth = both_ways(plain, tuple(t.detach().double().requires_grad_() for t in inputs), upstream)
    return {name: both_errors(both_ways(f, inputs, upstream), truth, 1) for name, f in functions.items()}


def compare_operator(compare, row, setting, own, plain, inputs, aim, tiny):
    functions = {"cpp": own, "oneDNN": plain} | ({} if tiny else {"torch.compile": torch.compile(plain, dynamic=False)})
    upstream = torch.randn(own(*inputs).shape, generator=torch.Generator().manual_seed(1)).to(inputs[0].dtype)
    timing = {name: partial(both_ways, f, inputs, upstream) for name, f in functions.items()}
    compare(
        row, setting, {"cpp": timing.pop("cpp")}, timing, device="cpu", rounds=5, dtype=inputs[0].dtype,
        columns=columns(functions, inputs, upstream, plain), aims=[("cpp", "oneDNN", aim)],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=short)
@pytest.mark.parametrize(("kernel", "stride", "channels", "side"), DEPTHWISE)
def test_depthwise(compare, tiny, kernel, stride, channels, side, dtype):
    batch, side = (2, side // 8) if tiny else (BATCH, side)
    inputs = leaves((batch, channels, side, side), (channels, 1, kernel, kernel), (channels,), dtype=dtype)
    total = kernel - stride  # TensorFlow's padding of an even size
    padding = (total // 2, total - total // 2) * 2
    compare_operator(
        compare, "depthwise, forward + backward",
        f"{kernel}x{kernel} stride {stride}, B={batch}, C={channels}, {side} px, ReLU6, {short(dtype)}",
        lambda x, w, b: depthwise(x, w, b, stride, padding, "relu6"),
        lambda x, w, b: plain_depthwise(x, w, b, stride, padding),
        inputs, 3 if kernel == 5 or stride == 2 else 1, tiny,
    )  # fmt: skip


@pytest.mark.parametrize(("channels", "width", "side", "activation"), POINTWISE)
def test_pointwise(compare, tiny, channels, width, side, activation):
    batch, side = (2, side // 8) if tiny else (BATCH, side)
    inputs = leaves((batch, channels, side, side), (width, channels, 1, 1), (width,), dtype=torch.bfloat16)
    compare_operator(
        compare, "pointwise, forward + backward",
        f"B={batch}, C={channels} to {width}, {side} px, {activation}, bfloat16",
        lambda x, w, b: pointwise(x, w, b, activation), lambda x, w, b: plain_pointwise(x, w, b, activation),
        inputs, 1, tiny,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=short)
@pytest.mark.parametrize(("kernel", "stride", "channels", "expanded", "width", "size"), BLOCKS)
def test_inverted_residual(compare, tiny, kernel, stride, channels, expanded, width, size, dtype):
    size = tuple(side // 8 for side in size) if tiny else size
    x, expand, bias = (
        t.detach() for t in leaves((1, channels, *size), (expanded, channels, 1, 1), (expanded,), dtype=dtype)
    )
    generator = torch.Generator().manual_seed(1)
    taps = torch.randn(expanded, 1, kernel, kernel, generator=generator) / kernel
    project = torch.randn(width, expanded, 1, 1, generator=generator) / expanded**0.5
    total, residual = kernel - stride, stride == 1 and channels == width
    padding = (total // 2, total - total // 2) * 2
    block = InvertedResidual((expand, bias), (taps, None), (project, None), stride=stride, residual=residual)

    def plain(x):
        y = plain_pointwise(x, expand, bias, "relu6")
        y = plain_depthwise(y, taps, torch.zeros(expanded), stride, padding)
        y = plain_pointwise(y, project, torch.zeros(width), "none")
        return y + x if residual else y

    functions = {"cpp": lambda x: inverted_residual(x, block, padding), "oneDNN": plain}
    functions |= {} if tiny else {"torch.compile": torch.compile(plain, dynamic=False)}
    with torch.inference_mode():
        truth = plain(x.double())
        errors = {name: both_errors((f(x),), (truth,), 1) for name, f in functions.items()}
        timing = {name: partial(torch.inference_mode()(f), x) for name, f in functions.items()}
        compare(
            "inverted residual, forward",
            f"{kernel}x{kernel} stride {stride}, C={channels} to {expanded} to {width}, {size[1]} x {size[0]} px, {short(dtype)}",
            {"cpp": timing.pop("cpp")}, timing, device="cpu", rounds=5, dtype=dtype, columns=errors,
            aims=[("cpp", "oneDNN", 1.3)], graph_calls=0,
        )  # fmt: skip


def step(network, images):
    with torch.autocast("cpu", torch.bfloat16):
        features = network(images)
    sum(feature.float().mean() for feature in features).backward()
    network.zero_grad()


@pytest.mark.parametrize("frozen", [False, True], ids=["all trained", "stem and stages 0 and 1 frozen"])
def test_backbone(compare, tiny, frozen):
    batch, side = (1, 64) if tiny else (BATCH, 256)
    torch.manual_seed(0)
    networks = {"batch norm": create_backbone("tf_efficientnet_lite0").to(memory_format=torch.channels_last)}
    networks["batch norm folded"] = fold_for_training(networks["batch norm"])
    networks["cpp"] = use_fast_convolutions(copy.deepcopy(networks["batch norm folded"]))
    for network in networks.values():
        for name in ("conv_stem", "bn1", "blocks.0", "blocks.1") if frozen else ():
            network.net.get_submodule(name).requires_grad_(False)
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    timing = {name: partial(step, network, images) for name, network in networks.items()}
    compare(
        "backbone, forward + backward",
        f"tf_efficientnet_lite0 to 1/16, {batch} crops of {side}, bfloat16"
        + (", stem and stages 0 and 1 frozen" if frozen else ""),
        {"cpp": timing.pop("cpp")}, timing, device="cpu", rounds=5, dtype=torch.bfloat16, columns={},
        aims=[("cpp", "batch norm folded", 2.5)],
    )  # fmt: skip
