"""Pairs of images by where they were taken: along one street, turned at one spot, far apart; and rows of neighbours.

What a street is, is read off the positions alone: where the images around one lie on a line, that is the street's
direction there. All pairs are looked at in blocks of rows, and of those that are wanted a sample is kept, so that
memory depends on neither the number of pairs nor their distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines import geo

Array = np.ndarray
SAME_HEADING = 10.0  # degrees
STRAIGHT = 0.15  # of a street: variance across it over variance along it, at most
ACROSS = 0.15, 0.1  # how far beside a line a neighbour may lie: a share of the span, or of its distance
ROW_ACROSS = 0.1  # of the span: the same for the row of a street
BLOCK = 1 << 20  # pairs looked at together


class Spots(NamedTuple):
    """Where images were taken.

    Attributes:
      at: float64 [N, 2], metres east and north.
      heading: float64 [N], degrees clockwise from north; NaN where unknown.
    """

    at: Array
    heading: Array

    def take(self, rows: Array) -> Spots:
        """Those of some images."""
        return Spots(self.at[rows], self.heading[rows])

    def block(self, rows: Array) -> tuple[Array, Array]:
        """Metres [B, N, 2] and degrees turned [B, N] from each of some images to each image. Where no image has a
        heading all look the same way; a heading that alone is unknown is none."""
        steps = self.at[None] - self.at[rows, None]
        if np.isnan(self.heading).all():
            return steps, np.zeros(steps.shape[:2])
        return steps, geo.turn(self.heading[None], self.heading[rows, None])


class Pairs(NamedTuple):
    """A sample of pairs.

    Attributes:
      one, other: int64 [P], the two images.
      value: float64 [P], what they are ordered by: metres or degrees between them.
      found: int64 [bins], how many pairs there are in each bin; the sample has some of them.
    """

    one: Array
    other: Array
    value: Array
    found: Array


Wanted = Callable[[Array], tuple[Array, Array]]  # rows [B] -> value [B, N] and which pairs are wanted, bool [B, N]


def around(spots: Spots, most: int, reach: float, seed: int) -> Array:
    """Rows of `most` images at most: all, where that is enough; else the neighbourhoods of images drawn at random, each
    of what lies within `reach` metres and a fourth of all at most, the nearest first. Ascending."""
    count = len(spots.at)
    if count <= most:
        return np.arange(count)
    chosen = np.zeros(count, bool)
    for centre in np.random.default_rng(seed).permutation(count):
        metres = np.hypot(*(spots.at - spots.at[centre]).T)
        near = np.flatnonzero((metres <= reach) & ~chosen)
        room = min(most - int(chosen.sum()), max(1, most // 4))
        chosen[near[np.argsort(metres[near], kind="stable")[:room]]] = True
        if chosen.sum() >= most:
            break
    return np.flatnonzero(chosen)


def directions(spots: Spots, span: float) -> Array:
    """float64 [N, 2], the direction of the street at each image: the line through all images within half a span; NaN
    where they do not lie on one, as at a crossing, or all at one place."""
    x, y = (spots.at - spots.at.mean(axis=0)).T  # metres of UTM would lose digits when squared
    moments = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], 1)
    found = []
    for rows in _blocks(len(spots.at)):
        steps = spots.at[None] - spots.at[rows, None]
        near = np.hypot(steps[..., 0], steps[..., 1]) <= span / 2
        count, x, y, xx, yy, xy = (near @ moments).T
        a, b, c = xx / count - (x / count) ** 2, xy / count - x * y / count**2, yy / count - (y / count) ** 2
        spread = np.hypot((a - c) / 2, b)
        along, across = (a + c) / 2 + spread, (a + c) / 2 - spread
        angle = np.arctan2(2 * b, a - c) / 2
        line = np.stack([np.cos(angle), np.sin(angle)], 1)
        straight = (along > (span / 100) ** 2) & (across <= STRAIGHT * along)
        found.append(np.where(straight[:, None], line, np.nan))
    return np.concatenate(found)


def along_street(spots: Spots, lines: Array, span: float, edges: Sequence[float], most: int, seed: int) -> Pairs:
    """Pairs on one street that look the same way, by the metres between them: each lies on the line of the other's
    street, `lines` of `directions`."""

    def wanted(rows: Array) -> tuple[Array, Array]:
        steps, turned = spots.block(rows)
        metres = np.hypot(steps[..., 0], steps[..., 1])
        beside = np.maximum(_beside(steps, lines[rows, None]), _beside(steps, lines[None]))
        near = np.maximum(ACROSS[0] * span, ACROSS[1] * metres)
        return metres, (beside <= near) & (turned <= SAME_HEADING)

    return _drawn(len(spots.at), wanted, edges, most, seed)


def turned_at_spot(spots: Spots, within: float, edges: Sequence[float], most: int, seed: int) -> Pairs:
    """Pairs of one spot, `within` metres of each other, by the degrees between their headings."""

    def wanted(rows: Array) -> tuple[Array, Array]:
        steps, turned = spots.block(rows)
        return turned, (np.hypot(steps[..., 0], steps[..., 1]) <= within) & np.isfinite(spots.heading)[None]

    return _drawn(len(spots.at), wanted, edges, most, seed)


def apart(spots: Spots, beyond: float, same_heading: bool, most: int, seed: int) -> Pairs:
    """Pairs of different places, more than `beyond` metres from each other; of the same heading, or of any."""

    def wanted(rows: Array) -> tuple[Array, Array]:
        steps, turned = spots.block(rows)
        metres = np.hypot(steps[..., 0], steps[..., 1])
        return metres, (metres > beyond) & ((turned <= SAME_HEADING) if same_heading else np.isfinite(turned))

    return _drawn(len(spots.at), wanted, (0.0, np.inf), most, seed)


def straight_row(spots: Spots, lines: Array, span: float, most: int) -> tuple[Array, Array]:
    """The images of one straight street within `span` metres that look the same way, in the order of the street.

    Of all such rows it is the one that covers most of the span, in thirtieths of it that have an image; of equal ones
    that with the most images, then the one that begins with the earliest image. Of more than `most` images some evenly
    spaced ones are taken.

    Args:
      lines: of `directions`.

    Returns:
      rows int64 [M] and their metres along the street, float64 [M], from 0; both empty where no street is found.
    """
    best, first = (1, 0), -1
    for rows in _blocks(len(spots.at)):
        along, member = _row_from(spots, lines, rows, span)
        step = np.minimum(along[member] * 30 // span, 29).astype(np.int64)
        taken = np.zeros((len(rows), 30), bool)
        taken[np.nonzero(member)[0], step] = True
        for number, score in enumerate(zip(taken.sum(1).tolist(), member.sum(1).tolist(), strict=True)):
            if score > best:
                best, first = score, int(rows[number])
    if first < 0:
        return np.zeros(0, np.int64), np.zeros(0)
    along, member = (one[0] for one in _row_from(spots, lines, np.array([first]), span))
    row = np.flatnonzero(member)
    row = row[np.argsort(along[row], kind="stable")]
    row = row[np.unique(np.linspace(0, len(row) - 1, min(most, len(row))).round().astype(int))]
    return row, along[row] - along[row].min()


def _row_from(spots: Spots, lines: Array, rows: Array, span: float) -> tuple[Array, Array]:
    """Metres [B, N] along the street of some images, and which images lie on it within a span from there."""
    steps, turned = spots.block(rows)
    along = (steps * lines[rows, None]).sum(-1)
    on_line = _beside(steps, lines[rows, None]) <= ROW_ACROSS * span
    return along, on_line & (along >= 0) & (along <= span) & (turned <= SAME_HEADING)


def _beside(steps: Array, lines: Array) -> Array:
    """How far the ends of some steps lie beside lines, metres; NaN where there is no line."""
    return np.abs(steps[..., 0] * lines[..., 1] - steps[..., 1] * lines[..., 0])


def _blocks(count: int) -> Iterator[Array]:
    """All rows, as many at a time as `BLOCK` pairs allow."""
    size = max(1, BLOCK // max(count, 1))
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def _drawn(count: int, wanted: Wanted, edges: Sequence[float], most: int, seed: int) -> Pairs:
    """Of the pairs that are wanted `most` of each bin, edges[k] <= value < edges[k + 1], each as likely as any: those
    of the lowest random numbers."""
    rng, bins = np.random.default_rng(seed), len(edges) - 1
    found, kept = np.zeros(bins, np.int64), np.zeros((4, 0))  # random number, value, one, other
    for rows in _blocks(count):
        value, keep = wanted(rows)
        keep &= np.arange(count)[None] > rows[:, None]
        first, second = np.nonzero(keep)
        value = value[first, second]
        bin_of = np.searchsorted(edges, value, "right") - 1
        inside = (bin_of >= 0) & (bin_of < bins)
        found += np.bincount(bin_of[inside], minlength=bins)
        fresh = np.stack([rng.random(len(value)), value, rows[first], second])[:, inside]
        kept = _lowest(np.concatenate([kept, fresh], 1), edges, most)
    return Pairs(kept[2].astype(np.int64), kept[3].astype(np.int64), kept[1], found)


def _lowest(pairs: Array, edges: Sequence[float], most: int) -> Array:
    """The `most` pairs of each bin with the lowest random numbers, ordered by bin and number."""
    bin_of = np.searchsorted(edges, pairs[1], "right") - 1
    order = np.lexsort((pairs[0], bin_of))
    begin = np.searchsorted(bin_of[order], bin_of[order], "left")
    return pairs[:, order[np.arange(len(order)) - begin < most]]
