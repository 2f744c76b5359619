"""The machine code of CUDA kernels, read from cuobjdump; needs nvcc and cuobjdump (the toolkit's or Triton's), no GPU.

python bench/sass.py csrc/cuda/reweight.cu 90      # instructions of each kind of every kernel of a file
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from ptxas import ROOT, find_nvcc, plain_name, toolkit
from ptxas import parse as ptxas_entries


def find_cuobjdump() -> str | None:
    """The toolkit's, or the one that comes with Triton."""
    nvcc = find_nvcc()
    if nvcc and (found := shutil.which("cuobjdump", path=str(toolkit(nvcc) / "bin"))):
        return found
    spec = importlib.util.find_spec("triton")
    folders = [Path(p) / "backends" / "nvidia" / "bin" for p in (spec.submodule_search_locations or [])] if spec else []
    return shutil.which("cuobjdump") or next(
        (str(f / "cuobjdump") for f in folders if (f / "cuobjdump").exists()), None
    )


def parse(output: str) -> dict[str, list[str]]:
    """Mangled kernel name -> its instructions in order, as `/*0a10*/ @P0 STG.E.128 ...` without the encoding."""
    kernels: dict[str, list[str]] = {}
    for line in output.splitlines():
        if match := re.search(r"Function : (\S+)", line):
            current = kernels.setdefault(match[1], [])
        elif match := re.match(r"\s*(/\*[0-9a-f]{4,}\*/)\s+(.*?);", line):
            current.append(f"{match[1]} {match[2].strip()}")
    return kernels


def opcode(instruction: str) -> str:
    """`STG.E.128` of `/*0a10*/ @P0 STG.E.128 desc[UR4][R2.64], R4`."""
    return re.sub(r"^/\*\w+\*/\s+(@!?U?P\w+\s+)?", "", instruction).split()[0]


def inspect(source: Path, arch: str) -> dict[str, tuple[dict, list[str]]]:
    """Kernel -> what ptxas reports (see ptxas.parse) and its instructions, of `source` for sm_<arch>."""
    nvcc, cuobjdump = find_nvcc(), find_cuobjdump()
    if not nvcc or not cuobjdump:
        raise RuntimeError("needs nvcc and cuobjdump")
    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/kernels.cubin"
        command = [
            nvcc,
            "-std=c++17",
            "-O3",
            "--expt-relaxed-constexpr",
            "-Xptxas",
            "-v",
            f"-I{ROOT / 'csrc'}",
            "-cubin",
        ]
        done = subprocess.run(
            [*command, f"-arch=sm_{arch}", str(source), "-o", cubin], check=True, capture_output=True, text=True
        )
        text = subprocess.run([cuobjdump, "-sass", cubin], check=True, capture_output=True, text=True).stdout
    figures = {entry["kernel"]: entry for entry in ptxas_entries(done.stdout + done.stderr, source.name)}
    code = parse(text)
    return {name: (figures[m], code[m]) for name, m in zip(plain_name(list(code)), code, strict=True)}


def disassemble(source: Path, arch: str) -> dict[str, list[str]]:
    """Kernel -> its instructions, of `source` for sm_<arch>."""
    return {name: instructions for name, (_, instructions) in inspect(source, arch).items()}


CLASSES = {
    "tensor cores": r"(H|I|D)MMA|LDSM",
    "float": r"F(ADD|MUL|FMA|SETP|SEL|MNMX|CHK)|MUFU|D(ADD|MUL|FMA|SETP)|H(ADD|MUL|FMA)",
    "convert": r"F2F|I2F|F2I|PRMT|I2FP|F2FP",
    "integer": r"I(ADD|MAD|ABS|MNMX|SETP)|LEA|LOP|SHF|SEL|P?LOP3|SGXT|VIADD|VIMNMX|POPC|U(IADD|IMAD|LEA|LOP|SHF|ISETP|SEL)",
    "global": r"LDG|STG",
    "shared": r"LDS(?!M)|STS",
    "local": r"LDL|STL",
    "shuffle": r"SHFL|VOTE",
    "control": r"BRA|BSYNC|BSSY|BAR|EXIT|CALL|RET|WARPSYNC|NOP|BREAK",
}


def mix(instructions: list[str]) -> Counter[str]:
    """Instructions by class; `other` holds moves and what is rare."""
    kinds = [opcode(i) for i in instructions]
    return Counter(next((name for name, pattern in CLASSES.items() if re.match(pattern, k)), "other") for k in kinds)


def loops(instructions: list[str]) -> list[tuple[int, int]]:
    """Index ranges [begin, end) of the backward branches' bodies, outermost first; a branch to itself (the end) is none."""
    place = {int(i[2 : i.index("*/")], 16): n for n, i in enumerate(instructions)}
    found = []
    for n, instruction in enumerate(instructions):
        if opcode(instruction) == "BRA" and (match := re.search(r"0x([0-9a-f]+)", instruction)):
            target = place.get(int(match[1], 16), n)
            if target < n:
                found.append((target, n + 1))
    return sorted(found, key=lambda r: r[0] - r[1])


def main() -> None:
    for kernel, instructions in disassemble(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "90").items():
        counts = ", ".join(f"{name} {n}" for name, n in mix(instructions).most_common())
        print(
            f"{kernel}\n  {len(instructions)}: {counts}\n  loops of {[end - begin for begin, end in loops(instructions)]}"
        )


if __name__ == "__main__":
    main()
