"""Random numbers that depend on keys alone: place, year and seed give the same city in any process and order."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
_GOLDEN, _A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def bits(*keys: Array | int) -> Array:
    """uint64 hashes of integer keys (arrays broadcast against each other), by SplitMix64 (Steele et al., 2014)."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            state = (state ^ np.asarray(key).astype(np.int64).view(np.uint64)) + _GOLDEN
            state = (state ^ (state >> np.uint64(30))) * _A
            state = (state ^ (state >> np.uint64(27))) * _B
            state = state ^ (state >> np.uint64(31))
    return state


def unit(*keys: Array | int) -> Array:
    """float64 in [0, 1), one for each combination of integer keys."""
    return (bits(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def between(low: float, high: float, *keys: Array | int) -> Array:
    """float64 in [low, high), one for each combination of integer keys."""
    return low + (high - low) * unit(*keys)


def generator(*keys: int) -> np.random.Generator:
    """A NumPy generator for one combination of keys."""
    return np.random.default_rng(int(bits(*keys)))
