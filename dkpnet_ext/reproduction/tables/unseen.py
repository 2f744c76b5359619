"""Beyond the paper: a data set that was not trained on."""

from __future__ import annotations

import numpy as np

from ...markdown import table
from ..systems import MAIN
from ..verdict import spread, verdict
from .base import Context, errors, named, page
from .comparisons import errors_csv


@page("unseen", "An unseen data set", named("JT without *", "SE without *", "MB without *", "DKPNet without *"))
def unseen(context: Context, name: str, systems: list[str]) -> str:
    """Beyond the paper: leave one data set out, test on it."""
    mae: dict[str, np.ndarray] = {}
    for kind in ("JT", "SE", "MB", MAIN):
        without = errors(context, [f"{kind} without {d}" for d in context.domains])
        mae[kind] = np.stack([values[:, i] for i, values in enumerate(without.values())], axis=1)  # [seeds, domains]
    lines = [
        table(
            ["System", *(f"{d} unseen" for d in context.domains)],
            [[kind, *(spread(values[:, i]) for i in range(len(context.domains)))] for kind, values in mae.items()],
        ),
        "",
    ]
    for other in ("JT", "SE", "MB"):
        judged = verdict(mae[MAIN], mae[other], context.domains)
        lines.append(f"- {MAIN} is better than {other} on a data set it never saw: **{judged}**")
    errors_csv(context, systems, context.output / f"{name}.csv")
    return "\n".join(lines)
