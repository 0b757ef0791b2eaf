"""A part of a data set kept apart to validate on, where the data set names none.

Images cannot be held out one by one: a training image of the same spot would show the model what it is asked about. So
a part of the map is held out, beyond a straight line, with a strip along the line that goes to neither side.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.place_table import image_table
from data_pipelines.places import ROLES, Places

Array = np.ndarray
DIRECTIONS = 12  # that lines are tried in
ROUNDING = 1e-6  # metres that the strip is wider, so that no distance across it is rounded below the gap
CELL = 25 / np.sqrt(2)  # metres; two images of a cell lie within 25 m
QUERIES = 1 / 3  # of the held-out images, about


class HeldOut(NamedTuple):
    """A data set in two parts.

    Attributes:
      train: the images to train on.
      apart: those kept apart, with the roles database and query.
      between: how many images are in neither part.
      by: what tells queries from the database: "role" (the data set's own), "sequence", "day", or "image": single
        images, whose neighbours of the same drive are almost the same picture.
    """

    train: Places
    apart: Places
    between: int
    by: str


def hold_out(places: Places, share: float, *, gap: float = 50.0, seed: int = 0) -> HeldOut:
    """Keeps about `share` of the images apart: a part of the map, or whole places where images have no metres.

    Of the map a straight line cuts off the part. Of the lines in `DIRECTIONS` directions it is the one with the fewest
    images in its strip. Metres that cannot be compared (two zones that are no neighbours) have a line each. Images of
    which neither position nor, without any position, place is known go to neither part.

    Whole visits ask the others, so that a query's neighbour in time is not in the database, and are chosen so that
    most queries have an image of another visit within 25 m (or of the same place).

    Args:
      share: of the images, above 0 and below 1.
      gap: metres between any image of one part and any of the other.
      seed: of all that is drawn; equal seeds give equal parts.

    Raises:
      DataError: options out of range; neither positions nor places; a part without images.
    """
    if not 0 < share < 1 or not gap >= 0:
        raise DataError(f"hold_out must be above 0 and below 1, and gap at least 0: hold_out={share} {gap=}")
    rng = np.random.default_rng(seed)
    if places.located.any():
        train, apart, cell = _part_of_map(places, share, gap, rng)
    elif (places.place >= 0).any():
        train, apart, cell = _whole_places(places.place, share, rng)
    else:
        raise DataError(
            f"hold_out={share:g}: none of the {len(places):,} images of {places.name} has a position or a place, so "
            "nothing says which of them show the same. Give the data set a split of its own to validate on, val_data"
        )
    if not len(train) or len(apart) < 2:
        raise DataError(
            f"hold_out={share:g} with gap={gap:g} leaves {len(train):,} of the {len(places):,} images of {places.name} "
            f"to train on and {len(apart):,} to validate on. Lower the gap, or change the share"
        )
    held = places.take(apart)
    role, by = _roles(held, cell, rng)
    held = dataclasses.replace(held, role=role, answers=held.answers if by == "role" else None)
    return HeldOut(places.take(train), held, len(places) - len(train) - len(apart), by)


def _part_of_map(places: Places, share: float, gap: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Rows to train on, rows beyond the line (int64), and the cell of each of these."""
    table = image_table([places], places.located)
    train, apart = np.zeros(len(table), bool), np.zeros(len(table), bool)
    for frame in np.unique(table.frame):
        here = np.flatnonzero(table.frame == frame)
        along, start = _line(table.positions[here], share, gap, rng)
        apart[here] = along >= start
        train[here] = along < start - gap - ROUNDING * (gap > 0)
    square = np.floor(table.positions[apart] / CELL).astype(np.int64)
    cell = np.unique(np.column_stack([square, table.frame[apart]]), axis=0, return_inverse=True)[1]
    return table.rows[train], table.rows[apart], cell.reshape(-1)


def _line(positions: Array, share: float, gap: float, rng: np.random.Generator) -> tuple[Array, float]:
    """How far each image lies along some direction (float64 [images]), and where the held-out part begins."""
    turns = 2 * np.pi * (rng.random() + rng.permutation(DIRECTIONS)) / DIRECTIONS  # the first of equal ones is taken
    along = (positions - positions.mean(axis=0)) @ np.stack([np.cos(turns), np.sin(turns)])
    start = np.quantile(along, 1 - share, axis=0, method="higher")
    held, lost = (along >= start).sum(axis=0), ((along < start) & (along >= start - gap)).sum(axis=0)
    best = int(np.argmin(lost + np.abs(held - share * len(along))))
    return along[:, best], float(start[best])


def _whole_places(place: Array, share: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Rows of the places to train on, rows of the others (int64), and the place of each of these."""
    known, number = np.flatnonzero(place >= 0), np.unique(place[place >= 0], return_inverse=True)[1]
    order = rng.permutation(number.max() + 1)
    before = np.cumsum(np.bincount(number)[order]) - np.bincount(number)[order]
    chosen = order[before < share * len(known)][: len(order) - 1]  # one place is left to train on
    apart = np.isin(number, chosen)
    return known[~apart], known[apart], number[apart]


def _roles(held: Places, cell: Array, rng: np.random.Generator) -> tuple[Array, str]:
    """`Places.role` of the held-out images, and what it goes by."""
    if all((held.role == ROLES.index(role)).any() for role in ("database", "query")):
        return held.role, "role"
    day = held.time.astype("datetime64[D]").astype(np.int64)
    visits = (("sequence", held.sequence, held.sequence >= 0), ("day", day, ~np.isnat(held.time)))
    for by, visit, known in visits:
        asks = _visits(visit, cell, rng) if known.all() else np.zeros(0, bool)
        if asks.any():
            return _as_roles(asks), by
    # Every second image of a cell, in the order of the drive: each query has one in its cell.
    order = np.lexsort((np.arange(len(cell)), held.frame, held.sequence, cell))
    first = np.searchsorted(cell[order], cell[order])
    asks = np.zeros(len(cell), bool)
    asks[order] = (np.arange(len(cell)) - first) % 2 == 1
    return _as_roles(asks), "image"


def _as_roles(asks: Array) -> Array:
    return np.where(asks, ROLES.index("query"), ROLES.index("database")).astype(np.int8)


def _visits(visit: Array, cell: Array, rng: np.random.Generator) -> Array:
    """Which images (bool [images]) ask: those of whole visits, up to about `QUERIES` of all.

    A visit asks where more images find another visit of the database in their cell than lose their last one by it.
    """
    _, visit = np.unique(visit, return_inverse=True)
    _, cell = np.unique(cell, return_inverse=True)
    (of_visit, of_cell), images = np.unique(np.stack([visit, cell]), axis=1, return_counts=True)
    begins = np.searchsorted(of_visit, np.arange(visit.max() + 2))
    came = np.bincount(of_cell)  # visits of the database in each cell
    asked = np.zeros(len(came), np.int64)  # queries in each cell
    asks = np.zeros(visit.max() + 1, bool)
    for v in rng.permutation(len(asks)):
        here = slice(begins[v], begins[v + 1])
        cells, count = of_cell[here], images[here]
        alone = came[cells] == 1
        gained, lost = count[~alone].sum(), count[alone].sum() + asked[cells[alone]].sum()
        if gained > lost and asked.sum() + count.sum() <= len(visit) / 2:
            asks[v] = True
            came[cells] -= 1
            asked[cells] += count
        if asked.sum() >= QUERIES * len(visit):
            break
    return asks[visit]
