"""Keyed random numbers: against a plain-integer SplitMix64, and as numbers that look uniform."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.minicity.randomness import between, bits, unit

MASK = 2**64 - 1


def splitmix_chain(keys):
    state = 0
    for key in keys:
        state = ((state ^ (key & MASK)) + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_bits_equal_integer_arithmetic(keys):
    assert int(bits(*keys)) == splitmix_chain(keys)


def test_first_output_of_splitmix64_from_zero():
    assert int(bits(0)) == 0xE220A8397B1DCDAF


def test_arrays_broadcast_and_agree_with_scalars():
    table = unit(3, np.arange(4)[:, None], np.arange(5))
    assert table.shape == (4, 5)
    assert table[2, 4] == unit(3, 2, 4)


def test_numbers_are_spread_evenly():
    drawn = between(2.0, 6.0, 7, np.arange(40_000))
    assert drawn.min() >= 2 and drawn.max() < 6
    counts = np.histogram(drawn, 8, (2, 6))[0]
    assert abs(counts - 5000).max() < 350  # five standard deviations
