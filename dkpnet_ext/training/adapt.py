"""Adapting a trained counter to a few labelled pictures (``--from``): all of it goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UserError
from ..models import load_model
from ..models.attention import VariationalAttention
from .config import Config
from .losses import LINKS
from .presets import PRESETS

if TYPE_CHECKING:
    from ..data import Item
    from ..models import CrowdCounter

SPARE = 1
"""Ranks by which the intervals' quantiles are higher: the few held-out pictures chose the epoch. Of 20 of them 75 and 84 %
of the test pictures were inside intervals of 80 and 90 %; with one rank more 78 and 96 % (bench/results/adapt.md)."""
BATCHES = 20  # of an epoch, however few the pictures are: a pass over ten of them has two


def adopt(config: Config, given: Collection[str] = ()) -> CrowdCounter | None:
    """The counter that ``config.start`` names, or None. Its settings replace those of ``config``'s preset.

    The counter decides the network: system, sizes, batch norm, limits of the images, and the link, which restricts the loss.

    Args:
        given: names of the settings that a person gave; those that differ from the preset's are given, too.

    Raises:
        UserError: no such counter, one that has parts of its own for each data set, or a setting was given that contradicts
            the counter's.
    """
    if config.start is None:
        return None
    model = load_model(config.start)
    if hasattr(model, "classifier"):  # mb, film, mdknet
        raise UserError(
            f"--from {config.start}: system {model.system} has parts for each of its data sets, none for a new one; "
            "use another system"
        )
    known = model.arguments | {
        "system": model.system,
        "weights": None,  # all of them are the counter's
        "batch_norm": "folded" if model.fold_norms else "frozen",
    }
    fitting = [loss for loss, link in LINKS.items() if link == model.link]
    known["loss"] = config.loss.loss if config.loss.loss in fitting else fitting[0]
    preset = PRESETS[config.preset].config if config.preset in PRESETS else Config()
    for group in ("model", "data", "loss", "optim"):
        mine, default = getattr(config, group), getattr(preset, group)
        for name in [name for name in vars(mine) if name in known]:
            value, own = getattr(mine, name), known[name]
            if value != own and (name in given or value != getattr(default, name)):
                option = f"--{name.replace('_', '-')}"
                allowed = " or ".join(fitting) if name == "loss" else own
                raise UserError(
                    f"{option} {value}: --from {config.start} takes the counter as it is, with {option} {allowed}; "
                    f"leave {option} out"
                )
            setattr(mine, name, own)
    return model


def extend(
    model: CrowdCounter, names: Sequence[str], train: Sequence[Item], sources: Sequence[int]
) -> tuple[CrowdCounter, list[int]]:
    """The counter with new data sets after its own, and the label of every training picture.

    Each data set is a new domain of variational attention; its prior begins with the mean of the pictures' latent means and
    of their log-variances. A counter without such attention only gets the names.

    Args:
        names: of the new data sets; train: their pictures; sources: the index in ``names`` of each picture's data set.
    """
    changes: dict[str, Any] = {"domains": list(dict.fromkeys([*model.domains, *names]))}
    state, first = model.state_dict(), 0
    attention = getattr(model, "attention", None)
    if isinstance(attention, VariationalAttention):
        seen = [model.examine(item.read(), as_is=True) for item in train]
        mine = [torch.tensor([source == i for source in sources]) for i in range(len(names))]
        mu, logvar = (torch.cat([getattr(output, key) for output in seen]) for key in ("mu", "logvar"))
        first, num_sub, _ = attention.centers.shape
        centers = torch.stack([mu[m].mean(0).expand(num_sub, -1) for m in mine])
        state["attention.centers"] = torch.cat([attention.centers, centers])
        state["attention.prior_logvar"] = torch.cat(
            [attention.prior_logvar, torch.stack([logvar[m].mean(0) for m in mine])]
        )
        changes["num_domains"] = first + len(names)
    extended = type(model)(**model.arguments | changes)
    extended.load_state_dict(state)
    return extended, [first + source for source in sources]


def check_held_out(val: Sequence[Item]) -> None:
    """Raises `UserError` if the held-out pictures have no people: their error could not choose an epoch."""
    if not any(item.count for item in val):
        raise UserError(f"no head is labelled on the held-out pictures ({len(val)}); label more pictures with people")
