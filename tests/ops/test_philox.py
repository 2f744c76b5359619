"""The noise: known answers of Philox-4x32-10, and the compiled functions against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dkpnet_ext.ops import native, philox

needs_native = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))


def test_known_answers():
    """Two of the vectors of the Random123 library (kat_vectors) that the counter layout (q, q >> 32, stream, 0) can reach."""
    got = philox.philox_blocks(torch.tensor([0]), torch.tensor([0]), 0)
    assert [hex(w) for w in got[0].tolist()] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


@needs_native
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**62),
    st.sampled_from([philox.NORMAL_STREAM, philox.DROPOUT_STREAM]),
)
def test_compiled_bits_are_the_same(seed, element, stream):
    want = philox.words(torch.tensor([seed]), torch.tensor([element]), stream).item()
    assert native.module.philox_words(seed, element, stream) == want


@needs_native
def test_compiled_normals_are_within_two_ulp():
    elements = torch.arange(20_000) + 2**40
    want = philox.normals(torch.tensor([77]), elements)
    got = torch.tensor([native.module.philox_normal(77, e) for e in elements.tolist()])
    assert (got.view(torch.int32).long() - want.view(torch.int32).long()).abs().max() <= 2


def test_streams_and_seeds_differ():
    elements = torch.arange(4096)
    a = philox.words(torch.tensor([1]), elements, philox.NORMAL_STREAM)
    for b in (
        philox.words(torch.tensor([1]), elements, philox.DROPOUT_STREAM),
        philox.words(torch.tensor([2]), elements, 0),
    ):
        assert (a == b).sum() == 0
