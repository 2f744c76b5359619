"""The packaged model adapted to pictures of a domain that it never saw: MAE on its test pictures by the number of labels.

python experiments/adapt.py FOLDER [PICTURES ...] [--epochs N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from dkpnet_ext.data import Domain
from dkpnet_ext.models import load_model
from dkpnet_ext.synthetic.scenes import render
from dkpnet_ext.training import PRESETS, train

TESTED = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pictures", type=int, nargs="*", default=[10, 40])
    parser.add_argument("--domain", default="station")
    parser.add_argument("--epochs", type=int, default=PRESETS["adapt"].config.optim.epochs)
    arguments = parser.parse_args()
    starter = load_model()

    def drawn(split: str, count: int) -> list:
        return [render(arguments.domain, split, index) for index in range(count)]

    def counted(model, pairs) -> np.ndarray:
        return np.array([model.count(image) for image, _ in pairs])

    test = drawn("test", TESTED)
    annotated = np.array([len(points) for _, points in test])
    before = counted(starter, test)
    print(f"mean count {annotated.mean():.1f}; packaged model: MAE {np.abs(before - annotated).mean():.2f}", flush=True)
    for number in arguments.pictures:
        pairs = drawn("train", number)
        config = PRESETS["adapt"].config
        config.output, config.device = arguments.folder / str(number), "cpu"
        config.optim.epochs = arguments.epochs
        domain = Domain.from_arrays("mine", pairs, min_side=starter.min_side, max_side=starter.max_side)
        wall, cpu = time.monotonic(), time.process_time()
        model = load_model(train(config, [domain]))
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        factor = sum(len(points) for _, points in pairs) / counted(starter, pairs).sum()
        print(
            f"{number} pictures: times {factor:.3f} MAE {np.abs(before * factor - annotated).mean():.2f}, "
            f"adapted MAE {np.abs(counted(model, test) - annotated).mean():.2f}; {wall:.0f} s, {cpu:.0f} s of processor",
            flush=True,
        )


if __name__ == "__main__":
    main()
