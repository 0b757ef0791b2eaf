"""The houses of a city: how tall, of what kind, and how they change over the years."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_pipelines.minicity.randomness import Array, between, unit

FIRST_YEAR = 2000
# Chance a year that a house is rebuilt, painted anew, gets another shop sign: three independent histories.
CHANGE = {"structure": 0.004, "paint": 0.02, "sign": 0.06}
_TAG = {"structure": 11, "paint": 12, "sign": 13}
FLAT, GABLE, STEPPED, MANSARD = 0, 1, 2, 3


def version(kind: str, seed: int, house: Array, year: int) -> Array:
    """How often houses (int [H]) changed in one respect, from `FIRST_YEAR` to `year`; int64 [H]."""
    years = np.arange(FIRST_YEAR, year + 1)
    return (unit(seed, _TAG[kind], house[:, None], years) < CHANGE[kind]).sum(1)


@dataclass(frozen=True)
class Houses:
    """Attributes of houses in one year; every array is [H]. Lengths in metres."""

    house: Array  # identity, through all years
    structure: Array  # version numbers
    paint: Array
    sign: Array
    gap: Array  # bool: no house, only a fence with a garden behind it
    floors: Array
    ground_height: Array
    floor_height: Array
    eaves: Array  # height of the wall's top
    roof: Array  # FLAT, GABLE, STEPPED or MANSARD
    rise: Array  # height of gable or roof above the eaves


@dataclass(frozen=True)
class House:
    """One house as `facades.facade` needs it: a row of `Houses`. Lengths in metres."""

    seed: int
    style: str
    house: int
    structure: int
    paint: int
    sign: int
    gap: bool
    floors: int
    ground_height: float
    floor_height: float
    eaves: float
    roof: int
    rise: float


def houses_of(seed: int, style: str, house: Array, width: Array, year: int) -> Houses:
    """The houses with identities `house` (int [H]) and widths `width` (metres [H]) as they stand in `year`."""
    house = np.asarray(house)
    structure = version("structure", seed, house, year)
    key = (seed, 21, house, structure)
    gap = unit(*key, 1) < (0.05 if style == "old_town" else 0.09)
    low, high = (2, 6) if style == "old_town" else (3, 11)
    floors = np.floor(between(low, high, *key, 2)).astype(int)
    ground = between(3.3, 4.3, *key, 3) if style == "old_town" else between(3.8, 5.2, *key, 3)
    storey = between(2.8, 3.6, *key, 4) if style == "old_town" else between(2.9, 3.4, *key, 4)
    roof, rise = _roofs(style, key, width)
    eaves = np.where(gap, between(1.3, 2.1, *key, 7), ground + (floors - 1) * storey + 0.6)
    return Houses(
        house, structure, version("paint", seed, house, year), version("sign", seed, house, year), gap, floors,
        ground, storey, eaves, np.where(gap, FLAT, roof), np.where(gap, 0.0, rise),
    )  # fmt: skip


def _roofs(style: str, key: tuple, width: Array) -> tuple[Array, Array]:
    if style == "modern":
        return np.zeros(len(width), int), np.zeros(len(width))
    draw = unit(*key, 5)
    roof = np.select([draw < 0.3, draw < 0.42, draw < 0.75], [GABLE, STEPPED, MANSARD], FLAT)
    roof = np.where((width > 11) & (roof != MANSARD), FLAT, roof)
    rise = np.select(
        [roof == MANSARD, roof != FLAT], [between(1.8, 3.2, *key, 6), width * between(0.3, 0.5, *key, 6)], 0.0
    )
    return roof, rise


def outline(roof: Array, u: Array) -> Array:
    """Part of `rise` that stands above the eaves at `u` in [0, 1] along a front; shapes broadcast."""
    slope = 1 - np.abs(2 * u - 1)
    return np.select(
        [roof == GABLE, roof == STEPPED, roof == MANSARD],
        [slope, np.ceil(slope * 5 - 0.25) / 5, np.ones_like(slope)],
        0.0,
    )
