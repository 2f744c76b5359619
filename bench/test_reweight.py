"""Channel re-weighting, forward and backward, against eager PyTorch and torch.compile."""

from __future__ import annotations

from functools import partial

import baselines
import pytest
import torch
from measure import backends, both_errors, short

from dkpnet_ext.ops import reweight, use_backend

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def make(device: str, dtype: torch.dtype, layout: str, shape: tuple[int, ...]) -> tuple:
    generator = torch.Generator(device).manual_seed(0)

    def draw():
        values = torch.randn(shape, generator=generator, device=device)
        return values.to(dtype).contiguous(memory_format=LAYOUTS[layout])

    attention = torch.rand(shape[:2], generator=generator, device=device).to(dtype)
    return draw().requires_grad_(), attention.requires_grad_(), draw()


def both_ways(function):
    """Output and gradients."""

    def run(x, attention, grad):
        out = function(x, attention)
        return out, *torch.autograd.grad(out, (x, attention), grad)

    return run


def ours(backend: str):
    def function(x, attention):
        with use_backend(backend):
            return reweight(x, attention)

    return both_ways(function)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=short)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_reweight(compare, device, tiny, batch, dtype, layout):
    shape = (batch, 64, 20, 20) if tiny else (batch, 512, 100, 100)
    functions = {name: ours(name) for name in backends(device)}
    plain = {"eager": both_ways(baselines.reweight)}
    if not tiny:
        plain["torch.compile"] = both_ways(torch.compile(baselines.reweight, dynamic=False))
    small = make(device, dtype, layout, (2, *shape[1:]))
    truth = both_ways(baselines.reweight)(*(t.detach().double().requires_grad_(t.requires_grad) for t in small))
    columns = {name: both_errors(run(*small), truth, 1) for name, run in (functions | plain).items()}
    inputs = make(device, dtype, layout, shape)
    compare(
        "reweight, forward + backward",
        f"x {list(shape)} {short(dtype)}, {layout}",
        {name: partial(function, *inputs) for name, function in functions.items()},
        {name: partial(function, *inputs) for name, function in plain.items()},
        device=device,
        columns=columns,
        aims=[("cpp", "eager", 1.5)] if device == "cpu" else [],
        moved=5 * inputs[0].nbytes,  # x read, out written; grad and x read, dx written
        rounds=5 if device == "cpu" else 15,
        graph_calls=2,
    )
