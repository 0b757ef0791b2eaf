"""The places of data sets, with their images and mean positions, from which batches of places are drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines import geo
from data_pipelines.answers import offsets
from data_pipelines.errors import DataError
from data_pipelines.places import Places
from data_pipelines.readers.notes import PLACE_BITS

Array = np.ndarray
MOST_PAIRS = 20_000_000  # of places near each other; with more, no batch could keep the distance


@dataclasses.dataclass(frozen=True)
class PlaceTable:
    """Places with at least `K` images, in compressed rows; a place's number is its index here.

    Attributes:
      rows: int64 [images of these places], sorted by place; rows of `Places.concat` of the data sets given.
      indptr: int64 [places + 1]; the images of place p are `rows[indptr[p]:indptr[p + 1]]`.
      positions: float64 [images of these places, 2], metres, east and north of each image, beside `rows`.
      heading: float32 [images of these places], degrees, NaN where unknown, beside `rows`.
      east, north: float64 [places], metres, the mean position of a place's images; NaN where one has none.
      frame: int64 [places]; metres can be compared within one. A UTM zone, or -1 - k: data set k's own frame.
      city: int64 [places], 0 up to the number of cities; two data sets have no city in common.
      source: int64 [places], which data set of `names`.
      names: of the data sets.
      K: images that a batch takes of a place.
      left_out: (places, images) of fewer than K images or of no known place.
    """

    rows: Array
    indptr: Array
    positions: Array
    heading: Array
    east: Array
    north: Array
    frame: Array
    city: Array
    source: Array
    names: tuple[str, ...]
    K: int
    left_out: tuple[int, int]

    def __len__(self) -> int:
        """How many places there are."""
        return len(self.indptr) - 1

    def images(self, places: Array) -> Array:
        """Indices into `rows` (int64) of all images of `places`, in their order."""
        return np.concatenate(
            [np.zeros(0, np.int64), *(np.arange(self.indptr[p], self.indptr[p + 1]) for p in np.asarray(places))]
        )


def place_table(
    places: Places | Sequence[Places], *, K: int, city: Array | None = None, of: Sequence[int] | None = None
) -> PlaceTable:
    """Collects the places that have at least K images; equal `place` within one data set is one place.

    A city in two neighbouring UTM zones is put into the one that holds more of its images.

    Args:
      places: one data set or several.
      K: images that a batch takes of a place.
      city: int [rows of all data sets], which city or zone an image is in; by default that of its place's number
        (GSV-Cities, GSV-XS), which is one city for each data set of other numbers.
      of: the data sets that places are taken of, all by default. The others only keep their rows and frames, so that
        two tables of the same data sets can be drawn from side by side.

    Raises:
      DataError: no place has K images; a place whose images lie in frames that cannot be compared.
    """
    sets = [places] if isinstance(places, Places) else list(places)
    if K < 1 or not sets:
        raise DataError(f"a batch of places needs at least one data set and one image of a place: {len(sets)=} {K=}")
    place = np.concatenate([places.place for places in sets])
    source = np.repeat(np.arange(len(sets)), [len(places) for places in sets])
    cities = place >> PLACE_BITS if city is None else np.asarray(city, np.int64)
    if cities.shape != place.shape:
        raise DataError(f"city has shape {cities.shape}, but the data sets have {len(place)} images")
    chosen = np.unique(np.arange(len(sets)) if of is None else of)
    taken = np.isin(source, chosen)
    # Data set first: equal numbers in two data sets are two places. `lexsort` is stable: images stay in order of rows.
    order = np.lexsort((place, source))
    order = order[(place[order] >= 0) & taken[order]]
    starts = np.flatnonzero(_changes(place[order]) | _changes(source[order]))
    counts = np.diff(np.append(starts, len(order)))
    enough = counts >= K
    if not enough.any():
        called = " and ".join(sets[s].name for s in chosen)
        raise DataError(
            f"no place of {called} has {K} images: the largest of {len(counts)} places ({taken.sum()} images) has "
            f"{counts.max(initial=0)}, but K={K} images of each place are needed. Lower K, or give more images."
        )
    kept = np.repeat(enough, counts)
    rows = order[kept]
    indptr = offsets(counts[enough])
    first = rows[indptr[:-1]]
    # Numbered from 0 over the places that are kept, as batches index by city. Pairs, since two data sets may number
    # different cities alike.
    _, city_of = np.unique(np.stack([source[first], cities[first]]), axis=1, return_inverse=True)
    # And over all images that have a place: which frame a city is put into must not depend on K, or tables of the same
    # data sets with other K could not be compared.
    _, city_of_image = np.unique(np.stack([source[order], cities[order]]), axis=1, return_inverse=True)
    positions = _positions(sets, order, city_of_image.reshape(-1), source[order])
    east, north, frame = (column[kept] for column in positions)
    _one_frame_each(sets, place[first], frame, indptr)
    mean_east, mean_north = (np.add.reduceat(metres, indptr[:-1]) / counts[enough] for metres in (east, north))
    heading = np.concatenate([places.heading for places in sets])[rows]
    return PlaceTable(
        rows, indptr, np.stack([east, north], axis=1), heading, mean_east, mean_north,
        frame[indptr[:-1]], city_of.reshape(-1), np.searchsorted(chosen, source[first]),
        tuple(sets[s].name for s in chosen), K, (int((~enough).sum()), int(taken.sum()) - len(rows)),
    )  # fmt: skip


def image_table(sets: Sequence[Places], chosen: Array) -> PlaceTable:
    """The table of single images, each of `chosen` (bool [rows of all data sets]) as a place of its own; cities as of
    `place_table`."""
    city = np.concatenate([places.place for places in sets]) >> PLACE_BITS
    parts = np.split(np.where(chosen, np.arange(len(chosen)), -1), np.cumsum([len(places) for places in sets])[:-1])
    single = [dataclasses.replace(places, place=part) for places, part in zip(sets, parts, strict=True)]
    return place_table(single, K=1, city=city)


def check_located(table: PlaceTable, distance: float) -> None:
    """Raises DataError for places without position, between which no distance can be kept."""
    unknown = np.flatnonzero(~np.isfinite(table.east + table.north))
    if len(unknown):
        name = table.names[table.source[unknown[0]]]
        raise DataError(
            f"{len(unknown)} of {len(table)} places have images without position (the first in {name}), so that no "
            f"distance of {distance:g} m between places can be kept. Take min_distance=0, or leave those places out."
        )


def near_pairs(table: PlaceTable, distance: float) -> tuple[Array, Array]:
    """All pairs of places nearer than `distance` metres (int64 [pairs] twice, each pair once).

    Raises:
      DataError: places without position, or far too many pairs.
    """
    from scipy.spatial import KDTree  # half a second to import, which only this needs

    check_located(table, distance)
    # A tree, not a matrix of places x places: SF-XL has hundreds of thousands of places.
    pairs = [np.zeros((0, 2), np.int64)]
    reach = distance * (1 + 1e-9)  # squares are compared in the tree, distances here: neither's rounding loses a pair
    for frame in np.unique(table.frame):
        places = np.flatnonzero(table.frame == frame)
        tree = KDTree(np.stack([table.east[places], table.north[places]], axis=1))
        # Counted before they are listed, as the list is what fills the memory. A pair counts twice, a place once.
        if tree.count_neighbors(tree, reach) - len(places) > 2 * MOST_PAIRS:
            raise DataError(
                f"a distance of {distance:g} m between places is too far for {' and '.join(table.names)}: each of "
                f"{len(table)} places has hundreds nearer than that. Lower min_distance."
            )
        pairs.append(places[tree.query_pairs(reach, output_type="ndarray")])
    first, second = np.concatenate(pairs).T
    near = np.hypot(table.east[first] - table.east[second], table.north[first] - table.north[second]) < distance
    return first[near], second[near]


def _changes(values: Array) -> Array:
    """Whether each value differs from the one before; the first does."""
    return np.concatenate([np.ones(min(len(values), 1), bool), values[1:] != values[:-1]])


def _positions(sets: Sequence[Places], rows: Array, city: Array, source: Array) -> tuple[Array, Array, Array]:
    """East, north (float64, metres) and frame (int64) of `rows`, each city in one frame where that can be.

    Args:
      city: int64 [rows], 0 up to the number of cities. source: int64 [rows], which data set.
    """
    east, north, zone = (
        np.concatenate([getattr(places, c) for places in sets])[rows] for c in ("east", "north", "zone")
    )
    zone = zone.astype(np.int64)
    # Distances between places are kept within a frame alone: a city on the border of two zones, such as London, would
    # have places side by side that count as incomparable.
    pairs, count = np.unique(np.stack([city, zone]), axis=1, return_counts=True)  # [2, (city, zone) that occur]
    for number in np.flatnonzero(np.bincount(pairs[0]) == 2):
        (lower, upper), images = pairs[1, pairs[0] == number], count[pairs[0] == number]
        # Neighbours are zones that differ by 1, 60 and 1 among them, or the same zone north and south of the equator
        # (100 apart). Others, and local frames (-1), stay apart.
        if lower < 1 or (upper - lower) % 100 % 60 not in (0, 1, 59):
            continue
        into, out_of = (lower, upper) if images[0] >= images[1] else (upper, lower)
        moved = np.flatnonzero((city == number) & (zone == out_of))
        degrees = geo.from_utm(east[moved], north[moved], zone[moved])
        east[moved], north[moved], zone[moved] = geo.to_utm(*degrees, int(into))
    # Local metres of two data sets have nothing in common: each data set has a frame of its own, below the zones.
    return east, north, np.where(zone < 1, -1 - source, zone)


def _one_frame_each(sets: Sequence[Places], place: Array, frame: Array, indptr: Array) -> None:
    # The least and the greatest frame of each place's images; `indptr` is ascending, as `reduceat` wants.
    mixed = np.flatnonzero(np.maximum.reduceat(frame, indptr[:-1]) != np.minimum.reduceat(frame, indptr[:-1]))
    if len(mixed):
        zones = np.unique(frame[indptr[mixed[0]] : indptr[mixed[0] + 1]]).tolist()
        called = " and ".join(places.name for places in sets)
        raise DataError(
            f"the images of place {place[mixed[0]]} of {called} lie in zones {zones}, which are not neighbours: is one "
            "number given to two places? Make the numbers unique over cities."
        )
