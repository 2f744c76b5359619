"""A counter adapted to pictures of a domain that it never saw: MAE on that domain's test pictures by the number of labels.

python experiments/adapt.py FOLDER --data station|NAME=FOLDER [--pictures 5 10 ...] [--seeds 0 1 2] [--methods adapt scratch]
    [--start starter|CHECKPOINT] [--old NAME=FOLDER] [--weights ImageNet weights of the backbone]

A seed chooses the labelled pictures and the draws of the training. A data set without test pictures is tested on those that
were not chosen. Every run is a line of FOLDER/rows.jsonl; runs that stand there already are not repeated. `scratch` trains the
same network from the ImageNet weights, with as many steps on the same pictures, at the rate of preset `small`. `--old` says what
the counter forgets: MAE on the validation pictures of a data set that it was trained on.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path

import numpy as np
import torch

from dkpnet_ext.data import Domain, Item, load_domains, split_validation
from dkpnet_ext.models import CrowdCounter, load_model
from dkpnet_ext.synthetic.scenes import render
from dkpnet_ext.training import PRESETS, train

TESTED = 60  # drawn test pictures


def errors(model: CrowdCounter, items: list[Item]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and annotated counts."""
    counter = model.for_inference("torch")
    predicted = np.array([counter.count(item.read(), as_is=True) for item in items])
    return predicted, np.array([float(item.count) for item in items])


def mae(model: CrowdCounter, items: list[Item]) -> float:
    predicted, annotated = errors(model, items)
    return float(np.abs(predicted - annotated).mean())


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="station")
    parser.add_argument("--pictures", type=int, nargs="+", default=[5, 10, 20, 40, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=["adapt", "scratch"], default=["adapt"])
    parser.add_argument("--start", default="starter")
    parser.add_argument("--old")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=PRESETS["adapt"].config.optim.epochs)
    a = parser.parse_args()
    starter = load_model(None if a.start == "starter" else a.start)
    old = []
    if a.old:
        (known,) = load_domains([a.old], progress=False, min_side=starter.min_side, max_side=starter.max_side)
        old = split_validation(known.train)[1]
    old_before = mae(starter, old) if old else None
    rows = a.folder / "rows.jsonl"
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    for seed in a.seeds:
        for number in a.pictures:
            for method in a.methods:
                key = {"data": a.data, "method": method, "pictures": number, "seed": seed, "epochs": a.epochs}
                if any(key.items() <= row.items() for row in done):
                    continue
                domain, test = pictures(a.data, number, seed, starter)
                config = PRESETS["adapt"].config
                config.output = a.folder / f"{domain.name}-{method}-{number}-{seed}-{a.epochs}"
                config.device, config.seed, config.start = "cpu", seed, a.start
                config.data.workers, config.optim.epochs = 0, a.epochs
                if method == "scratch":
                    config.start = str(untrained(a.folder / "untrained", starter, a.weights, seed))
                    config.optim.lr = PRESETS["small"].config.optim.lr
                cpu = time.process_time()
                model = load_model(train(config, [domain]))
                cpu = time.process_time() - cpu
                labelled = errors(starter, domain.train)
                factor = labelled[1].sum() / labelled[0].sum()
                before, annotated = errors(starter, test)
                row = key | {
                    "start": a.start, "test": len(test), "mean": annotated.mean(), "factor": factor,
                    "unchanged": np.abs(before - annotated).mean(), "scaled": np.abs(before * factor - annotated).mean(),
                    "after": mae(model, test), "old_before": old_before,
                    "old_after": mae(model, old) if old else None, "cpu": cpu,
                }  # fmt: skip
                print(json.dumps(row), flush=True)
                a.folder.mkdir(parents=True, exist_ok=True)
                with rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
