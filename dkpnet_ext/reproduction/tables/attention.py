"""Beyond the paper: how well the attention separates domains, and whether the errors depend on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...evaluation.inference import predict_counts
from ...markdown import table
from ...models import DKPNet, load_model
from ..analysis import fixed_attention, latents, separation
from ..systems import MAIN
from ..verdict import spread, verdict
from .base import Context, clustered, named, page, training_items, write_csv


@page("latent", "How well attention and latent mean separate the domains", named("SE", "VA", MAIN))
def latent(context: Context, name: str, systems: list[str]) -> str:
    """Beyond the paper: how well do attention and latent mean separate data sets and clusters?"""
    header = (
        "System",
        "labels",
        "silhouette",
        "nearest-centroid accuracy",
        "largest class",
        "deviation of y over images",
    )
    lines: list[tuple[str, ...]] = []
    confusion: list[str] = []
    rows: list[tuple[Any, ...]] = [("system", "labels", "silhouette", "accuracy", "majority", "deviation")]
    for system in systems:
        run, model = context.model(system)
        if (run.folder / "clusters.json").exists():
            items, datasets, clusters = clustered(context, run)
        else:
            (items, datasets), clusters = training_items(context), None
        y, mu = latents(model, items, context.device)
        for what, labels in (("data set", datasets), ("cluster", clusters)):
            if labels is None:
                continue
            for vectors, kind in ((y, "y"), (mu, "mu")):
                if vectors is None:
                    continue
                s = separation(vectors, labels)
                deviation = float(y.std(0).mean())
                rows.append((system, f"{kind} by {what}", s.silhouette, s.accuracy, s.majority, deviation))
                shown = (f"{s.silhouette:.3f}", f"{s.accuracy:.1%}", f"{s.majority:.1%}", f"{deviation:.4f}")
                lines.append((system, f"{kind} by {what}", *shown))
        if clusters is not None:
            images = np.zeros((len(context.domains), max(clusters) + 1), int)
            np.add.at(images, (np.asarray(datasets), np.asarray(clusters)), 1)
            counted = [[domain, *row] for domain, row in zip(context.domains, images, strict=True)]
            confusion += ["", f"Images of each data set in each cluster of {system}:", ""]
            confusion.append(table(["Data set", *range(images.shape[1])], counted))
    write_csv(context.output / f"{name}.csv", rows)
    return "\n".join([table(header, lines, left=2), *confusion])


@page("attention", "Effect of the attention on the errors", named("SE", "VA", MAIN))
def attention_effect(context: Context, name: str, systems: list[str]) -> str:
    """Beyond the paper: is an image's own attention better than its data set's mean, or than one for all images?

    Means are those of the training images; test images are counted.
    """
    items, datasets = training_items(context)
    lines, verdicts = [], []
    rows: list[tuple[Any, ...]] = [("system", "seed", "attention", "domain", "mae")]
    for system in systems:
        mae: dict[str, list[list[float]]] = {kind: [] for kind in ("own", "data set's mean", "same for all")}
        within, between = [], []
        for run in context.of(system):
            model = load_model(run.folder / "model").to(context.device).for_inference("torch")
            assert isinstance(model, DKPNet)
            y, _ = latents(model, items, context.device)
            groups = [y[np.asarray(datasets) == i] for i in range(len(context.domains))]
            means = np.stack([group.mean(0) for group in groups])
            within.append(np.mean([group.std(0).mean() for group in groups]))
            between.append(means.std(0).mean())
            mae["own"].append([run.metrics(d).mae for d in context.domains])
            for kind, used in (("data set's mean", means), ("same for all", [means.mean(0)] * len(means))):
                found = []
                for domain, vector in zip(context.domains, used, strict=True):
                    with fixed_attention(model, vector):
                        counts = predict_counts(model, context.test[domain], device=context.device)
                    found.append(float(np.abs(counts - run.counts[domain][:, 0]).mean()))
                mae[kind].append(found)
            rows += [
                (system, run.seed, kind, d, value)
                for kind, seeds in mae.items()
                for d, value in zip(context.domains, seeds[-1], strict=True)
            ]
        deviation = f"{np.mean(within):.3f} in a data set, {np.mean(between):.3f} between them"
        errors = {kind: np.array(seeds) for kind, seeds in mae.items()}
        for kind, values in errors.items():
            cells = [spread(values[:, i]) for i in range(len(context.domains))]
            lines.append((system, kind, *cells, deviation if kind == "own" else ""))
        for kind in list(errors)[1:]:
            judged = verdict(errors["own"], errors[kind], context.domains)
            what = "its data set's mean" if kind != "same for all" else "the same for all"
            verdicts.append(f"- {system}: an image's own attention is better than {what}: **{judged}**")
    write_csv(context.output / f"{name}.csv", rows)
    header = ("System", "attention", *(f"{d} MAE" for d in context.domains), "deviation of y")
    return "\n".join([table(header, lines, left=2), "", *verdicts])
