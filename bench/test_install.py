"""What `pip install .` costs where torch is installed, and `import dkpnet_ext` beyond `import torch`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODE = "import time, torch; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"


def record(benchmark, name: str, setting: str, limit: float, seconds: list[float]) -> None:
    low, median, high = statistics.quantiles(seconds * 2, n=4, method="inclusive")
    benchmark.extra_info.update(
        {
            "row": name, "setting": setting, "device": "cpu", "ours": [name], "baselines": [], "aims": [], "limit": limit,
            "ceilings": {}, "load": os.getloadavg()[0], "threads": os.cpu_count(), "gpu": "", "clock": "wall",
            "contenders": {name: {"seconds": median, "low": low, "high": high}},
        }
    )  # fmt: skip


@pytest.mark.parametrize("module", ["dkpnet_ext", "dkpnet_ext.ops"])
def test_import(benchmark, tiny, module):
    """Each in a new process; the first one, which may write byte code, is not counted."""
    seconds: list[float] = []

    def fresh():
        command = [sys.executable, "-c", CODE.format(module=module)]
        seconds.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    benchmark.pedantic(fresh, rounds=1 if tiny else 5, warmup_rounds=1)
    record(benchmark, f"import {module}", "beyond `import torch`, in a new process", 0.3, seconds[1:])


def test_install(benchmark, tiny, tmp_path):
    """With the CUDA kernels for every architecture; pip's cache is filled by a download of the build's tools."""
    if tiny:
        pytest.skip("a rehearsal installs nothing")
    source = Path(__file__).resolve().parents[1]
    pip = [sys.executable, "-m", "pip"]
    filled = subprocess.run(
        [*pip, "download", "-q", "-d", tmp_path, "setuptools>=77", "cmake>=3.24", "ninja", "pybind11"]
    )
    if filled.returncode:
        pytest.skip("pip reaches no index to take the build's tools from")
    seconds: list[float] = []

    def install():
        start = time.perf_counter()
        command = [*pip, "install", "-q", "--no-deps", "--target", tmp_path / f"site{len(seconds)}", source]
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)

    benchmark.pedantic(install, rounds=1)
    code = "from _dkpnet_ext import build_info as b; print(b['cuda_missing'] or 'CUDA kernels for ' + b['cuda_archs'])"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site0")}
    built = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout
    setting = (
        f"`pip install --no-deps .`, pip's cache warm, MAX_JOBS={os.environ.get('MAX_JOBS', 'unset')}; {built.strip()}"
    )
    record(benchmark, "install", setting, 90, seconds)
