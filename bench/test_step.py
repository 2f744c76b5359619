"""A whole training step, and its loss curve, against the paper's recipe written plainly: eager float32, literal head."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial

import baselines
import pytest
import torch
from measure import captured

from dkpnet_ext.models import DKPNet
from dkpnet_ext.models.backbones import freeze_stages
from dkpnet_ext.ops import reference
from dkpnet_ext.training import PRESETS
from dkpnet_ext.training.convolutions import speed_up_convolutions
from dkpnet_ext.training.losses import Annotation, density_loss
from dkpnet_ext.training.run import build_model
from dkpnet_ext.training.stage import build_optimizer

CLUSTERS, SUB, LR = 5, 2, 1e-4
# B images of SIDE x SIDE; a CPU's batch is smaller, which changes images/s little.
SETTINGS = {
    "hrnet_w18_small": ("cpu", 4, 400),
    "tf_efficientnet_lite0": ("cpu", 4, 400),
    "hrnet_w40": ("cuda", 32, 400),
}
CASES = [
    pytest.param(name, marks=pytest.mark.gpu if device == "cuda" else ()) for name, (device, *_) in SETTINGS.items()
]


def build(backbone: str, device: str) -> DKPNet:
    torch.manual_seed(0)
    return DKPNet(backbone, "inva", num_domains=CLUSTERS, num_sub=SUB, density_scale=100.0).to(device).train()


def batch_of(device: str, batch: int, side: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """uint8 images, labels, and targets whose densest cells lie where the image is bright: there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, side // 16, side // 16, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    target = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4).pow(4) * 0.2
    labels = torch.randint(CLUSTERS, (batch,), generator=generator)
    return (images * 255).to(torch.uint8).to(device), labels.to(device), target.to(device)


def loss_of(density: torch.Tensor, target: torch.Tensor, terms, scale: float) -> torch.Tensor:
    """Eq. 9, the density term weighed as in the presets; ``density`` times ``scale`` already."""
    error = density.float() - target * scale
    return 0.01 * error.square().sum() / (2 * len(target)) + sum(term.mean() for term in terms)


def same_noise(mu, logvar, centers, prior_logvar, labels):
    """The package's noise in plain PyTorch: for loss curves that can be compared step by step."""
    seed = torch.randint(torch.iinfo(torch.int64).max, (1,), device=mu.device)
    options = dict(seed=seed, eps=None, num_samples=1, dropout=0.2, batch_offset=0)
    z, *terms, _ = reference.variational(mu, logvar, centers, prior_logvar, labels, **options)
    return z[0], *terms


def literal(model: DKPNet, channels_last: bool = False, sample: Callable = baselines.variational) -> Callable:
    """One step of the paper's recipe; returns the loss."""
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    sample = partial(sample, dropout=0.2) if sample is baselines.variational else sample

    def step(images, labels, target):
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        density, *terms = baselines.network(model, images, labels, sample)
        loss = loss_of(density, target, terms, model.density_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def ours(model: DKPNet, bf16: bool, compiled: bool = False) -> Callable:
    """One step of the package: channels_last, the folded head, bfloat16 where asked."""
    model = model.to(memory_format=torch.channels_last)
    device = next(model.parameters()).device.type
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True, capturable=device == "cuda")
    forward = torch.compile(model) if compiled else model

    def step(images, labels, target):
        # Without its cache autocast may be captured in a graph.
        with torch.autocast(device, torch.bfloat16, enabled=bf16, cache_enabled=False):
            out = forward(images, labels)
        scale = model.density_scale
        loss = loss_of(out.density * scale, target, (out.kl, out.lse, out.logdet2), scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def loss_curve(step: Callable, batches, steps: int) -> torch.Tensor:
    torch.manual_seed(1)  # of the noise
    return torch.stack([step(*batches[i % len(batches)]) for i in range(steps)]).double().cpu()


def curve_errors(backbone: str, device: str, steps: int, batch: int, side: int) -> dict[str, float]:
    """How far the mean loss of the last quarter is from the literal form's, relative.

    The literal form in another memory layout shows what rounding alone makes of a curve.
    """
    model = build(backbone, device)
    batches = [batch_of(device, batch, side, seed) for seed in range(4)]
    curves = {
        "literal": loss_curve(literal(copy.deepcopy(model), False, same_noise), batches, steps),
        "literal, channels_last": loss_curve(literal(copy.deepcopy(model), True, same_noise), batches, steps),
        "ours, float32": loss_curve(ours(copy.deepcopy(model), False), batches, steps),
        "ours, bfloat16": loss_curve(ours(copy.deepcopy(model), True), batches, steps),
    }
    ends = {name: curve[-max(1, steps // 4) :].mean().item() for name, curve in curves.items()}
    if side > 64:  # not in a rehearsal
        assert ends["literal"] < curves["literal"][: len(batches)].mean(), "the literal form does not learn"
    return {name: abs(end / ends["literal"] - 1) for name, end in ends.items()}


@pytest.mark.parametrize("backbone", CASES)
def test_training_step(compare, tiny, backbone):
    device, batch, side = SETTINGS[backbone]
    batch, side = (2, 64) if tiny else (batch, side)
    curve = (20, 2, 64) if tiny else (200, 8, 256) if device == "cuda" else (20, 2, 96)
    found = curve_errors(backbone, device, *curve)
    model = build(backbone, device)
    inputs = batch_of(device, batch, side)
    own = {"ours, bfloat16": ours(copy.deepcopy(model), True), "ours, float32": ours(copy.deepcopy(model), False)}
    plain = {"literal": literal(copy.deepcopy(model)), "literal, channels_last": literal(copy.deepcopy(model), True)}
    own = {name: partial(step, *inputs) for name, step in own.items()}
    if device == "cuda" and not tiny:
        graphs = {f"{name}, CUDA graph": captured(step) for name, step in own.items()}
        own = {**graphs, **own}
        aims = [("ours, bfloat16, CUDA graph", other, 2.5) for other in plain]
        aims += [("ours, float32, CUDA graph", other, 1.3) for other in plain]
    else:
        aims = [("ours, bfloat16", other, 1.5) for other in plain]
    columns: dict[str, dict] = {
        name: {"error": found[name.removesuffix(", CUDA graph")], "images per call": batch} for name in own
    }
    columns |= {name: {"error": found[name], "images per call": batch} for name in plain}
    compare(
        f"training step, {backbone}",
        f"{batch} crops of {side} x {side}, c={CLUSTERS}, k={SUB}, Adam; error: relative difference of the mean loss of "
        f"the last quarter of {curve[0]} steps ({curve[1]} crops of {curve[2]} x {curve[2]})",
        own,
        {name: partial(step, *inputs) for name, step in plain.items()},
        device=device,
        columns=columns,
        aims=aims,
        rounds=3 if device == "cpu" else 9,
        graph_calls=0,
    )


@pytest.mark.gpu
def test_compiled_training_step(compare, tiny):
    """With torch.compile, on its own because it takes minutes to compile."""
    device, batch, side = SETTINGS["hrnet_w40"]
    batch, side = (2, 64) if tiny else (batch, side)
    model, inputs = build("hrnet_w40", device), batch_of(device, batch, side)
    own = {"ours, bfloat16, torch.compile": partial(ours(copy.deepcopy(model), True, compiled=True), *inputs)}
    plain = {
        name: partial(literal(copy.deepcopy(model), "channels" in name), *inputs)
        for name in ("literal", "literal, channels_last")
    }
    compare(
        "training step, hrnet_w40, compiled",
        f"{batch} crops of {side} x {side}, c={CLUSTERS}, k={SUB}, Adam",
        own,
        plain,
        device=device,
        columns={name: {"images per call": batch} for name in (*own, *plain)},
        aims=[(name, other, 2.5) for name in own for other in plain],
        rounds=9,
        graph_calls=0,
    )


_CONFIG = PRESETS["small"].config
SMALL = dataclasses.replace(_CONFIG, model=dataclasses.replace(_CONFIG.model, weights="starter"), precision="bf16")


def small_step(fast: bool, compiled: bool) -> Callable:
    """A step of preset `small`, bfloat16: with our convolutions, or with PyTorch's in the same layout."""
    torch.manual_seed(0)
    model = build_model(SMALL, 1, ["A"]).train().to(memory_format=torch.channels_last)
    if fast:
        speed_up_convolutions(model, SMALL)
    freeze_stages(model.backbone, SMALL.optim.frozen_stages)
    optimizer = build_optimizer(model, SMALL)
    forward = torch.compile(model) if compiled else model

    def step(images: torch.Tensor, people: Annotation) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output = forward(images)
        loss = density_loss(output, people, SMALL.loss, model.density_scale, SMALL.optim.batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SMALL.optim.clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def test_small_step(compare, tiny):
    """The step that trains the packaged model, under torch.compile, too."""
    batch, side = (2, 64) if tiny else (SMALL.optim.batch, SMALL.data.crop)
    images = batch_of("cpu", batch, side)[0]
    points = torch.rand(100 * batch, 2, generator=torch.Generator().manual_seed(0)) * side
    people = Annotation(points, 100 * torch.arange(batch + 1), torch.full((batch,), 48.0), (side, side), stride=8)
    ways = {"ours": (True, False), "ours, torch.compile": (True, True)}
    plain = {"PyTorch's convolutions": (False, False), "PyTorch's convolutions, torch.compile": (False, True)}
    steps = {name: partial(small_step(*way), images, people) for name, way in (ways | plain).items()}
    compare(
        "training step, preset small", f"{batch} crops of {side} x {side}, 100 heads each, AdamW, bfloat16",
        {name: steps[name] for name in ways}, {name: steps[name] for name in plain}, device="cpu",
        columns={name: {"images per call": batch} for name in steps}, rounds=3,
        aims=[("ours", name, 1.3) for name in plain], graph_calls=0,
    )  # fmt: skip
