"""The learning rate over a stage."""

from __future__ import annotations

import numpy as np

from .config import OptimConfig


def learning_rate(optim: OptimConfig, progress: float) -> float:
    """The learning rate at ``progress`` in [0, 1) of the stage. It depends on nothing else, so resuming needs no state.

    ``step`` is the paper's: divided by 2.5 at 250 of 450 epochs. ``onecycle`` warms up over a tenth of the stage, then
    follows half a cosine to zero; ``cosine`` warms up over 3 % and ends at 0.002 of the highest rate.
    """
    if optim.schedule == "step":
        return optim.lr if progress < 250 / 450 else optim.lr / 2.5
    warm, least = (0.1, 0.0) if optim.schedule == "onecycle" else (0.03, 0.002)
    if progress < warm:
        return optim.lr * (0.04 + 0.96 * progress / warm)
    cosine = 0.5 * (1 + float(np.cos(np.pi * (progress - warm) / (1 - warm))))
    return optim.lr * (least + (1 - least) * cosine)
