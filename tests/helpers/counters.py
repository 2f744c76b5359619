"""Untrained models that count something."""

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def alive(model: Model) -> Model:
    """The model with a last bias of 1 in every head: an untrained one may lie below the ReLU everywhere, where any two
    density maps agree."""
    for name, parameter in model.named_parameters():
        if name.endswith("conv3.bias") and parameter.shape == (1,):
            torch.nn.init.ones_(parameter)
    return model
