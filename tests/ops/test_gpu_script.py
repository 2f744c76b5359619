"""bench/gpu/run.sh without a GPU: it parses, lists its stages, knows each, and its limits fit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).resolve().parents[2] / "bench" / "gpu"
SCRIPT = GPU / "run.sh"


def test_the_script_parses_and_every_listed_stage_is_there():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    listed = subprocess.run(["bash", SCRIPT, "--list"], check=True, capture_output=True, text=True).stdout.split()
    assert listed[0] == "build" and {"sanitize", "bench", "predict", "test"} <= set(listed)
    assert set(re.findall(r"^stage_(\w+)\(\)", SCRIPT.read_text(), re.MULTILINE)) == set(listed)


def test_nothing_runs_past_the_end():
    function = re.search(r"^limited\(\) \{.*?^\}", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)[0]
    over = subprocess.run(["bash", "-c", f"{function}\nSECONDS=1470; limited 9 true"])
    cut = subprocess.run(["bash", "-c", f"{function}\nSECONDS=1459; limited 60 sleep 30"])
    assert over.returncode == 124 and cut.returncode == 124


def test_predictions(monkeypatch):
    monkeypatch.syspath_prepend(str(GPU.parent))
    monkeypatch.syspath_prepend(str(GPU))
    import predict
    import sass

    if not (sass.find_nvcc() and sass.find_cuobjdump()):
        pytest.skip("needs nvcc and cuobjdump")
    page = subprocess.run([sys.executable, GPU / "predict.py"], check=True, capture_output=True, text=True).stdout
    for kernel in predict.kernels():
        assert f"| {kernel.row} |" in page
    assert predict.occupancy(256, 128, 47392) == 2 and predict.occupancy(256, 63, 0) == 4
