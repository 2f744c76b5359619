"""How far counts in bfloat16 are from float32's, for each engine, on pictures of folders.

python experiments/bfloat16.py FOLDER [FOLDER ...] [--pictures 30] [--model RUN] [--csv FILE]

From each folder as many pictures, evenly spaced by name. A difference is relative to float32's count, and absolute where that
is below one head.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from dkpnet_ext.data.images import IMAGE_SUFFIXES
from dkpnet_ext.markdown import table
from dkpnet_ext.models import load_model

ENGINES = ("torch", "openvino")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--model", nargs="*", default=[], help="a run; default: the packaged model")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    exact = load_model(*arguments.model).for_inference("torch")
    models = {engine: load_model(*arguments.model).for_inference(engine, "bf16") for engine in ENGINES}
    rows, written = [], []
    for folder in arguments.folders:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(arguments.pictures, len(paths))).astype(int)]
        counts = np.array([[model.count(path) for model in (exact, *models.values())] for path in chosen])
        written += [[folder.name, path.name, *map(float, row)] for path, row in zip(chosen, counts, strict=True)]
        relative = (counts[:, 1:] - counts[:, :1]) / np.maximum(counts[:, :1], 1)
        for engine, column in zip(models, relative.T, strict=True):
            size = np.abs(column)
            differences = f"{np.median(size):.2%}", f"{size.max():.2%}", f"{column.mean():+.2%}"
            rows.append([str(folder), len(chosen), f"{counts[:, 0].mean():.1f}", engine, *differences])
    print(table(["folder", "pictures", "heads", "engine, bf16", "median", "largest", "mean, with sign"], rows))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            csv.writer(file).writerows([["folder", "picture", "float32", *models], *written])


if __name__ == "__main__":
    main()
