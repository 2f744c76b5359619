"""The tables of bench/results/engines.md and of the README, printed from a file of bench/test_engines.py:

python bench/engine_tables.py bench/results/cpu-epyc-2-cores/engines.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

NAMES = {
    "ours (auto)": "ours, `--engine auto`",
    "ours, PyTorch": "ours, `--engine torch`",
    "ONNX Runtime": "ONNX Runtime on our export",
    "OpenVINO": "OpenVINO on our export",
    "torch.compile": "torch.compile",
    "eager": "eager PyTorch",
    "ours (auto), bfloat16": "ours, `auto`, bf16",
    "OpenVINO, bfloat16": "OpenVINO on our export, bf16",
}


def load(path: Path) -> dict[str, dict[str, float]]:
    """Row -> contender -> seconds (median), as `measure.compare` stored them."""
    found = {}
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        info = benchmark["extra_info"]
        found[info["row"]] = {name: values["seconds"] for name, values in info["contenders"].items()}
    return found


def cell(row: dict[str, float], name: str, scale: float) -> str:
    """A time in the unit of ``scale``, bold where it is the row's least of its precision."""
    if name not in row:
        return ""
    rivals = [seconds for other, seconds in row.items() if ("bfloat16" in other) == ("bfloat16" in name)]
    text = f"{row[name] * scale:.{0 if scale == 1000 else 2}f}"
    return f"**{text}**" if row[name] == min(rivals) else text


def table(rows: dict[str, dict[str, float]], columns: dict[str, str], scale: float) -> str:
    """A line per contender; ``columns``: heading -> row; those that were not measured are left out."""
    columns = {title: row for title, row in columns.items() if row in rows}
    lines = ["| |" + "".join(f" {title} |" for title in columns), "|---|" + "---:|" * len(columns)]
    for name, shown in NAMES.items():
        plain = name if name.startswith("ours") or scale == 1000 else f"plain loop, {name}"
        if any(plain in rows[row] for row in columns.values()):
            lines.append(f"| {shown} |" + "".join(f" {cell(rows[row], plain, scale)} |" for row in columns.values()))
    return "\n".join(lines)


def where(what: str, threads: int) -> dict[str, str]:
    """Headings of one number of threads, alone and beside a neighbour."""
    number = f"{threads} thread{'s' * (threads > 1)}"
    return {
        number: f"{what}, {number}, alone",
        f"{number}, busy neighbour": f"{what}, {number}, beside a busy process",
    }


def main() -> None:
    """Print Markdown."""
    rows = load(Path(sys.argv[1]))
    print("One image of 1024 x 768, ms:\n")
    print(table(rows, where("counting an image", 1) | where("counting an image", 2), 1000), "\n")
    files = sorted({row.rsplit(", ", 2)[0] for row in rows if not row.startswith("counting an image")})
    for what in files:
        print(f"{what}, seconds in all (alternatives: a plain loop):\n")
        print(table(rows, where(what, 1) | where(what, 2), 1), "\n")
        for row, times in rows.items():
            if row.startswith(what + ","):
                ours = times["ours (auto)"]
                ratios = ", ".join(f"{name.split(', ')[1]} {s / ours:.2f}x" for name, s in times.items() if s != ours)
                print(f"- {row}: faster than {ratios}")
        print()


if __name__ == "__main__":
    main()
