"""Registers, shared memory and spills of every CUDA kernel, as ptxas reports them; needs nvcc, no GPU.

    python bench/ptxas.py build/ptxas.json        # a JSON list, one entry per kernel and architecture

Exits with 1 and names the kernels if any spills registers to memory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARCHS = ("80", "90")


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return shutil.which("nvcc", path=f"{home}/bin" if home else None) or shutil.which("nvcc")


def toolkit(nvcc: str) -> Path:
    """The folder of the toolkit; the nvcc on PATH may be a wrapper script, so the compiler itself is asked."""
    done = subprocess.run([nvcc, "-v", "--dryrun", "dummy.cu"], capture_output=True, text=True)
    match = re.search(r"^#\$ TOP=(.+)$", done.stderr, re.MULTILINE)
    return Path(match[1]).resolve() if match else Path(nvcc).resolve().parents[1]


def plain_name(mangled: list[str]) -> list[str]:
    """Kernel names as in the source, without parameters; mangled where there is no c++filt."""
    if not (demangle := shutil.which("c++filt")):
        return mangled
    done = subprocess.run([demangle], input="\n".join(mangled), capture_output=True, text=True, check=True)
    names = [name.replace("(anonymous namespace)::", "").replace("(bool)", "") for name in done.stdout.splitlines()]
    return [re.sub(r"^void |dkpnet::cuda::|\(.*", "", name) for name in names]


def parse(output: str, source: str) -> list[dict]:
    """One entry per kernel of nvcc's -Xptxas -v output."""
    entries: list[dict] = []
    for line in output.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)' for 'sm_(\w+)'", line):
            entries.append({"source": source, "arch": f"sm_{match[2]}", "kernel": match[1]})
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            if entries and "spill_stores" not in entries[-1]:
                entries[-1] |= {"spill_stores": int(match[1]), "spill_loads": int(match[2])}
        elif match := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            entries[-1] |= {"registers": int(match[1]), "shared_bytes": int(shared[1]) if shared else 0}
    return entries


def compile_one(nvcc: str, source: Path, folder: str) -> list[dict]:
    gencode = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHS]
    command = [nvcc, "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Xptxas", "-v", *gencode, f"-I{ROOT / 'csrc'}"]
    done = subprocess.run(
        [*command, "-c", str(source), "-o", f"{folder}/{source.stem}.o"], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"nvcc failed on {source.name}:\n{done.stderr}")
    return parse(done.stdout + done.stderr, source.name)


def report(nvcc: str) -> list[dict]:
    """Compile csrc/cuda for sm_80 and sm_90."""
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = [e for found in pool.map(lambda s: compile_one(nvcc, s, folder), sources) for e in found]
    for entry, name in zip(entries, plain_name([entry["kernel"] for entry in entries]), strict=True):
        entry["kernel"] = name
    return entries


def main() -> None:
    nvcc = find_nvcc()
    if nvcc is None:
        sys.exit("no nvcc on PATH or in CUDA_HOME")
    entries = report(nvcc)
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    Path(sys.argv[1]).write_text(json.dumps(entries, indent=1) + "\n")
    spilling = [f"{e['kernel']} ({e['arch']})" for e in entries if e["spill_stores"] or e["spill_loads"]]
    print(f"{len(entries)} kernels, at most {max(e['registers'] for e in entries)} registers, {len(spilling)} spilling")
    sys.exit("\n".join(spilling) or 0)


if __name__ == "__main__":
    main()
