"""Networks: backbones, attention, the attended head, DKPNet and the systems it is compared with.

From below: backbones, head, attention -> network (density of a batch) -> tiling (of a large image) and hub (saving and
loading) -> counter (what people call) -> registry (systems by name) -> one file per system.
"""

from .counter import CrowdCounter
from .dkpnet import DKPNet
from .multi_branch import MultiBranch
from .network import CounterOutput
from .registry import list_systems, load_model

__all__ = ["CounterOutput", "CrowdCounter", "DKPNet", "MultiBranch", "list_systems", "load_model"]
