"""Networks: backbones, attention, the attended head, DKPNet and the systems it is compared with."""

from .dkpnet import CounterOutput, CrowdCounter, DKPNet, MultiBranch, load_model

__all__ = ["CounterOutput", "CrowdCounter", "DKPNet", "MultiBranch", "load_model"]
