"""How good is a counter, without looking at test images? The judge of bench/results/counter.md, and pictures without people.

    python experiments/judge.py MODEL [MODEL ...] --data NAME=FOLDER ... [--empty FOLDER ...]

A data set's error is the mean over the strata "below 250, 500, 1000, 2000 heads, above" of the mean validation error in each,
weighted by the stratum's share of all training pictures: four of ShanghaiTech A's 30 validation pictures hold more than 2000
heads, 13 % where the training pictures have 4 %. The judge is the mean over data sets of that error divided by the training
pictures' mean count. It is printed for the pictures as they are, and as the mean over six views (mirrored or not, at scales
0.75, 1 and 1.33): chance in 88 pictures is less there. In bfloat16. Pictures without people are scaled to at most 1024 pixels.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from dkpnet_ext import load_model
from dkpnet_ext.data import Item, load_domains, split_validation
from dkpnet_ext.training import PRESETS

STRATA = (250, 500, 1000, 2000)
VIEWS = tuple(itertools.product((1.0, 0.75, 1.33), (False, True)))


def count(model: torch.nn.Module, image: np.ndarray, scale: float = 1.0, mirrored: bool = False) -> float:
    """Heads that the model sees in a picture [H, W, 3], uint8."""
    x = torch.from_numpy(np.array(image[:, ::-1] if mirrored else image)).permute(2, 0, 1)[None]
    if scale != 1:
        x = F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return float(model(x.contiguous(memory_format=torch.channels_last)).density.double().sum())


def by_strata(train: list[Item], val: list[Item], errors: np.ndarray) -> float:
    """Mean error of the validation pictures, weighted as described above."""

    def strata(items: list[Item]) -> np.ndarray:
        return np.digitize([item.count for item in items], STRATA)

    all_of, mine = strata(train + val), strata(val)
    kinds = [k for k in range(len(STRATA) + 1) if (mine == k).any()]
    shares = np.array([(all_of == k).mean() for k in kinds])
    return float(np.average([errors[mine == k].mean() for k in kinds], weights=shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folder of a run or checkpoint, or `starter`")
    parser.add_argument("--data", nargs="+", default=[])
    parser.add_argument("--empty", nargs="+", type=Path, default=[], help="folders of pictures without people")
    args = parser.parse_args()
    config = PRESETS["small"].config
    domains = load_domains(args.data, min_side=config.data.min_side) if args.data else []
    parts = [split_validation(domain.train, config.data.val_fraction) for domain in domains]
    for name in args.models:
        model = load_model() if name == "starter" else load_model(name)
        model.eval().to(memory_format=torch.channels_last)
        judges = []
        for view in VIEWS:
            relative = []
            for domain, (train, val) in zip(domains, parts, strict=True):
                heads = np.array([item.count for item in val], float)
                counted = np.array([count(model, item.read(), *view) for item in val])
                errors = np.abs(counted - heads)
                weighted = by_strata(train, val, errors)
                relative.append(weighted / np.mean([item.count for item in train + val]))
                if view == VIEWS[0]:
                    bias = 100 * (counted.sum() / heads.sum() - 1)
                    print(
                        f"{name}: {domain.name} MAE {errors.mean():.2f}, median {np.median(errors):.1f}, by strata "
                        f"{weighted:.2f}, bias {bias:+.1f} %"
                    )
            judges.append(np.mean(relative))
        if domains:
            print(f"{name}: judge {judges[0]:.4f}, six views {np.mean(judges):.4f}", flush=True)
        for folder in args.empty:
            seen = []
            for file in sorted(folder.iterdir()):
                image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
                image.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
                seen.append((count(model, np.array(image)), file.name))
            worst = sorted(seen, reverse=True)[:3]
            print(
                f"{name}: {folder.name}, {len(seen)} pictures, mean {np.mean([n for n, _ in seen]):.2f}; most: "
                + ", ".join(f"{file} {n:.1f}" for n, file in worst),
                flush=True,
            )


if __name__ == "__main__":
    main()
