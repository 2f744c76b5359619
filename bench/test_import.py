"""What `import dkpnet_ext` costs beyond `import torch`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import pytest

CODE = "import time, torch; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"


@pytest.mark.parametrize("module", ["dkpnet_ext", "dkpnet_ext.ops"])
def test_import(benchmark, tiny, module):
    """Each in a new process; the first one, which may write byte code, is not counted."""
    seconds: list[float] = []

    def fresh():
        command = [sys.executable, "-c", CODE.format(module=module)]
        seconds.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    benchmark.pedantic(fresh, rounds=1 if tiny else 5, warmup_rounds=1)
    low, median, high = statistics.quantiles(seconds[1:] * 2, n=4, method="inclusive")
    name = f"import {module}"
    benchmark.extra_info.update(
        {
            "row": name, "setting": "beyond `import torch`, in a new process", "device": "cpu", "ours": [name],
            "baselines": [], "aims": [], "limit": 0.3, "ceilings": {}, "load": os.getloadavg()[0], "threads": 1,
            "gpu": "", "clock": "wall", "contenders": {name: {"seconds": median, "low": low, "high": high}},
        }
    )  # fmt: skip
