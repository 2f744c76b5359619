"""What keeps variational attention idle on ordinary data? Its knobs on the synthetic scenes, against joint training.

    python experiments/knobs.py OUT --seeds 0 1 2 3 4 [--variants VA ...] [--epochs 16]

trains every variant with every seed (preset `scratch`, 16 epochs, about three minutes of one core each) and counts 370 scenes
that no run has seen. What OUT holds already is not trained again, and a run that was ended goes on where it was. Prints, and
writes to OUT/table.md, the errors against those of JT with the same seed: the geometric mean over the four data sets.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from dkpnet_ext.data import load_domains
from dkpnet_ext.evaluation.evaluate import evaluate_domains
from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.models.attention import CENTER_NORM, AttentionOutput, VariationalAttention
from dkpnet_ext.models.head import AttendedHead
from dkpnet_ext.models.network import CounterOutput
from dkpnet_ext.reproduction.runs import execute
from dkpnet_ext.reproduction.systems import System
from dkpnet_ext.synthetic.scenes import ensure
from dkpnet_ext.training.config import Config
from dkpnet_ext.training.presets import PRESETS

VARIANTS: dict[str, dict[str, object]] = {
    "JT": {"model.system": "jt"},
    "VA": {},
    **{f"VA, KL {weight}": {"loss.w_kl": weight} for weight in (0.3, 0.1, 0.03, 0.01)},
    **{f"VA, log det {weight}": {"loss.w_logdet": weight} for weight in (0.1, 0.0)},
    "VA, 4 samples": {"model.num_samples": 4},
    "VA, 2 sigmoid": {},
    "VA, KL 0.01, log det 0": {"loss.w_kl": 0.01, "loss.w_logdet": 0.0},
    "VA, simplex": {},
    "VA, unequal variances": {},
    "VA, three depths": {},
    "JT, 128 channels": {"model.system": "jt", "model.channels": 128},
    "VA, 128 channels": {"model.channels": 128},
    "JT, non-linear": {"model.system": "jt", "model.head": "literal", "model.channels": 128},
    "VA, non-linear": {"model.head": "literal", "model.channels": 128},
}


def doubled(forward: Callable[..., AttentionOutput]) -> Callable[..., AttentionOutput]:
    """The attention is 2 sigmoid, which starts near 1."""

    def changed(self: VariationalAttention, *args: Any, **options: Any) -> AttentionOutput:
        output = forward(self, *args, **options)
        return output._replace(attention=2 * output.attention)

    return changed


def on_simplex(init: Callable[..., None]) -> Callable[..., None]:
    """The domains' centres are the corners of a simplex of the usual norm, turned at random, and stay there."""

    def changed(self: VariationalAttention, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        domains, _, size = self.centers.shape
        corners = torch.eye(domains, size) - torch.ones(domains, 1) * torch.eye(domains, size).mean(0)
        turned = corners @ torch.linalg.qr(torch.randn(size, size))[0]
        self.centers.data = (CENTER_NORM * turned / turned.norm(dim=1, keepdim=True))[:, None]
        self.centers.requires_grad_(False)

    return changed


def unequal(init: Callable[..., None]) -> Callable[..., None]:
    """The prior's variances begin at e and 1/e, in a half of the dimensions each, another half for each domain: determinant 1."""

    def changed(self: VariationalAttention, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        for row in self.prior_logvar.data:
            row.copy_(torch.ones_like(row).index_fill_(0, torch.randperm(len(row))[: len(row) // 2], -1.0))

    return changed


def deep_init(init: Callable[..., None]) -> Callable[..., None]:
    """Adds a layer that makes gains of every branch of the backbone out of the attention, all 1 at first."""

    def changed(self: DKPNet, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        layers = [torch.nn.Linear(self.channels, width) for width in self.backbone.channels]
        for layer in layers:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        self.gains = torch.nn.ModuleList(layers)

    return changed


def deep_forward(forward: Callable[..., CounterOutput]) -> Callable[..., CounterOutput]:
    """The attention weighs the branches of the backbone, too."""

    def changed(self: DKPNet, *args: Any, **options: Any) -> CounterOutput:
        plain = self.head.forward

        def head(branches: list[Tensor], attention: Tensor, *rest: Any) -> Tensor:
            layers: Any = self.gains
            gains = [2 * torch.sigmoid(layer(2 * attention - 1)) for layer in layers]
            return plain([b * g[:, :, None, None] for b, g in zip(branches, gains, strict=True)], attention, *rest)

        with mock.patch.object(self.head, "forward", head):
            return forward(self, *args, **options)

    return changed


def rectified(pool: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """A ReLU between the convolution to K channels and what the attention weighs; the literal head has a place for it."""

    def changed(self: AttendedHead, *args: Any) -> tuple[Tensor, Tensor]:
        x = torch.relu(pool(self, *args)[1])
        return x.mean((2, 3)), x

    return changed


PATCHES: dict[str, list[tuple[type, str, Callable[..., Any]]]] = {
    "VA, 2 sigmoid": [(VariationalAttention, "forward", doubled)],
    "VA, simplex": [(VariationalAttention, "__init__", on_simplex)],
    "VA, unequal variances": [(VariationalAttention, "__init__", unequal)],
    "VA, three depths": [(DKPNet, "__init__", deep_init), (DKPNet, "forward", deep_forward)],
    "JT, non-linear": [(AttendedHead, "pool", rectified)],
    "VA, non-linear": [(AttendedHead, "pool", rectified)],
}


@contextmanager
def changed(name: str) -> Iterator[None]:
    """Within, the network is that of the variant."""
    with ExitStack() as stack:
        for owner, method, change in PATCHES.get(name, []):
            stack.enter_context(mock.patch.object(owner, method, change(getattr(owner, method))))
        yield


def errors(
    name: str, seed: int, config: Config, specs: Mapping[str, str], fresh: Mapping[str, str], root: Path
) -> np.ndarray:
    """Train a variant unless it is there; MAE on the fresh scenes of every data set."""
    changes = {"model.system": "va", **VARIANTS[name]}
    with changed(name):
        (run,) = execute([System(name, tuple(specs), tuple(sorted(changes.items())))], [seed], config, specs, root)
        found = run.folder / "fresh" / "metrics.json"
        if not found.exists():
            domains = load_domains(list(fresh.values()), min_side=config.data.min_side, progress=False)
            evaluate_domains(load_model(run.folder), domains, found.parent, split="train")
    metrics = json.loads(found.read_text())
    return np.array([metrics[domain]["mae"] for domain in fresh])


def table(found: Mapping[str, Sequence[np.ndarray]]) -> str:
    """Markdown: per variant the errors relative to JT's with the same seed, their mean and its standard error."""
    lines = ["| variant | error / JT's | standard error | seeds |", "|---|---:|---:|---:|"]
    for name, mine in found.items():
        ratios = [np.exp(np.log(a / b).mean()) for a, b in zip(mine, found["JT"], strict=False)]
        spread = f"{np.std(ratios, ddof=1) / len(ratios) ** 0.5:.3f}" if len(ratios) > 1 else ""
        lines.append(f"| {name} | {np.mean(ratios):.3f} | {spread} | {len(ratios)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=16)
    args = parser.parse_args()
    config = copy.deepcopy(PRESETS["scratch"].config)
    config.optim.epochs = args.epochs // 2  # a stage: systems of one stage train twice as long
    config.eval_every = config.optim.epochs
    specs = {name: f"{name}={path}" for name, path in ensure(args.out / "data").items()}
    fresh = {name: f"{name}={path}" for name, path in ensure(args.out / "data", seed=77).items()}
    found: dict[str, list[np.ndarray]] = {}
    for seed in args.seeds:  # a whole comparison with one seed comes before the next seed
        for name in dict.fromkeys(["JT", *args.variants]):
            found.setdefault(name, []).append(errors(name, seed, config, specs, fresh, args.out))
        (args.out / "table.md").write_text(table(found))
        print(table(found), flush=True)


if __name__ == "__main__":
    main()
