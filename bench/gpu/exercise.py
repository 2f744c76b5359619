"""Every operator forward and backward on small, odd sizes: what compute-sanitizer watches (`run.sh sanitize`).

python bench/gpu/exercise.py cuda triton        # backends, on a GPU; `cpp` rehearses without one
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from dkpnet_ext.ops import attended_head, bayesian, density, knn_sigma, reweight, transport, use_backend, variational

DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def draw(device: str, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(device, dtype).requires_grad_()


def differentiate(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
    grads = torch.autograd.grad([out.float().sum() for out in outputs], leaves)
    for t in (*outputs, *grads):
        assert t.isfinite().all()


def run_variational(device: str) -> None:
    for dtype, (batch, dim, domains, subs) in itertools.product(DTYPES, [(3, 7, 2, 3), (33, 128, 5, 2)]):
        shapes = (batch, dim), (batch, dim), (domains, subs, dim), (domains, dim)
        leaves = [draw(device, dtype, *shape) for shape in shapes]
        labels, seed = torch.arange(batch, device=device) % domains, torch.tensor([1], device=device)
        out = variational(*leaves, labels, seed=seed, num_samples=2, dropout=0.2)
        differentiate(out[:4], leaves)


def run_reweight(device: str) -> None:
    shapes = [(2, 5, 7, 9), (1, 64, 33, 18)]
    for dtype, layout, shape in itertools.product(DTYPES, LAYOUTS, shapes):
        x = draw(device, dtype, *shape).detach().contiguous(memory_format=layout).requires_grad_()
        attention = draw(device, dtype, *shape[:2])
        differentiate([reweight(x, attention)], [x, attention])


def run_head(device: str) -> None:
    sizes = (48, 28), (48,), (64, 48), (64,), (32, 64), (32,), (1, 32), (1,)
    parameters = [draw(device, torch.float32, *size) for size in sizes]
    for dtype, layout, (height, width) in itertools.product(DTYPES, LAYOUTS, [(13, 21), (34, 66)]):
        branches = [
            draw(device, dtype, 2, channels, -(-height // step), -(-width // step))
            .detach()
            .contiguous(memory_format=layout)
            .requires_grad_()
            for channels, step in ((4, 1), (8, 2), (16, 4))
        ]
        attention = draw(device, torch.float32, 2, 48)
        out = attended_head(branches, attention, *parameters, (height, width))
        differentiate([out], [*branches, attention, *parameters])


def run_density(device: str) -> None:
    points = torch.rand(70, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([61.0, 45.0])
    points, offsets = points.to(device), torch.tensor([0, 50, 50, 70], device=device)
    for sigma in (4.0, knn_sigma(points, offsets)):
        total = density(points, offsets, (45, 61), sigma=sigma).sum().item()
        assert abs(total - 70) < 1e-3, total


def run_heads(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand(70, 2, generator=generator) * torch.tensor([104.0, 128.0])).to(device)
    offsets = torch.tensor([0, 50, 50, 70], device=device)
    leaf = torch.rand(3, 1, 16, 13, generator=generator).to(device).requires_grad_()
    differentiate([transport(leaf, points, offsets).objective], [leaf])
    for form in ("paper", "2021"):
        differentiate([bayesian(leaf, points, offsets, 128.0, form=form)], [leaf])


def main() -> None:
    for backend in sys.argv[1:]:
        if backend == "triton":  # Triton's checker of races asks for memory, of the thread that starts a kernel
            import triton

            torch.autograd.set_multithreading_enabled(False)
            triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device="cuda"))
        device = "cpu" if backend == "cpp" else "cuda"
        with use_backend(backend):
            for run in (run_variational, run_reweight, run_head, run_density, run_heads):
                if backend == "triton" and run is run_heads:
                    continue  # no such form
                run(device)
                if device == "cuda":
                    torch.cuda.synchronize()
                print(f"{backend}: {run.__name__.removeprefix('run_')} done", flush=True)


if __name__ == "__main__":
    main()
