"""What Nsight Compute counts of our CUDA kernels at the paper's size: `python bench/gpu/ncu.py` (a GPU and ncu).

Prints a table in Markdown, a row a launch: time, bytes of device memory and their share of the memory's rate, instructions,
share of issue slots used, warps resident, registers. `predict.py` says beforehand what these should be.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

METRICS = {
    "gpu__time_duration.sum": ("us", 1e-3),
    "dram__bytes.sum": ("MB", 1e-6),
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed": ("memory, %", 1),
    "smsp__inst_executed.sum": ("million warp instructions", 1e-6),
    "smsp__issue_active.avg.pct_of_peak_sustained_active": ("issue, %", 1),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("warps resident, %", 1),
    "launch__registers_per_thread": ("registers", 1),
}


def once() -> None:
    """Every operator forward and backward, twice, in bfloat16 (variational in float32), as in `predict.py`."""
    import torch
    from test_head import both_ways, make, ours

    from dkpnet_ext.ops import reweight, use_backend, variational

    torch.manual_seed(0)
    x = torch.randn(32, 512, 100, 100, device="cuda", dtype=torch.bfloat16)
    attention = torch.rand(32, 512, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    mean, spread = (torch.randn(32, 128, device="cuda", requires_grad=True) for _ in range(2))
    centers, prior = (torch.randn(*shape, device="cuda", requires_grad=True) for shape in ((5, 2, 128), (5, 128)))
    labels = torch.arange(32, device="cuda") % 5
    run = both_ways(ours("cuda"))
    inputs = make("cuda", torch.bfloat16, 32, 100, torch.channels_last)
    with use_backend("cuda"):
        for _ in range(2):
            run(*inputs)
            for layout in (torch.contiguous_format, torch.channels_last):
                leaf = x.contiguous(memory_format=layout).requires_grad_()
                out = reweight(leaf, attention)
                torch.autograd.grad(out, (leaf, attention), torch.ones_like(out))
            terms = variational(mean, spread, centers, prior, labels, dropout=0.2)[:4]
            torch.autograd.grad([t.sum() for t in terms], (mean, spread, centers, prior))
    torch.cuda.synchronize()


def main() -> None:
    if "--once" in sys.argv:
        once()
        return
    command = [
        "ncu", "--csv", "--print-units", "base", "--clock-control", "none", "--target-processes", "application-only",
        "--kernel-name-base", "demangled", "--kernel-name", "regex:dkpnet", "--metrics", ",".join(METRICS),
        sys.executable, __file__, "--once",
    ]  # fmt: skip
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = [line for line in found.stdout.splitlines() if line.startswith('"')]
    launches: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        name = (
            row["Kernel Name"]
            .replace("dkpnet::", "")
            .replace("<unnamed>::", "")
            .replace("(bool)", "")
            .removeprefix("void ")
            .partition("(")[0]
        )
        launches.setdefault(row["ID"], {"kernel": f"`{name}`"})
        label, scale = METRICS[row["Metric Name"]]
        launches[row["ID"]][label] = f"{float(row['Metric Value'].replace(',', '')) * scale:.4g}"
    if not launches:
        sys.exit(f"ncu counted nothing (exit {found.returncode}):\n{found.stdout[-2000:]}")
    rows = list(launches.values())[len(launches) // 2 :]  # the second time, with warm caches
    header = ["kernel", *(label for label, _ in METRICS.values())]
    print("# Counted by Nsight Compute\n")
    for line in (header, ["---"] * len(header), *([row.get(name, "") for name in header] for row in rows)):
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
