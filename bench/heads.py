"""What the benchmarks of the losses on heads share: crowds, processor time, both directions of a loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

STRIDE = 8
SIZES = [(500, 64), (1, 64), (100, 64), (2000, 64), (5000, 64), (500, 32), (500, 128)]  # heads, cells per side


@pytest.fixture(autouse=True)
def one_thread(device):
    """Other programs' work then changes no ratio of processor times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def crowd(heads: int, cells: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Density [1, 1, cells, cells] of about as many people, positions [heads, 2] in pixels, offsets."""
    generator = torch.Generator().manual_seed(heads + cells)
    density = torch.rand(1, 1, cells, cells, generator=generator) * (2 * heads / cells**2)
    points = torch.rand(heads, 2, generator=generator) * (cells * STRIDE)
    return density.to(device), points.to(device), torch.tensor([0, heads], device=device)


def both_ways(loss: Callable[[Tensor], Tensor], density: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """A call that gives a loss and its gradient by the density."""

    def run() -> tuple[Tensor, Tensor]:
        leaf = density.detach().requires_grad_()
        value = loss(leaf)
        return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]

    return run
