"""Pictures without people, drawn from random numbers."""

import numpy as np
import pytest

from dkpnet_ext.synthetic.negatives import KINDS, picture


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_every_kind_is_a_textured_picture_fixed_by_seed_and_index(index):
    first = np.asarray(picture(0, index, side=128))
    assert first.shape == (128, 128, 3)
    assert first.std() > 2
    assert np.array_equal(first, np.asarray(picture(0, index, side=128)))
    assert not np.array_equal(first, np.asarray(picture(1, index, side=128)))
