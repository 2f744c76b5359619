"""The published systems of Table 2, thin: each trains under its own loss, resumes, counts in tiles and exports."""

import pytest
import torch

from dkpnet_ext.counting.export import check_exported, export_model
from dkpnet_ext.models import load_model, tiling
from dkpnet_ext.reproduction.systems import LITERATURE
from dkpnet_ext.train import parse
from dkpnet_ext.training import train

from .conftest import records


class Stopped(Exception):
    """Ends a run after an epoch."""


def stop(_record):
    raise Stopped


@pytest.mark.parametrize("name", LITERATURE)
def test_trains_resumes_tiles_and_exports(name, settings, run, tmp_path, monkeypatch):
    system, loss = LITERATURE[name]
    thin = ["--system", system, "--loss", loss, "--width", 0.0625, "--crop", 32, "--batch", 8, "--epochs", 2]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(*thin, "--output", whole)
    with pytest.raises(Stopped):
        train(settings(*thin, "--output", parts), callback=stop)
    train(parse(["--resume", str(parts)]))
    assert records(parts)[-1] == records(whole)[-1]
    model = load_model(parts)
    assert model.system == system
    model.link = "abs"  # after two steps the ReLU may be 0 everywhere, where any two maps agree
    image = torch.randint(0, 256, (3, 100, 130), dtype=torch.uint8)
    density = model.examine(image, as_is=True).density
    assert float(density.std()) > 0
    if system not in ("canet", "sfcn"):  # their features depend on the image's size: docs/models.md
        export_model(model, tmp_path / "counter.pt2")
        assert check_exported(model, tmp_path / "counter.pt2") < 1e-3
    monkeypatch.setattr(tiling, "LIMIT", 1)
    tiled = model.examine(image, as_is=True).density
    torch.testing.assert_close(tiled, density, rtol=0, atol=1e-3 * float(density.max()))
