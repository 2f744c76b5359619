"""The systems that the tables compare: what each is, and on which data sets it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..models import registry
from ..training import Config

MAIN = "DKPNet"


@dataclass(frozen=True)
class System:
    """A row of a table: a system and the data sets it is trained on.

    ``changes`` are settings as "group.field" -> value on top of the base configuration.
    """

    name: str
    domains: tuple[str, ...]
    changes: tuple[tuple[str, Any], ...]

    @property
    def two_stage(self) -> bool:
        """Whether it trains stage I and stage II; the others train twice the epochs, so that all see as many images."""
        return registry.get(dict(self.changes)["model.system"]).two_stage


def systems(domains: Sequence[str], config: Config) -> dict[str, System]:
    """Every system that a table may ask for, by name."""
    everything = tuple(domains)
    clusters, subs = config.cluster.num_clusters, config.cluster.num_sub

    def one(name: str, system: str, trained_on: tuple[str, ...] = everything, **changes: Any) -> System:
        settings = {"model.system": system} | {key.replace("__", "."): value for key, value in changes.items()}
        return System(name, trained_on, tuple(sorted(settings.items())))

    def intrinsic(name: str, c: int = clusters, k: int = subs, **changes: Any) -> System:
        return one(name, "dkpnet", cluster__num_clusters=c, cluster__num_sub=k, **changes)

    # Footnote 4 of the paper: its comparisons sample the data sets equally.
    rows = [
        *(one(f"IT on {name}", "jt", (name,)) for name in domains),
        one("JT", "jt", data__sampling="balanced"),
        one("SE", "se", data__sampling="balanced"),
        one("MB", "mb", data__sampling="balanced"),
        one("VA", "va"),
        intrinsic(f"InVA({clusters})", k=1),
        intrinsic(MAIN),
        intrinsic("DKPNet, no L_reg", loss__w_lse=0.0),
        intrinsic("DKPNet, k-means", cluster__method="kmeans"),
        intrinsic("DKPNet, DBSCAN", cluster__method="dbscan"),
        *(intrinsic(f"DKPNet, c={c}", c=c) for c in range(max(2, clusters - 1), clusters + 2) if c != clusters),
        *(intrinsic(f"DKPNet, k={k}", k=k) for k in (2, 3) if k != subs),
    ]
    if len(domains) > 2:
        for name in domains:
            others = tuple(d for d in domains if d != name)
            rows += [
                one(f"JT without {name}", "jt", others, data__sampling="balanced"),
                one(f"SE without {name}", "se", others, data__sampling="balanced"),
                one(f"MB without {name}", "mb", others, data__sampling="balanced"),
                one(f"DKPNet without {name}", "dkpnet", others),
            ]
    return {row.name: row for row in rows}
