"""When can attention not be idle? A controlled family of synthetic domains; results in bench/results/routing.md.

Two domains show the same two kinds of marks, disks and rings. In the first the disks are heads, in the second the rings: one
and the same local patch is a head in one domain and none in the other. What differs is where the domain can be read off:

- ``local``: the background's colour, in every patch. A network without attention can decide by itself.
- ``global``: six crosses along the upper border (green or magenta), farther from every disk and ring than the network's
  receptive field reaches. Only what looks at the whole picture can decide.
- ``label``: nowhere in the picture; only the label of a training picture tells. Nobody can decide in prediction.

Systems: ``jt`` (no attention), ``se``, ``mb``, ``va``, ``inva`` (VA, clustering of its attention, InVA), and ``oracle``: a gain per
channel that is given the true domain. ``--labels mixed`` trains on data sets that do not follow the domains: the first holds
both, the second only rings.

    python experiments/routing.py OUT.jsonl --systems jt se mb va inva oracle --where local global label --seeds 0 1 2 3 4

A run takes about half a minute of one core. Rows that OUT.jsonl already holds are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dkpnet_ext import ops
from dkpnet_ext.models import CounterOutput, DKPNet
from dkpnet_ext.models.attention import AttentionOutput
from dkpnet_ext.models.multi_branch import MultiBranch
from dkpnet_ext.training.clustering import cluster_attention
from dkpnet_ext.training.config import LossConfig
from dkpnet_ext.training.losses import loss_terms

SIDE, TOP = 80, 32  # pixels; disks and rings lie below TOP, crosses above 8: 24 pixels between them
SIGMA = 3.0  # pixels


class SmallBackbone(nn.Module):
    """Features at 1/4 of the image that see 23 x 23 pixels: nothing of the crosses reaches a disk or a ring."""

    name, reductions, channels = "small", (4,), (32,)

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip

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

    images: Tensor  # uint8 [N, 3, SIDE, SIDE]
    target: Tensor  # [N, 1, SIDE / 4, SIDE / 4] heads per cell, blurred
    counts: Tensor  # [N]
    domain: Tensor  # int64 [N]


def draw(rng: np.random.Generator, count: int, where: str) -> Pictures:
    """Pictures of both domains in equal numbers."""
    domain = rng.permutation(count) % 2
    y, x = np.mgrid[:SIDE, :SIDE]
    images = rng.standard_normal((count, SIDE, SIDE, 3), np.float32) * 12 + 120
    points, offsets = [], [0]
    for i in range(count):
        if where == "local":
            images[i, ..., 0 if domain[i] else 2] += 40
        if where == "global":
            for column in rng.choice(np.arange(6, SIDE - 6, 8), 6, replace=False):
                cross = ((abs(x - column) < 1.5) & (abs(y - 4) < 4)) | ((abs(y - 4) < 1.5) & (abs(x - column) < 4))
                images[i][cross] = (220, 40, 220) if domain[i] else (40, 200, 40)
        spots = [(column, row) for row in range(TOP + 6, SIDE - 5, 10) for column in range(6, SIDE - 5, 10)]
        kinds = rng.integers(0, 12, 2)  # how many disks, how many rings
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
    target = ops.density(heads, ends, (SIDE, SIDE), stride=4, sigma=SIGMA)
    return Pictures(pixels, target, ends.diff(), torch.from_numpy(domain))


def data_sets(domain: Tensor, labels: str) -> Tensor:
    """The data set of each picture: its domain, or with ``mixed`` all disks and half of the rings in the first one."""
    return domain if labels == "true" else domain * (torch.arange(len(domain)) % 2)


def build(system: str, args: argparse.Namespace, domains: int = 2) -> DKPNet | MultiBranch:
    """An untrained network of a system."""
    common = dict(backbone=SmallBackbone(), num_domains=domains, channels=64, out_stride=4, density_scale=100.0)
    if system == "mb":
        return MultiBranch(**common)
    kind = {"jt": "none", "oracle": "se"}.get(system, system)
    model = DKPNet(attention=kind, latent_dim=16, num_sub=args.num_sub if kind == "inva" else 1, **common)
    if system == "oracle":
        model.attention = Oracle(64)
    return model


def train(model: nn.Module, pictures: Pictures, labels: Tensor, args: argparse.Namespace, seed: int) -> None:
    """Train on batches of shuffled pictures."""
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
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


@torch.inference_mode()
def evaluate(model: nn.Module, pictures: Pictures) -> dict[str, float]:
    """MAE; how much the attention differs between the domains (mean over channels); how often mu tells the domain."""
    domain = pictures.domain
    if isinstance(getattr(model, "attention", None), Oracle):
        model.attention.domain = domain
    output: CounterOutput = model(pictures.images)
    result = {"mae": float((output.density.double().sum((1, 2, 3)) - pictures.counts).abs().mean())}
    if output.attention is not None:
        means = [output.attention[domain == d].mean(0) for d in (0, 1)]
        result["between"] = float((means[0] - means[1]).abs().mean())
    if output.mu is not None:
        means = [output.mu[domain == d].mean(0) for d in (0, 1)]
        score = (output.mu - (means[0] + means[1]) / 2) @ (means[1] - means[0])
        result["told"] = float(((score > 0) == (domain == 1)).double().mean())
    return result


def second_stage(
    model: DKPNet, pictures: Pictures, args: argparse.Namespace, seed: int
) -> tuple[DKPNet, dict[str, float]]:
    """InVA on the clusters of VA's attention; returns it and the share of pictures whose cluster tells the domain."""
    with torch.inference_mode():
        attention = model(pictures.images).attention.numpy()
    clusters = torch.from_numpy(cluster_attention(attention, 2, "gmm", seed)).long()
    same = float((clusters == pictures.domain).double().mean())
    second = build("inva", args)
    second.backbone.load_state_dict(model.backbone.state_dict())
    second.head.load_state_dict(model.head.state_dict())
    train(second, pictures, clusters, args, seed + 1)
    return second, {"purity": max(same, 1 - same)}


def run(system: str, where: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train and evaluate one system."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    began = time.process_time()
    pictures, fresh = draw(rng, args.pictures, where), draw(rng, 512, where)
    model, extra = build("va" if system == "inva" else system, args), {}
    train(model, pictures, data_sets(pictures.domain, args.labels), args, seed)
    if system == "inva":
        model, extra = second_stage(model, pictures, args, seed)
    return evaluate(model, fresh) | extra | {"seconds": time.process_time() - began}


def main() -> None:
    """Run what OUT.jsonl does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--systems", nargs="+", default=["jt", "se", "mb", "va", "inva", "oracle"])
    parser.add_argument("--where", nargs="+", default=["local", "global", "label"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--labels", choices=["true", "mixed"], default="true")
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--num-sub", type=int, default=2)
    for name in ("w-kl", "w-lse", "w-logdet"):
        parser.add_argument(f"--{name}", type=float, default=1.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    fixed = {k: v for k, v in vars(args).items() if k not in ("out", "systems", "where", "seeds")}
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for seed in args.seeds:
        for where in args.where:
            for system in args.systems:
                key = {"system": system, "where": where, "seed": seed, **fixed}
                if any(key.items() <= row.items() for row in rows):
                    continue
                row = key | {k: round(v, 4) for k, v in run(system, where, seed, args).items()}
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
