"""Figures 4 to 6: density maps, attention of VA and of InVA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...files import write_atomically
from ..analysis import latents
from ..systems import MAIN
from .base import Context, clustered, named, page, training_items


@page("fig4", "Fig. 4: density maps", named(MAIN))
def density_maps(context: Context, name: str, systems: list[str]) -> str:
    """Fig. 4: the test image of median count of each data set, photograph and map."""
    from ...plots import density_figure

    _, model = context.model(MAIN)
    chosen = [sorted(context.test[d], key=lambda item: item.count)[len(context.test[d]) // 2] for d in context.domains]
    images = [item.read() for item in chosen]
    maps = [model.density(image).cpu() for image in images]
    counts, annotated = [float(m.sum()) for m in maps], [item.count for item in chosen]
    write_atomically(context.output / f"{name}.png", lambda path: density_figure(images, maps, counts, annotated, path))
    return f"![density maps]({name}.png)"


def attention_plot(system: str, by_cluster: bool) -> Callable[[Context, str, list[str]], str]:
    """Fig. 5 (VA by data set) and 6 (InVA by data set and by cluster)."""

    def write(context: Context, name: str, systems: list[str]) -> str:
        from ...plots import tsne_plot

        run, model = context.model(system)
        groups: dict[str, Sequence[Any]] = {}
        if by_cluster:
            items, datasets, clusters = clustered(context, run)
            groups["cluster"] = clusters
        else:
            items, datasets = training_items(context)
        groups = {"data set": [context.domains[i] for i in datasets]} | groups
        vectors, _ = latents(model, items, context.device)
        try:
            write_atomically(context.output / f"{name}.png", lambda path: tsne_plot(vectors, groups, path))
        except ValueError as error:  # too few vectors, or all of them equal
            return f"Not drawn: {error}."
        return f"![t-SNE of the attention vectors]({name}.png)"

    return write


page("fig5", "Fig. 5: attention of VA by data set", named("VA"))(attention_plot("VA", by_cluster=False))
page("fig6", "Fig. 6: attention of InVA", named(MAIN))(attention_plot(MAIN, by_cluster=True))
