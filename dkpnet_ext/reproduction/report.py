"""From names of tables to the page that shows them."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from .._version import __version__
from ..data import Domain, load_domains
from ..device import pick_device, pick_precision
from ..errors import UserError
from ..files import output_folder, write_atomically, writing
from ..training.config import Config
from ..training.interruption import Interrupted
from ..training.run import split
from .runs import Run, execute
from .systems import systems
from .tables import PAGES, Context


def reproduce(names: Sequence[str], config: Config, seeds: Sequence[int], output: Path) -> Path:
    """Train what the tables need and write them; returns the page, ``output/README.md``.

    Args:
        names: keys of `PAGES`; config: base of every run, whose data sets are the tables' columns.
        seeds: every system is trained with each; output: folder of ``runs/`` and of the tables.

    Raises:
        UserError: bad settings or data; training.interruption.Interrupted: stopped, calling again goes on; the tables hold
            what is finished.
    """
    device = pick_device(config.device, config.precision)
    config.precision = pick_precision(config.precision, device)
    sets = load_domains(
        config.data.data, cache=config.data.cache, min_side=config.data.min_side, max_side=config.data.max_side,
        on_bad=config.data.on_bad,
    )  # fmt: skip
    domains = [d.name for d in sets]
    if untested := [d.name for d in sets if not d.test]:
        raise UserError(f"no test images in {', '.join(untested)}; the tables compare errors on test images")
    output_folder(output)
    specs = {d.name: f"{d.name}={d.root}:{d.layout}" for d in sets}
    known = systems(domains, config)
    needs = {name: PAGES[name].needs(known) for name in names}
    wanted = [known[s] for s in dict.fromkeys(s for systems_ in needs.values() for s in systems_)]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    runs: list[Run] = []
    stopped: Interrupted | None = None
    try:
        for run in execute(wanted, seeds, config, specs, output / "runs", say):
            check_counts(run, sets)
            runs.append(run)
    except Interrupted as error:
        if not runs:
            raise
        stopped = error
    items, _, labels = split(sets, config)
    train = {d: [item for item, label in zip(items, labels, strict=True) if label == i] for i, d in enumerate(domains)}
    context = Context(runs, domains, train, {d.name: d.test for d in sets}, config, output, device)
    page = write_page(context, names, needs, seeds, say)
    if stopped is not None:
        raise stopped
    return page


def check_counts(run: Run, sets: Sequence[Domain]) -> None:
    """A finished run is not trained again. Raises `UserError` where it was tested on other labels than today's."""
    for domain in sets:
        if domain.name not in run.counts:
            continue
        before, now = run.counts[domain.name][:, 0], [item.count for item in domain.test]
        if len(before) != len(now) or np.abs(before - now).max() > 0.01:
            folder, again = (
                (run.folder, "trained") if domain.name in run.system.domains else (run.folder / "unseen", "tested")
            )
            raise UserError(
                f"{folder}: {domain.name}'s test images have changed since this run; delete the folder, and it is {again} anew"
            )


def write_page(
    context: Context,
    names: Sequence[str],
    needs: Mapping[str, list[str]],
    seeds: Sequence[int],
    say: Callable[[str], None],
) -> Path:
    """Write the tables of the runs that are there; returns the page."""
    output, config = context.output, context.config
    page = output / "README.md"
    planned = len(seeds) * len({system for systems_ in needs.values() for system in systems_})
    with writing(output):
        parts = [
            "# The paper's tables, reproduced",
            f"`{shlex.join(['python', '-m', 'dkpnet_ext.reproduce', *sys.argv[1:]])}`",
            f"{datetime.now(UTC):%Y-%m-%d}; dkpnet_ext {__version__}, torch {torch.__version__}, Python "
            f"{platform.python_version()}, {context.device} ({config.precision}); seeds {', '.join(map(str, seeds))}; backbone "
            f"{config.model.backbone}, {config.optim.epochs} epochs a stage. Test images were used once, after training; "
            "verdicts compare the mean log ratio of errors over the data sets, paired by seed, with twice its standard error.",
        ]
        if len(context.runs) < planned:
            parts.append(f"**{len(context.runs)} of {planned} runs are finished;** the same command goes on.")
        for name in names:
            say(f"writing {name}")
            trained = [system for system in needs[name] if context.of(system)]
            body = PAGES[name].write(context, name, trained) if trained else _missing(needs[name])
            write_atomically(output / f"{name}.md", f"# {PAGES[name].title}\n\n{body}\n")
            parts.append(f"## {PAGES[name].title}\n\n{body}")
        write_atomically(page, "\n\n".join(parts) + "\n")
    return page


def _missing(systems: Sequence[str]) -> str:
    """What a page says that has no run yet; ``systems``: that it needs."""
    return "Not trained yet; the same command goes on." if systems else "Needs at least three data sets."
