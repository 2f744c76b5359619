"""The addresses of the Triton kernels at sizes whose elements no 32-bit number counts.

The last program of each grid runs in Triton's interpreter on tensors without memory: an address is the tensor's number and
an offset, every load gives zeros, and each offset has to lie inside its tensor.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from dkpnet_ext.ops.triton import density as triton_density
from dkpnet_ext.ops.triton import head as triton_head
from dkpnet_ext.ops.triton import reweight as triton_reweight
from dkpnet_ext.ops.triton import variational as triton_variational

from .conftest import runs_the_interpreter

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by test_under_the_interpreter")
SHIFT = 44  # an address is (number of the tensor, counted from 1) << SHIFT, plus the offset in bytes


@runs_the_interpreter
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "DKPNET_BACKEND": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0 and " passed" in result.stdout, result.stdout + result.stderr


class Place:
    """What the interpreter takes for a tensor."""

    def __init__(self, number: int, tensor: torch.Tensor):
        self.number, self.dtype, self.bytes = number, tensor.dtype, tensor.nbytes

    def data_ptr(self) -> int:
        return self.number << SHIFT


class Memory:
    """Takes the place of the interpreter's memory."""

    def __init__(self):
        self.places: list[Place] = []

    def place(self, argument):
        if isinstance(argument, tuple | list):
            return tuple(map(self.place, argument))
        if isinstance(argument, torch.Tensor):
            argument = Place(len(self.places) + 1, argument)
            self.places.append(argument)
        return argument

    def check(self, addresses, mask):
        addresses, mask = np.broadcast_arrays(addresses, mask)
        used = addresses[mask.astype(bool)].astype(np.int64)
        if used.size:
            number = int(used.flat[0] >> SHIFT)
            offset = used - (number << SHIFT)
            assert 1 <= number <= len(self.places), hex(used.flat[0])
            assert 0 <= offset.min() and offset.max() < self.places[number - 1].bytes, (number, offset.max())

    def load(self, addresses, mask, other, dtype):
        self.check(addresses, mask)
        return np.broadcast_to(other, addresses.shape).astype(dtype)

    def store(self, addresses, values, mask):
        self.check(addresses, mask)


class LastProgram:
    """Stands for a kernel: kernel[grid](...) runs the last program alone."""

    def __init__(self, kernel, monkeypatch):
        self.kernel, self.patch = kernel, monkeypatch

    def __getitem__(self, grid):
        from triton.runtime import interpreter

        def run(*arguments, **options):
            memory, last = Memory(), [side - 1 for side in grid]
            with self.patch.context() as patch:
                patch.setattr(interpreter, "_interpreter", memory)
                patch.setattr(
                    type(interpreter.interpreter_builder), "create_get_program_id",
                    lambda builder, axis: interpreter.TensorHandle(np.array([last[axis]], np.int32), interpreter.tl.int32),
                )  # fmt: skip
                patch.setattr(interpreter.GridExecutor, "_init_args_hst", lambda executor, args, kwargs: (args, kwargs))
                patch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
                options = {name: memory.place(value) for name, value in options.items()}
                self.kernel[(1,) * len(grid)](*map(memory.place, arguments), **options)

        return run


class Ignored:
    """Stands for a kernel that does not run."""

    def __getitem__(self, grid):
        return lambda *_, **__: None


@pytest.fixture
def last_programs(monkeypatch):
    def replace(module, *names):
        for name in names:
            monkeypatch.setattr(module, name, LastProgram(getattr(module, name), monkeypatch))

    return replace


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


@interpreted
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_reweight(last_programs, layout):
    last_programs(triton_reweight, "forward_kernel", "backward_kernel")
    x, attention = meta(70000, 300, 16, 8).contiguous(memory_format=layout), meta(70000, 300)
    triton_reweight.forward(x, attention)
    triton_reweight.backward(x, x, attention)


@interpreted
def test_head(last_programs):
    last_programs(triton_head, "forward_kernel", "backward_kernel", "downsample_kernel")
    side = 2**13
    fine, weight, products = meta(1, 40, side, side), meta(1, 40, 64), [meta(1, side, side, 64)]
    tail = meta(1, 64), meta(32, 64), *(meta(32) for _ in range(3))
    triton_head.forward(fine, weight, products, *tail, side, side)
    grad_hidden, _ = triton_head.backward(fine[:, :1], fine, weight, products, *tail, side, side)
    triton_head.downsample(grad_hidden, side // 2, side // 2)


@interpreted
def test_variational(last_programs, monkeypatch):
    """Not the parameters' gradients, whose loop over the images is too long for the interpreter."""
    last_programs(triton_variational, "forward_kernel", "backward_images_kernel")
    monkeypatch.setattr(triton_variational, "backward_parameters_kernel", Ignored())
    batch, dim, samples = 600000, 512, 8
    mu, centers = meta(batch, dim), meta(1, 1, dim)
    labels = torch.empty(batch, dtype=torch.int64, device="meta")
    inputs = mu, mu, centers, centers[:, 0], labels, labels[:1], None
    *out, selected, probabilities = triton_variational.forward(*inputs, samples, 0.0, 0)
    triton_variational.backward(*out, *inputs, selected, probabilities, 0)


@interpreted
def test_density(last_programs):
    last_programs(triton_density, "density_kernel")
    points, offsets = meta(9, 2), torch.empty(65, dtype=torch.int64, device="meta")
    triton_density.forward(points, offsets, None, 4.0, 1.75, 2**13, 2**13, 1)
