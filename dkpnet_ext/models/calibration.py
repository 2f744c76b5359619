"""Calibration: an interval around a count, and whether a picture is like the training pictures.

Both are measured after training (`evaluation.calibration`) and lie beside the weights in ``calibration.safetensors``.

- A picture is described by the features of a small copy of it (`describe`). Each data set of the training is a Gaussian in
  that space (Mahalanobis distance, as in Lee et al., NeurIPS 2018, but with a covariance for each data set). A picture farther
  from all of them than 97 of 100 pictures like the validation pictures would be is unlike the training pictures.
- The interval is split conformal prediction (Vovk et al., 2005) on the validation pictures' relative errors, with a quantile
  for each data set: a picture takes that of the data set that it is nearest to. It covers what it promises for pictures drawn
  like the validation pictures, hence none is given for a picture that is unlike them.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..data.images import limited_size, resize, to_tensor
from ..errors import UserError
from ..files import write_atomically
from ..markdown import table
from .fpn import FPNHead
from .network import Network

LEVELS = (80, 90)  # per cent of pictures whose annotated count lies in the interval
SIDE = 384  # pixels; longest side of the copy that is described
FILE = "calibration.safetensors"
ALL = ""  # the quantile of all data sets together


@dataclass(frozen=True)
class Assessment:
    """What is said of one picture and its count."""

    nearest: str  # data set of the training that the picture is most like
    distance: float  # to it, in units of the largest distance that still is like the training pictures
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)  # per cent -> lowest and highest count
    pictures: dict[int, int] = field(default_factory=dict)  # per cent -> validation pictures behind the interval

    @property
    def unlike(self) -> bool:
        """Whether the picture is unlike those that the counter learned from."""
        return self.distance > 1

    def words(self) -> str:
        """The same for people."""
        if self.unlike:
            return "unlike the pictures it learned from: the count may be far off"
        return f"like its pictures of {self.nearest}"


@dataclass(frozen=True)
class Calibration:
    """What is measured of a counter.

    Args:
        names: data sets of the training, D of them, those with people.
        centres: float32 [D, K], means of their pictures' descriptions.
        whitening: float32 [D, K, K]: times the difference to the centre it has the length of the Mahalanobis distance.
        limit: the distance of `Assessment.distance` 1; infinite where too few pictures tell.
        quantiles: per cent -> data set (and `ALL`) -> quantile of |annotated - predicted| / (predicted + 1).
        pictures: validation pictures behind each data set's quantile.
    """

    names: tuple[str, ...]
    centres: Tensor
    whitening: Tensor
    limit: float
    quantiles: Mapping[int, Mapping[str, float]]
    pictures: Mapping[str, int]

    def distances(self, description: Tensor) -> np.ndarray:
        """Mahalanobis distance to each data set over sqrt(K), float64 [D], of a description [K]."""
        difference = description.double() - self.centres.double()
        white = torch.einsum("dij,dj->di", self.whitening.double(), difference)
        return white.square().mean(1).sqrt().numpy()

    def assess(self, description: Tensor, count: float) -> Assessment:
        """Say what is known of a picture.

        Args:
            description: [K], of `describe`; count: what the model counts.
        """
        distances = self.distances(description)
        nearest = self.names[int(distances.argmin())]
        intervals, pictures = {}, {}
        if distances.min() <= self.limit:
            for level, known in self.quantiles.items():
                source = nearest if nearest in known else ALL
                if source in known:
                    half = known[source] * (count + 1)
                    intervals[level] = (max(count - half, 0.0), count + half)
                    pictures[level] = int(self.pictures.get(source, 0))
        return Assessment(nearest, float(distances.min() / self.limit), intervals, pictures)

    def save(self, folder: Path) -> None:
        """Write beside the model.safetensors of a folder, to whose weights it then belongs."""
        values = {
            "names": self.names, "limit": None if math.isinf(self.limit) else self.limit, "quantiles": self.quantiles,
            "pictures": self.pictures, "weights": _weights_mark(folder),
        }  # fmt: skip
        tensors = {"centres": self.centres.contiguous(), "whitening": self.whitening.contiguous()}
        metadata = {"calibration": json.dumps(values)}
        write_atomically(folder / FILE, save(tensors, metadata))

    @staticmethod
    def load(folder: Path) -> Calibration | None:
        """What `save` wrote; None where there is no such file, or one of other weights (a warning says so).

        Raises:
            UserError: a damaged file.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                values = json.loads(file.metadata()["calibration"])
                centres, whitening = (file.get_tensor(name) for name in ("centres", "whitening"))
            names, limit = tuple(values["names"]), values["limit"]
            quantiles = {int(level): dict(known) for level, known in values["quantiles"].items()}
            pictures = dict(values["pictures"])
            count, size = centres.shape
            numbers = [q for known in quantiles.values() for q in known.values()] + [limit or 1.0]
            finite = bool(torch.isfinite(centres).all() and torch.isfinite(whitening).all())
            if len(names) != count or whitening.shape != (count, size, size) or not finite or not names:
                raise ValueError("its tensors do not fit")
            if not all(math.isfinite(number) and number >= 0 for number in numbers):
                raise ValueError("a number is out of range")
        except Exception as error:  # safetensors, json and the disk each raise their own
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"checkpoint {folder}: {FILE} cannot be read ({reason[0]}); delete it, and counts have no interval"
            ) from None
        if values.get("weights") != _weights_mark(folder):
            warnings.warn(f"{path} belongs to other weights and is not used; run evaluate --calibrate", stacklevel=3)
            return None
        return Calibration(names, centres, whitening, limit or math.inf, quantiles, pictures)

    def card(self) -> str:
        """Markdown for the model card."""
        rows = []
        for name in (*self.names, ALL):
            cells = [self.quantiles.get(level, {}).get(name) for level in LEVELS]
            shown = ("-" if cell is None else f"{cell:.3f}" for cell in cells)
            rows.append((name or "all", self.pictures.get(name, 0), *shown))
        return "\n".join(
            [
                "An interval reaches from count - q (count + 1) to count + q (count + 1); q, from pictures not learned from:",
                "",
                table(("Data", "Pictures", *(f"{level} %" for level in LEVELS)), rows), "",
                "A picture takes the q of the data set that it is most like, or the last row's where there is none. "
                "No interval is given for a picture that is unlike the training pictures.",
            ]
        )  # fmt: skip


@torch.inference_mode()
def describe(model: Network, image: object) -> Tensor:
    """Describe a picture by the averages of its features: float32 [K] on the CPU.

    They are the backbone's coarsest ones; of the `fpn` neck, which is not linear and may be part of an engine, the neck's.

    Args:
        model: in evaluation mode; image: see `counter.Picture`; a copy of at most `SIDE` pixels a side is looked at.
    """
    pixels = to_tensor(image)
    size = limited_size((pixels.shape[1], pixels.shape[2]), 1, SIDE)
    if size != tuple(pixels.shape[1:]):
        pixels = to_tensor(resize(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()), size))
    branches, padded, _ = model.features(pixels.unsqueeze(0).to(model.pixel_mean.device))
    head = model.pooling_head
    pooled = head.pool(branches, padded)[0] if isinstance(head, FPNHead) else branches[-1].mean((2, 3))
    return pooled[0].float().cpu()


def _weights_mark(folder: Path) -> str:
    """A hash of the weights that a calibration belongs to."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
