"""DKPNet (ICCV 2021): one crowd counter from several data sets, on fused C++/CUDA and Triton operators.

from dkpnet_ext import load_model

model = load_model()  # the packaged starter; or a training run's folder, or OWNER/NAME on a hub
model.count("photo.jpg")
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .models import CounterOutput, CrowdCounter, DKPNet, MultiBranch, list_systems, load_model

__all__ = ["CounterOutput", "CrowdCounter", "DKPNet", "MultiBranch", "__version__", "list_systems", "load_model"]


def __getattr__(name: str) -> Any:
    # The networks import timm and the hub's client; `import dkpnet_ext` alone stays light.
    if name in __all__:
        from . import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
