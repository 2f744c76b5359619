"""The CPU loops' threads: where none can be started, the caller does the work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dkpnet_ext.ops import native

CODE = """
import resource, torch
from dkpnet_ext.ops import reweight, use_backend
x, y = torch.ones(4, 64, 64, 64), torch.full((4, 64), 2.0)
torch.set_num_threads(4)
with use_backend("cpp"):
    reweight(x[:1, :1], y[:1, :1])  # everything is imported
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    # Enough for the 4 MiB of the result, not for a thread's stack of 8 MiB.
    resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 20), resource.RLIM_INFINITY))
    out = reweight(x, y)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(out.sum().item())
"""


@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_no_thread_can_be_started():
    done = subprocess.run([sys.executable, "-c", CODE], env=os.environ.copy(), capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert float(done.stdout) == 2 * 4 * 64 * 64 * 64
