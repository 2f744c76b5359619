"""Two builds of the compiled module against each other: `python experiments/kernels.py OLD [--threads 2] [--only reweight]`.

OLD is a folder with another `_dkpnet_ext*.so`, of the same arguments. Each module runs in a process of its own, both are
asked in turns, and the processor time of a call is measured: medians, and the median of the ratios within a turn. "same"
says whether the results have the same bits. Results: bench/results/kernels.md.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))


def cases() -> Iterator[tuple[str, Callable]]:
    from test_head import both_ways, forward, make, ours

    from dkpnet_ext.ops import native, use_backend, variational

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for layout in (torch.contiguous_format, torch.channels_last):
            x, grad = (torch.randn(2, 512, 100, 100).to(dtype).contiguous(memory_format=layout) for _ in range(2))
            out, attention = torch.empty_like(x), torch.rand(2, 512).to(dtype)
            problem = {"dtype": dtype, "batch": 2, "channels": 512, "pixels": 10000, "x": x, "attention": attention}
            problem["channels_last"] = layout is torch.channels_last
            backward = {"grad": grad, "dx": out, "dattention": torch.empty_like(attention), "workspace": None}
            for direction, rest in (("forward", {"out": out}), ("backward", backward)):

                def call(direction=direction, x=x, given=problem | rest, results=rest):
                    native.run(f"reweight_{direction}", x, **given)
                    return [t for t in results.values() if t is not None]

                yield f"reweight {direction}, {dtype}, {layout}".replace("torch.", ""), call
    for dtype in (torch.float32, torch.bfloat16):
        inputs = make("cpu", dtype, 4, 100, torch.channels_last)
        for name, way in (("inference", forward), ("training", both_ways)):
            yield (
                f"head and pool, {name}, {dtype}, 4 images".replace("torch.", ""),
                lambda w=way, i=inputs: w(ours("cpp"))(*i),
            )
    sizes = (5, 2, 1), (16, 2, 1), (64, 2, 1), (5, 16, 1), (5, 64, 1), (5, 2, 4), (5, 2, 16), (5, 2, 64)
    for domains, subs, samples in sizes:
        shapes = (32, 128), (32, 128), (domains, subs, 128), (domains, 128)
        leaves = [torch.randn(shape).mul(128**-0.5).requires_grad_() for shape in shapes]
        labels = torch.arange(32) % domains

        def step(leaves=leaves, samples=samples, labels=labels):
            with use_backend("cpp"):
                out = variational(*leaves, labels, num_samples=samples, seed=torch.tensor([5]), dropout=0.2)
            return torch.autograd.grad([t.sum() for t in out[:4]], leaves)

        yield f"variational, {domains} domains, {subs} sub-components, {samples} samples", step


def answer() -> None:
    """The process of one module: a line with a name asks for one measurement."""
    torch.manual_seed(0)
    known = dict(cases())
    print(*known, sep="|", flush=True)
    for line in sys.stdin:
        call, start = known[line.strip()], time.process_time()
        results, once = call(), time.process_time() - start
        repeat = int(0.004 / max(once, 1e-6)) + 1
        start = time.process_time()
        for _ in range(repeat):
            call()
        seconds = (time.process_time() - start) / repeat
        digest = hashlib.md5(b"".join(t.detach().contiguous().view(torch.uint8).numpy().tobytes() for t in results))
        print(seconds, digest.hexdigest(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    path, processes = os.environ.get("PYTHONPATH", ""), []
    for first in (str(arguments.old.resolve()), ""):
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "PYTHONWARNINGS": "ignore"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (first, path)))
        command = [sys.executable, __file__, "answer"]
        processes.append(subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True))
    names, _ = (process.stdout.readline().strip().split("|") for process in processes)
    print("| case | before, ms | after, ms | ratio | same |\n|---|---|---|---|---|")
    for name in (name for name in names if arguments.only in name):
        turns = []
        for turn in range(arguments.rounds + 1):
            answers = []
            for process in processes:
                print(name, file=process.stdin, flush=True)
                answers.append(process.stdout.readline().split())
            turns += [answers] * (turn > 0)
        times = [[float(answers[side][0]) for answers in turns] for side in (0, 1)]
        ratio = statistics.median(old / new for old, new in zip(*times, strict=True))
        before, after = (1e3 * statistics.median(side) for side in times)
        same = "yes" if turns[0][0][1] == turns[0][1][1] else "no"
        print(f"| {name} | {before:.2f} | {after:.2f} | {ratio:.2f} | {same} |", flush=True)


if __name__ == "__main__":
    answer() if sys.argv[1:] == ["answer"] else main()
