"""Freed memory stays with the process: measured as page faults of a step that allocates and frees."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from dkpnet_ext.memory import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("not glibc")
for step in range(12):
    if step == 8:  # the heap has found its size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [torch.ones(size << 18) for size in (1, 3, 40)]  # 1, 3, 40 MB
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True)
    if "not glibc" in done.stderr:
        pytest.skip("needs glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_freed_memory_is_kept():
    assert faults("keep") < 500 < 5 * 500 < faults("default")
