"""Training what the tables need: each run once, resumed where it was cut off."""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..evaluation.metrics import Metrics, summarize
from ..files import create_folder
from ..models import registry
from ..training import Config
from .systems import System


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and the counts of every test image, per data set [n, 2] (annotated, predicted)."""

    system: System
    seed: int
    folder: Path
    counts: Mapping[str, np.ndarray]
    validation: float = np.nan  # of the model that was kept: mean over the data sets of MAE / mean count

    def metrics(self, domain: str) -> Metrics:
        """Errors on a data set's test images."""
        annotated, predicted = self.counts[domain].T
        return summarize(predicted, annotated)


def configure(system: System, seed: int, config: Config, specs: Mapping[str, str]) -> Config:
    """The configuration of a run: the base's, with the system's changes.

    Args:
        specs: of every data set, as ``--data`` takes it.
    """
    result = copy.deepcopy(config)
    result.seed = seed
    result.data.data = tuple(specs[name] for name in system.domains)
    for key, value in system.changes:
        group, field = key.split(".")
        setattr(getattr(result, group), field, value)
    if not system.two_stage:
        result.optim.epochs *= 2
        result.eval_every *= 2
    return result


def digest(config: Config, stage1: bool = False) -> str:
    """Hash of what determines a run's result (or its first stage's): not where it runs or is written."""
    values = dataclasses.asdict(config)
    for key in ("output", "resume", "device", "preset"):
        del values[key]
    for key in ("cache", "workers"):
        del values["data"][key]
    if stage1:
        del values["cluster"], values["optim"]["stage2_from"]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:10]


def execute(
    wanted: Sequence[System],
    seeds: Sequence[int],
    config: Config,
    specs: Mapping[str, str],
    root: Path,
    say: Callable[[str], None] = print,
) -> Iterator[Run]:
    """Train what is missing and read what is there: every wanted system with every seed, one run after the other.

    Args:
        wanted, seeds, config: see `configure`; specs: of every data set, as ``--data`` takes it.
        root: folder of the runs; a run's folder is named by system, hash of its configuration and seed.
        say: takes progress lines.
    """
    from ..training.run import train

    jobs = []
    for seed in seeds:  # a whole comparison with one seed comes before the next seed
        for system in wanted:
            own = configure(system, seed, config, specs)
            slug = "".join(c if c.isalnum() else "-" for c in system.name)
            own.output = root / f"{slug}-{digest(own)}-seed{seed}"
            jobs.append((system, own))
    missing = [own for _, own in jobs if not _finished(own)]
    say(f"{len(jobs)} runs: {len(jobs) - len(missing)} are there, {len(missing)} to train")
    began, trained = time.monotonic(), 0
    for system, own in jobs:
        folder = own.output
        assert folder is not None
        if not _finished(own):
            spent = (time.monotonic() - began) / 60
            left = f", about {spent / trained * (len(missing) - trained):.0f} min left" if trained else ""
            say(f"run {trained + 1} of {len(missing)}: {system.name}, seed {own.seed}{left}")
            if not (folder / "config.json").exists():
                _share_stage1(own, [other for _, other in jobs])
            if any(folder.glob("stage*/state.pt")):
                own.save(folder / "config.json")
                own.resume = folder
            try:
                train(own, extras=False)
            except UserError as error:
                if own.cluster.method != "dbscan":
                    raise
                say(f"{system.name}, seed {own.seed}, is left out: {error}")  # DBSCAN may find too few clusters
                missing.remove(own)
                continue
            own.resume = None
            trained += 1
        counts = read_counts(folder / "counts.csv")
        unseen = [name for name in specs if name not in system.domains]
        if unseen and "without" in system.name:  # leave one domain out
            counts |= _unseen(own, folder, [specs[name] for name in unseen])
        yield Run(system, own.seed, folder, counts, validation_error(folder))


def _finished(config: Config) -> bool:
    assert config.output is not None
    return (config.output / "results.md").exists()


def _share_stage1(config: Config, others: Sequence[Config]) -> None:
    """Take stage I from a finished run that trained the very same one (only the clustering differs)."""
    if not registry.get(config.model.system).two_stage:
        return
    for other in others:
        same = other.model.system == config.model.system and digest(other, stage1=True) == digest(config, stage1=True)
        if same and other is not config and _finished(other):
            assert other.output is not None and config.output is not None
            copy_whole = partial(shutil.copytree, other.output / "stage1", dirs_exist_ok=True)
            create_folder(config.output / "stage1", copy_whole)
            return


def _unseen(config: Config, folder: Path, specs: Sequence[str]) -> dict[str, np.ndarray]:
    """Counts on data sets that the run was not trained on; evaluated once."""
    from ..data import load_domains
    from ..device import pick_device
    from ..evaluation.evaluate import evaluate_domains
    from ..models import load_model

    if not (folder / "unseen" / "table.md").exists():
        device = pick_device(config.device)
        domains = load_domains(
            specs, cache=config.data.cache, min_side=config.data.min_side, max_side=config.data.max_side,
            on_bad=config.data.on_bad, progress=False,
        )  # fmt: skip
        evaluate_domains(load_model(folder / "model").to(device), domains, folder / "unseen", device=device)
    return read_counts(folder / "unseen" / "counts.csv")


def validation_error(folder: Path) -> float:
    """The lowest validation error of a run's last stage, that of the model that it kept."""
    path = folder / "metrics.jsonl"
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found = [(record["stage"], record["val"]) for record in records if "val" in record]
        last = max(stage for stage, _ in found)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; delete {folder}, and the same command trains it again") from None
    return min(error for stage, error in found if stage == last)


def read_counts(path: Path) -> dict[str, np.ndarray]:
    """Annotated and predicted counts per data set, float64 [n, 2], from the CSV that an evaluation writes.

    Raises:
        UserError: missing or damaged.
    """
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                rows[row["domain"]].append((float(row["annotated"]), float(row["predicted"])))
        if not rows:
            raise ValueError("no counts")
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: damaged ({reason}); delete the run's folder, and it is trained anew") from None
    return {name: np.array(values) for name, values in rows.items()}
