"""Convolutions that train faster on a CPU."""

from __future__ import annotations

import functools

import torch
from torch import nn

from ..models import CrowdCounter
from ..models.convolutions import use_fast_convolutions
from ..models.fpn import Mix
from ..ops import native
from .config import Config


def speed_up_convolutions(model: CrowdCounter, config: Config) -> None:
    """Let the convolutions train on the CPU at a fraction of the time, in place; their parameters and names stay."""
    if native.module is not None and config.channels_last:
        for part in (model.backbone, *(m for m in model.modules() if isinstance(m, Mix))):
            try:
                use_fast_convolutions(part)
            except Exception:  # torch.fx cannot trace every backbone that timm has, and says so in many ways
                continue
    elif config.precision == "bf16":
        depthwise_in_float32(model)


def depthwise_in_float32(model: nn.Module) -> None:
    """Let depthwise convolutions leave bfloat16 autocast on a CPU, in place.

    oneDNN's backward pass of them is 2 to 20 times slower in bfloat16 than in float32 (torch 2.15, AVX-512 BF16): a step of
    EfficientNet-Lite0, 12 crops of 256 px on two cores, takes 0.46 s with this and 0.64 s without.
    """

    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.__class__ = _in_float32(type(module))  # type: ignore[arg-type]  # classes are hashable


@functools.cache
def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """A class, not a function of one module: a copy of the model (`average`) must compute with its own weights."""

    class InFloat32(kind):  # type: ignore[valid-type, misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).to(x.dtype)

    return InFloat32
