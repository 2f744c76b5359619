"""Adapting a trained counter to a few labelled pictures (``--from``): all of it goes on, and it stays if nothing is better."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UserError
from ..evaluation.calibration import fewest
from ..models import load_model
from ..models.attention import VariationalAttention
from .checkpoint import save_model
from .config import Config
from .factor import Factor, find_factor
from .log import Record, read_metrics
from .losses import LINKS
from .presets import PRESETS

if TYPE_CHECKING:
    import numpy as np
    from lightning.fabric import Fabric

    from ..data import Item
    from ..models import CrowdCounter
    from ..models.calibration import Calibration

SPARE = 1
"""Ranks by which the intervals' quantiles are higher: the few held-out pictures chose the epoch. Of 20 of them 75 and 84 %
of the test pictures were inside intervals of 80 and 90 %; with one rank more 78 and 96 % (bench/results/adapt.md)."""
BATCHES = 20  # of an epoch, however few the pictures are: a pass over ten of them has two


def adopt(config: Config, given: Collection[str] = ()) -> CrowdCounter | None:
    """The counter that ``config.start`` names, or None. Its settings replace those of ``config``'s preset.

    The counter decides the network: system, sizes, batch norm, limits of the images, and the link, which restricts the loss.

    Args:
        given: names of the settings that a person gave; those that differ from the preset's are given, too.

    Raises:
        UserError: no such counter, one that has parts of its own for each data set, or a setting was given that contradicts
            the counter's.
    """
    if config.start is None:
        return None
    model = load_model(config.start)
    if hasattr(model, "classifier"):  # mb, film, mdknet
        raise UserError(
            f"--from {config.start}: system {model.system} has parts for each of its data sets, none for a new one; "
            "use another system"
        )
    known = model.arguments | {
        "system": model.system,
        "weights": None,  # all of them are the counter's
        "batch_norm": "folded" if model.fold_norms else "frozen",
    }
    fitting = [loss for loss, link in LINKS.items() if link == model.link]
    known["loss"] = config.loss.loss if config.loss.loss in fitting else fitting[0]
    preset = PRESETS[config.preset].config if config.preset in PRESETS else Config()
    for group in ("model", "data", "loss", "optim"):
        mine, default = getattr(config, group), getattr(preset, group)
        for name in [name for name in vars(mine) if name in known]:
            value, own = getattr(mine, name), known[name]
            if value != own and (name in given or value != getattr(default, name)):
                option = f"--{name.replace('_', '-')}"
                allowed = " or ".join(fitting) if name == "loss" else own
                raise UserError(
                    f"{option} {value}: --from {config.start} takes the counter as it is, with {option} {allowed}; "
                    f"leave {option} out"
                )
            setattr(mine, name, own)
    return model


def extend(
    model: CrowdCounter, names: Sequence[str], train: Sequence[Item], sources: Sequence[int]
) -> tuple[CrowdCounter, list[int]]:
    """The counter with new data sets after its own, and the label of every training picture.

    Each data set is a new domain of variational attention; its prior begins with the mean of the pictures' latent means and
    of their log-variances. A counter without such attention only gets the names.

    Args:
        names: of the new data sets; train: their pictures; sources: the index in ``names`` of each picture's data set.
    """
    changes: dict[str, Any] = {"domains": list(dict.fromkeys([*model.domains, *names]))}
    state, first = model.state_dict(), 0
    attention = getattr(model, "attention", None)
    if isinstance(attention, VariationalAttention):
        seen = [model.examine(item.read(), as_is=True) for item in train]
        mine = [torch.tensor([source == i for source in sources]) for i in range(len(names))]
        mu, logvar = (torch.cat([getattr(output, key) for output in seen]) for key in ("mu", "logvar"))
        first, num_sub, _ = attention.centers.shape
        centers = torch.stack([mu[m].mean(0).expand(num_sub, -1) for m in mine])
        state["attention.centers"] = torch.cat([attention.centers, centers])
        state["attention.prior_logvar"] = torch.cat(
            [attention.prior_logvar, torch.stack([logvar[m].mean(0) for m in mine])]
        )
        changes["num_domains"] = first + len(names)
    extended = type(model)(**model.arguments | changes)
    extended.load_state_dict(state)
    return extended, [first + source for source in sources]


def try_factor(
    fabric: Fabric, best: Path, folder: Path, start: str, train: Sequence[Item], val: Sequence[Item]
) -> Factor | None:
    """What one factor does to the counter that was adapted; where no epoch was better than it and the factor is, ``best`` gets it.

    Args:
        best: folder of the run's best model, of which only the scale is changed; folder: of the run.
        start: names the counter; train, val: the run's pictures.
    """
    model = load_model(start).to(fabric.device).for_inference("torch")
    factor = find_factor(model, train, val, fabric.device)
    if fabric.is_global_zero and factor is not None and factor.helps and no_epoch_was_better(folder):
        kept = load_model(best)
        scaled = type(kept)(**kept.arguments | {"density_scale": model.density_scale / factor.value})
        scaled.load_state_dict(kept.state_dict())
        save_model(scaled, best)
    fabric.barrier()
    return factor


def _first_and_best(folder: Path) -> tuple[Record, Record]:
    """Of a run folder's metrics.jsonl the record before the first step, and that of the lowest error."""
    records = [r for r in read_metrics(folder / "metrics.jsonl") if math.isfinite(r.get("val", math.nan))]
    return records[0], min(records, key=lambda record: record["val"])


def no_epoch_was_better(folder: Path) -> bool:
    """Whether the counter that was adapted is kept, perhaps with a factor."""
    before, after = _first_and_best(folder)
    return after is before


def verdict(folder: Path, val: Sequence[Item], factor: Factor | None = None) -> str:
    """One line: errors on the held-out pictures before and after, what is kept, and what a factor alone does."""
    before, after = _first_and_best(folder)
    parts = []
    for name in dict.fromkeys(item.domain for item in val):
        old, new = before[f"val/{name}"], after[f"val/{name}"]
        images = sum(item.domain == name for item in val)
        parts.append(f"{name} ({images} held-out pictures) MAE {old:.2f} before, {new:.2f} after")
    kept = f"epoch {after['epoch']} is kept"
    if after is before:
        what = f"times {factor.value:.3f} is kept" if factor is not None and factor.helps else "is unchanged"
        kept = f"no epoch was better: the counter {what}"
    return f"Adaptation: {'; '.join(parts)}; {kept}.{f' {factor.words()}' if factor is not None else ''}"


def interval_words(known: Calibration | None, crossed: Mapping[str, np.ndarray]) -> str:
    """One line about the intervals of an adapted counter where they do not come from the held-out pictures; else "".

    Args:
        known: of the counter; crossed: of `crossed_errors`.
    """
    if known is not None and not any(known.quantiles.values()):
        return f"Counts have no interval: it needs {fewest(0.9)} labelled pictures."
    parts = [
        f"{name}: from the errors on {len(errors)} labelled pictures, each left out of what counts it"
        for name, errors in crossed.items()
    ]
    return f"Intervals of {'; '.join(parts)}." if parts else ""
