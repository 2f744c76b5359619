"""Figures of the latent that show early whether it learns or collapses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models import CounterOutput, CrowdCounter
from ..models.attention import VariationalAttention


class LatentMonitor:
    """Means over an epoch's crops; no gradient flows through them.

    - ``attention_deviation``: standard deviation of y over the images of a batch, mean over channels. Near zero, the
      attention does not depend on the image.
    - ``attention_between``: standard deviation of the domains' mean y over the domains, mean over channels.
    - ``domain_accuracy``: share of crops whose own domain has the largest mu . u, the logits of Eq. 6 without noise
      (variational attention only).
    """

    def __init__(self, num_domains: int) -> None:
        self.num_domains, self.steps = num_domains, 0
        self.deviation: Tensor | float = 0.0
        self.images: Tensor | float = 0.0  # [C]
        self.attention: Tensor | float = 0.0  # [C, K], sums of y
        self.right: Tensor | float = 0.0

    @torch.no_grad()
    def add(self, model: CrowdCounter, output: CounterOutput, labels: Tensor) -> None:
        """Count a step's crops in; labels: int64 [B]."""
        if output.attention is None:
            return
        y = output.attention.float()
        self.steps += 1
        self.deviation = self.deviation + y.std(0, correction=0).mean()
        own = F.one_hot(labels, self.num_domains).to(y)
        self.images = self.images + own.sum(0)
        self.attention = self.attention + own.T @ y.unflatten(0, (-1, len(labels))).mean(0)
        attention = model.attention
        if isinstance(attention, VariationalAttention) and output.mu is not None:
            logits = torch.einsum("bd,ckd->bck", output.mu.float(), attention.centers.float()).amax(2)
            self.right = self.right + (logits.argmax(1) == labels).float().sum()

    def summary(self) -> dict[str, float]:
        """The means by name; empty for a system without attention."""
        if not (isinstance(self.images, Tensor) and isinstance(self.attention, Tensor)):
            return {}
        present = self.images > 0
        means = self.attention[present] / self.images[present, None]
        result = {
            "attention_deviation": float(self.deviation) / self.steps,
            "attention_between": float(means.std(0, correction=0).mean()),
        }
        if isinstance(self.right, Tensor):
            result["domain_accuracy"] = float(self.right / self.images.sum())
        return result
