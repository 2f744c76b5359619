"""What every page is made of: its context, the registry of pages, helpers for figures and files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data import Item
from ...files import write_atomically
from ...models import DKPNet, load_model
from ..runs import Run
from ..systems import System

if TYPE_CHECKING:
    from ...training import Config

Needs = Callable[[Mapping[str, System]], list[str]]
Write = Callable[["Context", str, list[str]], str]

_pages: dict[str, Page] = {}


@dataclass
class Context:
    """What a table is made of."""

    runs: Sequence[Run]
    domains: Sequence[str]
    train: Mapping[str, Sequence[Item]]
    test: Mapping[str, Sequence[Item]]
    config: Config
    output: Path
    device: Any = "cpu"

    def of(self, name: str) -> list[Run]:
        """Runs of a system, by seed."""
        return sorted((run for run in self.runs if run.system.name == name), key=lambda run: run.seed)

    def model(self, name: str) -> tuple[Run, DKPNet]:
        """First seed's run and final model of a system with attention."""
        run = self.of(name)[0]
        model = load_model(run.folder / "model")
        assert isinstance(model, DKPNet)
        return run, model.to(self.device)


@dataclass(frozen=True)
class Page:
    """A table or figure: the systems it needs, and what writes it (returns Markdown)."""

    title: str
    needs: Callable[[Mapping[str, System]], list[str]]
    write: Callable[[Context, str, list[str]], str]


def page(name: str, title: str, needs: Needs) -> Callable[[Write], Write]:
    """A decorator that enters what writes a page.

    Args:
        name: as on the command line; title: the heading; needs: the systems that must be trained, see `named`.
    """

    def enter(write: Write) -> Write:
        _pages[name] = Page(title, needs, write)
        return write

    return enter


def pages() -> dict[str, Page]:
    """Every page by name, the paper's tables first."""
    return {name: _pages[name] for name in sorted(_pages, key=lambda name: name if name.startswith("table") else "~")}


def named(*names: str) -> Callable[[Mapping[str, System]], list[str]]:
    """Systems by name; one that ends in * stands for all that begin so."""

    def needs(systems: Mapping[str, System]) -> list[str]:
        chosen = []
        for name in names:
            chosen += [s for s in systems if (s.startswith(name[:-1]) if name.endswith("*") else s == name)]
        return chosen

    return needs


def errors(context: Context, names: Sequence[str], what: str = "mae") -> dict[str, np.ndarray]:
    """Metric of each system, [seeds, domains]; NaN where a system was not trained for a data set, or not with a seed."""
    seeds = sorted({run.seed for run in context.runs})
    table = {name: np.full((len(seeds), len(context.domains)), np.nan) for name in names}
    for name, values in table.items():
        for run in context.of(name):
            row = [getattr(run.metrics(d), what) if d in run.counts else np.nan for d in context.domains]
            values[seeds.index(run.seed)] = row
    return table


def new_figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a picture."""
    write_atomically(path, lambda partial: figure.savefig(partial, dpi=150))


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write rows, the first of which holds the columns' names."""
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    write_atomically(path, file.getvalue())


def training_items(context: Context) -> tuple[list[Item], list[int]]:
    """Training images with their data set's number."""
    pairs = [(item, i) for i, d in enumerate(context.domains) for item in context.train[d]]
    return [item for item, _ in pairs], [i for _, i in pairs]


def clustered(context: Context, run: Run) -> tuple[list[Item], list[int], list[int]]:
    """Training images that the run trained on, their data sets and clusters."""
    clusters = json.loads((run.folder / "clusters.json").read_text())
    triples = [
        (item, i, clusters[item.name])
        for item, i in zip(*training_items(context), strict=True)
        if item.name in clusters
    ]
    return [t[0] for t in triples], [t[1] for t in triples], [t[2] for t in triples]
