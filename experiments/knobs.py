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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from dkpnet_ext.data import load_domains
from dkpnet_ext.evaluation.evaluate import evaluate_domains
from dkpnet_ext.models import load_model
from dkpnet_ext.models.attention import AttentionOutput, VariationalAttention
from dkpnet_ext.reproduction.runs import execute
from dkpnet_ext.reproduction.systems import System
from dkpnet_ext.synthetic.scenes import ensure
from dkpnet_ext.training.config import Config
from dkpnet_ext.training.presets import PRESETS

DOUBLED = "VA, 2 sigmoid"
VARIANTS: dict[str, dict[str, object]] = {
    "JT": {"model.system": "jt"},
    "VA": {},
    **{f"VA, KL {weight}": {"loss.w_kl": weight} for weight in (0.3, 0.1, 0.03, 0.01)},
    **{f"VA, log det {weight}": {"loss.w_logdet": weight} for weight in (0.1, 0.0)},
    "VA, 4 samples": {"model.num_samples": 4},
    DOUBLED: {},
    "VA, KL 0.01, log det 0": {"loss.w_kl": 0.01, "loss.w_logdet": 0.0},
}


@contextmanager
def attention(name: str) -> Iterator[None]:
    """Within, the attention of `DOUBLED` is 2 sigmoid, which starts near 1."""
    plain = VariationalAttention.forward

    def doubled(*args: object, **options: object) -> AttentionOutput:
        output = plain(*args, **options)  # type: ignore[arg-type]
        return output._replace(attention=2 * output.attention)

    with mock.patch.object(VariationalAttention, "forward", doubled if name == DOUBLED else plain):
        yield


def errors(
    name: str, seed: int, config: Config, specs: Mapping[str, str], fresh: Mapping[str, str], root: Path
) -> np.ndarray:
    """Train a variant unless it is there; MAE on the fresh scenes of every data set."""
    changes = {"model.system": "va", **VARIANTS[name]}
    with attention(name):
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
