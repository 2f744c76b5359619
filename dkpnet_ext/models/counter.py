"""The public methods count, density, locate, attend and examine, for pictures of any kind and size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..data.images import limited_size, resize, to_tensor
from ..device import Precision, autocast, free_cores, pick_precision
from ..errors import UserError
from . import engines, tiling
from .calibration import Assessment, describe
from .engines import Choice, EngineName
from .hub import SavedNetwork
from .locating import locate, to_picture
from .network import CounterOutput

Picture = str | Path | IO[bytes] | Image.Image | np.ndarray | Tensor
"""A path, an open file (`io.BytesIO` too), a PIL image, a uint8 array [H, W, 3], [H, W, 4] (alpha is dropped) or [H, W]
(gray), or a uint8 tensor [3, H, W]; RGB, any size."""
Pictures = list[Any] | tuple[Any, ...]
"""A list of `Picture`."""


@dataclass
class _Evaluation:
    """A model that threads evaluate: how many, and which of its modules were in training mode before."""

    trained: list[nn.Module]
    threads: int = 0


_lock = threading.Lock()
_evaluations: dict[nn.Module, _Evaluation] = {}


class CrowdCounter(SavedNetwork):
    """Any system that counts people in pictures; the constructor's arguments are `Network`'s.

    `count`, `density`, `locate`, `attend` and `examine` evaluate: whatever mode the model is in, they take the mean of the latent
    and batch norm's running statistics, and leave the mode as it was. They may run in several threads at a time, though
    not while another thread trains the model or changes its mode.
    """

    precision: Precision = "fp32"
    """The convolutions' arithmetic, which `for_inference` sets."""
    choice: Choice | None = None
    """What `for_inference` measured to choose the engine, where it did."""

    def for_inference(self, engine: EngineName = "auto", precision: Precision = "fp32") -> Self:
        """Make prediction faster, in place, for the device that the model is on: batch norms folded into convolutions,
        channels innermost in memory, and the convolutions run by the engine that is fastest here.

        The counts stay the same up to rounding. The model is not meant to be trained or moved afterwards and cannot be saved.

        Args:
            engine: ``torch``; ``onnxruntime`` or ``openvino``, where they are installed; or ``auto``, which takes the
                fastest of them that counts the same, measured once and remembered (see docs/engines.md).
            precision: arithmetic of the convolutions, ``fp32`` or ``bf16``.

        Raises:
            UserError: an engine that is not installed, cannot run this model or device, or counts something else.
        """
        self.eval()
        precision = pick_precision(precision, self.pixel_mean.device)
        self.choice = engines.install(self, engine, precision)
        self.precision, self.folded = precision, True
        return self

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside. Where several threads are inside, the last one restores the modes that the first found."""
        if self.folded and not self.training:  # for inference, which it is not meant to leave
            yield
            return
        with _lock:
            if self not in _evaluations:
                _evaluations[self] = _Evaluation([module for module in self.modules() if module.training])
                self.eval()
            evaluation = _evaluations[self]
            evaluation.threads += 1
        try:
            yield
        finally:
            with _lock:
                evaluation.threads -= 1
                if not evaluation.threads:
                    del _evaluations[self]
                    for module in evaluation.trained:
                        module.training = True

    def prepare(self, image: Picture) -> Tensor:
        """One image at the size (h, w) it is counted at: uint8 [3, h, w], RGB.

        A counter errs where heads are larger or smaller than those it learned from, so an image is resized as the
        training and test images were: the shorter side to at least ``min_side`` and the longer to at most ``max_side``
        pixels (in conflict the latter), the aspect kept.

        Raises:
            UserError, ValueError, TypeError: as `examine`.
        """
        pixels = to_tensor(image)
        size = limited_size((pixels.shape[1], pixels.shape[2]), self.min_side, self.max_side)
        if size == tuple(pixels.shape[1:]):
            return pixels
        return to_tensor(resize(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()), size))

    @overload
    def examine(self, image: Picture, *, as_is: bool = ...) -> CounterOutput: ...
    @overload
    def examine(self, image: Pictures, *, as_is: bool = ...) -> list[CounterOutput]: ...
    @torch.inference_mode()
    def examine(self, image: Picture | Pictures, *, as_is: bool = False) -> CounterOutput | list[CounterOutput]:
        """All that the model says of one image, a batch of one; above `tiling.LIMIT` pixels in tiles, with the same result.

        Args:
            image: see `Picture`; a list of them gives a list.
            as_is: count at the image's own size (h, w), not at the one that `prepare` gives it.

        Raises:
            UserError: a file that cannot be decoded; a density that is not finite.
            ValueError, TypeError: an array or tensor of another shape or dtype.
        """
        if isinstance(image, list | tuple):
            return [self.examine(each, as_is=as_is) for each in image]
        pixels = to_tensor(image) if as_is else self.prepare(image)
        with self.evaluating(), self._arithmetic(), self._threads():
            if pixels.shape[-2] * pixels.shape[-1] > tiling.LIMIT:
                output = self.tiled(pixels)
            else:
                output = self(pixels.unsqueeze(0).to(self.pixel_mean.device))
        if not bool(torch.isfinite(output.density).all()):
            raise UserError("the density is not finite: damaged weights, or numbers too large for fp16")
        return output

    def _arithmetic(self) -> AbstractContextManager:
        """bf16 where `for_inference` was told so; else what the caller's autocast says."""
        return nullcontext() if self.precision == "fp32" else autocast(self.pixel_mean.device, self.precision)

    def _threads(self) -> AbstractContextManager:
        """As many threads as cores are free, where this thread computes."""
        return free_cores() if self.folded and self.pixel_mean.device.type == "cpu" else nullcontext()

    def tiled(self, pixels: Tensor) -> CounterOutput:
        """One large image uint8 [3, H, W] in bounded memory, by default as `tiling.predict`; in evaluation mode."""
        return tiling.predict(self, pixels)

    @overload
    def density(self, image: Picture, *, as_is: bool = ...) -> Tensor: ...
    @overload
    def density(self, image: Pictures, *, as_is: bool = ...) -> list[Tensor]: ...
    def density(self, image: Picture | Pictures, *, as_is: bool = False) -> Tensor | list[Tensor]:
        """Density map of one image, float32 [ceil(h / stride), ceil(w / stride)] in heads per cell, on the model's device.

        Args and errors as for `examine`.
        """
        if isinstance(image, list | tuple):
            return [self.density(each, as_is=as_is) for each in image]
        return self.examine(image, as_is=as_is).density[0, 0].float()

    @overload
    def attend(self, image: Picture, *, as_is: bool = ...) -> Tensor: ...
    @overload
    def attend(self, image: Pictures, *, as_is: bool = ...) -> list[Tensor]: ...
    def attend(self, image: Picture | Pictures, *, as_is: bool = False) -> Tensor | list[Tensor]:
        """Attention y of one image in evaluation mode, float32 [K] in (0, 1).

        Args and errors as for `examine`.

        Raises:
            ValueError: a model without attention.
        """
        if isinstance(image, list | tuple):
            return [self.attend(each, as_is=as_is) for each in image]
        attention = self.examine(image, as_is=as_is).attention
        if attention is None:
            raise ValueError("attend: this model has no attention")
        return attention[0].float()

    @overload
    def count(self, image: Picture, *, as_is: bool = ...) -> float: ...
    @overload
    def count(self, image: Pictures, *, as_is: bool = ...) -> list[float]: ...
    def count(self, image: Picture | Pictures, *, as_is: bool = False) -> float | list[float]:
        """Number of people in one image: the sum of `density`, added up in float64. No label is needed.

        Args and errors as for `examine`.
        """
        if isinstance(image, list | tuple):
            return [self.count(each, as_is=as_is) for each in image]
        return float(self.density(image, as_is=as_is).sum(dtype=torch.float64))

    @overload
    def locate(self, image: Picture, *, as_is: bool = ...) -> np.ndarray: ...
    @overload
    def locate(self, image: Pictures, *, as_is: bool = ...) -> list[np.ndarray]: ...
    def locate(self, image: Picture | Pictures, *, as_is: bool = False) -> np.ndarray | list[np.ndarray]:
        """The heads of one image as points, as many as `count` says, rounded: see `locating.locate`.

        Args and errors as for `examine`.

        Returns:
            float64 [N, 3]: x, y in pixels of the image as it was given, and the score in (0, 1].
        """
        if isinstance(image, list | tuple):
            return [self.locate(each, as_is=as_is) for each in image]
        pixels = to_tensor(image)
        prepared = pixels if as_is else self.prepare(pixels)
        points, scores = locate(self.density(prepared, as_is=True), self.out_stride)
        return np.column_stack([to_picture(points, prepared.shape[-2:], pixels.shape[-2:]), scores])

    def assess(self, image: Picture, count: float | None = None) -> Assessment | None:
        """An interval for a count, and whether the picture is like those that the model learned from.

        Args:
            image: see `Picture`.
            count: what `count` says of it; by default it is counted.

        Returns:
            None for a model that has not been calibrated (`evaluate --calibrate`; a training run ends with it).

        Raises:
            UserError, ValueError, TypeError: as `examine`.
        """
        if self.calibration is None:
            return None
        pixels = to_tensor(image)
        count = self.count(pixels) if count is None else count
        with self.evaluating():  # prepared, as training pictures are
            return self.calibration.assess(describe(self, self.prepare(pixels)), count)
