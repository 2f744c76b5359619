"""How time and memory grow, with the order of growth that is expected checked: doubling may not cost more than it says."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from measure import backends, grow, peak_memory, saved_memory
from test_head import both_ways as head_both_ways
from test_head import make as make_head
from test_head import ours as own_head

from dkpnet_ext.models import DKPNet
from dkpnet_ext.ops import use_backend, variational

B, D = 32, 128
SIZES = {"domains": (1, 4, 16, 64), "sub-components": (1, 4, 16, 64), "samples": (1, 4, 16, 64)}


@pytest.mark.parametrize("what", SIZES)
def test_variational_grows(benchmark, device, tiny, what):
    """At worst proportionally: z takes N B d values, the choice of centres B C k d multiply-adds, the logits N B C d."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return (torch.randn(shape, generator=generator) * D**-0.5).to(device).requires_grad_()

    def case(size: int):
        domains, subs, samples = (size if what == name else usual for name, usual in zip(SIZES, (5, 2, 1), strict=True))
        leaves = draw(B, D), draw(B, D), draw(domains, subs, D), draw(domains, D)
        labels = (torch.arange(B) % domains).to(device)

        def forward():
            with use_backend(backends(device)[0]):
                out = variational(*leaves, labels, num_samples=samples, dropout=0.2)
            return out.z.mean(0), *out[1:4]

        def step():
            return torch.autograd.grad([t.sum() for t in forward()], leaves)

        return step, partial(saved_memory, forward, leaves)

    grow(benchmark, f"variational, forward + backward, by {what}", f"B={B}, d={D}, else C=5, k=2, N=1; memory: what "
         "autograd keeps", {size: case(size) for size in SIZES[what][: 2 if tiny else None]},
         orders=(1, 1), device=device, tiny=tiny)  # fmt: skip


def test_head_grows_with_the_batch(benchmark, device, tiny):
    """Proportionally: nothing of one image is kept for the others."""
    run = head_both_ways(own_head(backends(device)[0]))

    def case(batch: int):
        inputs, upstream = make_head(device, torch.float32, batch, 24 if tiny else 100, torch.channels_last)
        call = partial(run, inputs, upstream)
        return call, partial(peak_memory, call, device)

    sizes = (1, 2) if tiny else (1, 4, 16, 64)
    grow(benchmark, "head, forward + backward, by batch", "K=512, branches 40/80/160 at 100/50/25 px, float32; memory: peak",
         {size: case(size) for size in sizes}, orders=(1, 1), device=device, tiny=tiny)  # fmt: skip


def test_counting_grows_with_the_image(benchmark, device, tiny):
    """Time with the square of the side; memory does so up to 2048 px, from where it is a tile's and a cache's that is at
    most 768 MiB (models/tiling.py). At its own size: else a large one is scaled down on the CPU first, and nothing is tiled."""
    torch.manual_seed(0)
    model = DKPNet("hrnet_w18_small", "inva", num_domains=5, num_sub=2).eval().to(device).for_inference("torch")
    model.count(torch.zeros(3, 64, 64, dtype=torch.uint8))

    def case(side: int):
        image = torch.randint(256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        call = partial(model.count, image, as_is=True)
        return call, partial(peak_memory, call, device)

    sizes = (64, 128) if tiny else (256, 512, 1024, 2048, 4096, 8192)
    grow(benchmark, "counting one image, by side", "hrnet_w18_small, float32, whole up to 2048 px, then tiles; memory: peak",
         {side: case(side) for side in sizes}, orders=(2, 2 if tiny else 1), device=device, rounds=3, tiny=tiny)  # fmt: skip
