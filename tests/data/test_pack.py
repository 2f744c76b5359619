"""bench/gpu/pack.py: the copy that goes to a machine without a network."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dkpnet_ext.data import load_domains

ROOT = Path(__file__).parents[2]


def test_a_packed_copy_is_smaller_and_counts_the_same(tmp_path):
    rng = np.random.default_rng(0)
    source = tmp_path / "source"
    source.mkdir()
    for split in ("train", "test"):
        with (source / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "points"])
            for i in range(2):
                pixels = np.kron(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8), np.ones((25, 25, 1), np.uint8))
                Image.fromarray(pixels).save(source / f"{split}{i}.png")  # 200 x 300
                points = rng.uniform((0, 0), (300, 200), (5 + i, 2))
                table.writerow([f"{split}{i}.png", json.dumps(points.tolist())])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DKPNET_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, ROOT / "bench" / "gpu" / "pack.py", tmp_path / "out", "150", f"mine={source}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (before,) = load_domains([f"mine={source}"], cache=tmp_path / "cache", min_side=1, progress=False)
    (packed,) = load_domains(
        [f"mine={tmp_path / 'out' / 'mine'}"], cache=tmp_path / "cache", min_side=1, progress=False
    )
    for split in ("train", "test"):
        for old, new in zip(getattr(before, split), getattr(packed, split), strict=True):
            assert old.size == (200, 300) and new.size == (100, 150)
            np.testing.assert_allclose(new.points, old.points / 2, atol=0.01)
            small = Image.fromarray(np.asarray(old.read())).resize((150, 100))
            assert np.abs(np.asarray(small, float) - new.read()).mean() < 10, "the same picture"
