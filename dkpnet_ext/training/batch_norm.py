"""Batch norm in training: running averages, recalibrated statistics, or frozen ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning.fabric import Fabric
from torch import nn

from ..data import Batch
from ..models import CrowdCounter
from .config import OptimConfig


def norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norms of a network or of a part of it."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def set_train_mode(model: CrowdCounter, optim: OptimConfig) -> None:
    """Training mode, with the backbone's batch norm as configured."""
    model.train()
    for norm in norms(model):
        norm.momentum = optim.bn_momentum
    for norm in norms(model.backbone):
        norm.train(optim.batch_norm != "frozen")


def recalibrate(fabric: Fabric, model: CrowdCounter, batches: Iterable[Batch]) -> None:
    """Set all batch norms to the mean statistics of ``batches``, over all processes.

    Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021. Running averages over batches of a few crops are too noisy:
    bench/results/remedies.md.
    """
    if not norms(model):
        return
    model.eval()
    for norm in norms(model):
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    with torch.no_grad(), fabric.autocast():
        for batch in batches:
            model(batch.images.to(fabric.device))
        for norm in norms(model):
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                mean = fabric.all_reduce(statistic)
                assert isinstance(mean, torch.Tensor)
                statistic.copy_(mean)
