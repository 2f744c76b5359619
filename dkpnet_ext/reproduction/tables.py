"""The paper's tables and figures as pages: Markdown, CSV and PNG, with a verdict for every claim."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Item
from ..evaluation.inference import predict_counts
from ..models import DKPNet, load_model
from ..models.attention import CENTER_NORM
from . import analysis
from .runs import MAIN, Run, System

if TYPE_CHECKING:
    from ..training.config import Config

# MAE that others report, beside ours where a data set has their name. Full official test sets, HRNet-W40, four data sets.
PUBLISHED: dict[str, dict[str, float]] = {
    "JT": {"SHA": 59.85, "SHB": 8.99, "QNRF": 91.11, "NWPU": 73.17},  # the authors' released baseline checkpoint
    MAIN: {"SHA": 55.6, "SHB": 6.6, "QNRF": 81.4, "NWPU": 61.8},  # the paper
}


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


def errors(context: Context, names: Sequence[str], what: str = "mae") -> dict[str, np.ndarray]:
    """Metric of each system, [seeds, domains]; NaN where a system was not trained for a data set."""
    table = {}
    for name in names:
        rows = [
            [getattr(run.metrics(d), what) if d in run.counts else np.nan for d in context.domains]
            for run in context.of(name)
        ]
        table[name] = np.array(rows)
    return table


def individual(context: Context, names: Sequence[str]) -> dict[str, np.ndarray]:
    """As `errors`, with the individually trained models (IT) as one row."""
    table = errors(context, names)
    own = [name for name in names if name.startswith("IT on ")]
    if own:
        it = np.stack([table.pop(f"IT on {d}")[:, i] for i, d in enumerate(context.domains)], axis=1)
        table = {"IT": it} | table
    return table


def spread(values: np.ndarray) -> str:
    """Mean and, over several seeds, standard deviation."""
    if np.isnan(values).all():
        return "-"
    text = f"{np.nanmean(values):.2f}"
    return text if len(values) < 2 else f"{text} ± {np.nanstd(values, ddof=1):.2f}"


def verdict(better: np.ndarray, worse: np.ndarray, domains: Sequence[str]) -> str:
    """Does ``better`` [seeds, domains] have lower errors than ``worse``?

    Judged by the mean over data sets of the logarithm of the ratio of errors, paired by seed: it *holds* if the mean over
    seeds lies more than two standard errors below zero and no data set got worse on average, *holds on average* if some
    did, *does not hold* if it lies as far above, and is *within noise* else. One seed knows nothing of noise.
    """
    ratio = np.log(better / worse)
    per_seed = np.nanmean(ratio, axis=1)
    change = 100 * (np.exp(per_seed.mean()) - 1)
    lost = [d for d, r in zip(domains, np.nanmean(ratio, axis=0), strict=True) if r > 0]
    figures = f"{change:+.1f} % in MAE over the data sets" + (f"; worse on {', '.join(lost)}" if lost else "")
    if len(per_seed) < 2:
        return f"one seed, no verdict ({figures})"
    error = per_seed.std(ddof=1) / np.sqrt(len(per_seed))
    figures += f", {len(per_seed)} seeds, standard error {100 * error:.1f} %"
    if abs(per_seed.mean()) <= 2 * error:
        return f"within noise ({figures})"
    if per_seed.mean() > 0:
        return f"does not hold ({figures})"
    return f"{'holds on average' if lost else 'holds'} ({figures})"


def comparison(claims: Sequence[tuple[str, str, str]]) -> Callable[[Context, str, list[str]], str]:
    """A table of errors by system and data set, with claims (text, the better system, the worse one)."""

    def write(context: Context, name: str, systems: list[str]) -> str:
        systems = [system for system in systems if context.of(system)]
        mae = individual(context, systems)
        published = any(d in PUBLISHED[MAIN] for d in context.domains)
        lines = [
            "| System | " + " | ".join(f"{d} MAE" for d in context.domains) + " | mean |",
            "|---|" + "---:|" * (len(context.domains) + 1),
        ]
        for system, values in mae.items():
            cells = [spread(values[:, i]) for i in range(len(context.domains))] + [spread(np.nanmean(values, axis=1))]
            lines.append(f"| {system} | {' | '.join(cells)} |")
            if published and system in PUBLISHED:
                cells = [f"{PUBLISHED[system][d]:.1f}" if d in PUBLISHED[system] else "-" for d in context.domains]
                lines.append(f"| {system}, published (HRNet-W40, full schedule) | {' | '.join(cells)} | - |")
        lines.append("")
        for text, better, worse in claims:
            text = text.format(c=context.config.cluster.num_clusters)
            better = better.format(c=context.config.cluster.num_clusters)
            worse = worse.format(c=context.config.cluster.num_clusters)
            if better in mae and worse in mae:
                lines.append(f"- {text}: **{verdict(mae[better], mae[worse], context.domains)}**")
        _bars(mae, context.domains, context.output / f"{name}.png")
        _csv(context, systems, context.output / f"{name}.csv")
        return "\n".join(lines)

    return write


def _csv(context: Context, systems: Sequence[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "seed", "domain", "images", "mae", "rmse", "nae"])
        for system in systems:
            for run in context.of(system):
                for domain in context.domains:
                    if domain in run.counts:
                        m = run.metrics(domain)
                        row = [f"{value:.4f}" for value in (m.mae, m.rmse, m.nae)]
                        writer.writerow([system, run.seed, domain, m.images, *row])


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bars(mae: Mapping[str, np.ndarray], domains: Sequence[str], path: Path) -> None:
    """Errors relative to the first system's, a group of bars per data set; the lines are standard deviations."""
    figure = _figure(2 + 1.6 * len(domains), 3.5)
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
    figure.savefig(path, dpi=150)


def sub_centers(context: Context, name: str, systems: list[str]) -> str:
    """Table 6."""
    _, model = context.model(MAIN)
    cosines = analysis.center_cosines(model)
    k = cosines.shape[1]
    np.savetxt(context.output / f"{name}.csv", cosines.reshape(-1, k), delimiter=",", fmt="%.4f")
    _matrices(list(cosines), [f"domain {c}" for c in range(len(cosines))], context.output / f"{name}.png", (-1, 1))
    apart = cosines[:, ~np.eye(k, dtype=bool)]
    pairs = np.triu_indices(k, 1)
    distances = analysis.center_distances(model)
    lines = ["| Domain | cosines between its sub-centres | distances |", "|---|---|---|"]
    for c in range(len(cosines)):
        cells = (", ".join(f"{value:.3f}" for value in matrix[c][pairs]) for matrix in (cosines, distances))
        lines.append(f"| {c} | {' | '.join(cells)} |")
    start = CENTER_NORM**2 / (CENTER_NORM**2 + 1)
    lines += ["", f"Sub-centres start near their domain's centre: cosines of {start:.2f}, distances of 1.4, about."]
    holds = "holds" if float(np.abs(apart).max()) < 0.5 else "does not hold"
    claim = f"- Sub-centres of a domain differ (all |cosines| < 0.5): **{holds}** (largest {np.abs(apart).max():.2f})"
    return "\n".join([*lines, "", claim])


def _matrices(values: Sequence[np.ndarray], titles: Sequence[str], path: Path, limits: tuple[float, float]) -> None:
    figure = _figure(2.6 * len(values), 2.8)
    for axis, matrix, title in zip(figure.subplots(1, len(values), squeeze=False)[0], values, titles, strict=True):
        axis.imshow(matrix, cmap="RdBu_r", vmin=limits[0], vmax=limits[1])
        for (row, column), value in np.ndenumerate(matrix):
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize="small")
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(path, dpi=150)


def _items(context: Context) -> tuple[list[Item], list[int]]:
    """Training images with their data set's number."""
    pairs = [(item, i) for i, d in enumerate(context.domains) for item in context.train[d]]
    return [item for item, _ in pairs], [i for _, i in pairs]


def _clustered(context: Context, run: Run) -> tuple[list[Item], list[int], list[int]]:
    """Training images that the run trained on, their data sets and clusters."""
    clusters = json.loads((run.folder / "clusters.json").read_text())
    triples = [
        (item, i, clusters[item.name]) for item, i in zip(*_items(context), strict=True) if item.name in clusters
    ]
    return [t[0] for t in triples], [t[1] for t in triples], [t[2] for t in triples]


def sub_domains(context: Context, name: str, systems: list[str]) -> str:
    """Table 7."""
    run, model = context.model(MAIN)
    items, datasets, clusters = _clustered(context, run)
    _, mu = analysis.latents(model, items, context.device)
    assert mu is not None
    table = analysis.subdomains(model, mu, clusters, datasets)
    _, c, k = table.shape
    head = [f"{i}.{j}" for i in range(c) for j in range(k)]
    lines = ["| Data set | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for domain, row in zip(context.domains, table.reshape(-1, c * k), strict=True):
        lines.append(f"| {domain} | {' | '.join(str(v) for v in row)} |")
    np.savetxt(context.output / f"{name}.csv", table.reshape(-1, c * k), delimiter=",", fmt="%d", header=",".join(head))
    shares = table.sum(0) / table.sum((0, 2))[:, None].clip(1)
    used = "holds" if float(shares.max()) < 0.95 else "does not hold"
    mixed = "holds" if ((table.sum(2) > 0).sum(0) > 1).any() else "does not hold"
    return "\n".join(
        [
            *lines,
            "",
            "Columns are cluster.sub-component, entries training images.",
            "",
            f"- Clusters mix data sets (domains overlap): **{mixed}**",
            f"- Every cluster uses several sub-components (none above 95 %): **{used}** (largest {shares.max():.0%})",
        ]
    )


def parameters(context: Context, name: str, systems: list[str]) -> str:
    """Table 9."""
    lines = ["| System | parameters | of them backbone |", "|---|---:|---:|"]
    rows = []
    for system in systems:
        model = load_model(context.of(system)[0].folder / "model")
        total = sum(p.numel() for p in model.parameters())
        backbone = sum(p.numel() for p in model.backbone.parameters())
        rows.append((system, total, backbone))
        lines.append(f"| {system} | {total:,} | {backbone:,} |")
    with (context.output / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("system", "parameters", "backbone"), *rows])
    return "\n".join(lines)


def density_maps(context: Context, name: str, systems: list[str]) -> str:
    """Fig. 4: the test image of median count of each data set, photograph and map."""
    from ..plots import density_figure

    _, model = context.model(MAIN)
    chosen = [sorted(context.test[d], key=lambda item: item.count)[len(context.test[d]) // 2] for d in context.domains]
    images = [item.read() for item in chosen]
    maps = [model.density(image).cpu() for image in images]
    density_figure(
        images, maps, [float(m.sum()) for m in maps], [i.count for i in chosen], context.output / f"{name}.png"
    )
    return f"![density maps]({name}.png)"


def attention_plot(system: str, by_cluster: bool) -> Callable[[Context, str, list[str]], str]:
    """Fig. 5 (VA by data set) and 6 (InVA by data set and by cluster)."""

    def write(context: Context, name: str, systems: list[str]) -> str:
        from ..plots import tsne_plot

        run, model = context.model(system)
        groups: dict[str, Sequence[Any]] = {}
        if by_cluster:
            items, datasets, clusters = _clustered(context, run)
            groups["cluster"] = clusters
        else:
            items, datasets = _items(context)
        groups = {"data set": [context.domains[i] for i in datasets]} | groups
        vectors, _ = analysis.latents(model, items, context.device)
        tsne_plot(vectors, groups, context.output / f"{name}.png")
        return f"![t-SNE of the attention vectors]({name}.png)"

    return write


def latent(context: Context, name: str, systems: list[str]) -> str:
    """Beyond the paper: does the attention know its domain?"""
    lines = [
        "| System | labels | silhouette | nearest-centroid accuracy | largest class | deviation of y over images |",
        "|---|---|---:|---:|---:|---:|",
    ]
    confusion: list[str] = []
    rows: list[tuple[Any, ...]] = [("system", "labels", "silhouette", "accuracy", "majority", "deviation")]
    for system in systems:
        run, model = context.model(system)
        if (run.folder / "clusters.json").exists():
            items, datasets, clusters = _clustered(context, run)
        else:
            (items, datasets), clusters = _items(context), None
        y, mu = analysis.latents(model, items, context.device)
        for what, labels in (("data set", datasets), ("cluster", clusters)):
            if labels is None:
                continue
            for vectors, kind in ((y, "y"), (mu, "mu")):
                if vectors is None:
                    continue
                s = analysis.separation(vectors, labels)
                deviation = float(y.std(0).mean())
                rows.append((system, f"{kind} by {what}", s.silhouette, s.accuracy, s.majority, deviation))
                lines.append(
                    f"| {system} | {kind} by {what} | {s.silhouette:.3f} | {s.accuracy:.1%} | {s.majority:.1%} "
                    f"| {deviation:.4f} |"
                )
        if clusters is not None:
            table = np.zeros((len(context.domains), max(clusters) + 1), int)
            np.add.at(table, (np.asarray(datasets), np.asarray(clusters)), 1)
            confusion += ["", f"Images of each data set in each cluster of {system}:", ""]
            confusion += ["| Data set | " + " | ".join(str(c) for c in range(table.shape[1])) + " |"]
            confusion += ["|---|" + "---:|" * table.shape[1]]
            confusion += [
                f"| {d} | {' | '.join(str(v) for v in row)} |" for d, row in zip(context.domains, table, strict=True)
            ]
    with (context.output / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return "\n".join(lines + confusion)


def attention_effect(context: Context, name: str, systems: list[str]) -> str:
    """Beyond the paper: is an image's own attention better than its data set's mean, or than one for all images?

    Means are those of the training images; test images are counted.
    """
    items, datasets = _items(context)
    lines = ["| System | attention | " + " | ".join(f"{d} MAE" for d in context.domains) + " | deviation of y |"]
    lines.append("|---|---|" + "---:|" * (len(context.domains) + 1))
    verdicts = []
    rows: list[tuple[Any, ...]] = [("system", "seed", "attention", "domain", "mae")]
    for system in systems:
        mae: dict[str, list[list[float]]] = {kind: [] for kind in ("own", "data set's mean", "same for all")}
        within, between = [], []
        for run in context.of(system):
            model = load_model(run.folder / "model").for_inference().to(context.device)
            assert isinstance(model, DKPNet)
            y, _ = analysis.latents(model, items, context.device)
            groups = [y[np.asarray(datasets) == i] for i in range(len(context.domains))]
            means = np.stack([group.mean(0) for group in groups])
            within.append(np.mean([group.std(0).mean() for group in groups]))
            between.append(means.std(0).mean())
            mae["own"].append([run.metrics(d).mae for d in context.domains])
            for kind, used in (("data set's mean", means), ("same for all", [means.mean(0)] * len(means))):
                found = []
                for domain, vector in zip(context.domains, used, strict=True):
                    with analysis.fixed_attention(model, vector):
                        counts = predict_counts(model, context.test[domain], device=context.device)
                    found.append(float(np.abs(counts - run.counts[domain][:, 0]).mean()))
                mae[kind].append(found)
            rows += [
                (system, run.seed, kind, d, value)
                for kind, seeds in mae.items()
                for d, value in zip(context.domains, seeds[-1], strict=True)
            ]
        deviation = f"{np.mean(within):.3f} in a data set, {np.mean(between):.3f} between them"
        table = {kind: np.array(seeds) for kind, seeds in mae.items()}
        for kind, values in table.items():
            cells = [spread(values[:, i]) for i in range(len(context.domains))]
            lines.append(f"| {system} | {kind} | {' | '.join(cells)} | {deviation if kind == 'own' else ''} |")
        for kind in list(table)[1:]:
            judged = verdict(table["own"], table[kind], context.domains)
            what = "its data set's mean" if kind != "same for all" else "the same for all"
            verdicts.append(f"- {system}: an image's own attention is better than {what}: **{judged}**")
    with (context.output / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return "\n".join([*lines, "", *verdicts])


def levels(context: Context, name: str, systems: list[str]) -> str:
    """Beyond the paper: errors by density level, over all data sets."""
    titles = [f"{low}-{high - 1:.0f}" if np.isfinite(high) else f"{low} and more" for low, high in analysis.LEVELS]
    rows = {}
    for system in systems:
        per_seed = [analysis.level_errors(np.concatenate(list(run.counts.values()))) for run in context.of(system)]
        images = [level[0] for level in per_seed[0]]
        rows[system] = np.array([[level[1] for level in seed] for seed in per_seed])
    lines = [
        "| Heads in the image | " + " | ".join(titles) + " |",
        "|---|" + "---:|" * len(titles),
        "| images | " + " | ".join(str(n) for n in images) + " |",
    ]
    for system, values in rows.items():
        lines.append(f"| {system} | " + " | ".join(spread(values[:, i]) for i in range(len(titles))) + " |")
    with (context.output / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["system", *titles])
        writer.writerows([system, *values.mean(0)] for system, values in rows.items() if values.size)
    return "\n".join(lines)


def unseen(context: Context, name: str, systems: list[str]) -> str:
    """Beyond the paper: leave one data set out, test on it."""
    table: dict[str, np.ndarray] = {}
    for kind in ("JT", "SE", "MB", MAIN):
        columns = [
            [run.metrics(d).mae for run in context.of(f"{kind} without {d}")] for d in context.domains
        ]  # [domains][seeds]
        table[kind] = np.array(columns).T
    lines = ["| System | " + " | ".join(f"{d} unseen" for d in context.domains) + " |"]
    lines.append("|---|" + "---:|" * len(context.domains))
    for kind, values in table.items():
        lines.append(f"| {kind} | " + " | ".join(spread(values[:, i]) for i in range(len(context.domains))) + " |")
    lines.append("")
    for other in ("JT", "SE", "MB"):
        judged = verdict(table[MAIN], table[other], context.domains)
        lines.append(f"- {MAIN} is better than {other} on a data set it never saw: **{judged}**")
    _csv(context, systems, context.output / f"{name}.csv")
    return "\n".join(lines)


def _named(*names: str) -> Callable[[Mapping[str, System]], list[str]]:
    """Systems by name; one that ends in * stands for all that begin so."""

    def needs(systems: Mapping[str, System]) -> list[str]:
        chosen = []
        for name in names:
            chosen += [s for s in systems if (s.startswith(name[:-1]) if name.endswith("*") else s == name)]
        return chosen

    return needs


def _inva(systems: Mapping[str, System]) -> list[str]:
    return ["JT", "VA", *(s for s in systems if s.startswith("InVA(")), MAIN]


PAGES: dict[str, Page] = {
    "table1": Page(
        "Table 1: individual (IT) and joint training (JT)",
        _named("IT on *", "JT"),
        comparison([("Joint training alone beats individual training", "JT", "IT")]),
    ),
    "table2": Page(
        "Table 2: all systems",
        _named("IT on *", "JT", "MB", MAIN),
        comparison([(f"{MAIN} beats {other}", MAIN, other) for other in ("IT", "JT", "MB")]),
    ),
    "table3": Page("Table 3: attention", _named("SE", MAIN), comparison([(f"{MAIN} beats SE", MAIN, "SE")])),
    "table4": Page(
        "Table 4: from VA to InVA",
        _inva,
        comparison(
            [
                ("VA beats JT", "VA", "JT"),
                ("Clusters beat data sets as labels: InVA({c}) beats VA", "InVA({c})", "VA"),
                ("Sub-components help: DKPNet beats InVA({c})", MAIN, "InVA({c})"),
            ]
        ),
    ),
    "table5": Page("Table 5: number of clusters c and of sub-components k", _named(MAIN, "DKPNet, c=*", "DKPNet, k=*"),
                   comparison([])),
    "table6": Page("Table 6: cosines between sub-centres", _named(MAIN), sub_centers),
    "table7": Page("Table 7: images per sub-domain", _named(MAIN), sub_domains),
    "table8": Page(
        "Table 8: without the log-sum-exp regulariser",
        _named("DKPNet, no L_reg", MAIN),
        comparison([("The regulariser helps", MAIN, "DKPNet, no L_reg")]),
    ),
    "table9": Page("Table 9: parameters", _named("JT", "SE", "MB", "VA", MAIN), parameters),
    "clustering": Page(
        "Footnote 3: how the attention is clustered",
        _named(MAIN, "DKPNet, k-means", "DKPNet, DBSCAN"),
        comparison([("The mixture is as good as k-means", MAIN, "DKPNet, k-means")]),
    ),
    "fig4": Page("Fig. 4: density maps", _named(MAIN), density_maps),
    "fig5": Page("Fig. 5: attention of VA by data set", _named("VA"), attention_plot("VA", by_cluster=False)),
    "fig6": Page("Fig. 6: attention of InVA", _named(MAIN), attention_plot(MAIN, by_cluster=True)),
    "latent": Page("Does the attention know its domain?", _named("SE", "VA", MAIN), latent),
    "attention": Page("Does the attention matter?", _named("SE", "VA", MAIN), attention_effect),
    "levels": Page("Errors by density level", _named("JT", "SE", "MB", "VA", MAIN), levels),
    "unseen": Page(
        "An unseen data set",
        _named("JT without *", "SE without *", "MB without *", "DKPNet without *"),
        unseen,
    ),
}  # fmt: skip
