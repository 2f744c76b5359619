"""Tables 1 to 5 and 8, footnote 3: errors of systems, with claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...markdown import table
from ..systems import ATTENTIONS, LITERATURE, LOSSES, MAIN, System
from ..verdict import spread, verdict
from .base import Context, errors, named, new_figure, page, save_figure, write_csv

# MAE that others report, beside ours where a data set has their name, and how their epoch was chosen. Full official test
# sets; JT and DKPNet are one model of four data sets (HRNet-W40), the others a model for each. Sources of the figures, and
# of what is said of the epoch: docs/reproduce.md.
PUBLISHED: dict[str, tuple[str, dict[str, float]]] = {
    "JT": ("not stated", {"SHA": 59.85, "SHB": 8.99, "QNRF": 91.11, "NWPU": 73.17}),
    MAIN: ("not stated", {"SHA": 55.6, "SHB": 6.6, "QNRF": 81.4, "NWPU": 61.8}),
    "CSRNet": ("not stated", {"SHA": 68.2, "SHB": 10.6}),
    "CANet": ("not stated", {"SHA": 62.3, "SHB": 7.8, "QNRF": 107.0}),
    "SFCN": ("on a part of the training images", {"SHA": 64.8, "SHB": 7.6, "QNRF": 102.0}),
    "DSSINet": ("not stated, on no part of the training images", {"SHA": 60.63, "SHB": 6.85, "QNRF": 99.1}),
    "Bayesian loss": ("not stated", {"SHA": 62.8, "SHB": 7.7, "QNRF": 88.7}),
    "DM-Count": ("on the test set", {"SHA": 59.7, "SHB": 7.4}),
}


VALIDATION = (
    "MAE: of the test images. Validation: the mean over the data sets of MAE / mean count on the validation images, which chose "
    "the checkpoint; not of systems with a model for each data set."
)


def individual(context: Context, names: Sequence[str]) -> dict[str, np.ndarray]:
    """As `errors`, with a system's models that were each trained on one data set ("IT on A", "IT on B") as one row."""
    errors_of, rows = errors(context, names), {}
    for name, values in errors_of.items():
        group, _, domain = name.partition(" on ")
        if not domain:
            rows[name] = values
            continue
        row = group if group == "IT" else f"{group}, IT"
        own = rows.setdefault(row, np.full_like(values, np.nan))
        column = list(context.domains).index(domain)
        own[:, column] = values[:, column]
    return rows


def comparison(claims: Sequence[tuple[str, str, str]]) -> Callable[[Context, str, list[str]], str]:
    """A table of errors by system and data set, with claims (text, the better system, the worse one)."""

    def write(context: Context, name: str, systems: list[str]) -> str:
        systems = [system for system in systems if context.of(system)]
        mae = individual(context, systems)
        published = any(d in PUBLISHED[MAIN][1] for d in context.domains)
        rows = []
        for system, values in mae.items():
            cells = [spread(values[:, i]) for i in range(len(context.domains))] + [spread(np.nanmean(values, axis=1))]
            validation = spread(np.array([run.validation for run in context.of(system)]))
            rows.append((system, *cells, validation))
            plain = system.removesuffix(", IT")
            alike = f"{plain}, IT" if plain in LITERATURE and f"{plain}, IT" in mae else plain  # trained as published
            if published and system == alike and plain in PUBLISHED:
                epoch, figures = PUBLISHED[plain]
                cells = [f"{figures[d]:.1f}" if d in figures else "-" for d in context.domains]
                rows.append((f"{plain}, published (epoch: {epoch})", *cells, "-", "-"))
        header = ("System", *(f"{d} MAE" for d in context.domains), "mean", "validation")
        lines = [table(header, rows), "", VALIDATION, ""]
        for text, better, worse in claims:
            text = text.format(c=context.config.cluster.num_clusters)
            better = better.format(c=context.config.cluster.num_clusters)
            worse = worse.format(c=context.config.cluster.num_clusters)
            if better in mae and worse in mae:
                lines.append(f"- {text}: **{verdict(mae[better], mae[worse], context.domains)}**")
        bars(mae, context.domains, context.output / f"{name}.png")
        errors_csv(context, systems, context.output / f"{name}.csv")
        return "\n".join(lines)

    return write


def errors_csv(context: Context, systems: Sequence[str], path: Path) -> None:
    """Errors of every run and data set."""
    rows: list[Sequence[Any]] = [["system", "seed", "domain", "images", "mae", "rmse", "nae", "validation"]]
    for system in systems:
        for run in context.of(system):
            for domain in context.domains:
                if domain in run.counts:
                    m = run.metrics(domain)
                    figures = (m.mae, m.rmse, m.nae, run.validation)
                    rows.append([system, run.seed, domain, m.images, *(f"{v:.4f}" for v in figures)])
    write_csv(path, rows)


def bars(mae: Mapping[str, np.ndarray], domains: Sequence[str], path: Path) -> None:
    """Errors relative to the first system's, a group of bars per data set; the lines are standard deviations."""
    figure = new_figure(2 + 1.6 * len(domains), 3.5)
    axis = figure.subplots()
    base = np.nanmean(next(iter(mae.values())), axis=0)
    width = 0.8 / len(mae)
    for i, (system, values) in enumerate(mae.items()):
        mean = np.nanmean(values, axis=0) / base
        deviation = np.nanstd(values, axis=0, ddof=1) / base if len(values) > 1 else None
        axis.bar(np.arange(len(domains)) + (i - (len(mae) - 1) / 2) * width, mean, width, yerr=deviation, label=system)
    axis.set_xticks(range(len(domains)), domains)
    axis.set_ylabel(f"MAE / {next(iter(mae))}'s")
    axis.legend(fontsize="small")
    save_figure(figure, path)


def _under(name: str, loss: str) -> str:
    """The system of an attention and a loss."""
    return name if loss == "mse" else f"{name}, {loss}"


def _losses(systems: Mapping[str, System]) -> list[str]:
    return [_under(name, loss) for name in ATTENTIONS for loss in LOSSES]  # all losses first, should it be stopped


def _inva(systems: Mapping[str, System]) -> list[str]:
    return ["JT", "VA", *(s for s in systems if s.startswith("InVA(")), MAIN]


page("table1", "Table 1: individual (IT) and joint training (JT)", named("IT on *", "JT"))(
    comparison([("Joint training alone beats individual training", "JT", "IT")])
)
page("table2", "Table 2: all systems", named("IT on *", "JT", "MB", "SE", *(f"{name}*" for name in LITERATURE), MAIN))(
    comparison([(f"{MAIN} beats {other}", MAIN, other) for other in ("IT", "JT", "MB", "SE", *LITERATURE)])
)


@page("losses", "Losses and attention: five losses with no attention, SE, VA and InVA", _losses)
def losses_and_attention(context: Context, name: str, systems: list[str]) -> str:
    """The grid; each loss over all forms of attention, each attention over all losses, and then pair by pair."""
    mae = errors(context, systems)
    attentions = list(ATTENTIONS)[1:]

    def together(text: str, pairs: Sequence[tuple[str, str]]) -> str:
        """Judged by seed, as the mean over the pairs that a seed has: pairs of one seed are no independent trials."""
        found = [np.log(mae[better] / mae[worse]) for better, worse in pairs if better in mae and worse in mae]
        if not found:
            return f"- {text}: **not trained**"
        ratio = np.exp(np.nanmean(found, axis=0))
        return f"- {text}, {len(found)} pairs: **{verdict(ratio, np.ones_like(ratio), context.domains)}**"

    lines = ["", "Over all forms of attention, or all losses:", ""]
    for loss in LOSSES[1:]:
        pairs = [(_under(attention, loss), _under(attention, "mse")) for attention in ATTENTIONS]
        lines.append(together(f"{loss} beats mse", pairs))
    for attention in attentions:
        pairs = [(_under(attention, loss), _under("JT", loss)) for loss in LOSSES]
        lines.append(together(f"{attention} beats no attention", pairs))
    claims = [(f"Without attention {loss} beats mse", f"JT, {loss}", "JT") for loss in LOSSES[1:]]
    for loss in LOSSES:
        claims += [(f"Under {loss}, {a} beats no attention", _under(a, loss), _under("JT", loss)) for a in attentions]
    return "\n".join([comparison(claims)(context, name, systems), *lines])


page("table3", "Table 3: attention", named("SE", MAIN))(comparison([(f"{MAIN} beats SE", MAIN, "SE")]))
page("table4", "Table 4: from VA to InVA", _inva)(
    comparison(
        [
            ("VA beats JT", "VA", "JT"),
            ("Clusters beat data sets as labels: InVA({c}) beats VA", "InVA({c})", "VA"),
            ("Sub-components help: DKPNet beats InVA({c})", MAIN, "InVA({c})"),
        ]
    )
)
page("table5", "Table 5: number of clusters c and of sub-components k", named(MAIN, "DKPNet, c=*", "DKPNet, k=*"))(
    comparison([])
)
page("table8", "Table 8: without the log-sum-exp regulariser", named("DKPNet, no L_reg", MAIN))(
    comparison([("The regulariser helps", MAIN, "DKPNet, no L_reg")])
)
page("clustering", "Footnote 3: how the attention is clustered", named(MAIN, "DKPNet, k-means", "DKPNet, DBSCAN"))(
    comparison([("The mixture is as good as k-means", MAIN, "DKPNet, k-means")])
)
