"""One Markdown page of all results: `python bench/report.py [FOLDER]` writes FOLDER/README.md; FOLDER is bench/results by default.

Reads every JSON file below the folder that `pytest bench --benchmark-json=...` or `bench/ptxas.py` wrote. The figures
are those of the files; nothing is measured here. With `--short` prints the table of aims instead.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HEADER = """# Benchmark results

`python bench/report.py` writes this page from the JSON files in this folder; [bench/conftest.py](../conftest.py) says how
they are measured. The implementations in a table ran in turns in one process. Times are medians, ratios are ratios of
medians. "Shared machine" means that other programs were running (load average above the number of cores plus one): the
wall times are then unreliable, and the ratios are of the processor time of all threads in a call.
Errors are the largest difference from float64, relative to the tensor's largest value, unless the table says
otherwise. The baselines are in [bench/baselines.py](../baselines.py).
"""


def time_text(seconds: float) -> str:
    for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e9:.0f} ns"


def bytes_text(count: float) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} B"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def cost(info: dict, values: dict) -> float:
    """The seconds that ratios are computed from."""
    return values["processor seconds" if info["clock"] == "processor" else "seconds"]


def aims_of(info: dict) -> list[list[str]]:
    """Row, setting, ours, baseline, ratio, aim, met."""
    if "growth" in info:
        return []
    found, contenders = [], info["contenders"]
    for ours, baseline, aim in info["aims"]:
        if ours in contenders and baseline in contenders:
            ratio = cost(info, contenders[baseline]) / cost(info, contenders[ours])
            verdict = "yes" if ratio >= aim else "**no**"
            found.append(
                [
                    info["row"],
                    info["device"] + ", shared" * bool(shared(info)),
                    ours,
                    baseline,
                    f"{ratio:.2f}x",
                    f"{aim:g}x",
                    verdict,
                ]
            )
    if limit := info.get("limit"):
        ((name, values),) = contenders.items()
        verdict = "yes" if values["seconds"] <= limit else "**no**"
        found.append([info["row"], info["device"], name, "", time_text(values["seconds"]), time_text(limit), verdict])
    return found


def contenders_table(info: dict) -> str:
    """Times, ratios to every baseline, and what was measured beside the speed."""
    contenders, baselines = info["contenders"], info["baselines"]
    some = {column for values in contenders.values() for column in values}
    header = ["", "median", "quartiles"]
    header += ["processor"] * (info["device"] == "cpu" and "processor seconds" in some)
    header += ["in a CUDA graph"] * ("graph seconds" in some)
    header += [f"faster than {name}" for name in baselines]
    header += ["images per second" if info["clock"] == "wall" else "images per processor second"] * (
        "images per call" in some
    )
    measured = [c for c in ("error", "gradient error", "peak extra bytes", "saved bytes") if c in some]
    header += [c.removesuffix(" bytes") for c in measured]
    rows = []
    for name, values in contenders.items():
        row = [name, time_text(values["seconds"]), f"{time_text(values['low'])} - {time_text(values['high'])}"]
        if "processor" in header:
            row.append(time_text(values["processor seconds"]))
        if "in a CUDA graph" in header:
            captured = values.get("graph seconds")
            row.append(time_text(captured) if captured else "cannot be captured" if "no graph" in values else "")
        for baseline in baselines:
            row.append("" if name in baselines else ratios(info, values, contenders[baseline]))
        if "images per call" in some:
            row.append(f"{values['images per call'] / cost(info, values):.3g}")
        for column in measured:
            value = values.get(column)
            if value is None:
                row.append("")
            elif isinstance(value, str):
                row.append(value)
            else:
                row.append(bytes_text(value) if column.endswith("bytes") else f"{value:.1e}")
        rows.append(row)
    return table(header, rows)


def ratios(info: dict, ours: dict, baseline: dict) -> str:
    text = f"{cost(info, baseline) / cost(info, ours):.2f}x"
    if "graph seconds" in ours and "graph seconds" in baseline:
        text += f" (graphs {baseline['graph seconds'] / ours['graph seconds']:.2f}x)"
    return text


def shared(info: dict) -> str:
    return f"; shared machine (load average {info['load']:.0f})" if info["clock"] == "processor" else ""


def limits_text(info: dict) -> str:
    """How near the fastest of ours comes to the machine's limits, which were measured in the same run."""
    ceilings = info["ceilings"]
    if not ceilings:
        return ""
    share = info["threads"] if info["clock"] == "processor" else 1  # each thread's part of the processor time
    ours = (info["contenders"][name] for name in info["ours"])
    seconds, parts = min(values.get("graph seconds", cost(info, values) / share) for values in ours), []
    if info["moved"]:
        rate = info["moved"] / seconds
        parts.append(f"{rate / 1e9:.3g} GB/s of necessary traffic, {rate / ceilings['bytes/s']:.0%} of a copy's rate")
    if info["flops"]:
        rate, most = info["flops"] / seconds, ceilings.get(f"{info['dtype']} FLOP/s")
        shares = f", {rate / most:.0%} of a large matrix product's rate" if most else ""
        if peak := ceilings.get("float32 FLOP/s, multiply-adds alone"):
            shares += f", {rate / peak:.0%} of the rate of float32 multiply-adds alone"
        parts.append(f"{rate / 1e9:.3g} GFLOP/s{shares}")
    if info["row"].startswith("variational") and "two launches in a graph, s" in ceilings:
        parts.append(f"{seconds / ceilings['two launches in a graph, s']:.2f} times two empty launches in a graph")
    return f"The fastest of ours: {'; '.join(parts)}.\n" if parts else ""


def growth_table(info: dict) -> str:
    """Time and memory by size, and the exponents with which they grow over the largest sizes."""
    sizes, seconds, memory = info["sizes"], info["seconds"], info["bytes"]
    clock = "processor time of all threads" if info["device"] == "cpu" else "time"
    rows = [[clock, *map(time_text, seconds)], ["memory", *map(bytes_text, memory)]]
    text = table(["", *map(str, sizes)], rows)
    (time_found, memory_found), (time_order, memory_order) = info["found"], info["orders"]
    return (
        f"{text}\nFrom {info['from']} to {sizes[-1]}: time grows with exponent {time_found:.2f} (expected: at most "
        f"{time_order:g}), memory with {memory_found:.2f} (at most {memory_order:g}).\n"
    )


def growth_plot(infos: list[dict], target: Path) -> None:
    """A panel per row: time and memory against the size, both axes logarithmic, the expected order dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(3, len(infos))
    figure, axes = plt.subplots(-(-len(infos) // columns), columns, figsize=(4 * columns, 3 * -(-len(infos) // columns)),
                                squeeze=False, layout="constrained")  # fmt: skip
    for ax in axes.flat[len(infos) :]:
        ax.set_axis_off()
    for ax, info in zip(axes.flat, infos, strict=False):
        sizes, seconds = info["sizes"], info["seconds"]
        ax.loglog(sizes, seconds, "o-", color="tab:blue")
        large = [size for size in sizes if size >= info["from"]]
        expected = [seconds[-1] * (size / sizes[-1]) ** info["orders"][0] for size in large]
        ax.loglog(large, expected, "--", color="tab:gray")
        ax.set_title(info["growth"], fontsize=9)
        ax.set_ylabel("s", color="tab:blue")
        other = ax.twinx()
        other.loglog(sizes, [value / 2**20 for value in info["bytes"]], "s:", color="tab:orange")
        other.set_ylabel("MiB", color="tab:orange")
        ax.set_xticks(sizes, list(map(str, sizes)), fontsize=8)
        ax.set_xticks([], minor=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def machine_text(data: dict, infos: list[dict]) -> str:
    cpu, meta = data["machine_info"]["cpu"], data["dkpnet"]
    commit = data["commit_info"]
    dirty = " with uncommitted changes" if commit.get("dirty") else ""
    load = [info["load"] for info in infos]
    lines = [
        f"{cpu.get('brand_raw', '?')}, {meta['cores']} cores, {max((i['threads'] for i in infos), default=0)} threads"
        + "".join(sorted({f"; {info['gpu']}" for info in infos if info["gpu"]})),
        f"Python {meta['python']}, " + ", ".join(f"{k} {v}" for k, v in meta["versions"].items()),
        f"commit {commit['id'][:12]}{dirty}, {data['datetime'][:16]}; "
        f"load average {min(load, default=0):.1f} to {max(load, default=0):.1f}",
    ]
    if meta["module"] != meta["sources"]:
        lines.append(
            f"compiled module {meta['module']}, which was not built from the present sources ({meta['sources']})"
        )
    for device, found in meta["ceilings"].items():
        parts = [
            f"{name} {time_text(v)}" if name.endswith(", s") else f"{v / 1e9:.4g} G{name}" for name, v in found.items()
        ]
        lines.append(f"ceilings of {device}: " + ", ".join(parts))
    return "".join(f"- {line}\n" for line in lines)


def ptxas_text(entries: list[dict]) -> str:
    rows = [
        [
            e["source"],
            f"`{e['kernel']}`",
            e["arch"],
            str(e["registers"]),
            str(e["shared_bytes"]),
            str(e["spill_stores"]),
        ]
        for e in entries
    ]
    return table(["file", "kernel", "for", "registers", "static shared bytes", "spilled bytes"], rows)


def load(folder: Path) -> tuple[dict[Path, tuple[dict, list[dict]]], dict[Path, list[dict]]]:
    """Benchmark files with their rows, and ptxas reports; rehearsals are left out."""
    benchmarks, kernels = {}, {}
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text())
        if isinstance(data, list) and data and "registers" in data[0]:
            kernels[path] = data
        elif isinstance(data, dict) and "benchmarks" in data and not data.get("dkpnet", {"tiny": True})["tiny"]:
            infos = [b["extra_info"] for b in data["benchmarks"] if {"row", "growth"} & set(b["extra_info"])]
            if infos:
                benchmarks[path] = data, infos
    return benchmarks, kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "results")
    parser.add_argument("--short", action="store_true", help="print the table of aims, write nothing")
    arguments = parser.parse_args()
    benchmarks, kernels = load(arguments.folder)
    header = ["row", "on", "ours", "against", "measured", "aim", "met"]
    aims = {path: [line for info in infos for line in aims_of(info)] for path, (_, infos) in benchmarks.items()}
    if arguments.short:
        print("\n".join(" | ".join(line) for lines in aims.values() for line in lines) or "no measured rows")
        return
    pages = [page.name for page in sorted(arguments.folder.glob("*.md")) if page.name != "README.md"]
    parts = [
        HEADER,
        *(["Pages written by hand: " + ", ".join(f"[{page}]({page})" for page in pages) + "\n"] * bool(pages)),
        "## Aims\n",
    ]
    for path, lines in aims.items():
        if lines:
            parts += [f"{path.relative_to(arguments.folder)}\n", table(header, lines)]
    for path, (data, infos) in benchmarks.items():
        parts += [f"## {path.relative_to(arguments.folder)}\n", machine_text(data, infos)]
        growing = [info for info in infos if "growth" in info]
        if growing:
            picture = path.with_suffix(".png")
            growth_plot(growing, picture)
            parts += [f"![Time and memory against size]({picture.relative_to(arguments.folder)})\n"]
        for info in growing:
            parts += [f"### {info['growth']}\n", f"{info['setting']}; {info['device']}.\n", growth_table(info)]
        for info in infos:
            if "growth" in info:
                continue
            parts += [
                f"### {info['row']}\n",
                f"{info['setting']}; {info['device']}{shared(info)}.\n",
                contenders_table(info),
            ]
            parts += [text] if (text := limits_text(info)) else []
    for path, entries in kernels.items():
        parts += [f"## {path.relative_to(arguments.folder)}\n", ptxas_text(entries)]
    target = arguments.folder / "README.md"
    target.write_text("\n".join(parts))
    print(f"{target}: {sum(len(infos) for _, infos in benchmarks.values())} rows of {len(benchmarks)} files")


if __name__ == "__main__":
    main()
