"""The attended head with its pooled features, in inference and in training, against the paper's literal form."""

from __future__ import annotations

from functools import partial

import baselines
import pytest
import torch
from measure import backends, both_errors, in_turns, peak_memory, saved_memory, short

from dkpnet_ext.ops import attended_head, pooled_features, use_backend

K, WIDTHS = 512, (40, 80, 160)  # HRNet-W40's branches at 1/4, 1/8 and 1/16 of the image


def make(device: str, dtype: torch.dtype, batch: int, side: int, layout: torch.memory_format, seed: int = 0) -> tuple:
    """(branches, attention, *parameters), leaves of one dtype, and an upstream gradient of density and pool."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape, scale=1.0):
        return (torch.randn(shape, generator=generator, device=device) * scale).to(dtype)

    total = sum(WIDTHS)
    branches = [
        draw(batch, width, side >> j, side >> j).contiguous(memory_format=layout) for j, width in enumerate(WIDTHS)
    ]
    parameters = (
        draw(K, total, scale=total**-0.5), draw(K, scale=0.1), draw(64, K, scale=2 * K**-0.5), draw(64, scale=0.1),
        draw(32, 64, scale=0.2), draw(32, scale=0.1), draw(1, 32, scale=0.2), draw(1, scale=0.1),
    )  # fmt: skip
    attention = torch.rand(batch, K, generator=generator, device=device).to(dtype)
    for leaf in (*branches, attention, *parameters):
        leaf.requires_grad_()
    return (branches, attention, *parameters), (draw(batch, 1, side, side), draw(batch, K))


def wide(inputs: tuple) -> tuple:
    """The same leaves in float64."""

    def cast(t):
        return t.detach().double().requires_grad_()

    branches, *rest = inputs
    return [cast(b) for b in branches], *map(cast, rest)


def ours(backend: str):
    def head(branches, attention, *parameters):
        size = tuple(branches[0].shape[2:])
        with use_backend(backend):
            density = attended_head(branches, attention, *parameters, size)
        return density, pooled_features(branches, *parameters[:2], size)

    return head


def forward(head):
    def run(inputs, upstream):
        with torch.inference_mode():
            return head(*inputs)

    return run


def both_ways(head):
    """Outputs and gradients."""

    def run(inputs, upstream):
        branches, *rest = inputs
        outputs = head(*inputs)
        upstream = [u.to(o.dtype) for u, o in zip(upstream, outputs, strict=True)]
        return *outputs, *torch.autograd.grad(outputs, (*branches, *rest), upstream)

    return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=short)
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_head(compare, device, tiny, batch, dtype, mode):
    side = 24 if tiny else 100
    way = forward if mode == "inference" else both_ways
    own = {name: ours(name) for name in backends(device)}
    plain = {"literal": baselines.head, "literal, channels_last": baselines.head}
    if not tiny:  # what our folding is worth without our kernels
        plain["folded, torch.compile"] = torch.compile(ours("reference"), dynamic=False)
    if device == "cuda" and not tiny:
        plain["literal, torch.compile"] = torch.compile(baselines.head, dynamic=False)
    heads = own | plain
    functions = {name: way(head) for name, head in heads.items()}

    def layout(name: str) -> torch.memory_format:
        return torch.contiguous_format if name == "literal" else torch.channels_last

    columns: dict[str, dict] = {}
    for name, function in functions.items():
        small, upstream = make(device, dtype, 2, side, layout(name))
        truth = way(baselines.head)(wide(small), [u.double() for u in upstream])
        columns[name] = both_errors(function(small, upstream), truth, 2)
    del small, upstream, truth

    sets = range(3 if device == "cuda" else 1)
    timed = {
        form: [make(device, dtype, batch, side, form, seed) for seed in sets]
        for form in (torch.contiguous_format, torch.channels_last)
    }
    for name, function in functions.items():
        inputs, upstream = timed[layout(name)][0]
        columns[name]["peak extra bytes"] = peak_memory(partial(function, inputs, upstream), device)
        if mode == "training":
            leaves = (*inputs[0], *inputs[1:])
            columns[name]["saved bytes"] = saved_memory(partial(heads[name], *inputs), leaves)
    read = sum(b.nbytes for b in timed[torch.contiguous_format][0][0][0])
    # Multiply-adds per pixel of the folded form: 40 x 64 here, the coarse products at their own size, 64 x 32 + 32.
    pixels = batch * side * side
    multiply_adds = pixels * 64 * sum(w / 4**j for j, w in enumerate(WIDTHS)) + pixels * (64 * 32 + 32)
    factor = {("cpu", "inference"): 5, ("cpu", "training"): 3, ("cuda", "inference"): 10, ("cuda", "training"): 5}
    timing = {name: in_turns(function, timed[layout(name)]) for name, function in functions.items()}
    compare(
        f"head, {'forward (inference)' if mode == 'inference' else 'forward + backward (training)'}",
        f"B={batch}, K={K}, branches {'/'.join(map(str, WIDTHS))} at {side}/{side // 2}/{side // 4} px, {short(dtype)}",
        {name: timing[name] for name in own},
        {name: timing[name] for name in plain},
        device=device,
        columns=columns,
        aims=[(next(iter(own)), other, factor[device, mode]) for other in plain if "compile" not in other],
        moved=read if mode == "inference" else 0,
        flops=2 * multiply_adds if mode == "inference" else 0,
        dtype=dtype,
        rounds=3 if device == "cpu" else 15,
        graph_calls=len(sets),
    )
