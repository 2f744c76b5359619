"""Table 9: numbers of parameters."""

from __future__ import annotations

from typing import Any

from ...markdown import table
from ...models import load_model
from ..systems import MAIN
from .base import Context, named, page, write_csv


@page("table9", "Table 9: parameters", named("JT", "SE", "MB", "VA", MAIN))
def parameters(context: Context, name: str, systems: list[str]) -> str:
    """Table 9."""
    rows: list[tuple[Any, ...]] = []
    for system in systems:
        model = load_model(context.of(system)[0].folder / "model")
        total = sum(p.numel() for p in model.parameters())
        backbone = sum(p.numel() for p in model.backbone.parameters())
        rows.append((system, total, backbone))
    write_csv(context.output / f"{name}.csv", [("system", "parameters", "backbone"), *rows])
    shown = [(system, f"{total:,}", f"{backbone:,}") for system, total, backbone in rows]
    return table(("System", "parameters", "of them backbone"), shown)
