"""Errors for the intervals of a counter adapted to few pictures: each is counted by a counter that was adapted without it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ..evaluation.calibration import fewest, relative_errors
from ..files import output_folder, write_atomically
from ..models import load_model
from .adapt import SPARE, extend, no_epoch_was_better
from .factor import Factor, scaled_by_others
from .interruption import Interrupted
from .stage import StageData, asked_to_stop, open_stage, train_epoch
from .validation import predict_all

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ..data import Item
    from ..models import CrowdCounter
    from .config import Config
    from .interruption import Stop

PARTS = 4
"""Of the labelled pictures. Each is left out of one adaptation, which has this share of the epochs: together they cost as
much as the adaptation itself. Such a counter has learned less than the one that is kept, so its errors are rather too large."""
FILE = "crossed.json"


def crossed_errors(
    fabric: Fabric,
    config: Config,
    folder: Path,
    stop: Stop,
    data: StageData,
    names: Sequence[str],
    factor: Factor | None,
) -> dict[str, np.ndarray]:
    """Relative errors (`relative_errors`) on the labelled pictures of the data sets that hold out too few for an interval of 90 %.

    Residuals of cross-validation around the counter that is kept, as of the jackknife (Barber et al., Predictive inference with the
    jackknife+, 2021), which promises nothing for every case; what they cover was measured (bench/results/adapt.md). Where no epoch
    was better, the counter learned nothing from the pictures, and its own errors are taken, with a factor that of the others.

    Args:
        folder: of the run, whose adaptation is done; data: its pictures; names: of the data sets; factor: of `try_factor`.

    Returns:
        By data set; one that has less than nine labelled pictures, no people, or enough held-out pictures is not in it.

    Raises:
        Interrupted: after a signal; the state is written.
    """
    mine = {name: [item for item in [*data.train, *data.val] if item.domain == name] for name in names}
    held = {name: sum(item.domain == name for item in data.val) for name in names}
    few = {
        name: items
        for name, items in mine.items()
        if 0 < held[name] < fewest(0.9, SPARE) and len(items) >= fewest(0.9) and any(item.count for item in items)
    }
    if not few:
        return {}
    annotated = {name: np.array([item.count for item in items], np.float64) for name, items in few.items()}
    if no_epoch_was_better(folder):
        model = load_model(config.start).to(fabric.device).for_inference("torch")
        counts = {name: predict_all(fabric, model, items, "fp32") for name, items in few.items()}
        if factor is not None and factor.helps:
            counts = {name: scaled_by_others(count, annotated[name]) for name, count in counts.items()}
    else:
        counts = _count_parts(fabric, config, folder, stop, data, names, few)
    return {name: relative_errors(annotated[name], counts[name]) for name in few}


def _count_parts(
    fabric: Fabric,
    config: Config,
    folder: Path,
    stop: Stop,
    data: StageData,
    names: Sequence[str],
    few: dict[str, list[Item]],
) -> dict[str, np.ndarray]:
    """Counts of the pictures of ``few``; those of finished parts stand in ``FILE``, an unfinished one's state in a folder."""
    config = copy.deepcopy(config)
    config.optim.epochs = max(config.optim.epochs // PARTS, 1)
    part_of = {name: np.random.default_rng(0).permutation(len(items)) % PARTS for name, items in few.items()}
    file = folder / FILE
    done: dict[str, dict[str, list[float]]] = json.loads(file.read_text()) if file.exists() else {}
    for part in range(PARTS):
        if str(part) in done:
            continue
        learned = [item for item in data.train if item.domain not in few]
        for name, items in few.items():
            learned += [item for item, own in zip(items, part_of[name], strict=True) if own != part]
        model = _adapt(
            fabric, config, folder / f"part{part}", stop, learned, names, f"interval, part {part + 1} of {PARTS}"
        )
        left = {
            name: [i for i, own in zip(items, part_of[name], strict=True) if own == part] for name, items in few.items()
        }
        done[str(part)] = {name: predict_all(fabric, model, items, "fp32").tolist() for name, items in left.items()}
        if fabric.is_global_zero:
            write_atomically(file, json.dumps(done).encode())
            shutil.rmtree(folder / f"part{part}")
        fabric.barrier()
    counts = {name: np.empty(len(items)) for name, items in few.items()}
    for part in range(PARTS):
        for name, found in done[str(part)].items():
            counts[name][part_of[name] == part] = found
    return counts


def _adapt(
    fabric: Fabric, config: Config, folder: Path, stop: Stop, train: Sequence[Item], names: Sequence[str], title: str
) -> CrowdCounter:
    """The counter adapted to ``train`` for all of the epochs, or what is left of them after the state in ``folder``."""
    fabric.seed_everything(config.seed, verbose=False)
    sources = [names.index(item.domain) for item in train]
    assert config.start is not None
    model, labels = extend(load_model(config.start), names, train, sources)
    output_folder(folder)
    stage = open_stage(fabric, model, StageData(train, labels, sources, []), config, folder)
    passes = stage.sampler.batches
    bar = tqdm(
        total=config.optim.epochs * passes * stage.images, initial=(stage.epoch * passes + stage.batch) * stage.images,
        desc=title, unit="img", disable=not fabric.is_global_zero, smoothing=0.05, leave=False,
    )  # fmt: skip
    with bar, stop.deferred():
        while stage.epoch < config.optim.epochs:
            train_epoch(stage, bar, stop)
            stage.save()
        if asked_to_stop(fabric, stop):
            raise Interrupted(folder.parent)
    return stage.result
