"""Tables 6 and 7: sub-centres of the domains, images per sub-domain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...markdown import table
from ...models.attention import CENTER_NORM
from ..analysis import center_cosines, center_distances, latents, subdomains
from ..systems import MAIN
from .base import Context, clustered, named, new_figure, page, save_figure, write_csv


@page("table6", "Table 6: cosines between sub-centres", named(MAIN))
def sub_centers(context: Context, name: str, systems: list[str]) -> str:
    """Table 6."""
    _, model = context.model(MAIN)
    cosines = center_cosines(model)
    k = cosines.shape[1]
    write_csv(context.output / f"{name}.csv", [[f"{value:.4f}" for value in row] for row in cosines.reshape(-1, k)])
    _matrices(list(cosines), [f"domain {c}" for c in range(len(cosines))], context.output / f"{name}.png", (-1, 1))
    apart = cosines[:, ~np.eye(k, dtype=bool)]
    pairs = np.triu_indices(k, 1)
    distances = center_distances(model)
    rows = [
        (c, *(", ".join(f"{value:.3f}" for value in matrix[c][pairs]) for matrix in (cosines, distances)))
        for c in range(len(cosines))
    ]
    lines = [table(("Domain", "cosines between its sub-centres", "distances"), rows, left=3)]
    start = CENTER_NORM**2 / (CENTER_NORM**2 + 1)
    lines += ["", f"Sub-centres start near their domain's centre: cosines of {start:.2f}, distances of 1.4, about."]
    if k < 2:
        return "\n".join([*lines, "", "One sub-centre a domain: there is nothing to compare."])
    holds = "holds" if float(np.abs(apart).max()) < 0.5 else "does not hold"
    claim = f"- Sub-centres of a domain differ (all |cosines| < 0.5): **{holds}** (largest {np.abs(apart).max():.2f})"
    return "\n".join([*lines, "", claim])


def _matrices(values: Sequence[np.ndarray], titles: Sequence[str], path: Path, limits: tuple[float, float]) -> None:
    figure = new_figure(2.6 * len(values), 2.8)
    for axis, matrix, title in zip(figure.subplots(1, len(values), squeeze=False)[0], values, titles, strict=True):
        axis.imshow(matrix, cmap="RdBu_r", vmin=limits[0], vmax=limits[1])
        for (row, column), value in np.ndenumerate(matrix):
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize="small")
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    save_figure(figure, path)


@page("table7", "Table 7: images per sub-domain", named(MAIN))
def sub_domains(context: Context, name: str, systems: list[str]) -> str:
    """Table 7."""
    run, model = context.model(MAIN)
    items, datasets, clusters = clustered(context, run)
    _, mu = latents(model, items, context.device)
    assert mu is not None
    images = subdomains(model, mu, clusters, datasets)
    _, c, k = images.shape
    head = [f"{i}.{j}" for i in range(c) for j in range(k)]
    rows = images.reshape(-1, c * k).tolist()
    write_csv(context.output / f"{name}.csv", [head, *rows])
    shares = images.sum(0) / images.sum((0, 2))[:, None].clip(1)
    used = "holds" if float(shares.max()) < 0.95 else "does not hold"
    mixed = "holds" if ((images.sum(2) > 0).sum(0) > 1).any() else "does not hold"
    return "\n".join(
        [
            table(["Data set", *head], [[d, *row] for d, row in zip(context.domains, rows, strict=True)]),
            "",
            "Columns are cluster.sub-component, entries training images.",
            "",
            f"- Clusters mix data sets (domains overlap): **{mixed}**",
            f"- Every cluster uses several sub-components (none above 95 %): **{used}** (largest {shares.max():.0%})",
        ]
    )
