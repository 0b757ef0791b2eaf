"""Batches of places that nobody has numbered: an image and others that were taken near it, looking the same way.

Cells of a map part images that stand side by side of a border, and join those of its corners. Here every image is the
middle of a place of its own, and a batch holds P of these, far from each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import numpy as np

from data_pipelines import geo
from data_pipelines.answers import offsets
from data_pipelines.errors import DataError
from data_pipelines.place_batches import PlaceBatches, in_passes, some_of
from data_pipelines.place_table import PlaceTable, image_table
from data_pipelines.places import Places

Array = np.ndarray
AT_ONCE = 1 << 11  # images whose neighbours are looked for together
MOST_AHEAD = 256  # images of a pass that are tried together


@dataclasses.dataclass(frozen=True)
class NearTable:
    """Images that know where they are, and which of them have partners.

    Attributes:
      images: those with a position, each as a place of its own.
      anchors: those of them with K - 1 partners or more, likewise; what batches are drawn from.
      K: images of a place in a batch.
      radius, angle: metres and degrees of heading that a partner is away at most; an angle of 180 sets no limit.
      lost: how many images have no position.
    """

    images: PlaceTable
    anchors: PlaceTable
    K: int
    radius: float
    angle: float
    lost: int

    def __len__(self) -> int:
        """How many images a place can be made of."""
        return len(self.anchors)

    @property
    def lonely(self) -> int:
        """How many images have a position and too few partners."""
        return len(self.images) - len(self.anchors)

    @cached_property
    def number(self) -> Array:
        """int64 [anchors], which image each anchor is."""
        return np.searchsorted(self.images.rows, self.anchors.rows)

    @cached_property
    def neighbours(self) -> _Neighbours:
        """Looks for the partners of images."""
        return _Neighbours(self.images, self.radius, self.angle)


def near_table(sets: Sequence[Places], *, K: int, radius: float, angle: float = 180.0) -> NearTable:
    """Finds the images that have at least K - 1 partners; metres and cities are those of `place_table`.

    Raises:
      DataError: options out of range; images without a heading, where `angle` needs one; no positions, or none with
        partners.
    """
    if K < 2 or not radius > 0 or not 0 < angle <= 180:
        raise DataError(
            f"K must be at least 2, radius above 0 and angle above 0 and at most 180: {K=} {radius=} {angle=}"
        )
    located = np.concatenate([one.located for one in sets])
    names = " and ".join(one.name for one in sets)
    if not located.any():
        raise DataError(
            f"none of the {len(located):,} images of {names} has a position in metres, which places by nearness need "
            "(objective.partition.by=near). Data with numbered places takes objective.partition.by=place"
        )
    images = image_table(sets, located)
    blind = np.flatnonzero(np.isnan(images.heading))
    if angle < 180 and len(blind):
        raise DataError(
            f"{len(blind):,} of {len(images):,} images of {names} have no heading (the first: row "
            f"{images.rows[blind[0]]}), which angle={angle:g} needs. Set angle=180, or leave those out"
        )
    enough = _Neighbours(images, radius, angle).counts() >= K - 1
    if not enough.any():
        raise DataError(
            f"no image of {names} has {K - 1} others within {radius:g} m and {angle:g} degrees of it ({len(images):,} "
            "images with a position). Raise radius or angle, or lower K"
        )
    chosen = np.zeros(len(located), bool)
    chosen[images.rows[enough]] = True
    anchors = dataclasses.replace(image_table(sets, chosen), K=K)
    return NearTable(images, anchors, K, radius, angle, int((~located).sum()))


def near_batches(
    table: NearTable,
    *,
    P: int,
    steps: int,
    rng: np.random.Generator,
    min_distance: float,
    by_city: bool = False,
    weights: Sequence[float] | None = None,
    last: str = "fill",
) -> PlaceBatches:
    """Draws batches of P places of K images each: an anchor and K - 1 of its partners, drawn anew at every turn.

    Anchors come in shuffled passes; one whose place would be too near to the batch waits for the next batch.

    Args:
      table: the images. P: places in a batch. steps: how many batches.
      rng: the only source of randomness; equal states give equal batches.
      min_distance: no image of another place of the batch is nearer than so many metres to any image of this one.
      by_city, weights, last: as in `place_batches`, of the anchors.

    Returns:
      `PlaceBatches`, an anchor before its partners. Labels number the places of a batch from 0.

    Raises:
      DataError: as `check_distance` and `place_batches`.
    """
    check_distance(table, min_distance)
    take = _Taking(table, min_distance, rng)
    drawn = in_passes(table.anchors, take, P=P, rng=rng, steps=steps, by_city=by_city, weights=weights, last=last)
    missing = np.full(table.K, -1)
    images = np.array([batch + [missing] * (P - len(batch)) for batch in drawn], np.int64).reshape(-1, P * table.K)
    labels = np.where(images < 0, -1, np.repeat(np.arange(P, dtype=np.int32), table.K)).astype(np.int32)
    return PlaceBatches(np.where(images < 0, -1, table.images.rows[images]), labels, images >= 0)


def check_distance(table: NearTable, min_distance: float) -> None:
    """Raises DataError for a distance at which two places of a batch could be one."""
    if not min_distance >= table.radius:
        raise DataError(
            f"min_distance={min_distance:g} must be at least radius={table.radius:g}, metres: what is so near is the "
            "same place, and a batch would call it another"
        )


class _Neighbours:
    """The partners of images, in a tree."""

    def __init__(self, images: PlaceTable, radius: float, angle: float):
        from scipy.spatial import KDTree  # half a second to import, which only this needs

        self.images, self.radius, self.angle = images, radius, angle
        # One tree of all frames: they lie above one another, farther than anything is looked for.
        _, storey = np.unique(images.frame, return_inverse=True)
        points = [images.positions, 4 * radius * storey.reshape(-1)]
        # Twelve views of a spot are one in twelve the partners of each other: headings lie on a circle in two further
        # coordinates, on which `angle` is as far as `radius`. Then a partner is within a ball of radius * sqrt(2).
        self.reach = radius * (1 + 1e-6)  # the tree's rounding loses no pair
        if angle < 180:
            self.reach *= np.sqrt(2)
            turn = np.radians(images.heading.astype(np.float64))
            circle = radius / (2 * np.sin(np.radians(angle) / 2))
            points += [circle * np.cos(turn), circle * np.sin(turn)]
        self.points = np.column_stack(points)
        self.tree = KDTree(self.points)

    def of(self, images: Array) -> tuple[Array, Array]:
        """The partners of `images` (int64 twice): which of these each belongs to, ascending, and which it is."""
        found = self.tree.query_ball_point(self.points[images], self.reach, return_sorted=True)
        counts = np.fromiter(map(len, found), np.int64, len(images))
        one, other = np.repeat(np.arange(len(images)), counts), np.fromiter(chain.from_iterable(found), np.int64)
        apart = self.points[images[one]] - self.points[other]
        near = (np.hypot(apart[:, 0], apart[:, 1]) <= self.radius) & (images[one] != other)
        if self.angle < 180:
            near &= geo.turn(self.images.heading[images[one]], self.images.heading[other]) <= self.angle
        return one[near], other[near]

    def counts(self) -> Array:
        """int64 [images], how many partners each image has."""
        every = np.arange(len(self.images))
        parts = [every[start : start + AT_ONCE] for start in range(0, len(every), AT_ONCE)]
        return np.concatenate([np.bincount(self.of(part)[0], minlength=len(part)) for part in parts])


class _Taking:
    """Takes anchors off a queue, as the images of their places."""

    def __init__(self, table: NearTable, min_distance: float, rng: np.random.Generator):
        self.table, self.min_distance, self.rng = table, min_distance, rng

    def __call__(self, queue: list[int], wanted: int, batch: list[Array]) -> list[Array]:
        """Up to `wanted` groups of images (int64 [K]) that are far from each other and from those of `batch`.

        As many anchors as are wanted are tried together, and then more, as those that are left are rarely free.
        """
        taken: list[Array] = []
        skipped: list[int] = []
        ahead = wanted
        while queue and len(taken) < wanted:
            tried = queue[-ahead:][::-1]  # the next one is the last
            del queue[-ahead:]
            used = self._take(np.array(tried), wanted - len(taken), batch + taken)
            taken += used.values()
            skipped += [anchor for k, anchor in enumerate(tried) if k not in used]
            ahead = min(2 * ahead, MOST_AHEAD)
        queue.extend(reversed(skipped))
        return taken

    def _take(self, anchors: Array, wanted: int, batch: list[Array]) -> dict[int, Array]:
        """The groups of up to `wanted` of `anchors`, by their position among these."""
        number = self.table.number[anchors]
        held = np.concatenate([np.zeros(0, np.int64), *batch])
        free = np.flatnonzero(~self._near(number[:, None], held))
        groups = self._groups(number[free])
        open_ = ~self._near(groups, held)
        used: dict[int, Array] = {}
        for k, group in enumerate(groups):
            if len(used) == wanted:
                break
            if open_[k]:
                used[int(free[k])] = group
                open_ &= ~self._near(groups, group)
        return used

    def _groups(self, images: Array) -> Array:
        """int64 [images, K], each image and K - 1 of its partners, all sets of them being equally likely."""
        one, other = self.table.neighbours.of(images)
        counts = np.bincount(one, minlength=len(images))
        first = offsets(counts)[:-1, None]
        return np.hstack([images[:, None], other[first + some_of(counts, self.table.K - 1, self.rng)]])

    def _near(self, groups: Array, images: Array) -> Array:
        """bool [groups], which groups (int64 [groups, K]) have an image near one of `images`."""
        positions, frame = self.table.images.positions, self.table.images.frame
        apart = positions[groups][..., None, :] - positions[images]
        near = np.hypot(apart[..., 0], apart[..., 1]) < self.min_distance
        return (near & (frame[groups][..., None] == frame[images])).any(axis=(1, 2))
