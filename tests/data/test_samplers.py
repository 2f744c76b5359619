"""The mix of the domains in every batch, over an epoch, over processes."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkpnet_ext.data import MixSampler

SIZES = (30, 7, 100)
DOMAINS = [d for d, size in enumerate(SIZES) for _ in range(size)]


def drawn(sampler):
    return [index for batch in sampler for index, _ in batch]


def test_natural_covers_everything_once():
    sampler = MixSampler(DOMAINS, 8)
    indices = drawn(sampler)
    assert len(sampler) == 18
    assert sorted(indices[: len(DOMAINS)]) == list(range(len(DOMAINS)))
    assert indices[len(DOMAINS) :] == indices[:7]  # the last batch is filled up from the front


def test_natural_with_less_than_a_batch():
    assert sorted(drawn(MixSampler([0, 0, 0], 3))) == [0, 1, 2]
    assert Counter(drawn(MixSampler([0, 0, 0], 9))) == {0: 3, 1: 3, 2: 3}


def test_balanced_shares():
    sampler = MixSampler(DOMAINS, 10, mode="balanced", batches=30)
    counts = np.cumsum([[DOMAINS[index] == d for index in drawn(sampler)] for d in range(3)], axis=1)
    ends = np.arange(10, 301, 10)  # of the batches
    assert (np.abs(counts[:, ends - 1] - ends / 3) < 1).all()


@given(
    weights=st.lists(st.floats(0, 10), min_size=3, max_size=3).filter(lambda w: sum(w) > 0.1),
    batch=st.integers(1, 12),
)
@settings(deadline=None)
def test_ratio(weights, batch):
    sampler = MixSampler(DOMAINS, batch, mode="ratio", ratio=weights, batches=20)
    counts = Counter(DOMAINS[index] for index in drawn(sampler))
    for domain, weight in enumerate(weights):
        assert abs(counts[domain] - 20 * batch * weight / sum(weights)) < 2


@pytest.mark.parametrize("mode", ["natural", "balanced"])
def test_blocks_of_batches_hold_what_one_batch_would(mode):
    whole = MixSampler(DOMAINS, 12, mode=mode, batches=10)
    parts = MixSampler(DOMAINS, 4, mode=mode, batches=30, block=12)
    assert drawn(parts) == drawn(whole)


def test_a_domain_is_drawn_through_before_it_repeats():
    sampler = MixSampler(DOMAINS, 9, mode="balanced", batches=20)  # 60 draws from each domain
    counts = Counter(drawn(sampler))
    by_domain = [[counts[i] for i, d in enumerate(DOMAINS) if d == domain] for domain in range(3)]
    assert set(by_domain[0]) == {2}
    assert set(by_domain[1]) == {8, 9}
    assert set(by_domain[2]) == {0, 1}


@pytest.mark.parametrize("mode", ["natural", "balanced"])
def test_same_list_always(mode):
    def lists(seed, epoch):
        sampler = MixSampler(DOMAINS, 8, mode=mode, seed=seed)
        sampler.set_epoch(epoch)
        assert list(sampler) == list(sampler)
        return list(sampler)

    assert lists(0, 3) == lists(0, 3)
    assert lists(0, 3) != lists(0, 4)
    assert lists(0, 3) != lists(1, 3)


def test_the_order_is_fixed_over_versions():
    """Resuming a run must find the same list: these figures may change only with a note in CHANGELOG."""
    assert [index for index, _ in next(iter(MixSampler(DOMAINS, 6, seed=1)))] == [105, 20, 73, 107, 22, 111]
    assert [index for index, _ in next(iter(MixSampler(DOMAINS, 6, mode="balanced", seed=1)))] == [
        31,
        12,
        104,
        36,
        46,
        20,
    ]


@pytest.mark.parametrize("mode", ["natural", "balanced"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_each_global_batch(mode, world):
    whole = list(MixSampler(DOMAINS, 8, mode=mode, seed=5))
    parts = [list(MixSampler(DOMAINS, 8, mode=mode, seed=5, rank=rank, world_size=world)) for rank in range(world)]
    assert all(len(batch) == 8 // world for part in parts for batch in part)
    assert [list(chain(*batch)) for batch in zip(*parts, strict=True)] == whole


def test_ranks_get_every_domain():
    """The domains are mixed inside a batch, not laid out one after the other."""
    for rank in range(2):
        sampler = MixSampler(DOMAINS, 6, mode="balanced", rank=rank, world_size=2, batches=100)
        shares = np.bincount([DOMAINS[index] for index in drawn(sampler)]) / 300
        assert (np.abs(shares - 1 / 3) < 0.08).all()


@pytest.mark.parametrize("mode", ["natural", "balanced"])
def test_resumption(mode):
    sampler = MixSampler(DOMAINS, 8, mode=mode)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, start_batch=5)
    assert len(sampler) == len(whole) - 5
    assert list(sampler) == whole[5:]
    sampler.set_epoch(2, start_batch=len(whole))
    assert list(sampler) == []


def test_keys_are_unique():
    sampler = MixSampler(DOMAINS, 8, mode="balanced")
    keys = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys += [key for batch in sampler for _, key in batch]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "fair"}, "mode must be natural, balanced or ratio, got 'fair'"),
        ({"mode": "ratio"}, "ratio is to be given with mode 'ratio', and only then"),
        ({"ratio": [1, 1, 1]}, "ratio is to be given with mode 'ratio', and only then"),
        ({"mode": "ratio", "ratio": [1, 1]}, "ratio needs 3 weights"),
        ({"mode": "ratio", "ratio": [1, -1, 1]}, "ratio needs 3 weights, none negative"),
        ({"mode": "ratio", "ratio": [0, 0, 0]}, "ratio needs 3 weights, none negative, not all zero"),
        ({"world_size": 3}, "batch 8 cannot be shared by rank 0 of 3"),
        ({"rank": 2, "world_size": 2}, "batch 8 cannot be shared by rank 2 of 2"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        MixSampler(DOMAINS, 8, **arguments)


def test_nothing_and_gaps():
    with pytest.raises(ValueError, match="nothing to sample from"):
        MixSampler([], 8)
    with pytest.raises(ValueError, match="domain 1 has no items"):
        MixSampler([0, 2], 8, mode="balanced")
