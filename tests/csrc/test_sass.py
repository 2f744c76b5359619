"""What nvcc makes of the CUDA kernels: the widths of their accesses to memory. Needs a toolkit, no GPU."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import sass  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (sass.find_nvcc() and sass.find_cuobjdump()), reason="needs nvcc and cuobjdump (the toolkit's or Triton's)"
)


@pytest.mark.parametrize("arch", ["80", "90"])
def test_reweight_moves_16_bytes_at_a_time(arch):
    kernels = sass.disassemble(ROOT / "csrc" / "cuda" / "reweight.cu", arch)
    vectors = {name: code for name, code in kernels.items() if re.search(r"<\S+, [248]\b", name)}
    assert {name.partition("_kernel")[0] for name in vectors} == {
        "scale_planes",
        "scale_rows",
        "backward_planes",
        "backward_rows",
    }
    for name, code in vectors.items():
        kinds = {sass.opcode(line) for line in code}
        assert {"LDG.E.128", "STG.E.128"} <= {re.sub(r"\.(EF|CONSTANT)", "", kind) for kind in kinds}, (name, kinds)
