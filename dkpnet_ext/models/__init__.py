"""Networks: backbones, attention, the attended head, DKPNet and the systems it is compared with.

From below: backbones, head, attention -> network (density of a batch) -> tiling (of a large image) and hub (saving and
loading) -> counter (the public methods) -> registry (systems by name) -> one file per system; published (what networks with
convolutions of their own share), released (their authors' checkpoints).
"""

# In the order in which `list_systems` and messages name them.
from .counter import CrowdCounter
from .dkpnet import DKPNet
from .multi_branch import MultiBranch
from .network import CounterOutput
from .registry import list_systems, load_model

# isort: split
from .canet import CANet
from .csrnet import CSRNet
from .dssinet import DSSINet, PrunedDSSINet
from .film import FiLM
from .mcnn import MCNN
from .mdknet import MDKNet
from .released import load_released
from .sfcn import SFCN
from .vgg19 import VGG19Regressor

__all__ = [
    "MCNN", "SFCN", "CANet", "CSRNet", "CounterOutput", "CrowdCounter", "DKPNet", "DSSINet", "FiLM", "MDKNet",
    "MultiBranch", "PrunedDSSINet", "VGG19Regressor", "list_systems", "load_model", "load_released",
]  # fmt: skip
