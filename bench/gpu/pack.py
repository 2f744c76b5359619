"""A small copy of data sets for a machine without a network: `python bench/gpu/pack.py OUT MAX_SIDE NAME=FOLDER ...`.

Writes OUT/NAME with images/*.webp (quality 70, longer side at most MAX_SIDE pixels) and a train.csv and test.csv, which every
command reads. ShanghaiTech A and B and Beijing-BRT take 60 MB at 640 pixels. `run.sh` reads such a folder as DKPNET_IMAGES.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from PIL import Image

from dkpnet_ext.cli import run_command
from dkpnet_ext.data import load_domains
from dkpnet_ext.errors import UserError


def main() -> None:
    if len(sys.argv) < 4 or not sys.argv[2].isdigit():
        raise UserError("usage: python bench/gpu/pack.py OUT MAX_SIDE NAME=FOLDER ...")
    out, max_side = Path(sys.argv[1]), int(sys.argv[2])
    for domain in load_domains(sys.argv[3:], min_side=1, max_side=max_side):
        folder = out / domain.name
        (folder / "images").mkdir(parents=True)
        for split in ("train", "val", "test"):
            items = getattr(domain, split)
            if not items:
                continue
            with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(["image", "points"])
                for number, item in enumerate(items):
                    name = f"images/{split}_{number:04d}.webp"
                    Image.fromarray(item.read()).save(folder / name, quality=70)
                    table.writerow([name, json.dumps([[round(float(v), 2) for v in point] for point in item.points])])
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
