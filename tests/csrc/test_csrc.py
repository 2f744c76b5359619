"""Runs the C++ unit tests (tests/csrc/test_*.cpp, through ctest): under sanitizers, and for line coverage of csrc/math."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
pytestmark = pytest.mark.skipif(
    not (shutil.which("cmake", path=PATH) and shutil.which("ninja", path=PATH) and shutil.which("c++")),
    reason="needs cmake, ninja and a C++ compiler",
)


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), env=os.environ | {"PATH": PATH}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_and_test(option: str) -> Path:
    folder = ROOT / "build" / f"ctest-{option.lower()}"  # kept, so that a second run compiles only what has changed
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, "-DDKPNET_TESTS=ON", f"-D{option}=ON")
    run("cmake", "--build", folder, *(["-j", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []))
    run("ctest", "--test-dir", folder, "--output-on-failure")
    return folder


def test_under_sanitizers():
    build_and_test("DKPNET_SANITIZE")


def test_line_coverage_of_the_host_device_functions():
    pytest.importorskip("gcovr")
    for stale in (ROOT / "build" / "ctest-dkpnet_coverage").rglob("*.gcda"):
        stale.unlink()
    folder = build_and_test("DKPNET_COVERAGE")
    summary = json.loads(
        run(
            sys.executable,
            "-m",
            "gcovr",
            "--root",
            ROOT,
            "--filter",
            f"{ROOT}/csrc/math/",
            "--json-summary",
            "-",
            folder,
        )
    )
    low = {f["filename"]: f["line_percent"] for f in summary["files"] if f["line_percent"] < 95}
    assert summary["files"] and not low, low
