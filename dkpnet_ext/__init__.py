"""DKPNet (ICCV 2021): one crowd counter from several data sets, on fused C++/CUDA and Triton operators.

from dkpnet_ext import DKPNet
model = DKPNet.from_pretrained("runs/NAME/model")
model.count("photo.jpg")
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .models import DKPNet, MultiBranch, load_model

__all__ = ["DKPNet", "MultiBranch", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    # The networks import the hub's client; `import dkpnet_ext` alone stays light.
    if name in ("DKPNet", "MultiBranch", "load_model"):
        from . import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
