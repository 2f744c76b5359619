"""Beyond the paper: a data set that was not trained on."""

from __future__ import annotations

import numpy as np

from ..systems import MAIN
from ..verdict import spread, verdict
from .base import Context, named, page
from .comparisons import errors_csv


@page("unseen", "An unseen data set", named("JT without *", "SE without *", "MB without *", "DKPNet without *"))
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
    errors_csv(context, systems, context.output / f"{name}.csv")
    return "\n".join(lines)
