"""Batches of hard places: places that look alike, as cliques of images taken near one another.

CliqueMining (Izquierdo and Civera, "Close, But Not There: Boosting Geographic Distance Sensitivity in Visual Place
Recognition", ECCV 2024). Their batches are 30 places of 4 images within 25 metres, from groups of 16 places that look
alike. Four differences from the published code are intended. A place whose descriptor equals that of the drawn place is
the likeliest to be drawn with it; the published code never draws it. Cliques of K images are found wherever there are
some, not only as parts of the first large clique in a graph library's order. Where all cities have been used and a
batch is not full, they are used again; the published code would loop for ever. Where two data sets show one town, the
places of a batch keep their distance across both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.place_batches import PlaceBatches
from data_pipelines.place_table import PlaceTable

Array = np.ndarray
TRIES = 4  # groups of similar places that are drawn for each place of a batch, before the rest of it is padded


class Occupied(NamedTuple):
    """Images that a batch holds already: their positions (float64 [n, 2], metres) and frames (int64 [n])."""

    positions: Array
    frame: Array


def representatives(table: PlaceTable, rng: np.random.Generator) -> Array:
    """One image of each place (int64 [places], rows), whose descriptor stands for it in `clique_batches`."""
    return table.rows[rng.integers(table.indptr[:-1], table.indptr[1:])]


def clique_batches(
    table: PlaceTable,
    descriptors: Array,
    *,
    P: int,
    K: int,
    steps: int,
    rng: np.random.Generator,
    distance: float = 25.0,
    angle: float = 180.0,
    similar: int = 15,
    occupied: Sequence[Occupied] | None = None,
) -> PlaceBatches:
    """Draws batches of P cliques of K images each, from places that look alike.

    A city is drawn (in proportion to its places, each at most once in a round), then one of its places, then `similar`
    others with a probability that falls linearly with the distance of their descriptors. The graph of all their images
    has an edge between images nearer than `distance` whose headings differ by at most `angle`. Cliques of K images are
    taken from it as the batch's places until there is none; with each, all images nearer than `distance` to it are
    removed. So images of one place are all nearer than `distance` to each other, and farther from those of any other.
    Then the next city is drawn, until there are P places.

    Args:
      table: the places; `place_table(..., K=1)` keeps the small ones too, whose images may make a clique together.
      descriptors: float [places, D], of `representatives(table, …)`; to be refreshed as the model learns.
      P, K: places in a batch and images of each.
      steps: how many batches.
      rng: the only source of randomness; equal states and descriptors give equal batches.
      distance: metres, between images.
      angle: most degrees between the headings of a place's images; 180 sets no limit. For data sets whose images look
        in all directions from one spot.
      similar: how many similar places are drawn with each drawn place.
      occupied: for each batch, images that it holds already: no clique has an image nearer than `distance` to them.

    Returns:
      `PlaceBatches`. The label of a place is the lowest row of its images: places of a batch never share it.

    Raises:
      DataError: descriptors, positions or headings that are missing, no clique of K images at all.
    """
    if P < 1 or K < 1 or steps < 0:
        raise DataError(f"P and K must be at least 1, steps at least 0: {P=} {K=} {steps=}")
    check(table, distance=distance, angle=angle, similar=similar)
    cities = _cities(table, descriptors)
    rows = np.full((steps, P, K), -1, np.int64)
    for step in range(steps):
        present = [] if occupied is None else [occupied[step]]
        drawn = _batch(table, cities, present, P=P, K=K, rng=rng, distance=distance, angle=angle, similar=similar)
        for slot, clique in enumerate(drawn):
            rows[step, slot] = table.rows[clique]
    if steps and (rows < 0).all():
        away = " and away from the other places of a batch" if occupied else ""
        raise DataError(
            f"no {K} images within {distance:g} m of each other{away} were found in {' and '.join(table.names)} "
            f"({len(table)} places, {len(table.rows)} images). Lower K, or change the distance."
        )
    # The lowest row names a clique: cliques of one batch share no image, and the same clique has the same label in
    # every batch, without a table of those seen so far. A padded slot has -1.
    labels = np.repeat(rows.min(axis=-1), K, axis=-1).astype(np.int32)
    return PlaceBatches(rows.reshape(steps, P * K), labels, labels >= 0)


def check(table: PlaceTable, *, distance: float, angle: float, similar: int) -> None:
    """Checks that cliques can be drawn from the places, before descriptors are computed, which takes minutes.

    Raises:
      DataError: options out of range, images without the position or heading that they need.
    """
    if similar < 0 or not distance > 0 or not angle > 0:
        raise DataError(f"similar must be at least 0, distance and angle positive: {similar=} {distance=} {angle=}")
    names = " and ".join(table.names)
    lost = np.flatnonzero(~np.isfinite(table.positions).all(axis=1))
    if len(lost):
        raise DataError(
            f"{len(lost)} of {len(table.rows)} images of {names} have no position (the first: row "
            f"{table.rows[lost[0]]}), but cliques are made by metres. Leave those out."
        )
    blind = np.flatnonzero(np.isnan(table.heading))
    if angle < 180 and len(blind):
        raise DataError(
            f"{len(blind)} of {len(table.rows)} images of {names} have no heading (the first: row "
            f"{table.rows[blind[0]]}), which angle={angle:g} needs. Set angle=180, or leave those out."
        )


class _City:
    """The places of a city (int64, all in one frame) and their descriptors.

    The descriptors are copied side by side once, as every draw multiplies all of them with one.
    """

    def __init__(self, members: Array, frame: int, descriptors: Array):
        self.members, self.frame, self.descriptors = members, frame, descriptors[members]
        self.squares = np.einsum("pd,pd->p", self.descriptors, self.descriptors)

    def group(self, similar: int, rng: np.random.Generator) -> Array:
        """A place and up to `similar` others that look like it (int64)."""
        place = int(rng.integers(len(self.members)))
        probability = self._probabilities(place)
        # `choice` without replacement fails where fewer places than `similar` have a probability.
        others = min(similar, int(np.count_nonzero(probability)))
        alike = rng.choice(len(probability), others, replace=False, p=probability) if others else np.zeros(0, np.int64)
        return self.members[np.append(place, alike)]

    def _probabilities(self, place: int) -> Array:
        """float64 [places], proportional to the farthest distance minus a place's own; 0 for the place itself."""
        # One product with all places; distances between all pairs would be [places, places].
        products = self.descriptors @ self.descriptors[place]
        # Rounding can make the square of a tiny distance negative. float64, as `choice` wants a sum of 1 to 1e-8.
        apart = np.sqrt(np.maximum(self.squares + self.squares[place] - 2 * products, 0)).astype(np.float64)
        apart[place] = 0
        probability = apart.max() - apart
        probability[place] = 0
        if not probability.any():  # all are as far: none is more similar than another
            probability[:] = 1
            probability[place] = 0
        return probability / max(probability.sum(), np.finfo(np.float64).tiny)


def _cities(table: PlaceTable, descriptors: Array) -> list[_City]:
    descriptors = np.asarray(descriptors)
    if descriptors.ndim != 2 or len(descriptors) != len(table) or not np.isfinite(descriptors).all():
        raise DataError(
            f"clique batches need a finite descriptor of each of {len(table)} places, [{len(table)}, D]; these have "
            f"shape {descriptors.shape} or hold NaN"
        )
    # Metres of two frames cannot be compared: a city that lies in two is two.
    order = np.lexsort((table.frame, table.city))
    ends = np.flatnonzero((np.diff(table.city[order]) != 0) | (np.diff(table.frame[order]) != 0)) + 1
    return [_City(members, int(table.frame[members[0]]), descriptors) for members in np.split(order, ends)]


def _batch(
    table: PlaceTable,
    cities: list[_City],
    present: list[Occupied],
    *,
    P: int,
    K: int,
    rng: np.random.Generator,
    distance: float,
    angle: float,
    similar: int,
) -> list[Array]:
    """Up to P cliques, each int64 [K], indices into `table.rows`."""
    share = np.array([len(city.members) for city in cities]) / len(table)
    cliques: list[Array] = []
    # Positions that new cliques keep away from, by frame.
    used = {city.frame: [held.positions[held.frame == city.frame] for held in present] for city in cities}
    turns: list[int] = []
    for _ in range(max(len(cities), TRIES * P)):  # bounded: sparse data ends in padding, not in an endless loop
        if len(cliques) == P:
            break
        turns = turns or rng.choice(len(cities), len(cities), replace=False, p=share).tolist()[::-1]
        city = cities[turns.pop()]
        # Cliques are searched in the order of the images: shuffled, so that no image always comes first.
        images = rng.permutation(table.images(city.group(similar, rng)))
        taken = np.concatenate([np.zeros((0, 2)), *used[city.frame]])
        images = images[~_near(table.positions[images], taken, distance).any(axis=1)]
        near = _near(table.positions[images], table.positions[images], distance)
        joined = near if angle >= 180 else near & _aligned(table.heading[images], angle)
        drawn = [images[clique] for clique in _disjoint_cliques(joined, near, K, P - len(cliques))]
        used[city.frame] += [table.positions[clique] for clique in drawn]
        cliques += drawn
    return cliques


def _near(positions: Array, others: Array, distance: float) -> Array:
    """bool [n, m], which positions are nearer than `distance`: n and m are images of one group, some hundreds."""
    difference = positions[:, None] - others
    return np.hypot(difference[..., 0], difference[..., 1]) < distance


def _aligned(heading: Array, angle: float) -> Array:
    """bool [n, n], which headings differ by no more than `angle` degrees."""
    return geo.turn(heading[:, None], heading) <= angle


def _disjoint_cliques(joined: Array, near: Array, K: int, wanted: int) -> list[list[int]]:
    """Up to `wanted` cliques of K vertices, none of which has a vertex near one of another; greedily, in lexical order.

    The order is part of the result: a graph library's search would give other cliques with every release of it.

    Args:
      joined, near: bool [n, n], symmetric and true on the diagonal: which vertices have an edge, and which are so near
        that they cannot be in two cliques.
    """
    alive = np.ones(len(joined), bool)
    cliques: list[list[int]] = []
    for first in range(len(joined)):
        if len(cliques) == wanted:
            break
        if alive[first]:
            alive[first] = False  # it is in a clique now or in none: every clique has one lowest vertex
            rest = _completed(joined, np.flatnonzero(joined[first] & alive), K - 1)
            if rest is not None:
                cliques.append([first, *rest])
                alive &= ~near[cliques[-1]].any(axis=0)
    return cliques


def _completed(joined: Array, candidates: Array, missing: int) -> list[int] | None:
    """The first `missing` of `candidates`, in lexical order, with edges between all of them; None where there are none.

    Exponential in K at worst, and K is 4: candidates shrink with each vertex that is taken.
    """
    if missing == 0:
        return []
    for k in range(len(candidates) - missing + 1):
        later = candidates[k + 1 :]
        rest = _completed(joined, later[joined[candidates[k], later]], missing - 1)
        if rest is not None:
            return [int(candidates[k]), *rest]
    return None
