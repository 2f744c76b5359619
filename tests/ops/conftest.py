"""Shared by the operator tests: which backends there are to test, and the rule that their errors are held to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dkpnet_ext.ops import native

GPU = pytest.mark.gpu


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

    Errors are the largest over everything that was added under one name: over few values plain PyTorch may happen to
    have next to none. Half a unit in the last place of the largest value, which no rounding avoids, is always allowed.
    """

    def __init__(self) -> None:
        self.errors: dict[str, list[float]] = {}

    def add(self, name: str, got: torch.Tensor, plain: torch.Tensor, truth: torch.Tensor) -> None:
        assert got.dtype == plain.dtype and got.shape == truth.shape, name
        assert got.isfinite().all(), name
        if truth.numel():
            rounding = 0.5 * torch.finfo(got.dtype).eps * truth.abs().max().item()
            new = [(got.double() - truth).abs().max().item(), (plain.double() - truth).abs().max().item(), rounding]
            self.errors[name] = list(map(max, new, self.errors.get(name, new)))

    def check(self, factor: Callable[[str], float]) -> None:
        for name, (error, plain, rounding) in self.errors.items():
            allowed = factor(name) * max(plain, rounding)
            assert error <= allowed, f"{name}: error {error:.3e}, plain PyTorch {plain:.3e}, allowed {allowed:.3e}"


@pytest.fixture
def error_rule() -> ErrorRule:
    return ErrorRule()
