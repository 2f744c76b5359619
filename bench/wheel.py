"""Build the wheel once and use it with several versions of PyTorch: `python bench/wheel.py --torch '2.10.*' '2.14.*'`.

For each version a new virtual environment gets that PyTorch and the wheel from pip's index; `probe` runs there, where no
source tree is on the path. Every operator of the compiled module is compared with plain PyTorch, forward and backward,
and the packaged model counts a picture. Takes some minutes and several GB of disk for each version.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def probe() -> None:
    """In the new environment: raises if an operator's value or gradient differs from plain PyTorch's."""
    import _dkpnet_ext
    import torch
    from PIL import Image

    import dkpnet_ext
    from dkpnet_ext import ops
    from dkpnet_ext.ops import native
    from dkpnet_ext.synthetic.scenes import render

    assert "site-packages" in dkpnet_ext.__file__ and "site-packages" in _dkpnet_ext.__file__, "not the wheel"
    assert native.missing is None, native.missing
    largest = {}
    for name, function in calls(torch, ops).items():
        results = []
        for backend in ("cpp", "reference"):
            torch.manual_seed(0)
            with ops.use_backend(backend):
                results.append(function())
        differences = [
            float((a - b).abs().max() / b.abs().max().clamp_min(1e-6)) for a, b in zip(*results, strict=True)
        ]
        largest[name] = max(differences)
    pixels, _ = render("square", "test", 3)
    count = dkpnet_ext.load_model().count(Image.fromarray(pixels))
    print(
        f"torch {torch.__version__}: the packaged model counts {count:.3f}; largest relative difference from plain PyTorch"
    )
    print("  " + ", ".join(f"{name} {error:.1e}" for name, error in largest.items()))
    assert max(largest.values()) < 1e-4, "a result differs from plain PyTorch's"


def calls(torch, ops) -> dict:
    """A function per operator that returns its value and the gradients of its inputs; float32."""

    def leaf(*shape: int, low: float = 0.0):
        return (torch.rand(*shape) + low).requires_grad_()

    def graded(output, *inputs) -> list:
        weights = torch.linspace(0.5, 1.5, output.numel()).view_as(output)
        return [output.detach(), *torch.autograd.grad((output * weights).sum(), inputs)]

    points, offsets = torch.tensor([[10.0, 12.0], [40.5, 3.0], [5.0, 5.0]]), torch.tensor([0, 2, 3])

    def variational() -> list:
        mu, logvar, centers = leaf(4, 16), leaf(4, 16), leaf(3, 2, 16)
        labels, seed = torch.tensor([0, 1, 2, 0]), torch.tensor([7])
        out = ops.variational(mu, logvar, centers, torch.zeros(3, 16), labels, seed=seed)
        return graded(out.kl + out.lse + out.z.sum((1, 2)), mu, logvar, centers)

    def head() -> list:
        branches, attention = [leaf(2, 8, 32, 32), leaf(2, 16, 16, 16)], leaf(2, 64)
        neck = torch.rand(64, 24), torch.zeros(64)
        layers = (
            torch.rand(64, 64),
            torch.zeros(64),
            torch.rand(32, 64),
            torch.zeros(32),
            torch.rand(1, 32),
            torch.zeros(1),
        )
        return graded(ops.attended_head(branches, attention, *neck, *layers, (32, 32)), *branches, attention)

    def reweight() -> list:
        x, attention = leaf(2, 64, 20, 20), leaf(2, 64)
        return graded(ops.reweight(x, attention), x, attention)

    def depthwise() -> list:
        x, weight, bias = leaf(2, 8, 16, 16, low=-0.5), leaf(8, 1, 5, 5, low=-0.5), leaf(8)
        return graded(ops.depthwise(x, weight, bias, stride=2, padding=2, activation="relu6"), x, weight, bias)

    def pointwise() -> list:
        x, weight, bias = leaf(2, 8, 16, 16, low=-0.5), leaf(12, 8, 1, 1, low=-0.5), leaf(12)
        return graded(ops.pointwise(x, weight, bias, activation="relu"), x, weight, bias)

    def transport() -> list:
        density = leaf(2, 1, 6, 8)
        return graded(ops.transport(density, points, offsets).objective, density)

    def bayesian() -> list:
        density = leaf(2, 1, 6, 8)
        return graded(ops.bayesian(density, points, offsets, side=48.0), density)

    return {
        "variational": variational, "head": head, "reweight": reweight, "depthwise": depthwise, "pointwise": pointwise,
        "transport": transport, "bayesian": bayesian, "density": lambda: [ops.density(points, offsets, (48, 64))],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", nargs="+", default=["2.10.*", "2.14.*"], help="versions, as pip takes them after ==")
    parser.add_argument("--probe", action="store_true", help="only check the environment that runs this")
    options = parser.parse_args()
    if options.probe:
        return probe()
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        for number, version in enumerate(options.torch):
            venv = Path(folder, f"venv{number}")
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            python = venv / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "--quiet", f"torch=={version}", wheel], check=True)
            subprocess.run([python, "-I", Path(__file__).resolve(), "--probe"], check=True, cwd=folder)


if __name__ == "__main__":
    main()
