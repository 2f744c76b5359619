"""When can attention not be idle? A controlled family of synthetic domains; results in bench/results/routing.md.

Two domains show the same two kinds of marks, disks and rings. In the first the disks are heads, in the second the rings: one
and the same local patch is a head in one domain and none in the other. What differs is where the domain can be read off:

- ``local``: the background's colour, in every patch. A network without attention can decide by itself.
- ``global``: crosses (six, or ``--crosses``) along the upper border (green or magenta), farther from every disk and ring than the
  network's receptive field reaches. Only what looks at the whole picture can decide.
- ``label``: nowhere in the picture; only the label of a training picture tells. Nobody can decide in prediction.

Systems: ``jt`` (no attention), ``se``, ``mb``, ``va``, ``inva`` (VA, clustering of its attention, InVA), ``twice`` (VA, then VA
again, as long as InVA's second stage), ``sub`` and ``nearest`` (InVA in one stage on the data sets themselves, whose two
sub-components are chosen by u . mu as in Eq. 8, or by their distance to mu), ``oracle``: a gain per channel that is given
the true domain; ``film`` (with the true domain in ``mae_informed``) and ``mdknet``.

``--labels`` makes data sets that do not follow the domains: ``mixed`` (the first holds all disks and half of the rings, the second
the other rings), ``merged`` (one data set holds both) and ``split`` (disks in two data sets, rings in a third).

    python experiments/routing.py OUT.jsonl --systems jt se mb va inva oracle --where local global label --seeds 0 1 2 3 4

A run takes about half a minute of one core, with ``--side 48 --crosses 3 --steps 800 --pictures 1000`` eight seconds. Rows that
OUT.jsonl already holds are not run again; a run that is ended half-way loses only the row at hand.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from dkpnet_ext import ops
from dkpnet_ext.models import CounterOutput, CrowdCounter, DKPNet, FiLM, MDKNet, MultiBranch
from dkpnet_ext.models.attention import AttentionOutput, VariationalAttention
from dkpnet_ext.ops import reference
from dkpnet_ext.training.clustering import cluster_attention
from dkpnet_ext.training.config import LossConfig
from dkpnet_ext.training.losses import loss_terms

SIGMA = 3.0  # pixels


class Form(NamedTuple):
    """Size of the pictures and reach of the network. The blur of a disk or ring ends 2 pixels above ``top`` at the latest, crosses
    end at 8; between them lies more than the network sees of either."""

    top: int  # disks and rings lie below
    most: int  # disks, and as many rings, at most
    deep: int  # convolutions after the two that halve the resolution


FORMS = {80: Form(32, 11, 2), 48: Form(24, 4, 1)}
"""By the pictures' side in pixels."""


class SmallBackbone(nn.Module):
    """Features at 1/4 of the image that see 23 x 23 pixels (``deep`` 2) or 15 x 15: no cross reaches a disk or a ring."""

    name, reductions, channels = "small", (4,), (32,)

    def __init__(self, deep: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        for _ in range(deep):
            self.net.extend((nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU()))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> one [B, 32, H/4, W/4]"""
        return [self.net(x)]

    def stages(self) -> list[list[nn.Module]]:
        """One."""
        return [[self.net]]


class Oracle(nn.Module):
    """Attention that is told the true domain: a gain per channel and domain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(2, channels) * 0.1)
        self.domain: Tensor | None = None  # set before each call

    def forward(self, pooled: Tensor, labels: Tensor | None = None, *, batch_offset: int = 0) -> AttentionOutput:
        """pooled [B, K] -> attention [B, K]"""
        return AttentionOutput(torch.sigmoid(self.logits[self.domain]))


class Pictures(NamedTuple):
    """Pictures of a kind, with what is to be learned."""

    images: Tensor  # uint8 [N, 3, side, side]
    target: Tensor  # [N, 1, side / 4, side / 4] heads per cell, blurred
    counts: Tensor  # [N]
    domain: Tensor  # int64 [N]


def nearest(mu: Tensor, centers: Tensor, **_: object) -> Tensor:
    """The sub-component of every domain that lies closest to mu, int64 [B, C]: in place of Eq. 8."""
    return (mu.detach()[:, None, None] - centers.detach()).square().sum(-1).argmin(-1)


@contextmanager
def choice(system: str) -> Iterator[None]:
    """Within, the sub-components are chosen as the system asks."""
    if system != "nearest":
        yield
        return
    with mock.patch.object(reference, "select_centers", nearest), ops.use_backend("reference"):
        yield


def draw(rng: np.random.Generator, count: int, where: str, side: int = 80, crosses: int = 6) -> Pictures:
    """Pictures of both domains in equal numbers."""
    form = FORMS[side]
    domain = rng.permutation(count) % 2
    y, x = np.mgrid[:side, :side]
    images = rng.standard_normal((count, side, side, 3), np.float32) * 12 + 120
    points, offsets = [], [0]
    for i in range(count):
        if where == "local":
            images[i, ..., 0 if domain[i] else 2] += 40
        if where == "global":
            for column in rng.choice(np.arange(6, side - 6, 8), crosses, replace=False):
                cross = ((abs(x - column) < 1.5) & (abs(y - 4) < 4)) | ((abs(y - 4) < 1.5) & (abs(x - column) < 4))
                images[i][cross] = (220, 40, 220) if domain[i] else (40, 200, 40)
        spots = [(column, row) for row in range(form.top + 6, side - 5, 10) for column in range(6, side - 5, 10)]
        kinds = rng.integers(0, form.most + 1, 2)  # how many disks, how many rings
        chosen = rng.permutation(len(spots))[: kinds.sum()]
        for k, spot in enumerate(chosen):
            column, row = np.array(spots[spot]) + rng.uniform(-1.5, 1.5, 2)
            near = np.s_[int(row) - 5 : int(row) + 7, int(column) - 5 : int(column) + 7]
            distance = np.hypot(x[near] - column, y[near] - row)
            ring = k >= kinds[0]
            images[i][near][(abs(distance - 2.8) < 0.9) if ring else (distance < 2.6)] = rng.uniform(20, 60)
            if ring == bool(domain[i]):
                points.append((column, row))
        offsets.append(len(points))
    pixels = torch.from_numpy(images.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2)
    heads, ends = torch.tensor(points, dtype=torch.float32).reshape(-1, 2), torch.tensor(offsets)
    target = ops.density(heads, ends, (side, side), stride=4, sigma=SIGMA)
    return Pictures(pixels, target, ends.diff(), torch.from_numpy(domain))


def data_sets(domain: Tensor, labels: str) -> Tensor:
    """The data set of each picture: its domain, or what the script's text says of ``labels``."""
    half = torch.arange(len(domain)) % 2  # says nothing of the domain, which is drawn in any order
    sets = {"true": domain, "mixed": domain * half, "merged": 0 * domain, "split": torch.where(domain == 1, 2, half)}
    return sets[labels]


OTHERS = {"mb": MultiBranch, "film": FiLM, "mdknet": MDKNet}
KINDS = {"jt": "none", "oracle": "se", "twice": "va", "sub": "inva", "nearest": "inva"}


def build(system: str, args: argparse.Namespace, domains: int) -> CrowdCounter:
    """An untrained network of a system."""
    common = dict(
        backbone=SmallBackbone(FORMS[args.side].deep),
        num_domains=domains,
        channels=64,
        out_stride=4,
        density_scale=100.0,
    )
    if system in OTHERS:
        return OTHERS[system](**common, **({"latent_dim": 16} if system == "mdknet" else {}))
    kind = KINDS.get(system, system)
    model = DKPNet(attention=kind, latent_dim=16, num_sub=args.num_sub if kind == "inva" else 1, **common)
    if system == "oracle":
        model.attention = Oracle(64)
    if args.doubled:
        model.attention.register_forward_hook(lambda *call: call[-1]._replace(attention=2 * call[-1].attention))
    return model


def train(model: nn.Module, pictures: Pictures, labels: Tensor, args: argparse.Namespace, seed: int) -> None:
    """Train on batches of shuffled pictures."""
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.1)
    loss = LossConfig(w_density=0.01, w_kl=args.w_kl, w_lse=args.w_lse, w_logdet=args.w_logdet, sigma=SIGMA)
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(args.steps):
        batch = torch.randint(0, len(labels), (args.batch,), generator=order)
        if isinstance(getattr(model, "attention", None), Oracle):
            model.attention.domain = pictures.domain[batch]
        output: CounterOutput = model(pictures.images[batch], labels[batch])
        error = (output.density - pictures.target[batch]) * model.density_scale
        total = loss_terms(output, error.square().sum() / (2 * args.batch), labels[batch], loss)["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def telling(choice: Tensor, domain: Tensor) -> float:
    """How well a choice of two tells the domain: mean over the domains of the share that is right; 0.5 tells nothing."""
    right = float(torch.stack([(choice == domain)[domain == d].double().mean() for d in (0, 1)]).mean())
    return max(right, 1 - right)


@torch.inference_mode()
def evaluate(model: nn.Module, pictures: Pictures) -> dict[str, float]:
    """MAE; how much the attention differs between the domains (mean over channels); how often mu tells the domain."""
    domain = pictures.domain
    attention = getattr(model, "attention", None)
    if isinstance(attention, Oracle):
        attention.domain = domain
    output: CounterOutput = model(pictures.images)
    result = {"mae": float((output.density.double().sum((1, 2, 3)) - pictures.counts).abs().mean())}
    if isinstance(model, FiLM) and model.num_domains == 2:
        informed: CounterOutput = model(pictures.images, domain)
        result["mae_informed"] = float((informed.density.double().sum((1, 2, 3)) - pictures.counts).abs().mean())
    if output.attention is not None:
        means = [output.attention[domain == d].mean(0) for d in (0, 1)]
        result["between"] = float((means[0] - means[1]).abs().mean())
    if output.mu is not None:
        means = [output.mu[domain == d].mean(0) for d in (0, 1)]
        score = (output.mu - (means[0] + means[1]) / 2) @ (means[1] - means[0])
        result["told"] = float(((score > 0) == (domain == 1)).double().mean())
        if isinstance(attention, VariationalAttention) and attention.centers.shape[1] == 2:
            # Of the first data set, which holds both domains where the labels are mixed or merged.
            chosen = reference.select_centers(output.mu, attention.centers)
            result["sub"] = telling(chosen[:, 0], domain)
            second = float(chosen[:, 0].double().mean())
            result["rarer"] = min(second, 1 - second)
    return result


def second_stage(
    system: str, first: DKPNet, pictures: Pictures, labels: Tensor, args: argparse.Namespace, seed: int
) -> tuple[DKPNet, dict[str, float]]:
    """After VA: InVA on the clusters of its attention (with how well they tell the domain), or the same VA once more."""
    found: dict[str, float] = {}
    if system == "inva":
        with torch.inference_mode():
            attention = first(pictures.images).attention.numpy()
        labels = torch.from_numpy(cluster_attention(attention, 2, "gmm", seed)).long()
        found["purity"] = telling(labels, pictures.domain)
    torch.manual_seed(seed + 1000)
    second = build(system, args, int(labels.max()) + 1)
    second.backbone.load_state_dict(first.backbone.state_dict())
    second.head.load_state_dict(first.head.state_dict())
    train(second, pictures, labels, args, seed + 1)
    return second, found


class Experiment:
    """One drawing of pictures, on which all systems are trained and judged; VA serves its second stages too."""

    def __init__(self, where: str, seed: int, args: argparse.Namespace) -> None:
        rng = np.random.default_rng(seed)
        self.seed, self.args = seed, args
        self.pictures, self.fresh = (draw(rng, count, where, args.side, args.crosses) for count in (args.pictures, 512))
        self.labels = data_sets(self.pictures.domain, args.labels)
        self.va: DKPNet | None = None

    def first(self, system: str) -> CrowdCounter:
        """A system's only stage, or VA."""
        torch.manual_seed(self.seed)
        model = build(system, self.args, int(self.labels.max()) + 1)
        train(model, self.pictures, self.labels, self.args, self.seed)
        return model

    def run(self, system: str) -> dict[str, float]:
        """Train and evaluate one system."""
        began = time.process_time()
        found: dict[str, float] = {}
        with choice(system):
            if system in ("va", "inva", "twice"):
                self.va = model = self.va or self.first("va")
                if system != "va":
                    model, found = second_stage(system, self.va, self.pictures, self.labels, self.args, self.seed)
            else:
                model = self.first(system)
            found |= evaluate(model, self.fresh)
        return found | {"seconds": time.process_time() - began}


def main() -> None:
    """Run what OUT.jsonl does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--systems", nargs="+", default=["jt", "se", "mb", "va", "inva", "oracle"])
    parser.add_argument("--where", nargs="+", default=["local", "global", "label"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--labels", choices=["true", "mixed", "merged", "split"], default="true")
    parser.add_argument("--side", type=int, choices=FORMS, default=80)
    parser.add_argument("--crosses", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--num-sub", type=int, default=2)
    for name in ("w-kl", "w-lse", "w-logdet"):
        parser.add_argument(f"--{name}", type=float, default=1.0)
    parser.add_argument("--doubled", action="store_true", help="attention 2 sigmoid, which starts near 1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    fixed = {k: v for k, v in vars(args).items() if k not in ("out", "systems", "where", "seeds")}
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    defaults = {name: parser.get_default(name) for name in fixed}  # of options that are younger than a row
    rows = [defaults | json.loads(line) for line in lines]
    for seed in args.seeds:
        for where in args.where:
            experiment = None
            for system in args.systems:
                key = {"system": system, "where": where, "seed": seed, **fixed}
                if any(key.items() <= row.items() for row in rows):
                    continue
                experiment = experiment or Experiment(where, seed, args)
                row = key | {k: round(v, 4) for k, v in experiment.run(system).items()}
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
