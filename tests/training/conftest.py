"""Two tiny domains on disk, in the list layout, and a configuration that trains on them in seconds."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dkpnet_ext.train import parse
from dkpnet_ext.training import Config, train

ARGUMENTS = [
    "scratch", "--crop", "96", "--min-side", "96", "--max-side", "128", "--batch", "4", "--workers", "0",
    "--num-clusters", "2", "--channels", "16", "--latent-dim", "4", "--eval-every", "1", "--device", "cpu",
    "--no-channels-last", "--precision", "fp32",
]  # fmt: skip


def write_domain(folder: Path, seed: int, train: int = 8, test: int = 2, side: int = 48) -> None:
    """Bright squares on noise; points at their centres."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        rows = ["image,points"]
        for i in range(count):
            image = rng.integers(0, 120, (side, side, 3), dtype=np.uint8)
            points = rng.integers(4, side - 4, (int(rng.integers(1, 9)), 2))
            for x, y in points:
                image[y - 2 : y + 3, x - 2 : x + 3] = 255
            Image.fromarray(image).save(folder / f"{split}{i}.png")
            cell = json.dumps(points.tolist()).replace('"', '""')
            rows.append(f'{split}{i}.png,"{cell}"')
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="session")
def domains(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("domains")
    for seed, name in enumerate(("bright", "dark")):
        write_domain(root / name, seed)
    return ["--data", f"bright={root / 'bright'}", f"dark={root / 'dark'}", "--cache", str(root / "cache")]


@pytest.fixture
def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TQDM_MININTERVAL": "0"}


@pytest.fixture(scope="session")
def settings(domains) -> Callable[..., Config]:
    """The command's arguments, on top of the tiny ones, as a configuration."""
    return lambda *arguments: parse([*ARGUMENTS, *domains, *map(str, arguments)])


@pytest.fixture(scope="session")
def run(settings) -> Callable[..., Path]:
    """Train in this process, with one thread as the commands of these tests; gives the run folder."""

    def call(*arguments) -> Path:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return train(settings(*arguments))
        finally:
            torch.set_num_threads(threads)

    return call


@pytest.fixture
def command(domains, environment) -> Callable[..., subprocess.Popen]:
    """Start the command."""

    def call(*arguments, prefix: tuple[str, ...] = ("-m",)) -> subprocess.Popen:
        words = [sys.executable, *prefix, "dkpnet_ext.train", *ARGUMENTS, *domains, *map(str, arguments)]
        return subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            # A suite in the background or under nohup ignores some signals, and its children would inherit that.
            preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)],
        )  # fmt: skip

    return call


def records(folder: Path) -> list[dict]:
    """metrics.jsonl without the times, which no two runs share."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "waiting")} for line in lines]
