"""Sets of conditions (night, winter, rain, ...) as the bits of one number an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import DataError

Array = np.ndarray
MOST = 63  # the bits of an int64 that leave it positive


def condition_bits(codes: Array | int) -> Array:
    """The sets (int64) of images that one condition holds for each: its index in `codes`, -1 for none."""
    codes = np.asarray(codes, np.int64)
    return np.where(codes < 0, 0, np.int64(1) << np.maximum(codes, 0))


def check_conditions(where: str, conditions: Sequence[str]) -> None:
    """Raises DataError, which begins with `where`, for more than 63 conditions, or one twice."""
    twice = sorted({name for name in conditions if conditions.count(name) > 1})
    if len(conditions) > MOST or twice:
        what = f"has {twice} twice" if twice else f"begins with {list(conditions[:5])}"
        raise DataError(
            f"{where}: at most {MOST} different conditions are possible, but the list of {len(conditions)} "
            f"{what}. Give kinds of light, weather or season, not a name for each image"
        )


def check_bits(where: str, bits: Array, conditions: Sequence[str]) -> None:
    """Raises DataError, which begins with `where`, unless every bit of `bits` has a name."""
    if len(bits) and not 0 <= bits.min() <= bits.max() < 1 << len(conditions):
        raise DataError(
            f"{where}: condition holds {bits.min()} to {bits.max()}, but sets of the conditions {list(conditions)} are "
            f"0 to {(1 << len(conditions)) - 1}. `condition_bits` makes them of indices"
        )


def moved_bits(bits: Array, conditions: Sequence[str], into: Sequence[str]) -> Array:
    """Sets of `conditions` as sets of `into`, a list that holds these names, perhaps elsewhere."""
    moved = np.zeros_like(bits)
    for k, name in enumerate(conditions):
        moved |= (bits >> k & 1) << into.index(name)
    return moved
