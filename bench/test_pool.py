"""Pooled features, forward: means of the branches, against what they were before, and against pooling the neck's output."""

from __future__ import annotations

from functools import partial

import baselines
import pytest
import torch
import torch.nn.functional as F
from measure import both_errors, short
from test_head import make

from dkpnet_ext.ops import pool
from dkpnet_ext.ops.reference import _source_weights


def literal(branches, weight, bias, size):
    """The neck at full size, then its mean."""
    return baselines.features(branches, weight.to(branches[0]), bias.to(branches[0]), size).mean((2, 3))


def weights_rebuilt(branches, weight, bias, size):
    """As `pool` was until commit c572cb6: weights per row and column, built in each call, and float32 copies."""
    means = []
    for branch in branches:
        wide = branch.float() if branch.dtype != torch.float64 else branch
        rows, columns = (
            _source_weights(source, target, wide.dtype, branch.device)
            for source, target in zip(branch.shape[2:], size, strict=True)
        )
        means.append(torch.einsum("bchw,h,w->bc", wide, rows, columns))
    pooled = torch.cat(means, dim=1)
    return F.linear(pooled, weight.to(pooled.dtype), bias.to(pooled.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=short)
def test_pool(compare, device, tiny, batch, dtype):
    side = 24 if tiny else 100
    (branches, _, weight, bias, *_), _ = make(device, dtype, batch, side, torch.channels_last)
    arguments = [b.detach() for b in branches], weight.detach(), bias.detach(), (side, side)
    exact = [b.double() for b in arguments[0]], weight.detach().double(), bias.detach().double(), (side, side)
    functions = {"pool": pool, "weights rebuilt": weights_rebuilt, "literal": literal}
    calls = {name: partial(function, *arguments) for name, function in functions.items()}
    truth = [literal(*exact)]
    compare(
        "pool, forward",
        f"B={batch}, K=512, branches 40/80/160 at {side}/{side // 2}/{side // 4} px, {short(dtype)}, channels_last",
        {"pool": calls["pool"]},
        {name: calls[name] for name in ("weights rebuilt", "literal")},
        device=device,
        columns={name: both_errors([call()], truth, 1) for name, call in calls.items()},
        aims=[("pool", "weights rebuilt", 5)],
        moved=sum(b.nbytes for b in arguments[0]),
        dtype=dtype,
    )
