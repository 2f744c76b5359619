"""How the benchmarks measure: everything that is compared runs in one process, in turns, on the same values.

`compare` (`measure.py`) times all contenders round by round (A B C A B C ...); medians, quartiles, the error of each
against float64 and, where asked, its memory stand side by side. On a GPU a contender is timed with CUDA events twice,
called from Python and as a replay of a CUDA graph. All of it goes into the `extra_info` of pytest-benchmark's JSON, with
versions, load and the ceilings measured in the same run; `report.py` makes one page of every such file.

    python -m pytest bench --benchmark-json=bench/results/NAME.json && python bench/report.py

`-m gpu` takes the rows of a GPU alone, `-m "not gpu"` those of the CPU; `--tiny` rehearses everything and measures nothing.
"""

from __future__ import annotations

import functools
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import measure
import pytest
import torch

from dkpnet_ext.ops import native

PACKAGES = ("torch", "triton", "timm", "numpy", "pytest-benchmark")


def pytest_addoption(parser):
    parser.addoption("--tiny", action="store_true", help="small sizes, two rounds: a rehearsal that measures nothing")
    parser.addoption("--batch", type=int, default=32, help="images of the head's and reweight's rows (default 32)")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], scope="session")
def device(request) -> str:
    if request.param == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for everyone: cuDNN's convolutions take it by default
    return request.param


@pytest.fixture(scope="session")
def tiny(request) -> bool:
    return request.config.getoption("--tiny")


@pytest.fixture(scope="session")
def batch(request, tiny) -> int:
    return 2 if tiny else request.config.getoption("--batch")


@pytest.fixture
def compare(benchmark, tiny):
    """`measure.compare` of this test."""
    return functools.partial(measure.compare, benchmark, tiny=tiny)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.pop("node", None)


def pytest_benchmark_update_commit_info(config, commit_info):
    if os.environ.get("DKPNET_COMMIT"):  # where the sources were copied without git
        commit_info["id"] = os.environ["DKPNET_COMMIT"]


def pytest_benchmark_update_json(config, benchmarks, output_json):
    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    output_json["dkpnet"] = {
        "tiny": config.getoption("--tiny"),
        "python": platform.python_version(),
        "versions": {package: installed(package) for package in PACKAGES},
        "module": native.module.build_info["fingerprint"] if native.module else native.missing,
        "sources": native.source_fingerprint(),
        "cores": os.cpu_count(),
        "ceilings": measure._ceilings,
    }
