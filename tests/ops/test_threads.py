"""The CPU loops' threads: where none can be started, or none pays, the caller does the work."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from dkpnet_ext.ops import native, use_backend, variational

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


@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
@pytest.mark.parametrize("samples, threaded", [(1, False), (4, False), (64, True)])
def test_variational_starts_threads_only_where_they_pay(samples, threaded):
    """In training's sizes all the work is less than what a thread costs; processor time of other threads shows them."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in ((32, 128), (32, 128), (5, 2, 128), (5, 128))]
    labels, before = torch.arange(32) % 5, torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with use_backend("cpp"):
            variational(*tensors, labels, num_samples=samples)
            alone, all_threads = time.thread_time(), time.process_time()
            for _ in range(20):
                variational(*tensors, labels, num_samples=samples)
            alone, all_threads = time.thread_time() - alone, time.process_time() - all_threads
    finally:
        torch.set_num_threads(before)
    assert (all_threads - alone > 0.2 * all_threads) == threaded
