"""A small untrained model and made-up items on disk."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from browsers import browser  # noqa: F401 (a fixture)
from counters import alive
from hypothesis import HealthCheck, settings

from dkpnet_ext.models import DKPNet

# Commands' own choice of an engine exports and measures every new model; tests/models/test_engines.py asks for it.
os.environ.setdefault("DKPNET_ENGINE", "torch")


# A busy machine is no failure: no example has a deadline.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_configure(config):
    """Several workers take the files in their order. xdist's own order puts those of few tests last, among which are the longest
    (compilations), and a worker would run one of them alone."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@dataclass(frozen=True)
class FakeItem:
    """The fields of `data.readers.Item` that evaluation reads."""

    name: str
    domain: str
    image: Path
    points: np.ndarray
    scale: float = 1.0
    sizes: np.ndarray | None = None

    @property
    def count(self) -> int:
        return len(self.points)

    def read(self) -> np.ndarray:
        return np.load(self.image, mmap_mode="r")


@pytest.fixture(scope="session")
def make_model():
    """A function from changed arguments to a model with fixed random weights."""

    def make(**changes) -> DKPNet:
        torch.manual_seed(0)
        arguments = {"backbone": "hrnet_w18_small", "num_sub": 2, "channels": 64, "domains": ("A", "B"), "min_side": 32}
        return alive(DKPNet(**{**arguments, **changes})).eval()

    return make


@pytest.fixture(scope="session")
def model(make_model) -> DKPNet:
    return make_model()


@pytest.fixture
def items(tmp_path) -> list[FakeItem]:
    """Twelve noise images; the count follows the share of the image that is noisy, in domain B ten times."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(12):
        domain, height = "AB"[i % 2], 64 + 16 * (i % 3)
        picture = np.full((height, 80, 3), 120, np.uint8)
        rows = 4 * (i + 1)
        picture[:rows] = rng.integers(0, 256, (rows, 80, 3))
        path = tmp_path / f"{i}.npy"
        np.save(path, picture)
        count = (i + 1) * (1 if domain == "A" else 10)
        made.append(FakeItem(f"{domain}/test/{i}.png", domain, path, rng.random((count, 2), np.float32)))
    return made
