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


def images_of(device: str) -> int:
    """Images a call: a training batch on a GPU, where our kernels give each a block; one on a CPU."""
    return 16 if device == "cuda" else 1


def crowd(heads: int, cells: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Density [B, 1, cells, cells] of about as many people each, positions [B * heads, 2] in pixels, offsets."""
    generator, images = torch.Generator().manual_seed(heads + cells), images_of(device)
    density = torch.rand(images, 1, cells, cells, generator=generator) * (2 * heads / cells**2)
    points = torch.rand(images * heads, 2, generator=generator) * (cells * STRIDE)
    return density.to(device), points.to(device), heads * torch.arange(images + 1, device=device)


def one_by_one(loss: Callable[[Tensor, Tensor], Tensor], points: Tensor) -> Callable[[Tensor], Tensor]:
    """The sum over a batch of a loss of (points, density) that takes one image, as the usual codes do; equal numbers of heads."""

    def run(density: Tensor) -> Tensor:
        return torch.stack([loss(p, d[None]) for p, d in zip(points.chunk(len(density)), density, strict=True)]).sum()

    return run


def both_ways(loss: Callable[[Tensor], Tensor], density: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """A call that gives a loss and its gradient by the density."""

    def run() -> tuple[Tensor, Tensor]:
        leaf = density.detach().requires_grad_()
        value = loss(leaf)
        return value.detach().sum(), torch.autograd.grad(value.sum(), leaf)[0]

    return run
