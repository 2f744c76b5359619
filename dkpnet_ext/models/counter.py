"""What people call: count, density, attend, examine, on pictures of any size."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from ..data.images import to_tensor
from . import tiling
from .folding import fold_batch_norms
from .hub import SavedNetwork
from .network import CounterOutput


class CrowdCounter(SavedNetwork):
    """Any system that counts people in pictures; the arguments are `Network`'s."""

    def for_inference(self) -> Self:
        """Make prediction faster, in place: batch norms folded into convolutions, channels innermost in memory.

        The counts stay the same up to rounding. The model is not meant to be trained or saved afterwards.
        """
        try:
            self.backbone = fold_batch_norms(self.backbone)
        except Exception:  # torch.fx cannot trace every backbone that timm has, and says so in many ways
            pass
        return self.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def examine(self, image: Any) -> CounterOutput:
        """All that the model says of one image, a batch of one; above `tiling.LIMIT` pixels in tiles, with the same result.

        The image as for `density`.
        """
        was_training = self.training
        self.eval()
        try:
            pixels = to_tensor(image)
            if pixels.shape[-2] * pixels.shape[-1] > tiling.LIMIT:
                return tiling.predict(self, pixels)
            return self(pixels.unsqueeze(0).to(self.pixel_mean.device))
        finally:
            self.train(was_training)

    def density(self, image: Any) -> Tensor:
        """Density map of one image, float32 [ceil(H / stride), ceil(W / stride)] in heads per cell.

        Args:
            image: a path, a PIL image, or a uint8 array or tensor ([H, W, 3] or [3, H, W]); any size.
        """
        return self.examine(image).density[0, 0].float()

    def attend(self, image: Any) -> Tensor:
        """Attention y of one image in evaluation mode, float32 [K]; the image as for `density`.

        Raises:
            ValueError: a model without attention.
        """
        attention = self.examine(image).attention
        if attention is None:
            raise ValueError("attend: this model has no attention")
        return attention[0].float()

    def count(self, image: Any) -> float:
        """Number of people in one image (`density` summed); no label is needed."""
        return float(self.density(image).sum(dtype=torch.float64))
