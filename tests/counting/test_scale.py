"""The recipe of docs/scale.md on a local Ray cluster of two workers, one of which is killed: nothing is lost or counted twice."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dkpnet_ext import load_model

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'ray[data]')")

PICTURES = 96
ROOT = Path(__file__).parents[2]


def workers() -> list[int]:
    """Process ids of the Ray actors that hold a `Counter` and are at work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"MapWorker" in (name := path.read_bytes()) and name.startswith(b"ray::") and b"submit" in name:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_killed_worker_changes_nothing(tmp_path, monkeypatch):
    (recipe,) = re.findall(r"```python file=archive.py\n(.*?)```", (ROOT / "docs/scale.md").read_text(), re.S)
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(PICTURES):
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(tmp_path / f"pictures/{i:03}.png")
    (tmp_path / "pictures/damaged.png").write_bytes(b"\x89PNG no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    killed: list[int] = []
    ended = threading.Event()

    def kill():
        while not killed and not ended.is_set():
            for process in workers()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
            time.sleep(0.002)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        exec(compile(recipe, "archive.py", "exec"), {"__name__": "archive"})
    finally:
        ended.set()
        killer.join()
        ray.shutdown()
    assert killed, "no worker was at work"
    from pyarrow.parquet import read_table

    rows = read_table(tmp_path / "counts").to_pylist()
    names = [Path(row["path"]).name for row in rows]
    assert sorted(names) == [*(f"{i:03}.png" for i in range(PICTURES)), "damaged.png"]
    model = load_model().for_inference()
    for name, row in zip(names, rows, strict=True):
        if name == "damaged.png":
            assert np.isnan(row["count"]) and "damaged" not in row["error"] and row["error"]
        elif int(name[:3]) % 8 == 0:
            assert (
                row["count"] == pytest.approx(model.count(tmp_path / "pictures" / name), rel=1e-4) and not row["error"]
            )
