"""Counting one image of 1024 x 768, against the literal network in eager float32."""

from __future__ import annotations

import copy
from pathlib import Path

import baselines
import numpy as np
import pytest
import torch
from measure import captured
from PIL import Image

import dkpnet_ext
from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.models.fpn import FPNHead

STARTER = Path(dkpnet_ext.__file__).parent / "assets" / "starter"


def build(backbone: str) -> DKPNet:
    """Random weights; the last bias is 0, so that the density map is not all but constant."""
    torch.manual_seed(0)
    model = DKPNet(backbone, "inva", num_domains=5, num_sub=2).eval()
    torch.nn.init.zeros_(model.head.conv3.bias)
    return model


def scene(tiny: bool) -> torch.Tensor:
    """uint8 [1, 3, 768, 1024], a synthetic scene."""
    from dkpnet_ext.synthetic.scenes import render

    pixels, _ = render("square", "test", 0)
    image = Image.fromarray(pixels).resize((128, 96) if tiny else (1024, 768))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()


def plain_density(model: DKPNet, images: torch.Tensor) -> torch.Tensor:
    """The paper's network step by step; a model with the fpn neck, which has no other form, as it is."""
    if isinstance(model.head, FPNHead):
        return model.eval()(images).density
    return baselines.network(model, images)[0] / model.density_scale


def contenders(model: DKPNet, images: torch.Tensor) -> tuple[dict, dict]:
    """Functions without arguments that return density maps."""
    device = images.device.type

    def ours(model: DKPNet, bf16: bool):
        model = model.to(memory_format=torch.channels_last)

        def run():
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16, cache_enabled=False):
                return model(images).density

        return run

    def literal(model: DKPNet, layout: torch.memory_format):
        model, pixels = model.to(memory_format=layout), images.contiguous(memory_format=layout)

        def run():
            with torch.inference_mode():
                return plain_density(model, pixels)

        return run

    own = {
        "ours, bfloat16, batch norm folded": ours(copy.deepcopy(model).for_inference("torch"), True),
        "ours, float32, batch norm folded": ours(copy.deepcopy(model).for_inference("torch"), False),
        "ours, bfloat16": ours(copy.deepcopy(model), True),
        "ours, float32": ours(copy.deepcopy(model), False),
    }
    plain = {
        "literal": literal(copy.deepcopy(model), torch.contiguous_format),
        "literal, channels_last": literal(copy.deepcopy(model), torch.channels_last),
    }
    return own, plain


CASES = [(name, "cpu") for name in ("hrnet_w18_small", "tf_efficientnet_lite0", "hrnet_w40")] + [("hrnet_w40", "cuda")]


@pytest.mark.parametrize(
    "backbone, where", [pytest.param(*case, marks=pytest.mark.gpu if case[1] == "cuda" else ()) for case in CASES]
)
def test_inference(compare, tiny, backbone, where):
    model, images = build(backbone).to(where), scene(tiny).to(where)
    run_contest(compare, f"inference, {backbone}", model, images, where, tiny, count=False)


@pytest.mark.skipif(not STARTER.is_dir(), reason="no packaged starter model")
@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_inference_with_the_starter_model(compare, tiny, where):
    model, images = load_model(STARTER).to(where), scene(tiny).to(where)
    run_contest(compare, f"inference, packaged model ({model.backbone_name})", model, images, where, tiny, count=True)


def run_contest(compare, row, model, images, where, tiny, count):
    if where == "cuda":
        torch.set_float32_matmul_precision("high")
    own, plain = contenders(model, images)
    with torch.inference_mode():
        truth = plain_density(copy.deepcopy(model).double(), images.to(where)).double()
    columns: dict[str, dict] = {}
    for name, run in (own | plain).items():
        difference = run().double() - truth
        error = difference.sum().abs() / truth.sum().abs() if count else difference.abs().sum() / truth.abs().sum()
        columns[name] = {"error": error.item()}
    if where == "cuda" and not tiny:
        graphs = {f"{name}, CUDA graph": captured(run) for name, run in own.items()}
        columns |= {name: columns[name.removesuffix(", CUDA graph")] for name in graphs}
        own = {**graphs, **own}
    best = next(iter(own))
    compare(
        row,
        f"uint8 {list(images.shape)}; error: {'relative difference of the counts' if count else 'sum |difference| / sum |map|'}"
        " against the literal form in float64",
        own,
        plain,
        device=where,
        columns=columns,
        aims=[(best, other, 3 if where == "cuda" else 2) for other in plain],
        rounds=3 if where == "cpu" else 31,
        graph_calls=0,
    )
