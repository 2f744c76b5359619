"""From names of tables to the page that shows them."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from .._version import __version__
from ..data import load_domains
from ..device import pick_device, pick_precision
from ..files import output_folder, writing
from ..training.config import Config
from ..training.run import split
from .runs import execute, systems
from .tables import PAGES, Context


def reproduce(names: Sequence[str], config: Config, seeds: Sequence[int], output: Path) -> Path:
    """Train what the tables need and write them; returns the page, ``output/README.md``.

    Args:
        names: keys of `PAGES`; config: base of every run, whose data sets are the tables' columns.
        seeds: every system is trained with each; output: folder of ``runs/`` and of the tables.

    Raises:
        UserError: bad settings or data; training.interruption.Interrupted: stopped, calling again goes on.
    """
    output_folder(output)
    device = pick_device(config.device, config.precision)
    config.precision = pick_precision(config.precision, device)
    sets = load_domains(
        config.data.data, cache=config.data.cache, min_side=config.data.min_side, max_side=config.data.max_side,
        on_bad=config.data.on_bad,
    )  # fmt: skip
    domains = [d.name for d in sets]
    specs = {d.name: f"{d.name}={d.root}:{d.layout}" for d in sets}
    known = systems(domains, config)
    needs = {name: PAGES[name].needs(known) for name in names}
    wanted = [known[s] for s in dict.fromkeys(s for systems_ in needs.values() for s in systems_)]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    runs = execute(wanted, seeds, config, specs, output / "runs", say)
    items, _, labels = split(sets, config)
    train = {d: [item for item, label in zip(items, labels, strict=True) if label == i] for i, d in enumerate(domains)}
    context = Context(runs, domains, train, {d.name: d.test for d in sets}, config, output, device)
    page = output / "README.md"
    with writing(output):
        parts = [
            "# The paper's tables, reproduced",
            f"`{shlex.join(['python', '-m', 'dkpnet_ext.reproduce', *sys.argv[1:]])}`",
            f"{datetime.now(UTC):%Y-%m-%d}; dkpnet_ext {__version__}, torch {torch.__version__}, Python "
            f"{platform.python_version()}, {device} ({config.precision}); seeds {', '.join(map(str, seeds))}; backbone "
            f"{config.model.backbone}, {config.optim.epochs} epochs a stage. Test images were used once, after training; "
            "verdicts compare the mean log ratio of errors over the data sets, paired by seed, with twice its standard error.",
        ]
        for name in names:
            say(f"writing {name}")
            body = PAGES[name].write(context, name, needs[name]) if needs[name] else "Needs at least three data sets."
            (output / f"{name}.md").write_text(f"# {PAGES[name].title}\n\n{body}\n", encoding="utf-8")
            parts.append(f"## {PAGES[name].title}\n\n{body}")
        page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page
