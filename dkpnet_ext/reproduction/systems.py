"""The systems that the tables compare: what each is, and on which data sets it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..models import registry
from ..training import Config

MAIN = "DKPNet"
LITERATURE = {
    "CSRNet": ("csrnet", "mse"),
    "CANet": ("canet", "mse"),
    "SFCN": ("sfcn", "mse"),
    "DSSINet": ("dssinet", "ssim"),
    "Bayesian loss": ("vgg19", "bayesian"),
    "DM-Count": ("vgg19", "dm"),
}
"""The published systems of Table 2: network and loss."""
RATES = {"mse": 1.0, "poisson": 1.0, "zip": 1.0, "bayesian": 1.0, "dm": 1.0, "ssim": 1.0}
"""Learning rates by loss, in units of the base's. A sweep around 1e-3 gave no reason for another one in any of the first
five: bench/results/losses.md."""
LOSSES = ("mse", "poisson", "zip", "bayesian", "dm")
"""Those that are compared; ssim is DSSINet's own, for maps as fine as the image."""
ATTENTIONS = {"JT": "jt", "SE": "se", "VA": "va", MAIN: "dkpnet"}
"""The forms of attention, none first, that every loss is tried with."""


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

    def scored(loss: str) -> dict[str, Any]:
        """The squared error alone is of a scaled density; the other losses are of heads as they are."""
        rate = {"optim__lr": config.optim.lr * RATES[loss]} if RATES[loss] != 1 else {}
        return {"loss__loss": loss} | rate | ({} if loss == "mse" else {"model__density_scale": 1.0})

    def published(name: str, trained_on: tuple[str, ...], suffix: str) -> System:
        system, loss = LITERATURE[name]
        # A weight file is the common backbone's; networks of their own start from ImageNet where the others do, unless
        # they are thinner than published.
        weights = None if config.model.weights is None or config.model.width < 1 else "imagenet"
        changes = scored(loss) | {"model__weights": weights, "data__sampling": "balanced"}
        return one(name + suffix, system, trained_on, **changes)

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
    for name in LITERATURE:
        rows += [published(name, (domain,), f" on {domain}") for domain in domains]
        rows.append(published(name, everything, ""))
    for loss in LOSSES[1:]:  # mse is the base's
        for name, system in ATTENTIONS.items():
            rows.append(one(f"{name}, {loss}", system, data__sampling="balanced", **scored(loss)))
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
