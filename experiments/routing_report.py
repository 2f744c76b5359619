"""The tables and figures of bench/results/routing.md, from the rows of `experiments/routing.py`.

    python experiments/routing_report.py ROWS.jsonl [FOLDER]

prints Markdown; into FOLDER, pictures.png and errors.png.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.stats
from routing import draw

Rows = Mapping[tuple, Sequence[dict]]
FORM = ("labels", "side", "crosses", "steps", "w_kl", "w_lse", "w_logdet", "doubled", "where", "system")
DEFAULTS = {"side": 80, "crosses": 6, "doubled": False}
SHOWN = {"mae": "MAE", "mae_informed": "told the domain", "between": "attention between domains", "told": "mu tells",
         "purity": "clusters tell", "sub": "sub-components tell", "rarer": "rarer sub-component"}  # fmt: skip


def load(path: Path) -> Rows:
    """Rows by what was run, over seeds."""
    groups = defaultdict(list)
    for line in path.read_text().splitlines():
        row = DEFAULTS | json.loads(line)
        groups[tuple(row[name] for name in FORM)].append(row)
    return dict(sorted(groups.items(), key=str))


def table(groups: Rows) -> str:
    """Mean over seeds, and the standard deviation where there are several."""
    lines = [
        f"| {' | '.join(FORM)} | seeds | {' | '.join(SHOWN.values())} |",
        "|---" * (len(FORM) + 1 + len(SHOWN)) + "|",
    ]
    for key, rows in groups.items():
        cells = []
        for name in SHOWN:
            values = [row[name] for row in rows if name in row]
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.2f}{spread}" if values else "")
        seeds = " ".join(str(row["seed"]) for row in sorted(rows, key=lambda row: row["seed"]))
        lines.append(f"| {' | '.join(map(str, key))} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(groups: Rows, pairs: Sequence[tuple[Mapping[str, object], Mapping[str, object]]]) -> str:
    """MAE of one kind of run less that of another with the same seeds: mean, and its 95 % interval by Student's t."""

    def errors(wanted: Mapping[str, object]) -> dict[int, float]:
        plain = {"labels": "true", "side": 48, "crosses": 3, "steps": 800, "w_kl": 1.0, "w_lse": 1.0, "w_logdet": 1.0,
                 "doubled": False, "where": "global"}  # fmt: skip
        rows = groups.get(tuple((plain | dict(wanted)).get(name) for name in FORM), [])
        return {row["seed"]: row["mae"] for row in rows}

    lines = ["| run | less | seeds | difference of MAE | 95 % interval |", "|---|---|---:|---:|---|"]
    for first, second in pairs:
        a, b = errors(first), errors(second)
        found = np.array([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])
        if len(found) > 1:
            low, high = scipy.stats.t.interval(0.95, len(found) - 1, found.mean(), scipy.stats.sem(found))
            names = [", ".join(map(str, kind.values())) for kind in (first, second)]
            lines.append(f"| {' | '.join(names)} | {len(found)} | {found.mean():+.3f} | {low:+.3f} to {high:+.3f} |")
    return "\n".join(lines)


def compared() -> list[tuple[dict[str, object], dict[str, object]]]:
    """The differences that the page states."""
    mixed: dict[str, object] = {"labels": "mixed", "system": "va"}
    longer: dict[str, object] = {"where": "local", "steps": 1600}
    knobs: list[dict[str, object]] = [
        *({"w_kl": weight} for weight in (0.1, 0.03, 0.01)),
        {"w_logdet": 0.0},
        {"w_kl": 0.01, "w_logdet": 0.0},
        {"w_lse": 10.0},
        {"doubled": True},
    ]
    return [
        *(
            ({"where": where, "system": system}, {"where": where, "system": "jt"})
            for where in ("local", "global", "label")
            for system in ("se", "mb", "va", "inva", "twice", "oracle")
        ),
        *(({"where": where, "system": "inva"}, {"where": where, "system": "twice"}) for where in ("local", "global")),
        *((longer | {"system": system}, longer | {"system": "jt"}) for system in ("se", "va")),
        *(({"system": system}, {"system": "va"}) for system in ("film", "mdknet")),
        *((mixed | {"system": system}, mixed) for system in ("sub", "nearest", "inva")),
        (mixed | {"system": "inva"}, mixed | {"system": "twice"}),
        *((mixed | knob, mixed) for knob in knobs),
    ]  # fmt: skip


def pictures(path: Path) -> None:
    """One picture of each domain for each place of the evidence."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(6, 4.2))
    names = {"local": "(a) in every patch", "global": "(b) the whole picture", "label": "(c) the label alone"}
    for column, (where, name) in enumerate(names.items()):
        drawn = draw(np.random.default_rng(1), 12, where, 48, 3)
        for domain in (0, 1):
            axis = axes[domain, column]
            index = int((drawn.counts * (drawn.domain == domain)).argmax())
            axis.imshow(drawn.images[index].permute(1, 2, 0).numpy())
            axis.set(xticks=[], yticks=[], title=name if domain == 0 else "")
            axis.set_xlabel(f"{int(drawn.counts[index])} heads")
    axes[0, 0].set_ylabel("disks are heads")
    axes[1, 0].set_ylabel("rings are heads")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def errors(groups: Rows, path: Path) -> None:
    """MAE of every system and seed of the smaller form with true labels."""
    import matplotlib.pyplot as plt

    run = {key[-1] for key in groups if key[:3] == ("true", 48, 3)}
    order = [name for name in ("jt", "se", "mb", "va", "inva", "film", "mdknet", "oracle") if name in run]
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
    for axis, where in zip(axes, ("local", "global", "label"), strict=True):
        for key, rows in groups.items():
            found = dict(zip(FORM, key, strict=True))
            drawn = {name: found[name] for name in ("where", "side", "labels", "crosses", "steps")}
            if drawn == {"where": where, "side": 48, "labels": "true", "crosses": 3, "steps": 800}:
                if found["system"] in order:
                    place = [order.index(found["system"])] * len(rows)
                    axis.plot(place, [row["mae"] for row in rows], "o", color="C0", markersize=4)
        axis.axhline(0.8, color="gray", linestyle=":", linewidth=1)
        axis.set(xticks=range(len(order)), xticklabels=[name.upper() for name in order], title=where, ylim=(0, 1.05))
        axis.tick_params(axis="x", rotation=60, labelsize=8)
    axes[0].set_ylabel("MAE")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Print, and draw where a folder is given."""
    groups = load(Path(sys.argv[1]))
    print(table(groups), differences(groups, compared()), sep="\n\n")
    if len(sys.argv) > 2:
        folder = Path(sys.argv[2])
        pictures(folder / "pictures.png")
        errors(groups, folder / "errors.png")


if __name__ == "__main__":
    main()
