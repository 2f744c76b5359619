"""Released checkpoints of CSRNet, Bayesian loss and DM-Count, by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import UserError
from .backbones import read_weights
from .csrnet import CSRNet
from .published import PublishedNetwork
from .vgg19 import VGG19Regressor


class _Release(NamedTuple):
    """A network as its authors saved it."""

    mark: str  # a name that no other release has
    model: type[PublishedNetwork]
    arguments: Mapping[str, Any]  # of its constructor
    names: Mapping[str, str]  # beginnings of their names -> of ours


_RELEASES = {
    "CSRNet": _Release(
        "frontend.0.weight",
        CSRNet,
        {},
        {"frontend": "backbone.features", "backend": "head.backend", "output_layer": "head.output"},
    ),
    "Bayesian": _Release(
        "reg_layer.4.weight",
        VGG19Regressor,
        {"link": "abs"},
        {"features": "backbone.features", "reg_layer": "head.layers"},
    ),
    "DM-Count": _Release(
        "density_layer.0.weight",
        VGG19Regressor,
        {},
        {"features": "backbone.features", "reg_layer": "head.layers", "density_layer.0": "head.layers.4"},
    ),
}


def load_released(path: str | Path, **arguments: Any) -> PublishedNetwork:
    """Load a checkpoint that the authors of CSRNet, Bayesian loss or DM-Count released; `save_pretrained` then makes it ours.

    Only tensors are read: a pickle that holds code is refused.

    Args:
        path: a .pth, .pth.tar or .safetensors file: a state dict, or a dictionary with one as ``state_dict``.
        arguments: constructor arguments such as ``min_side``; the published evaluations each resize in their own way.

    Raises:
        UserError: a file that cannot be read, or tensors that are none of these networks'.
    """
    return convert_released(read_weights(Path(path)), str(path), **arguments)


def convert_released(state: Mapping[str, Tensor], source: str = "state dict", **arguments: Any) -> PublishedNetwork:
    """The model of a released state dict, in evaluation mode; ``source`` names it in messages, the rest as `load_released`.

    Raises:
        UserError: tensors that are none of these networks', or are missing or of another shape.
    """
    found = [name for name, release in _RELEASES.items() if release.mark in state]
    if len(found) != 1:
        raise UserError(f"weights {source}: not a released checkpoint of {', '.join(_RELEASES)}, by its tensors' names")
    release = _RELEASES[found[0]]
    beginnings = re.compile("|".join(rf"^{re.escape(name)}(?=\.)" for name in sorted(release.names, reverse=True)))
    ours = {beginnings.sub(lambda m: release.names[m.group()], name): value for name, value in state.items()}
    model = release.model(**{**release.arguments, **arguments})
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("attention.")}
    problems = {
        "lacks": own.keys() - ours.keys(),
        "has unknown": ours.keys() - own.keys(),
        "has other shapes for": {n for n in own.keys() & ours.keys() if own[n].shape != ours[n].shape},
    }
    for problem, names in problems.items():
        if names:
            raise UserError(
                f"weights {source} do not fit {found[0]}: the file {problem} {', '.join(sorted(names)[:4])}"
            )
    model.load_state_dict(ours, strict=False)
    return model.eval()
