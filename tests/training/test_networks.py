"""A network with a backbone and a stride of its own trains like the others."""

import pytest
from torch import nn

from dkpnet_ext import ops
from dkpnet_ext.models import load_model, registry
from dkpnet_ext.models.published import PublishedNetwork, register_network
from dkpnet_ext.training import losses


class Patches(nn.Module):
    name, reductions, channels = "patches", (8,), (8,)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, stride=8)

    def stages(self):
        return []

    def forward(self, x):
        return [self.conv(x)]


@pytest.fixture
def tiny():
    @register_network("a network of a test")
    class Tiny(PublishedNetwork):
        network, cell = "tiny", 8

        @classmethod
        def build(cls, outputs, width):
            return Patches(), nn.Conv2d(8, outputs, 1)

    yield Tiny
    for name in Tiny.systems:
        del registry._systems[name]


def test_both_stages_with_targets_of_the_systems_own_stride(tiny, run, tmp_path, monkeypatch):
    strides = set()
    density = ops.density
    monkeypatch.setattr(
        losses.ops, "density", lambda *a, **settings: strides.add(settings["stride"]) or density(*a, **settings)
    )
    folder = run("--system", "tiny-inva", "--epochs", 1, "--output", tmp_path / "run")
    assert strides == {8}
    assert load_model(folder).system == "tiny-inva" and load_model(folder / "stage1" / "best").system == "tiny-va"
    assert (folder / "results.md").exists()
