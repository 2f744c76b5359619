"""Runs the C++ unit tests (tests/csrc/test_*.cpp, through ctest): under sanitizers, for line coverage of csrc/math, and the
emulated CUDA kernels with every access to memory checked and each barrier removed in turn."""

from __future__ import annotations

import json
import os
import platform
import re
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


def barriers_in_the_sources() -> set[str]:
    return {
        f"{path.name}:{number}"
        for path in (ROOT / "csrc" / "cuda").rglob("*")
        if path.is_file()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"__syncthreads\(\)", line.partition("//")[0])
    }


def test_no_race_and_every_barrier_is_needed():
    folder = build_and_test("DKPNET_RACES")
    programs = [folder / path.stem for path in sorted((ROOT / "tests" / "csrc").glob("test_*_cuda.cpp"))]
    met: dict[str, list[Path]] = {}
    for program in programs:
        for site in run("env", "EMULATION_BARRIERS=1", program).split():
            met.setdefault(site, []).append(program)
    assert set(met) == barriers_in_the_sources()
    not_needed = [
        site
        for site, users in sorted(met.items())
        if all(
            subprocess.run([p], env=os.environ | {"EMULATION_SKIP": site}, capture_output=True).returncode == 0
            for p in users
        )
    ]
    assert not not_needed


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the instruction sets of x86-64")
def test_the_processor_is_asked_for_all_that_the_compiler_may_use():
    def features(*flags: str) -> set[str]:
        macros = run("c++", *flags, "-dM", "-E", "-xc++", "/dev/null")
        return set(re.findall(r"^#define __([A-Z0-9_]+)__ 1$", macros, re.MULTILINE))

    asked = {
        word.upper() for word in re.findall(r"\w+", (ROOT / "csrc/cpu/isa.h").read_text().replace("sse4.2", "sse4_2"))
    }
    implied = {"SSE3", "SSSE3", "SSE4_1", "CRC32", "XSAVE", "LAHF_SAHF"}  # by SSE4.2, AVX and LZCNT
    compiled_for = features("-march=x86-64-v4") - features("-march=x86-64")
    assert {"AVX2", "FMA", "F16C"} <= compiled_for and compiled_for - implied <= asked
