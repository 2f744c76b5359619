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
            if found["where"] == where and found["side"] == 48 and found["labels"] == "true" and found["crosses"] == 3:
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
    print(table(groups))
    if len(sys.argv) > 2:
        folder = Path(sys.argv[2])
        pictures(folder / "pictures.png")
        errors(groups, folder / "errors.png")


if __name__ == "__main__":
    main()
