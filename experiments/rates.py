"""Learning rates for the grid of losses: joint training under each loss at several rates, judged by validation alone.

    python experiments/rates.py OUT.jsonl --weights FILE [--data NAME=FOLDER ...] [--crop 128] [--rates 1e-3 3e-3]

One line of OUT.jsonl a run: loss, rate, validation error (mean over the data sets of MAE / mean count). What is there is
not trained again. Test images are left out. The result is in bench/results/losses.md.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import tempfile
from pathlib import Path

from dkpnet_ext.data import load_domains
from dkpnet_ext.reproduction.runs import validation_error
from dkpnet_ext.reproduction.systems import LOSSES
from dkpnet_ext.training import PRESETS, Config, train


def settings(args: argparse.Namespace) -> Config:
    """The grid's base, in fewer epochs."""
    config = copy.deepcopy(PRESETS["small"].config)
    config.data.crop, config.data.workers, config.data.max_side, config.data.negatives = args.crop, 0, args.max_side, ()
    config.model.weights, config.optim.batch, config.optim.epochs = args.weights, 8, args.epochs
    config.optim.clip, config.loss.w_density, config.eval_every = 1000.0, 1.0, args.epochs
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", default=["synthetic"])
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--max-side", type=int, default=512)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 3e-3])
    args = parser.parse_args()
    config = settings(args)
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    domains = load_domains(args.data, min_side=config.data.min_side, max_side=config.data.max_side)
    untested = [dataclasses.replace(domain, test=[]) for domain in domains]
    for rate in args.rates:
        for loss in LOSSES:
            if any((row["loss"], row["rate"]) == (loss, rate) for row in done):
                continue
            config.loss.loss, config.optim.lr = loss, rate
            config.model.density_scale = 10.0 if loss == "mse" else 1.0
            with tempfile.TemporaryDirectory() as folder:
                config.output = Path(folder) / "run"
                train(config, domains=untested, extras=False)
                row = {"loss": loss, "rate": rate, "validation": validation_error(config.output)}
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
