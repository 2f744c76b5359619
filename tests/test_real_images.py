"""Real images, where DKPNET_TEST_DATA names the folder that holds them; skipped, visibly, elsewhere."""

import os
from pathlib import Path

import numpy as np
import pytest

from dkpnet_ext.data import load_domains
from dkpnet_ext.evaluation.inference import predict_counts
from dkpnet_ext.evaluation.metrics import summarize
from dkpnet_ext.models import DKPNet, load_model

ROOT = Path(os.environ.get("DKPNET_TEST_DATA", "absent"))
pytestmark = pytest.mark.skipif(not (ROOT / "data").is_dir(), reason="DKPNET_TEST_DATA names no folder with data/")
STARTER = Path(__file__).parents[1] / "dkpnet_ext" / "assets" / "starter"


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    data = ROOT / "data"
    return load_domains(
        [f"SHB={data / 'ShanghaiTech' / 'part_B'}", f"BRT={data / 'Beijing-BRT'}"],
        cache=tmp_path_factory.mktemp("cache"), min_side=256, progress=False,
    )  # fmt: skip


def test_the_sets_are_complete(domains):
    sizes = {d.name: (len(d.train), len(d.test)) for d in domains}
    assert sizes == {"SHB": (400, 158), "BRT": (180, 70)}


def test_the_starter_model_counts_better_than_the_training_mean(domains):
    """On every eighth test image; the measured errors on all of them are in the model's card."""
    model = load_model(STARTER)
    for domain in domains:
        items = domain.test[::8]
        annotated = np.array([item.count for item in items])
        mean = np.mean([item.count for item in domain.train])
        counted = summarize(predict_counts(model, items), annotated).mae
        assert counted < 0.5 * summarize(np.full(len(items), mean), annotated).mae, domain.name


def test_imagenet_weights_fit_the_backbone():
    model = DKPNet("tf_efficientnet_lite0", "none")
    model.load_backbone(ROOT / "weights" / "tf_efficientnet_lite0_imagenet.safetensors")
