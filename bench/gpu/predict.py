"""What each CUDA kernel should take on an H100, from its machine code: `python bench/gpu/predict.py [BENCH.json]`.

Prints a page in Markdown: bytes, FLOPs, launches, registers, shared memory, occupancy, instruction mix and a predicted
time, at B = 32, crops of 400 (100 x 100 outputs), branches of 40, 80 and 160 channels, K = 512, bfloat16. With the JSON file
of `pytest bench --benchmark-json`, the measured rows of the same operators stand beside. Needs nvcc and cuobjdump (the
toolkit's or Triton's), no GPU.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sass import ROOT, inspect, loops, mix

# NVIDIA's figures of the H100 SXM5: multiprocessors, clock under load, what a multiprocessor holds.
SMS, CLOCK, REGISTERS, SHARED, THREADS, BLOCKS = 132, 1.7e9, 65536, 227 * 1024, 2048, 32
COPY = 3.35e12 * 0.85  # bytes a second that a copy reaches
ISSUE = (0.45, 0.7)  # of four instructions a cycle and multiprocessor; kernels with dependent loads and barriers
LAUNCH = 3e-6  # the first block's start and the last one's end

B, SIDE, K = 32, 100, 512
PIXELS, WIDTHS, H1, H2 = SIDE * SIDE, (40, 80, 160), 64, 32
PART, TILE = 512, 128


@dataclass
class Kernel:
    """A launch at the paper's size. ``bytes``: to and from memory, every array once. ``trips``: warps x runs of the kernel's
    largest loop (of all of it where that is None); ``inner``: runs of that loop's innermost loops, the largest one first."""

    source: str
    name: str
    row: str
    threads: int
    bytes: float
    flops: float
    warps: float
    trips: float | None = None
    inner: tuple[float, ...] = ()


def kernels() -> list[Kernel]:
    tiles = B * sum(-(-min(PART, PIXELS - start) // TILE) for start in range(0, PIXELS, PART))
    blocks = B * -(-PIXELS // PART)
    fine, coarse = B * WIDTHS[0] * PIXELS * 2, B * H1 * (PIXELS // 4 + PIXELS // 16) * 2
    weights = B * WIDTHS[0] * H1 * 2
    hidden = B * H1 * PIXELS * 2
    product = 2 * B * PIXELS * (WIDTHS[0] * H1 + H1 * H2)
    taps = 2 * B * PIXELS * 2 * 4 * H1
    x = B * K * PIXELS * 2
    tail = {"threads": 256, "warps": 8 * blocks, "trips": tiles / blocks, "inner": (2, 3)}
    down = {"threads": 256, "flops": 2 * B * H1 * PIXELS * 4, "inner": (1,)}
    return [
        Kernel("head", "tail_kernel<TensorTile<bf16, false>", "head forward", bytes=fine + coarse + weights + B * PIXELS * 2,
               flops=product + taps, **tail),
        Kernel("head", "tail_kernel<TensorTile<bf16, true>", "head backward",
               bytes=fine + coarse + weights + B * PIXELS * 2 + hidden + blocks * (H1 * H2 + 129) * 4,
               flops=product + taps + 4 * B * PIXELS * H1 * H2, **tail),
        Kernel("head", "downsample_kernel<bf16>", "head downsample to 1/2", bytes=hidden * 1.25,
               warps=B * PIXELS / 4 * 8 / 32, trips=1, **(down | {"inner": (4,)})),
        Kernel("head", "downsample_kernel<bf16>", "head downsample to 1/4", bytes=hidden * 1.0625,
               warps=B * PIXELS / 16 * 8 / 32, trips=2, **(down | {"inner": (8,)})),
        Kernel("reweight", "scale_planes_kernel<bf16, 8, unsigned int>", "reweight forward", 256, 2 * x, x / 2,
               warps=x / 16 / 32),
        Kernel("reweight", "backward_planes_kernel<bf16, 8, 8>", "reweight backward, contiguous", 256, 3 * x, 3 * x / 2,
               warps=B * K * 8, trips=PIXELS / 8 / 256),
        Kernel("reweight", "backward_rows_kernel<bf16, 8>", "reweight backward, channels_last", 256, 3 * x, 3 * x / 2,
               warps=B * K / 256 * -(-PIXELS // 256) * 8, trips=256 / 8),
    ]  # fmt: skip


def occupancy(threads: int, registers: int, shared: int) -> int:
    """Blocks that a multiprocessor holds; registers are given out in eights, and 1 KiB of shared memory to the system."""
    by_registers = REGISTERS // (-(-registers // 8) * 8 * threads)
    return min(by_registers, SHARED // (shared + 1024), THREADS // threads, BLOCKS)


def instructions_run(kernel: Kernel, code: list[str]) -> float:
    """Of all warps: the code once, its largest loop `trips` times, and the innermost loops in that one `inner` times each.

    An estimate: a branch not taken counts as taken, and copies of a loop that the compiler made for few or many runs both count.
    """
    ranges = loops(code)
    if kernel.trips is None or not ranges:  # up to the end behind the vector store; single elements come after it
        store = next(i for i, line in enumerate(code) if re.search(r"STG\.E(\.EF)?\.128", line))
        return kernel.warps * next(i for i in range(store, len(code)) if "EXIT" in code[i])
    begin, end = ranges[0]
    innermost = [r for r in ranges[1:] if begin <= r[0] and r[1] <= end
                 and not any(o != r and r[0] <= o[0] and o[1] <= r[1] for o in ranges)]  # fmt: skip
    body = end - begin
    for i, (first, last) in enumerate(innermost):
        runs = kernel.inner[min(i, len(kernel.inner) - 1)] if kernel.inner else 1
        body += (runs - 1) * (last - first)
    return kernel.warps * (len(code) - (end - begin) + kernel.trips * body)


def predict(kernel: Kernel, figures: dict, code: list[str]) -> dict:
    """Seconds, from the slower one of memory and instruction issue, and what they come from."""
    run = instructions_run(kernel, code)
    memory = kernel.bytes / COPY
    issue = [run / (SMS * 4 * CLOCK * share) for share in ISSUE]
    blocks = occupancy(kernel.threads, figures["registers"], figures["shared_bytes"])
    return {
        "low": max(memory, issue[1]) + LAUNCH,
        "high": max(memory / 0.9, issue[0]) + LAUNCH,
        "memory": memory,
        "issue": run / (SMS * 4 * CLOCK),
        "instructions": run,
        "occupancy": f"{blocks} x {kernel.threads} ({blocks * kernel.threads / THREADS:.0%})",
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)) + "\n"


def measured(path: Path) -> list[list[str]]:
    """Row, setting and microseconds of every contender that is ours, where a GPU ran it."""
    rows = []
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        info = benchmark["extra_info"]
        if "row" in info and re.match(r"attended|head|reweight|variational|density", info["row"], re.IGNORECASE):
            for name in info["ours"]:
                seconds = info["contenders"][name].get("graph seconds", info["contenders"][name]["seconds"])
                rows.append([info["row"], info["setting"], name, f"{seconds * 1e6:.1f}"])
    return rows


def main() -> None:
    found = {stem: inspect(ROOT / "csrc" / "cuda" / f"{stem}.cu", "90") for stem in ("head", "reweight")}
    times, machine, mixes = [], [], []
    for kernel in kernels():
        name = next(n for n in found[kernel.source] if n.replace("dkpnet::", "").startswith(kernel.name))
        figures, code = found[kernel.source][name]
        p = predict(kernel, figures, code)
        micro = [f"{p[key] * 1e6:.0f}" for key in ("memory", "issue", "low", "high")]
        size = [f"{kernel.bytes / 1e6:.0f}", f"{kernel.flops / 1e9:.2f}", f"{p['instructions'] / 1e6:.1f}"]
        times.append([kernel.row, *size, *micro[:2], f"**{micro[2]} to {micro[3]}**"])
        held = [str(figures[key]) for key in ("registers", "shared_bytes", "spill_stores")]
        machine.append([f"`{name}`", *held, p["occupancy"]])
        mixes.append([f"`{name}`", str(len(code)), ", ".join(f"{kind} {n}" for kind, n in mix(code).most_common())])
    machine, mixes = [list(map(list, dict.fromkeys(map(tuple, rows)))) for rows in (machine, mixes)]
    print(PAGE)
    header = ["launch", "MB", "GFLOP", "million warp instructions", "memory, us", "issue, us", "predicted, us"]
    print(table(header, times))
    print(BY_HAND)
    print(table(["kernel", "registers", "shared bytes", "spilled", "blocks x threads a multiprocessor"], machine))
    print(table(["kernel", "instructions", "of them"], mixes))
    if len(sys.argv) > 1:
        print("## Measured\n")
        print(table(["row", "setting", "of ours", "us"], measured(Path(sys.argv[1]))))


PAGE = f"""# On paper, for the day a GPU is lent

Predictions, not measurements: written by `python bench/gpu/predict.py` from the machine code for sm_90 (nvcc, cuobjdump).
B = {B}, crops of 400, outputs of {SIDE} x {SIDE}, branches of {WIDTHS} channels, K = {K}, bfloat16, H100 SXM5.
*memory*: every array once, at {COPY / 1e12:.2f} TB/s. *issue*: all warp instructions at four a cycle and multiprocessor,
{CLOCK / 1e9} GHz. *predicted*: the slower of memory and issue, where issue reaches {ISSUE[0]:.0%} to {ISSUE[1]:.0%} and memory
90 % to all, and {LAUNCH * 1e6:.0f} us for the launch. Runs of loops are estimated (`instructions_run`).
"""

BY_HAND = """Too small for the model above, predicted by hand: variational forward about 10 us (1 launch) and backward about 13 us
(2 launches): latency of a chain of reductions; density 10 to 40 us (1 launch): as the number of heads per tile. Head forward is
1 launch and backward 3 beside the products of the coarser branches; reweight is 1 and, in channels_last backward, 2.
"""

if __name__ == "__main__":
    main()
