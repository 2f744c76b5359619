"""Clocks, memory and ceilings of the benchmarks; `conftest.py` says how they are used."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

_ceilings: dict[str, dict[str, float]] = {}


def ceilings(device: str) -> dict[str, float]:
    """The machine's best, measured once a process: bytes/s read plus written by a large copy, FLOP/s of PyTorch's
    product of large matrices and, on the CPU, of multiply-adds alone."""
    if device not in _ceilings:
        large = device == "cuda"
        source = torch.rand((2**30 if large else 2**27) // 4, device=device)
        target = torch.empty_like(source)
        found = {"bytes/s": 2 * source.nbytes / fastest(lambda: target.copy_(source), device)}
        side = 8192 if large else 2048
        for dtype in (torch.float32, torch.bfloat16):
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            found[f"{short(dtype)} FLOP/s"] = 2 * side**3 / fastest(lambda a=a, b=b: a @ b, device)
        if large:
            one = torch.zeros(1, device=device)
            found["two launches in a graph, s"] = graph_seconds(lambda: (one.add_(1), one.add_(1)))
        elif peak := multiply_add_peak():
            found["float32 FLOP/s, multiply-adds alone"] = peak * torch.get_num_threads()
        _ceilings[device] = found
    return _ceilings[device]


def multiply_add_peak() -> float | None:
    """FLOP/s of a core in float32, measured: independent multiply-adds in registers. None without a C compiler."""
    lanes = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)
    code = f"""
    typedef float Vector __attribute__((vector_size({4 * lanes})));
    float run(long n, float a, float b) {{
      Vector sums[12];
      for (int i = 0; i < 12; ++i) sums[i] = b * i - (Vector){{}};  // all different, or the compiler keeps one
      for (long k = 0; k < n; ++k)
    #pragma GCC unroll 12
        for (int i = 0; i < 12; ++i) sums[i] = sums[i] * a + b;
      Vector sum = sums[0];
      for (int i = 1; i < 12; ++i) sum += sums[i];
      return sum[0];
    }}"""
    compiler, count = shutil.which("cc"), 2_000_000
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "peak.so"
        flags = ["-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-xc", "-", "-o", target]
        if subprocess.run([compiler, *flags], input=code, text=True, capture_output=True).returncode:
            return None
        run = ctypes.CDLL(str(target)).run
        run.argtypes, run.restype = [ctypes.c_long, ctypes.c_float, ctypes.c_float], ctypes.c_float
        return count * 12 * lanes * 2 / (fastest(lambda: run(count, 0.999, 1e-3), "cpu") * torch.get_num_threads())


def backends(device: str, triton: bool = True) -> tuple[str, ...]:
    """The backends of the operators to measure, the one that is chosen automatically first; not all have a Triton form."""
    if device != "cuda":
        return ("cpp", "reference")
    return ("cuda", "triton", "reference") if triton else ("cuda", "reference")


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def fastest(function: Callable, device: str, rounds: int = 7) -> float:
    """Seconds of the fastest call; on the CPU by processor time, shared out to the threads."""
    function()
    if device == "cuda":
        return min(seconds(function, device) for _ in range(rounds))
    found = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        found.append((time.process_time() - start) / torch.get_num_threads())
    return min(found)


def seconds(function: Callable, device: str, calls: int = 1) -> float:
    """Seconds per call, the mean of ``calls`` in a row."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def in_turns(function: Callable, inputs: Sequence[tuple]) -> Callable:
    """A function without arguments that takes the next of the input sets at every call: larger than a cache together."""
    turn = 0

    def call():
        nonlocal turn
        turn += 1
        return function(*inputs[turn % len(inputs)])

    return call


def captured(function: Callable, calls: int = 1) -> Callable:
    """The replay of a CUDA graph of ``calls`` calls."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            function()
    return graph.replay


def graph_seconds(function: Callable, calls: int = 16, rounds: int = 7) -> float:
    """Seconds per call inside a CUDA graph of ``calls`` calls, the median of replays; of a slow function fewer calls."""
    if seconds(function, "cuda") > 0.02:
        calls, rounds = 1, 3
    replay = captured(function, calls)
    replay()
    return statistics.median(seconds(replay, "cuda", 3) for _ in range(rounds)) / calls


def waits(function: Callable) -> str | None:
    """What a function says where it waits for the GPU. A capture that fails leaves PyTorch's generator in disorder, so this
    is asked first."""
    function()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        function()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0][:200]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def in_a_graph(function: Callable, calls: int) -> dict[str, float | str]:
    """Column of the report: seconds per call inside a CUDA graph, or why there are none."""
    if reason := waits(function):
        return {"no graph": reason}
    try:
        return {"graph seconds": graph_seconds(function, calls)}
    except Exception as error:
        torch.cuda.synchronize()
        return {"no graph": str(error).strip().splitlines()[0][:200]}


def peak_memory(function: Callable, device: str) -> int:
    """Bytes in use at the highest point of a call, above what was in use before it (CPU: of the whole process)."""
    function()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts again from here
    before = _status("VmRSS")
    function()
    return max(_status("VmHWM") - before, 0)


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def saved_memory(function: Callable, inputs: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps between forward and backward, without the inputs themselves."""
    own = {t.untyped_storage().data_ptr() for t in inputs}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = function()  # alive until the sum, so that no address is used twice
    total = sum(kept.values())
    del out
    return total


def relative_error(got: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """The largest difference of any tensor, relative to that tensor's largest value."""
    errors = []
    for a, t in zip(got, truth, strict=True):
        t = t.double()
        errors.append(((a.double() - t).abs().max() / t.abs().max().clamp_min(1e-300)).item())
    return max(errors)


def both_errors(got: Sequence[Tensor], truth: Sequence[Tensor], outputs: int) -> dict[str, float]:
    """Columns of the report: the error of the first ``outputs`` tensors, and that of the gradients that follow."""
    found = {"error": relative_error(got[:outputs], truth[:outputs])}
    if len(got) > outputs:
        found["gradient error"] = relative_error(got[outputs:], truth[outputs:])
    return found


def compare(
    benchmark,
    row: str,
    setting: str,
    ours: dict[str, Callable],
    baselines: dict[str, Callable],
    *,
    device: str,
    columns: dict[str, dict[str, float | str]],
    aims: Sequence[tuple[str, str, float]] = (),
    moved: float = 0,
    flops: float = 0,
    dtype: torch.dtype = torch.float32,
    rounds: int = 7,
    graph_calls: int = 16,
    graph_baselines: bool = True,
    tiny: bool = False,
) -> dict[str, dict]:
    """Time contenders in turns; everything goes to ``benchmark.extra_info``, for `report.py`.

    Args:
        row, setting: what is compared and on what, as the report prints it.
        ours, baselines: name -> function without arguments.
        columns: name -> what the report prints beside its speed: error (against float64), gradient error, memory.
        aims: (one of ours, a baseline, how many times faster than it).
        moved, flops: bytes and floating-point operations that ours cannot avoid; dtype: the unit of the latter.
        rounds: how often each runs; graph_calls: calls in a CUDA graph, 0 for none.
        graph_baselines: False where a baseline runs on the CPU: its graph would be empty.

    Returns:
        columns with seconds (median), low, high (quartiles), processor seconds, and on a GPU seconds in a CUDA graph.
    """
    rounds = 2 if tiny else rounds
    contenders = ours | baselines
    limits = {} if tiny else ceilings(device)
    calls: dict[str, int] = {}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for name, function in contenders.items():
        first = seconds(function, device)  # with what is made at the first call
        once = tiny or first > 1
        calls[name] = 1 if once else max(1, min(1000, int(0.02 / max(seconds(function, device), 1e-6))))

    def one_round():
        for name, function in contenders.items():
            start = time.process_time()
            elapsed = seconds(function, device, calls[name])
            samples[name].append((elapsed, (time.process_time() - start) / calls[name]))

    first = next(iter(ours.values()))

    def finished():
        first()
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(finished, setup=one_round, rounds=rounds)
    table: dict[str, dict] = {}
    for name, pairs in samples.items():
        elapsed, processor = zip(*pairs, strict=True)
        low, median, high = statistics.quantiles(elapsed, n=4, method="inclusive")
        table[name] = {"seconds": median, "low": low, "high": high, "processor seconds": statistics.median(processor)}
        table[name] |= columns.get(name, {})
        if device == "cuda" and graph_calls and (graph_baselines or name in ours):
            table[name] |= in_a_graph(contenders[name], graph_calls)
    benchmark.extra_info.update(
        {
            "row": row, "setting": setting, "device": device, "ours": list(ours), "baselines": list(baselines),
            "contenders": table, "aims": aims, "moved": moved, "flops": flops, "dtype": short(dtype),
            "ceilings": limits, "load": os.getloadavg()[0], "threads": torch.get_num_threads(),
            # Other programs' work makes wall time useless: then ratios are of processor time, on one thread best.
            "clock": "processor" if device == "cpu" and os.getloadavg()[0] > (os.cpu_count() or 1) + 1 else "wall",
            "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
        }
    )  # fmt: skip
    return table


def grow(
    benchmark,
    row: str,
    setting: str,
    cases: dict[int, tuple[Callable, Callable[[], float]]],
    *,
    orders: tuple[float, float],
    device: str,
    rounds: int = 7,
    tiny: bool = False,
) -> None:
    """Time and memory against a size, measured in turns; raises where they grow faster than expected.

    Args:
        cases: size -> (function without arguments, one that returns the bytes it needs).
        orders: the expected exponents of time and of memory, size^order, at the two largest sizes; what is measured may be
            larger by a quarter.
    """
    rounds = 1 if tiny else rounds
    memory = {size: cases[size][1]() for size in cases}
    samples: dict[int, list[float]] = {size: [] for size in cases}
    repeat = {
        size: 1 if tiny else max(1, int(0.01 / max(seconds(run, device), 1e-6))) for size, (run, _) in cases.items()
    }

    def one_round():
        for size, (run, _) in cases.items():
            start = time.process_time()
            elapsed = seconds(run, device, repeat[size])
            busy = (time.process_time() - start) / repeat[size]
            samples[size].append(busy if device == "cpu" else elapsed)

    benchmark.pedantic(lambda: None, setup=one_round, rounds=rounds)
    medians = {size: statistics.median(samples[size]) for size in cases}
    *_, start, large = sorted(cases)
    found = [
        math.log(max(values[large], 1e-9) / max(values[start], 1e-9)) / math.log(large / start)
        for values in (medians, memory)
    ]
    benchmark.extra_info.update(
        {
            "growth": row, "setting": setting, "device": device, "sizes": list(cases), "orders": orders, "found": found,
            "seconds": list(medians.values()), "bytes": list(memory.values()), "from": start,
            "load": os.getloadavg()[0], "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
        }
    )  # fmt: skip
    if not tiny:
        for what, order, measured in zip(("time", "memory"), orders, found, strict=True):
            assert measured <= order + 0.25, f"{row}: {what} grows with exponent {measured:.2f}, expected {order}"
