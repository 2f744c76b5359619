"""Drawn pictures without people that a counter takes for people: a folder for `train --negatives drawn FOLDER`.

python experiments/hard_negatives.py FOLDER [--model starter|CHECKPOINT] [--pictures 4000] [--seed 1000] [--above 2] [--copies 5]

`dkpnet_ext.synthetic.negatives` draws pictures of a seed that no training uses by itself (those have 0); the ones on which the
counter sees more than `--above` people are kept, each `--copies` times, since training shows every file equally often.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dkpnet_ext import load_model
from dkpnet_ext.synthetic.negatives import picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--above", type=float, default=2.0)
    parser.add_argument("--copies", type=int, default=5)
    options = parser.parse_args()

    torch.set_num_threads(1)
    model = load_model() if options.model == "starter" else load_model(options.model)
    counter = model.for_inference("torch")
    options.folder.mkdir(parents=True, exist_ok=True)
    seen = []
    for index in tqdm(range(options.pictures)):
        image = picture(options.seed, index)
        count = counter.count(np.asarray(image), as_is=True)
        if count > options.above:
            seen.append(count)
            for copy in range(options.copies):
                image.save(options.folder / f"{options.seed}-{index}-{copy}.png")
    print(
        f"{len(seen)} of {options.pictures} pictures count above {options.above:g}, at most {max(seen, default=0):.0f}"
    )


if __name__ == "__main__":
    main()
