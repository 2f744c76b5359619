"""Beyond the paper: errors by density level."""

from __future__ import annotations

import numpy as np

from ...markdown import table
from ..analysis import LEVELS, level_errors
from ..systems import MAIN
from ..verdict import spread
from .base import Context, named, page, write_csv


@page("levels", "Errors by density level", named("JT", "SE", "MB", "VA", MAIN))
def levels(context: Context, name: str, systems: list[str]) -> str:
    """Beyond the paper: errors by density level, over all data sets."""
    titles = [f"{low}-{high - 1:.0f}" if np.isfinite(high) else f"{low} and more" for low, high in LEVELS]
    rows = {}
    for system in systems:
        # Not the textures without people, which are no sparse crowds.
        counts = [[run.counts[d] for d in context.domains if d in run.counts] for run in context.of(system)]
        per_seed = [level_errors(np.concatenate(each)) for each in counts]
        images = [level[0] for level in per_seed[0]]
        rows[system] = np.array([[level[1] for level in seed] for seed in per_seed])
    lines = [["images", *images]]
    lines += [[system, *(spread(values[:, i]) for i in range(len(titles)))] for system, values in rows.items()]
    figures = [[system, *values.mean(0)] for system, values in rows.items() if values.size]
    write_csv(context.output / f"{name}.csv", [["system", *titles], *figures])
    return table(["Heads in the image", *titles], lines)
