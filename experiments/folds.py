"""What makes `small` count unknown pictures better? Two-fold cross-validation: each half of the training pictures is counted by
a model that was trained on the other half.

    python experiments/folds.py OUT --weights FILE --data NAME=FOLDER ... [--variants base dropout ...] [--epochs 4]

Thirty held-out pictures of a set cannot show an effect of a tenth; all of its training pictures can. Test images are left
out. One file of counts a run (OUT/VARIANT-FOLD.json); what is there is not trained again. The result is in
bench/results/counter.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dkpnet_ext import load_model
from dkpnet_ext.data import Domain, load_domains, split_validation
from dkpnet_ext.models.fpn import FPNHead
from dkpnet_ext.training import PRESETS, Config, train

VARIANTS = ("base", "dropout", "wide scale", "slow backbone", "zip", "fixed backbone")


def settings(variant: str, args: argparse.Namespace) -> Config:
    """`small` from ImageNet's weights with one change."""
    config = PRESETS["small"].config
    config.data.workers, config.model.weights, config.optim.epochs = 0, args.weights, args.epochs
    config.data.ratio, config.data.negatives = tuple(args.ratio), tuple(args.negatives)
    config.eval_every = args.epochs
    if variant == "wide scale":
        config.data.scale = (0.35, 2.8)
    elif variant == "slow backbone":
        config.optim.backbone_lr = 0.1
    elif variant == "fixed backbone":
        config.optim.frozen_stages = 6
    elif variant == "zip":
        config.loss.loss, config.loss.w_density, config.optim.clip = "zip", 1.0, 1000.0
    return config


@contextmanager
def changed(variant: str) -> Iterator[None]:
    """Within it a network in training loses a fifth of its mixed features' channels, if the variant says so."""
    features = FPNHead.features

    def dropped(self: FPNHead, branches: list[Tensor]) -> Tensor:
        return F.dropout2d(features(self, branches), 0.2, self.training)

    if variant == "dropout":
        FPNHead.features = dropped  # type: ignore[method-assign]
    try:
        yield
    finally:
        FPNHead.features = features  # type: ignore[method-assign]


def halves(domains: list[Domain], fold: int) -> list[Domain]:
    """Without test images; the training images are one half, the validation images the other."""
    parts = [split_validation(d.train, 0.5) for d in domains]
    return [
        dataclasses.replace(d, train=part[fold], val=part[1 - fold], test=[])
        for d, part in zip(domains, parts, strict=True)
    ]


def counts(model: torch.nn.Module, domains: list[Domain]) -> dict[str, list[tuple[float, float, float]]]:
    """A row for each held-out picture: its heads, those counted, those counted in its mirror image."""
    model.eval().to(memory_format=torch.channels_last)
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for domain in domains:
        for item in domain.val:
            image = torch.from_numpy(np.array(item.read()))[None].permute(0, 3, 1, 2)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                found = [float(model(x).density.double().sum()) for x in (image, image.flip(3))]
            rows.setdefault(domain.name, []).append((item.count, found[0], found[1]))
    return rows


def report(out: Path, draws: int = 10_000) -> str:
    """MAE by data set, and its change against `base` with a 95 % bootstrap interval over pictures."""
    generator = np.random.default_rng(0)
    tables: dict[str, dict[str, np.ndarray]] = {}
    for variant in VARIANTS:
        files = [out / f"{variant.replace(' ', '-')}-{fold}.json" for fold in (0, 1)]
        if all(file.exists() for file in files):
            folds = [json.loads(file.read_text()) for file in files]
            tables[variant] = {name: np.concatenate([np.array(f[name]) for f in folds]) for name in folds[0]}
    lines = []
    for variant, table in tables.items():
        cells = []
        for name, rows in table.items():
            heads, error = rows[:, 0], np.abs(rows[:, 1:].mean(1) - rows[:, 0])
            cell = f"{name} {error.mean():.2f} (bias {100 * (rows[:, 1:].mean(1).sum() / heads.sum() - 1):+.1f} %)"
            if variant != "base":
                other = np.abs(tables["base"][name][:, 1:].mean(1) - heads)
                drawn = generator.integers(0, len(heads), (draws, len(heads)))
                low, high = np.percentile(100 * (error[drawn].mean(1) / other[drawn].mean(1) - 1), (2.5, 97.5))
                cell += f" {100 * (error.mean() / other.mean() - 1):+.1f} % [{low:+.1f}, {high:+.1f}]"
            cells.append(cell)
        lines.append(f"{variant}: " + "; ".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--ratio", nargs="+", type=float, default=[42, 35, 13])
    parser.add_argument("--negatives", nargs="+", default=["drawn"])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    domains = load_domains(args.data, min_side=PRESETS["small"].config.data.min_side)
    for variant in args.variants:
        for fold in (0, 1):
            file = args.out / f"{variant.replace(' ', '-')}-{fold}.json"
            if file.exists():
                continue
            config = settings(variant, args)
            config.output = args.out / file.stem
            parts = halves(domains, fold)
            with changed(variant):
                train(config, domains=parts, extras=False)
            file.write_text(json.dumps(counts(load_model(config.output / "model"), parts)))
            print(report(args.out), flush=True)


if __name__ == "__main__":
    main()
