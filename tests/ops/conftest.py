"""Shared by the operator tests: which backends there are to test, and the rule that their errors are held to."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import version

import pytest
import torch

from dkpnet_ext.ops import native

GPU = pytest.mark.gpu


def _version(distribution: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(distribution).split(".")[:2])


runs_the_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is not None and _version("triton") <= (3, 6) and _version("numpy") >= (2, 4),
    reason="the interpreter of Triton 3.6 (torch 2.10) does not work with NumPy 2.4; pip install 'numpy<2.4'",
)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(params=["cpp", pytest.param("cuda", marks=GPU), pytest.param("triton", marks=GPU)])
def backend(request) -> str:
    """A backend with a forward and a backward of its own. (Triton under the interpreter: test_triton.py.)"""
    if request.param == "cpp" and native.missing:
        pytest.skip(native.missing)
    return request.param


@pytest.fixture
def device(backend) -> str:
    return "cpu" if backend == "cpp" else "cuda"


class ErrorRule:
    """At most ``factor`` times the error of plain PyTorch in the same dtype, both against float64.

    An error is the Euclidean norm of the difference over everything that was added under one name, so that it takes no
    luck with single elements. The rounding to the dtype, half a unit in the last place, is always allowed.
    """

    def __init__(self) -> None:
        self.squares: dict[str, list[float]] = {}

    def add(self, name: str, got: torch.Tensor, plain: torch.Tensor, truth: torch.Tensor) -> None:
        assert got.dtype == plain.dtype and got.shape == truth.shape, name
        assert got.isfinite().all(), name
        rounding = 0.5 * torch.finfo(got.dtype).eps * truth
        new = [t.double().square().sum().item() for t in (got - truth, plain - truth, rounding)]
        self.squares[name] = [a + b for a, b in zip(new, self.squares.get(name, (0.0, 0.0, 0.0)))]

    def check(self, factor: Callable[[str], float]) -> None:
        for name, squares in self.squares.items():
            error, plain, rounding = (square**0.5 for square in squares)
            allowed = factor(name) * max(plain, rounding)
            assert error <= allowed, f"{name}: error {error:.3e}, plain PyTorch {plain:.3e}, allowed {allowed:.3e}"


@pytest.fixture
def error_rule() -> ErrorRule:
    return ErrorRule()
