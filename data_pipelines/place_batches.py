"""Batches of P places with K images each, for losses that compare images of the same and of other places.

GSV-Cities trains on them (Ali-bey et al., Neurocomputing 2022; each batch is of one city), and most work since. A batch
is [P * K] images, those of one place side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.place_table import PlaceTable, near_pairs

Array = np.ndarray
LAST = ("pad", "drop", "fill")
Element = TypeVar("Element")  # what stands for a place in a batch: its number, or its images
# Takes up to so many elements off the end of a queue of places that go with those of a batch.
Take = Callable[[list[int], int, list[Element]], list[Element]]


class PlaceBatches(NamedTuple):
    """Batches of images, those of one place side by side; all [steps, P * K].

    Attributes:
      rows: int64, which images; -1 pads.
      labels: int32, the number of an image's place; -1 pads.
      mask: bool, False where a place is missing.
    """

    rows: Array
    labels: Array
    mask: Array


def place_batches(
    table: PlaceTable,
    *,
    P: int,
    rng: np.random.Generator,
    steps: int | None = None,
    min_distance: float = 0.0,
    by_city: bool = False,
    weights: Sequence[float] | None = None,
    last: str = "pad",
) -> PlaceBatches:
    """Draws batches of P places and K = `table.K` images of each, without repetition within a batch.

    Places come in shuffled passes: each is used once before any is used twice, as far as the distance allows. A place
    that is too near to one of the batch waits for the next. Images are drawn anew each time, passes at each call.

    Args:
      table: the places; labels are their numbers in it.
      P: places in a batch. steps: how many batches; None makes one pass over all places.
      rng: the only source of randomness, `np.random.default_rng([seed, epoch])`: equal states give equal batches.
      min_distance: metres that the mean positions of a batch's places are apart at least; 0 sets no limit.
      by_city: every batch is of one city; the batches of a pass are shuffled, so that a part of one favours no city.
      weights: one for each data set. In proportion to them data sets share each batch, or with `by_city` the batches;
        each goes through passes of its own. None lets all places weigh the same.
      last: what happens to the last batch of a pass where fewer than P places are left: "pad" fills it with -1, "drop"
        leaves it out, "fill" takes the others from the next pass. With `by_city` there is no next pass of the same
        city, and "fill" drops. Batches that data sets share by weight are always filled.

    Raises:
      DataError: an option out of range, no full batch with "drop", places that are all too near.
    """
    # Found once, before drawing: which places exclude each other does not depend on the batch.
    take = partial(_taken, near=_neighbours(table, min_distance))
    drawn = in_passes(table, take, P=P, rng=rng, steps=steps, by_city=by_city, weights=weights, last=last)
    # All batches have one shape, so that one compiled step serves them all.
    chosen = np.array([batch + [-1] * (P - len(batch)) for batch in drawn], np.int64).reshape(len(drawn), P)
    return _with_images(table, chosen, rng)


def in_passes(
    table: PlaceTable,
    take: Take[Element],
    *,
    P: int,
    rng: np.random.Generator,
    steps: int | None,
    by_city: bool,
    weights: Sequence[float] | None,
    last: str,
) -> list[list[Element]]:
    """Batches of up to P elements, one of each place that `take` takes; the other arguments as of `place_batches`."""
    if P < 1 or (steps or 0) < 0 or last not in LAST:
        raise DataError(f"P must be at least 1, steps at least 0, last in {LAST}: {P=} {steps=} {last=}")
    if steps is None and weights is not None:
        raise DataError("weights need a number of steps: data sets that are mixed by weight have no common pass")
    shares = None if weights is None else shares_of(table, weights)
    if shares is not None and not by_city:
        return _mixed(_members(table, shares), shares, take, P=P, steps=steps or 0, rng=rng)
    if last == "fill" and not by_city and steps is not None:
        # One data set with a share of everything: `_mixed` goes over the end of a pass, `_Passes` does not.
        drawn = _mixed([np.arange(len(table))], np.ones(1), take, P=P, steps=steps, rng=rng)
        _check_fullest(drawn, min(P, 2), [np.arange(len(table))])
        return drawn
    last = "drop" if last == "fill" else last
    passes = [
        _Passes(_groups(table, by_city, members), take, P=P, last=last, rng=rng)
        for members in ([None] if shares is None else _members(table, shares))
    ]
    if steps is None:
        return passes[0].next_pass()
    turns = _turns(np.ones(1) if shares is None else shares, steps).tolist()
    return [passes[turn].next_batch() for turn in turns]


class _Passes(Generic[Element]):
    """Batches of shuffled passes over groups of places, one pass after the other."""

    def __init__(self, groups: list[Array], take: Take[Element], *, P: int, last: str, rng: np.random.Generator):
        self.groups, self.take, self.P, self.last, self.rng = groups, take, P, last, rng
        self.waiting: list[list[Element]] = []

    def next_pass(self) -> list[list[Element]]:
        """The batches of a pass."""
        batches = []
        for group in self.groups:
            queue = self.rng.permutation(group).tolist()
            while queue:
                batches.append(self.take(queue, self.P, []))
        _check_fullest(batches, self.P if self.last == "drop" else min(self.P, 2), self.groups)
        full = [batch for batch in batches if self.last == "pad" or len(batch) == self.P]
        # Groups were emptied one after the other: without this a pass would train city by city.
        return [full[k] for k in self.rng.permutation(len(full))] if len(self.groups) > 1 else full

    def next_batch(self) -> list[Element]:
        """The next batch, of a new pass where the last one is over."""
        if not self.waiting:
            self.waiting = self.next_pass()[::-1]  # `pop` takes from the end
        return self.waiting.pop()


def _check_fullest(batches: list[list[Element]], fewest: int, groups: list[Array]) -> None:
    fullest = max(map(len, batches), default=fewest)
    if fullest < fewest:
        raise DataError(
            f"no batch of {fewest} places can be made: the fullest has {fullest}, of {max(map(len, groups))} places in "
            f"the largest of {len(groups)} groups; the others of it are too near. Lower P or min_distance, or give "
            "more places."
        )


def _turns(shares: Array, total: int) -> Array:
    """int64 [total], the data set of each turn: evenly spread, so that any stretch of turns keeps the shares."""
    # Not drawn at random: batches of one composition keep the loss comparable from step to step. Data set s has its
    # turns at (i + 1/2) / share: merging these moments in order interleaves all sets, whatever their shares.
    counts = np.ceil(shares * total).astype(np.int64) + 1  # one to spare, as rounding may take it
    moments = np.concatenate([(np.arange(count) + 0.5) / share for count, share in zip(counts, shares, strict=True)])
    return np.repeat(np.arange(len(shares)), counts)[np.argsort(moments, kind="stable")[:total]]


def _members(table: PlaceTable, shares: Array) -> list[Array]:
    """The places of each data set."""
    return [np.flatnonzero(table.source == s) for s in range(len(shares))]


def _mixed(
    members: list[Array], shares: Array, take: Take[Element], *, P: int, steps: int, rng: np.random.Generator
) -> list[list[Element]]:
    """Batches that several data sets share; what rounding takes from one in a batch, it gets back in a later one.

    Args:
      members: the places of each data set. shares: float64, one for each, which sum to 1.
    """
    queues: list[list[int]] = [[] for _ in members]
    batches = []
    for turns in _turns(shares, steps * P).reshape(steps, P):
        batch: list[Element] = []
        for s, wanted in enumerate(np.bincount(turns, minlength=len(shares)).tolist()):
            got = take(queues[s], wanted, batch)
            if len(got) < wanted and len(queues[s]) < len(members[s]):
                # `take` pops from the end: what is left of a pass, having waited for distance, comes before the next.
                queues[s][:0] = rng.permutation(members[s]).tolist()
                got += take(queues[s], wanted - len(got), batch + got)
            batch += got
        batches.append(batch)
    return batches


def _taken(queue: list[int], wanted: int, batch: list[int], *, near: dict[int, list[int]]) -> list[int]:
    """Takes up to `wanted` places off the end of `queue` that are near none of `batch`; the others stay, in order.

    Greedy on purpose: a largest set of places that are far from each other is NP-hard to find, and the places passed
    over are first in line for the next batch.
    """
    # A set of excluded places: each candidate costs one lookup, not a distance to all of the batch.
    blocked = set(batch)
    for place in batch:
        blocked.update(near.get(place, ()))
    taken: list[int] = []
    skipped: list[int] = []
    while queue and len(taken) < wanted:
        place = queue.pop()
        if place in blocked:
            skipped.append(place)
            continue
        taken.append(place)
        blocked.add(place)
        blocked.update(near.get(place, ()))
    queue.extend(reversed(skipped))
    return taken


def _neighbours(table: PlaceTable, distance: float) -> dict[int, list[int]]:
    """place → places nearer than `distance`, for those that have any."""
    if not distance >= 0:
        raise DataError(f"min_distance must be at least 0: min_distance={distance}")
    # A dictionary, since few places have neighbours: no table of places x places.
    near: dict[int, list[int]] = {}
    if distance > 0:
        for a, b in zip(*(places.tolist() for places in near_pairs(table, distance)), strict=True):
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
    return near


def _groups(table: PlaceTable, by_city: bool, members: Array | None) -> list[Array]:
    """The places that batches are drawn from: all, one data set's, or those of each city."""
    members = np.arange(len(table)) if members is None else members
    if not by_city:
        return [members]
    order = members[np.argsort(table.city[members], kind="stable")]  # stable: equal seeds give equal batches
    return np.split(order, np.flatnonzero(np.diff(table.city[order])) + 1)


def shares_of(table: PlaceTable, weights: Sequence[float]) -> Array:
    """The weights as shares that sum to 1 (float64), one a data set.

    Raises:
      DataError: another number of weights, one that is not positive, or a data set without places.
    """
    shares = np.asarray(weights, np.float64)
    if shares.shape != (len(table.names),) or not (np.isfinite(shares).all() and (shares > 0).all()):
        raise DataError(
            f"weights must be a positive number for each of {list(table.names)}, which places are drawn from, but they "
            f"are {weights}"
        )
    empty = [name for s, name in enumerate(table.names) if not (table.source == s).any()]
    if empty:
        raise DataError(f"no place of {empty} has {table.K} images, but it has a weight. Leave it out, or lower K.")
    return shares / shares.sum()


def _with_images(table: PlaceTable, chosen: Array, rng: np.random.Generator) -> PlaceBatches:
    """K different images of each place of `chosen` (int64 [steps, P], -1 pads), all sets of K being equally likely."""
    K, place = table.K, np.maximum(chosen, 0)  # a padded slot draws from place 0, and is masked below
    picked = some_of(np.diff(table.indptr)[place], K, rng)
    present = np.broadcast_to((chosen >= 0)[..., None], picked.shape)
    rows = np.where(present, table.rows[table.indptr[:-1][place][..., None] + picked], -1)
    labels = np.broadcast_to(chosen[..., None], picked.shape).astype(np.int32)
    flat = (len(chosen), chosen.shape[1] * K)
    return PlaceBatches(rows.reshape(flat), labels.reshape(flat), present.reshape(flat).copy())


def some_of(size: Array, K: int, rng: np.random.Generator) -> Array:
    """K different numbers below each of `size`, int64 [..., K]; all sets of K, in all orders, are equally likely."""
    picked = np.empty((*size.shape, K), np.int64)
    # Floyd's sampling without replacement, for all places at once: K draws each, where a permutation of every place
    # would cost its size. The k-th draw is of the first size - K + k + 1 images; one that is taken already is replaced
    # by the last of these, which no earlier draw could reach.
    for k in range(K):
        top = size - K + k
        drawn = rng.integers(0, top + 1)
        picked[..., k] = np.where((picked[..., :k] == drawn[..., None]).any(axis=-1), top, drawn)
    return rng.permuted(picked, axis=-1)  # Floyd's sets are fair, their order is not
