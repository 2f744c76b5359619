"""Training: settings and presets, a whole run, one stage of it, and its parts (schedule, loss, batch norm, clustering ...).

from dkpnet_ext.training import PRESETS, train
train(PRESETS["quick"].config)
"""

from typing import TYPE_CHECKING, Any

from .config import Config
from .presets import PRESETS

if TYPE_CHECKING:
    from .run import train

__all__ = ["PRESETS", "Config", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":  # imports torch and lightning: `train --help` does not wait for them
        from .run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
