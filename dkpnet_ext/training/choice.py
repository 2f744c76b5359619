"""What an adaptation keeps: the counter as it was, that times one factor, or the adapted one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.calibration import fewest, relative_errors
from ..models import load_model
from .adapt import extend
from .checkpoint import save_model
from .factor import Factor, find_factor, scaled_by_others
from .log import Record, read_metrics
from .validation import predict_all

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ..data import Item
    from ..models.calibration import Calibration
    from .crossing import Crossed
    from .stage import StageData

UNCHANGED, FACTOR, ADAPTED = "unchanged", "times one factor", "adapted"


@dataclass(frozen=True)
class Choice:
    """What is kept, and by which errors."""

    kept: str  # UNCHANGED, FACTOR or ADAPTED
    folder: Path  # of its model
    factor: Factor | None
    judged: Mapping[str, float] = field(default_factory=dict)
    """MAE of each of the three on all labelled pictures, if these decided; of several data sets the mean of MAE / mean count."""
    errors: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By data set: relative errors of what is kept on its labelled pictures, for intervals, where they were crossed."""


def choose(
    fabric: Fabric, folder: Path, start: str, data: StageData, names: Sequence[str], crossed: Mapping[str, Crossed]
) -> Choice:
    """Which of the three errs least on all labelled pictures, each counted by what did not learn from it.

    The adapted counter is judged by the crossed ones, which learned for a quarter of the epochs from three quarters of the
    pictures: it is kept only where even these are better. The held-out pictures chose its epoch, and decide alone where
    not every data set with people was crossed: the best epoch, else a factor that helps, else the counter as it was.

    Args:
        folder: of the run, whose ``stage1/best`` is the best epoch; start: names the counter; data, names: of the run.
        crossed: of `cross`.
    """
    model = load_model(start).to(fabric.device).for_inference("torch")
    factor = find_factor(model, data.train, data.val, fabric.device)
    tried = {UNCHANGED: {name: predict_all(fabric, model, each.items, "fp32") for name, each in crossed.items()}}
    if factor is not None and factor.possible:
        tried[FACTOR] = {
            name: scaled_by_others(counts, crossed[name].annotated) for name, counts in tried[UNCHANGED].items()
        }
    tried[ADAPTED] = {name: each.counts for name, each in crossed.items()}
    peopled = {item.domain for item in [*data.train, *data.val] if item.count}
    judged = {}
    if peopled == set(crossed):
        judged = {what: _error(counts, crossed) for what, counts in tried.items()}
        kept = min(judged, key=lambda what: judged[what])
    elif not no_epoch_was_better(folder):
        kept = ADAPTED
    else:
        kept = FACTOR if factor is not None and factor.helps else UNCHANGED
    errors = {name: relative_errors(crossed[name].annotated, counts) for name, counts in tried.get(kept, {}).items()}
    best = folder / "stage1" / "best"
    if kept != ADAPTED:
        best = folder / "stage1" / "kept"
        if fabric.is_global_zero:
            stayed, _ = extend(load_model(start), names, data.train, data.sources)
            if kept == FACTOR:
                assert factor is not None
                scaled = type(stayed)(**stayed.arguments | {"density_scale": stayed.density_scale / factor.value})
                scaled.load_state_dict(stayed.state_dict())
                stayed = scaled
            save_model(stayed, best)
        fabric.barrier()
    return Choice(kept, best, factor, judged, errors)


def _error(counts: Mapping[str, np.ndarray], crossed: Mapping[str, Crossed]) -> float:
    """MAE; of several data sets the mean of MAE over mean count, which weighs them alike."""
    errors = {name: float(np.abs(counts[name] - each.annotated).mean()) for name, each in crossed.items()}
    if len(errors) == 1:
        return next(iter(errors.values()))
    return float(np.mean([error / crossed[name].annotated.mean() for name, error in errors.items()]))


def _first_and_best(folder: Path) -> tuple[Record, Record]:
    """Of a run folder's metrics.jsonl the record before the first step, and that of the epoch with the lowest error."""
    first, *epochs = [r for r in read_metrics(folder / "metrics.jsonl") if "val" in r]
    return first, min(epochs, key=lambda record: record["val"] if math.isfinite(record["val"]) else math.inf)


def no_epoch_was_better(folder: Path) -> bool:
    """Whether the counter that was adapted is the best on the held-out pictures."""
    before, after = _first_and_best(folder)
    return not after["val"] < before["val"]


def verdict(folder: Path, val: Sequence[Item], choice: Choice) -> str:
    """One line: errors on the held-out pictures before and after, what is kept, and by which errors."""
    before, after = _first_and_best(folder)
    parts = []
    for name in dict.fromkeys(item.domain for item in val):
        old, new = before[f"val/{name}"], after[f"val/{name}"]
        images = sum(item.domain == name for item in val)
        parts.append(f"{name} ({images} held-out pictures) MAE {old:.2f} before, {new:.2f} after")
    kept = {UNCHANGED: "the counter is unchanged", ADAPTED: f"epoch {after['epoch']} is kept"}.get(choice.kept)
    if choice.factor is not None:
        kept = kept or f"the counter times {choice.factor.value:.3f} is kept"
    words = choice.factor.words() if choice.factor is not None else ""
    if choice.judged:
        sets, pictures = len(choice.errors), sum(len(errors) for errors in choice.errors.values())
        what = "MAE" if sets == 1 else f"MAE / mean count (mean of {sets} data sets)"
        errors = ", ".join(f"{error:.{2 if sets == 1 else 3}f} {how}" for how, error in choice.judged.items())
        words = (
            f"It has the lowest {what} of all {pictures} labelled pictures, each left out of what counts it: {errors}."
        )
    return " ".join(filter(None, [f"Adaptation: {'; '.join(parts)}; {kept}.", words]))


def interval_words(known: Calibration | None, errors: Mapping[str, np.ndarray]) -> str:
    """One line about the intervals of an adapted counter where they do not come from the held-out pictures; else "".

    Args:
        known: of the counter; errors: of `Choice`.
    """
    if known is not None and not any(known.quantiles.values()):
        return f"Counts have no interval: it needs {fewest(0.9)} labelled pictures."
    parts = [
        f"{name}: from the errors on {len(mine)} labelled pictures, each left out of what counts it"
        for name, mine in errors.items()
    ]
    return f"Intervals of {'; '.join(parts)}." if parts else ""
