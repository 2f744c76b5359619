"""A counter adapted to pictures of a domain that it never saw: MAE on that domain's test pictures by the number of labels.

python experiments/adapt.py FOLDER --data station|NAME=FOLDER [--pictures 5 10 ...] [--seeds 0 1 2] [--methods adapt scratch small]
    [--start starter|CHECKPOINT] [--old NAME=FOLDER] [--weights ImageNet weights of the backbone]
python experiments/adapt.py FOLDER --report

A seed chooses the labelled pictures and the draws of the training. A data set without test pictures is tested on those that
were not chosen. Every run is a line of FOLDER/rows.jsonl, with the counts of every picture, so that rules for a factor and
for intervals can be compared without another run; runs that stand there already are not repeated. `scratch` trains the
same network from the ImageNet weights, with as many steps on the same pictures, at the rate of preset `small`; `small` is
the command `train small --epochs 2 --eval-every 1`, about as many steps. `--old` says what the counter forgets: MAE on the
validation pictures of a data set that it was trained on.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dkpnet_ext.data import Domain, Item, load_domains, split_validation
from dkpnet_ext.markdown import table
from dkpnet_ext.models import CrowdCounter, load_model
from dkpnet_ext.synthetic.scenes import render
from dkpnet_ext.training import PRESETS, train

TESTED = 60  # drawn test pictures


def counts(model: CrowdCounter, items: list[Item]) -> list[float]:
    """Predicted counts."""
    return [round(model.count(item.read(), as_is=True), 3) for item in items]


def intervals(model: CrowdCounter, items: list[Item], predicted: list[float]) -> list[dict[int, tuple[float, float]]]:
    """The intervals of each picture, by per cent; empty where there is none."""
    said = [model.assess(item.read(), count) for item, count in zip(items, predicted, strict=True)]
    return [{} if each is None else each.intervals for each in said]


@functools.cache
def drawn(data: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Test pictures of a synthetic domain."""
    return [render(data, "test", index) for index in range(TESTED)]


def pictures(data: str, number: int, seed: int, starter: CrowdCounter) -> tuple[Domain, list[Item]]:
    """The labelled pictures as a data set, and the test pictures."""
    sizes = {"min_side": starter.min_side, "max_side": starter.max_side}
    if "=" not in data:
        pairs = [render(data, "train", index, seed) for index in range(number)]
        domain = Domain.from_arrays(data, train=pairs, test=drawn(data), **sizes)
    else:
        (domain,) = load_domains([data], progress=False, **sizes)
        order = np.roll(np.random.default_rng(0).permutation(len(domain.train)), -seed * number)
        chosen = [domain.train[i] for i in order[:number]]
        domain.test = domain.test or [domain.train[i] for i in order[number:]]
        domain.train, domain.val = chosen, []
    test, domain.test = domain.test, []  # the run itself shall not look at them
    return domain, test


def untrained(folder: Path, starter: CrowdCounter, weights: Path, seed: int) -> Path:
    """A counter built as the starter, its backbone with ImageNet weights, the rest random."""
    torch.manual_seed(seed)
    model = type(starter)(**starter.arguments)
    model.load_backbone(str(weights))
    model.save_pretrained(folder)
    return folder


def measure(a: argparse.Namespace, key: dict[str, Any], starter: CrowdCounter, old: list[Item]) -> dict[str, Any]:
    """Train once; returns the row."""
    number, seed = key["pictures"], key["seed"]
    domain, test = pictures(key["data"], number, seed, starter)
    config = PRESETS["small" if key["method"] == "small" else "adapt"].config
    config.output = a.folder / f"{domain.name}-{key['method']}-{number}-{seed}-{key['epochs']}"
    config.device, config.seed, config.data.workers = "cpu", seed, 0
    if key["method"] == "small":
        config.model.weights, config.optim.epochs, config.eval_every = str(a.weights), 2, 1
    else:
        config.start, config.optim.epochs = a.start, key["epochs"]
    if key["method"] == "scratch":
        config.start = str(untrained(a.folder / "untrained", starter, a.weights, seed))
        config.optim.lr = PRESETS["small"].config.optim.lr
    cpu = time.process_time()
    run = train(config, [domain], extras=key["method"] == "adapt")  # of the others no intervals are asked for
    model = load_model(run).for_inference("torch")
    cpu = time.process_time() - cpu
    held = split_validation(domain.train, config.data.val_fraction)[1]
    after = counts(model, test)
    row = {
        "start": a.start,
        "labels": [item.count for item in domain.train],
        "held": [domain.train.index(item) for item in held],
        "held_after": counts(model, held),
        "test_labels": [item.count for item in test],
        "test_after": after,
        "intervals": intervals(model, test, after),
        "cpu": round(cpu, 1),
    }
    if key["method"] == "adapt":
        row |= {
            "labelled_before": counts(starter, domain.train),
            "test_before": _starter_counts(starter, key["data"], tuple(i.name for i in test), test),
            "old_labels": [item.count for item in old],
            "old_before": _starter_counts(starter, "old", (), old),
            "old_after": counts(model, old),
        }
    return key | row


_known: dict[tuple[str, tuple[str, ...]], list[float]] = {}


def _starter_counts(starter: CrowdCounter, data: str, names: tuple[str, ...], items: list[Item]) -> list[float]:
    """As `counts`, once for the same pictures."""
    if (data, names) not in _known:
        _known[data, names] = counts(starter, items)
    return _known[data, names]


def mae(row: dict[str, Any], part: str, when: str, factor: float = 1.0) -> float:
    """MAE of a row's test pictures or old ones."""
    return float(np.abs(np.array(row[f"{part}_{when}"]) * factor - row[f"{part}_labels"]).mean())


def report(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean over the seeds, and their standard deviation where there are two or more."""

    def shown(values: list[float]) -> str:
        spread = f" +- {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        return f"{np.mean(values):.2f}{spread}"

    lines = []
    for data, number in dict.fromkeys((row["data"], row["pictures"]) for row in rows):
        mine = [row for row in rows if (row["data"], row["pictures"]) == (data, number)]
        by = {method: [row for row in mine if row["method"] == method] for method in ("adapt", "scratch", "small")}
        first = by["adapt"]
        factors = [sum(row["labels"]) / sum(row["labelled_before"]) for row in first]
        lines.append(
            (
                data.partition("=")[0], number, len(first),
                shown([mae(row, "test", "before") for row in first]),
                shown([mae(row, "test", "before", factor) for row, factor in zip(first, factors, strict=True)]),
                *(shown([mae(row, "test", "after") for row in runs]) if runs else "-" for runs in by.values()),
                shown([mae(row, "old", "after") for row in first]) if first[0]["old_labels"] else "-",
                f"{np.mean([row['cpu'] for row in first]):.0f}",
            )
        )  # fmt: skip
    heads = (
        "Data", "pictures", "seeds", "unchanged", "times a factor", "adapted", "scratch", "small", "old, adapted", "CPU s"
    )  # fmt: skip
    return table(heads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="station")
    parser.add_argument("--pictures", type=int, nargs="+", default=[5, 10, 20, 40, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=["adapt", "scratch", "small"], default=["adapt"])
    parser.add_argument("--start", default="starter")
    parser.add_argument("--old")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=PRESETS["adapt"].config.optim.epochs)
    parser.add_argument("--report", action="store_true")
    a = parser.parse_args()
    file = a.folder / "rows.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if a.report:
        print(report(done))
        return
    starter = load_model(None if a.start == "starter" else a.start).for_inference("torch")
    old = []
    if a.old:
        (known,) = load_domains([a.old], progress=False, min_side=starter.min_side, max_side=starter.max_side)
        old = split_validation(known.train)[1]
    for seed in a.seeds:
        for number in a.pictures:
            for method in a.methods:
                key = {"data": a.data, "method": method, "pictures": number, "seed": seed, "epochs": a.epochs}
                if any(key.items() <= row.items() for row in done):
                    continue
                row = measure(a, key, starter, old)
                a.folder.mkdir(parents=True, exist_ok=True)
                with file.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                print(report([row]) if method == "adapt" else f"{method} {mae(row, 'test', 'after'):.2f}", flush=True)


if __name__ == "__main__":
    main()
