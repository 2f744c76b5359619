"""Items -> examples -> batches. Randomness comes from (seed, key) alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .boxes import Border, Window, at_border
from .domains import Item

Transform = Callable[[np.ndarray, np.ndarray], tuple[Tensor, Tensor]]


class Placing(Protocol):
    """A transform that also says where its crop lies."""

    def placed(self, image: np.ndarray, points: np.ndarray) -> tuple[Tensor, Tensor, Window]: ...


class Example(NamedTuple):
    """One transformed image and its points, as `CrowdDataset` gives it."""

    image: Tensor  # uint8 [3, H, W]
    points: Tensor  # float32 [n, 2] (x, y)
    label: int
    name: str
    side: float  # pixels of the crop, the shortest of the picture that it was cut from
    targets: Tensor | None = None  # float32 [n], what is expected of each point; None: 1


class Batch(NamedTuple):
    """What a training step takes: images of one size and the points of all of them, as `ops.density` takes points."""

    images: Tensor  # uint8 [B, 3, H, W]
    points: Tensor  # float32 [M, 2] (x, y) of all images, one after the other
    offsets: Tensor  # int64 [B + 1]: image b has points[offsets[b] : offsets[b + 1]]
    labels: Tensor  # int64 [B]
    names: list[str]
    sides: Tensor  # float32 [B], pixels of the crop: the shortest of the picture that each was cut from
    targets: Tensor | None = None  # float32 [M], what is expected of each point; None: 1


class CrowdDataset(Dataset[Example]):
    """``dataset[index, key]``: item ``index``, transformed with randomness from (seed, key) and nothing else.

    The same pair gives the same bits in any worker, process or order, so runs resume exactly. A plain index
    counts as its own key. ``labels`` (one int per item; the domain at first, the cluster in stage II) may be
    replaced between epochs, where the loader's workers are not persistent. ``border`` says what is expected of heads at
    a crop's border, see `boxes`; other than ``points`` it needs a transform that is `Placing`.
    """

    def __init__(
        self,
        items: Sequence[Item],
        labels: Sequence[int],
        transform: Transform,
        seed: int = 0,
        border: Border = "points",
    ) -> None:
        if len(items) != len(labels):
            raise ValueError(f"{len(items)} items but {len(labels)} labels")
        self.items = items
        self.labels = [int(label) for label in labels]
        self.transform = transform
        self.border = border
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | tuple[int, int]) -> Example:
        index, key = index if isinstance(index, tuple) else (index, index)
        item = self.items[index]
        state = np.random.SeedSequence((self.seed, key)).generate_state(1, np.uint64)[0]
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(int(state))
            picture, targets = item.read(), None
            side: float = min(picture.shape[:2])
            if hasattr(self.transform, "placed"):
                image, points, window = cast(Placing, self.transform).placed(picture, item.points)
                side *= sum(window.scale) / 2  # as the points, in pixels of the crop
                if self.border != "points":
                    points, targets = map(torch.from_numpy, at_border(item.points, window, self.border))
            else:
                image, points = self.transform(picture, item.points)
        return Example(image, points, self.labels[index], item.name, side, targets)


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples of one size. Points are concatenated, with the offsets of each image's part."""
    counts = torch.tensor([0] + [len(example.points) for example in examples])
    targets = [example.targets for example in examples if example.targets is not None]
    return Batch(
        torch.stack([example.image for example in examples]),
        torch.cat([example.points for example in examples]),
        counts.cumsum(0),
        torch.tensor([example.label for example in examples]),
        [example.name for example in examples],
        torch.tensor([example.side for example in examples]),
        torch.cat(targets) if targets else None,
    )
