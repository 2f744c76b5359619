"""Which images make a batch: the mix of the domains, the same for (seed, epoch) always."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

Mode = Literal["natural", "balanced", "ratio"]


class MixSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (index, key) for `CrowdDataset`, to be given as a DataLoader's ``batch_sampler``.

    - ``natural``: every epoch shuffles all items; each occurs once (the last batch is filled up from the
      front).
    - ``balanced``: every domain has the same share of the images drawn.
    - ``ratio``: domain d has the share ``ratio[d] / sum(ratio)``.

    In the latter two a domain's items are shuffled, and shuffled again once all were drawn; shares hold to about
    one image at the end of every batch. An epoch has ``batches`` batches, by default as many as one pass
    over all items.

    (seed, epoch) fixes the list. ``key`` is unique over all epochs. ``batch_size`` is the *global* batch: of
    each, rank r of n takes the contiguous part [r * batch_size / n, (r + 1) * batch_size / n). The domains are mixed
    inside ``block`` images (by default a batch), which an epoch must be a multiple of: batches that are accumulated
    into one optimiser step together hold what a single one would.
    """

    def __init__(
        self,
        domains: Sequence[int],
        batch_size: int,
        *,
        mode: Mode = "natural",
        ratio: Sequence[float] | None = None,
        batches: int | None = None,
        block: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """``domains``: the domain of every item, counted from 0."""
        if mode not in ("natural", "balanced", "ratio"):
            raise ValueError(f"mode must be natural, balanced or ratio, got {mode!r}")
        if (mode == "ratio") != (ratio is not None):
            raise ValueError("ratio is to be given with mode 'ratio', and only then")
        if len(domains) == 0:
            raise ValueError("there is nothing to sample from")
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(f"batch {batch_size} cannot be shared by rank {rank} of {world_size}")
        numbers = np.asarray(domains)
        self.members = [np.flatnonzero(numbers == d) for d in range(numbers.max() + 1)]
        if mode == "natural":
            self.shares = None
        else:
            weights = np.ones(len(self.members)) if ratio is None else np.asarray(ratio, dtype=float)
            if len(weights) != len(self.members) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
                raise ValueError(f"ratio needs {len(self.members)} weights, none negative, not all zero: {ratio}")
            if empty := [d for d, items in enumerate(self.members) if len(items) == 0 and weights[d] > 0]:
                raise ValueError(f"domain {empty[0]} has no items")
            self.shares = weights / weights.sum()
        self.batch_size, self.block = batch_size, block or batch_size
        self.batches = -(-len(numbers) // batch_size) if batches is None else batches
        self.seed = seed
        part = batch_size // world_size
        self.part = slice(rank * part, (rank + 1) * part)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch, and the batch of it to begin with (to resume in mid-epoch)."""
        self.epoch = epoch
        self.start_batch = start_batch

    def __len__(self) -> int:
        """Batches that the next iteration gives: those from ``start_batch`` on."""
        return max(0, self.batches - self.start_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = self._natural(rng) if self.shares is None else self._mixed(rng, self.shares)
        for batch in range(self.start_batch, self.batches):
            first = batch * self.batch_size
            keys = range(first, first + self.batch_size)[self.part]
            yield [(int(order[key]), self.epoch << 32 | key) for key in keys]

    def _natural(self, rng: np.random.Generator) -> np.ndarray:
        everything = np.concatenate(self.members)
        return np.resize(rng.permutation(everything), self.batches * self.batch_size)

    def _mixed(self, rng: np.random.Generator, shares: np.ndarray) -> np.ndarray:
        total = self.batches * self.batch_size
        # The domain of each draw: always the one that lags most behind its share. Mixed inside the block, or
        # each rank would get its own domains.
        drawn = np.zeros(len(shares))
        domains = np.empty(total, np.int64)
        for draw in range(total):
            domains[draw] = d = int(np.argmax(shares * (draw + 1) - drawn))
            drawn[d] += 1
        domains = rng.permuted(domains.reshape(-1, self.block), axis=1).reshape(-1)
        order = np.empty(total, np.int64)
        for d, items in enumerate(self.members):
            slots = np.flatnonzero(domains == d)
            if len(slots):
                rounds = -(-len(slots) // len(items))
                order[slots] = np.concatenate([rng.permutation(items) for _ in range(rounds)])[: len(slots)]
        return order
