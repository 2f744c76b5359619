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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from dkpnet_ext import load_model
from dkpnet_ext.data import Domain, Item, load_domains, split_validation
from dkpnet_ext.data.dataset import CrowdDataset, Example
from dkpnet_ext.models import backbones, dkpnet
from dkpnet_ext.models.fpn import FPNHead, Mix
from dkpnet_ext.training import PRESETS, Config, train

VARIANTS = (
    "base",
    "poisson",
    "dropout",
    "cut and mixed",
    "dense",
    "enlarged",
    "wide scale",
    "slow backbone",
    "lite2",
    "from a quarter",
    "to a 32nd",
)


def settings(variant: str, args: argparse.Namespace) -> Config:
    """`small` from ImageNet's weights with one change; poisson: its loss until commit 496bdf6."""
    config = PRESETS["small"].config
    config.data.workers, config.model.weights, config.optim.epochs = 0, args.weights, args.epochs
    config.data.ratio, config.data.negatives = tuple(args.ratio), tuple(args.negatives)
    config.eval_every = args.epochs
    if variant == "poisson":
        config.loss.loss, config.loss.dispersion, config.loss.w_density, config.optim.clip = "poisson", 0.1, 0.01, 10.0
    elif variant == "lite2":
        config.model.backbone, config.model.weights = "tf_efficientnet_lite2", args.lite2
    elif variant == "wide scale":
        config.data.scale = (0.35, 2.8)
    elif variant == "slow backbone":
        config.optim.backbone_lr = 0.1
    return config


class DeepFeatures(backbones.TimmFeatures):
    """The features at 1/32 as well."""

    def __init__(self, name: str) -> None:
        nn.Module.__init__(self)
        self.net = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4))
        self.reductions = tuple(self.net.feature_info.reduction())
        self.channels = tuple(self.net.feature_info.channels())


class DeepHead(FPNHead):
    """Features at 1/32, mixed and added to those at 1/16, before they are mixed."""

    def __init__(self, in_channels: Sequence[int], channels: int = 64, outputs: int = 1) -> None:
        super().__init__(in_channels[:-1], channels, outputs)
        self.deep, self.mix_deep = nn.Conv2d(in_channels[-1], channels, 1), Mix(channels, 5)

    def features(self, branches: Sequence[Tensor]) -> Tensor:
        """x [B, K, H/8, W/8]"""
        fine, coarse, deep = branches[-3:]
        coarse = self.coarse(coarse) + F.interpolate(self.mix_deep(self.deep(deep)), scale_factor=2.0, mode="nearest")
        return self.mix(self.fine(fine) + F.interpolate(self.mix_coarse(coarse), scale_factor=2.0, mode="nearest"))


class QuarterHead(FPNHead):
    """The features at 1/4, four cells side by side, are added to those at 1/8."""

    def __init__(self, in_channels: Sequence[int], channels: int = 64, outputs: int = 1) -> None:
        super().__init__(in_channels, channels, outputs)
        self.quarter = nn.Conv2d(4 * in_channels[-3], channels, 1)

    def features(self, branches: Sequence[Tensor]) -> Tensor:
        """x [B, K, H/8, W/8]"""
        quarter, fine, coarse = branches[-3:]
        coarse = F.interpolate(self.mix_coarse(self.coarse(coarse)), scale_factor=2.0, mode="nearest")
        return self.mix(self.fine(fine) + self.quarter(F.pixel_unshuffle(quarter, 2)) + coarse)


@contextmanager
def changed(variant: str) -> Iterator[None]:
    """Within it, if the variant says so: a network in training loses a fifth of its mixed features' channels (dropout); a
    rectangle of half of the crops, its sides multiples of 32 pixels, is another crop's (cut and mixed, after CutMix)."""
    features, example = FPNHead.features, CrowdDataset.__getitem__

    def dropped(self: FPNHead, branches: list[Tensor]) -> Tensor:
        return F.dropout2d(features(self, branches), 0.2, self.training)

    def mixed(self: CrowdDataset, index: int | tuple[int, int]) -> Example:
        whole = example(self, index)
        generator = np.random.default_rng((self.seed, 1, *(index if isinstance(index, tuple) else (index,))))
        if generator.random() < 0.5:
            return whole
        other = example(self, (int(generator.integers(len(self.items))), int(generator.integers(2**40))))
        cells = whole.image.shape[1] // 32
        (top, bottom), (left, right) = (sorted(32 * generator.choice(cells + 1, 2, replace=False)) for _ in range(2))
        image = whole.image.clone()
        image[:, top:bottom, left:right] = other.image[:, top:bottom, left:right]

        def inside(points: Tensor) -> Tensor:
            x, y = points.unbind(1)
            return (x >= left) & (x < right) & (y >= top) & (y < bottom)

        points = torch.cat([whole.points[~inside(whole.points)], other.points[inside(other.points)]])
        return whole._replace(image=image, points=points)

    with ExitStack() as stack:
        if variant == "dropout":
            stack.enter_context(patch.object(FPNHead, "features", dropped))
        if variant == "cut and mixed":
            stack.enter_context(patch.object(CrowdDataset, "__getitem__", mixed))
        if variant == "to a 32nd":
            stack.enter_context(patch.object(backbones, "TimmFeatures", DeepFeatures))
            stack.enter_context(patch.object(dkpnet, "FPNHead", DeepHead))
        if variant == "from a quarter":
            stack.enter_context(patch.object(dkpnet, "FPNHead", QuarterHead))
        yield


def enlarged(item: Item, factor: float = 1.5) -> Item:
    """The picture, bicubic, and its points; in memory."""
    height, width = (round(side * factor) for side in item.size)
    image = np.asarray(Image.fromarray(item.read()).resize((width, height), Image.Resampling.BICUBIC))
    return dataclasses.replace(
        item, image=image, size=(height, width), points=item.points * np.float32(factor), scale=item.scale * factor
    )


def halves(domains: list[Domain], fold: int, variant: str = "base") -> list[Domain]:
    """Without test images; the training images are one half, the validation images the other. Those of more than 500 heads
    are there twice, of more than 1000 four times, if the variant says so (dense); all are half as large again (enlarged)."""
    parts = [split_validation(d.train, 0.5) for d in domains]
    halved = []
    for domain, part in zip(domains, parts, strict=True):
        train = list(part[fold])
        if variant == "dense":
            train += [item for item in train if item.count > 500] + 2 * [item for item in train if item.count > 1000]
        val = list(part[1 - fold])
        if variant == "enlarged":
            train, val = [enlarged(item) for item in train], [enlarged(item) for item in val]
        halved.append(dataclasses.replace(domain, train=train, val=val, test=[]))
    return halved


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


def errors(rows: np.ndarray) -> np.ndarray:
    """Of each picture; the mean of what was counted in it and in its mirror image."""
    return np.abs(rows[:, 1:].mean(1) - rows[:, 0])


def report(out: Path, folds: list[int], draws: int = 10_000) -> str:
    """MAE by data set, its ratio to that of `base` and the ratios' geometric mean, with 95 % bootstrap intervals over pictures."""
    generator = np.random.default_rng(0)
    tables: dict[str, dict[str, np.ndarray]] = {}
    for variant in VARIANTS:
        files = [out / f"{variant.replace(' ', '-')}-{fold}.json" for fold in folds]
        if all(file.exists() for file in files):
            counted = [json.loads(file.read_text()) for file in files]
            tables[variant] = {name: np.concatenate([np.array(f[name]) for f in counted]) for name in counted[0]}
    lines = []
    for variant, table in tables.items():
        cells, logs = [], []
        for name, rows in table.items():
            error, bias = errors(rows), rows[:, 1:].mean(1).sum() / rows[:, 0].sum() - 1
            cells.append(f"{name} {error.mean():.2f} (bias {100 * bias:+.1f} %)")
            if variant != "base" and "base" in tables:
                base = errors(tables["base"][name])
                drawn = generator.integers(0, len(error), (draws, len(error)))
                # The first is the ratio itself, the others those of the draws.
                ratios = np.concatenate([[error.mean() / base.mean()], error[drawn].mean(1) / base[drawn].mean(1)])
                logs.append(np.log(ratios))
                cells[-1] += f" {_interval(ratios)}"
        if logs:
            cells.append(f"geometric mean {_interval(np.exp(np.mean(logs, axis=0)))}")
        lines.append(f"{variant}: " + "; ".join(cells))
    return "\n".join(lines)


def _interval(ratios: np.ndarray) -> str:
    low, high = np.percentile(ratios[1:], (2.5, 97.5))
    return f"{ratios[0]:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--ratio", nargs="+", type=float, default=[42, 35, 13])
    parser.add_argument("--negatives", nargs="+", default=["drawn"])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--lite2", metavar="FILE", help="tf_efficientnet_lite2's ImageNet weights in timm's names")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--folds", nargs="+", type=int, choices=(0, 1), default=[0, 1])
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    domains = load_domains(args.data, min_side=PRESETS["small"].config.data.min_side)
    for variant in args.variants:
        for fold in args.folds:
            file = args.out / f"{variant.replace(' ', '-')}-{fold}.json"
            if file.exists():
                continue
            config = settings(variant, args)
            config.output = args.out / file.stem
            parts = halves(domains, fold, variant)
            with changed(variant):
                train(config, domains=parts, extras=False)
                file.write_text(json.dumps(counts(load_model(config.output / "model"), parts)))
            print(report(args.out, args.folds), flush=True)


if __name__ == "__main__":
    main()
