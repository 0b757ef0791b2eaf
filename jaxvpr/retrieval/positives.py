"""The ground truth of a query set: which database images show the same place.

Every recall is computed from `Positives`. They are made from a radius in metres (with a tolerance in degrees), a
tolerance in frames, an equal place, or a published list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from data_pipelines import geo
from data_pipelines.answers import Answers, offsets, taken
from data_pipelines.errors import DataError, option_of
from data_pipelines.places import FARTHEST, Places

Array = np.ndarray
Maker = Callable[[Places, Places], "Positives"]
# `within_metres` takes so many queries together, or fewer where they have so many neighbours that there would be more
# pairs than this: 4 million pairs take some 200 MB of temporaries.
QUERIES_AT_ONCE = 1 << 15
PAIRS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Positives:
    """Positives of every query as compressed rows.

    Attributes:
      indptr: int64 [Q + 1]; the positives of query q are `indices[indptr[q]:indptr[q + 1]]`.
      indices: int64 [P], rows of the database, ascending and without repetition within a query.
    """

    indptr: Array
    indices: Array

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, query: int) -> Array:
        """int64 [P_q], the database rows of one query."""
        if not 0 <= query < len(self):
            raise IndexError(f"query {query} of {len(self)}")
        return self.indices[self.indptr[query] : self.indptr[query + 1]]

    @property
    def counts(self) -> Array:
        """int64 [Q], how many positives each query has."""
        return np.diff(self.indptr)

    def take(self, queries: Array) -> Positives:
        """The positives of `queries` (int [M] or bool [Q]), in that order."""
        queries = np.asarray(queries)
        queries = np.flatnonzero(queries) if queries.dtype == bool else queries
        indices, indptr = taken(self.indices, self.indptr[queries], self.counts[queries])
        return Positives(indptr, indices)

    def hits(self, predictions: Array) -> Array:
        """bool [Q, k]: is each prediction (int [Q, k], a database row, -1 pads) a positive of its query?"""
        predictions = np.asarray(predictions, np.int64)
        if predictions.ndim != 2 or len(predictions) != len(self):
            raise ValueError(f"predictions have shape {predictions.shape}, but there are {len(self)} queries")
        if not self.indices.size:
            return np.zeros(predictions.shape, bool)
        # A set for each query would cost a Python loop, a mask queries x database. Here (query, row) is one number, and
        # as rows ascend within a query, the keys ascend too: each membership is one binary search.
        stride = max(int(self.indices.max()), int(predictions.max(initial=0))) + 1
        keys = np.repeat(np.arange(len(self)), self.counts) * stride + self.indices
        wanted = np.arange(len(self))[:, None] * stride + predictions
        nearest = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)]
        return (nearest == wanted) & (predictions >= 0)


def within_metres(database: Places, queries: Places, metres: float, degrees: float | None = None) -> Positives:
    """Positives at most `metres` away (inclusive), and, if `degrees` is given, seen under a heading that close.

    Time and memory grow with the pairs within the radius, not with Q x N. Images of UTM zones that do not touch, as
    those of several cities, are never near each other.

    Raises:
      DataError: images without coordinates (or heading, where `degrees` is given), or in UTM zones that touch.
    """
    if metres < 0 or (degrees is not None and degrees < 0):
        raise ValueError(f"a tolerance cannot be negative: metres={metres}, degrees={degrees}")
    at, to = _positions(database), _positions(queries)
    if _zones_apart(database, queries):  # a third axis takes them farther from each other than any threshold
        at, to = (np.column_stack([xy, of.zone * FARTHEST]) for xy, of in ((at, database), (to, queries)))
    else:
        _require_one_zone(database, queries)
    headings = (_headings(database), _headings(queries)) if degrees is not None else None
    parts = []
    # float32 would be too coarse: UTM north has seven digits before the point. The rule itself is applied here to the
    # tree's candidates, so that a distance of exactly `metres` counts whatever the tree rounds.
    for query, row in _nearby_pairs(at, to, metres):
        delta = at[row] - to[query]
        near = (delta * delta).sum(axis=1) <= metres * metres
        if headings is not None:
            near &= geo.turn(headings[0][row], headings[1][query]) <= degrees
        parts.append((query[near], row[near]))
    return _from_pairs(parts, len(queries))


def within_frames(database: Places, queries: Places, frames: int) -> Positives:
    """Positives whose frame number differs by at most `frames`, for drives aligned frame by frame (Nordland).

    Raises:
      DataError: images without a frame number.
    """
    for places in (database, queries):
        unknown = np.flatnonzero(places.frame < 0)
        if len(unknown):
            raise DataError(
                f"{places.name}: {len(unknown)} images have no frame number (first: {places.path[unknown[0]]}), "
                "which a threshold in frames needs; use one in metres, 'label' or 'list'"
            )
    # In the order of frames the positives of a query are one range: two binary searches.
    order = np.argsort(database.frame, kind="stable")
    ordered = database.frame[order]
    starts = np.searchsorted(ordered, queries.frame - frames, side="left")
    counts = np.searchsorted(ordered, queries.frame + frames, side="right") - starts
    rows, indptr = taken(order, starts, counts)
    return from_lists(indptr, rows)  # a range ascends by frame, not by row


def same_place(database: Places, queries: Places) -> Positives:
    """Positives with the query's `place`; an image of unknown place (-1) has none and is none.

    Raises:
      DataError: where no query or no database image has a place.
    """
    for places in (database, queries):
        if len(places) and not (places.place >= 0).any():
            raise DataError(
                f"{places.name}: no image has a place, which the threshold 'label' needs; use one in metres"
            )
    order = np.argsort(database.place, kind="stable")
    ordered = database.place[order]
    starts = np.searchsorted(ordered, queries.place, side="left")
    counts = np.searchsorted(ordered, queries.place, side="right") - starts
    rows, indptr = taken(order, starts, np.where(queries.place >= 0, counts, 0))
    return Positives(indptr, rows)  # the sort is stable: rows of one place ascend already


def from_lists(indptr: Array, indices: Array) -> Positives:
    """Positives of a published list in compressed rows; sorts each query's rows and drops repetitions.

    Raises:
      DataError: where the rows are not well formed.
    """
    indptr, indices = np.asarray(indptr, np.int64), np.asarray(indices, np.int64)
    Answers(indptr, indices).check_rows()
    query = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return _from_pairs([(query, indices)], len(indptr) - 1)


def without(positives: Positives, others: Positives) -> Positives:
    """What `others` does not have of each query's rows.

    Raises:
      ValueError: for lists of another number of queries.
    """
    if len(positives) != len(others):
        raise ValueError(f"lists of {len(positives)} and of {len(others)} queries")
    stride = max(positives.indices.max(initial=-1), others.indices.max(initial=-1)) + 1
    mine, theirs = (np.repeat(np.arange(len(p)) * stride, p.counts) + p.indices for p in (positives, others))
    at = np.searchsorted(theirs, mine)  # keys (query, row) ascend, as rows do within a query
    keep = np.append(theirs, -1)[at] != mine  # the -1 follows the last key, and equals none
    # Offsets of `keep` count what is kept of the first i: new offsets for old ones.
    return Positives(offsets(keep)[positives.indptr], positives.indices[keep])


def _zones_apart(database: Places, queries: Places) -> bool:
    """Whether the images lie in several UTM zones, of which no two touch: they are six degrees or more apart."""
    zones = np.unique(np.concatenate([database.zone, queries.zone]))
    number = np.sort(zones % 100)
    gaps = np.diff(number, append=number[:1] + 60)
    return len(zones) > 1 and bool(zones.min() > 0 and (gaps > 1).all())


def _require_one_zone(database: Places, queries: Places) -> None:
    zones = database.single_zone(), queries.single_zone()
    if len(database) and len(queries) and zones[0] != zones[1]:
        names = [geo.zone_name(zone) for zone in zones]
        raise DataError(
            f"{database.name}: the database lies in {names[0]}, the queries in {names[1]}, and their metres cannot be "
            f"compared ({database.path[0]}; {queries.path[0]}). {geo.into_one_zone(zones)}"
        )


def _positions(places: Places) -> Array:
    """float64 [N, 2], or a DataError that names the first image without coordinates."""
    if why := places.unlocated():
        raise DataError(f"{places.name}: {why}, which a threshold in metres needs. {' '.join(_ways_without(places))}")
    return np.stack([places.east, places.north], axis=1)


def _ways_without(places: Places) -> Iterator[str]:
    """What a user can do where images have no coordinates."""
    if places.located.any():
        yield f"Leave such images out with {option_of('folder', 'without_position=drop')}."
    yield "Give positions in a table, --reader=csv or reader=csv of the data set (docs/data_formats.md)."
    for threshold, known in (("label", places.place), ("1frame", places.frame)):
        if (known >= 0).any():
            yield f"Or measure by {threshold}: --threshold={threshold}, or thresholds={threshold} of the data set."


def _headings(places: Places) -> Array:
    unknown = np.flatnonzero(~np.isfinite(places.heading))
    if len(unknown):
        raise DataError(
            f"{places.name}: {len(unknown)} images have no heading (first: {places.path[unknown[0]]}), which a "
            "threshold in degrees needs; use one in metres only"
        )
    return places.heading.astype(np.float64)


def _nearby_pairs(at: Array, to: Array, metres: float) -> Iterator[tuple[Array, Array]]:
    """Yields (query, row) int64 [pairs]: all pairs within `metres`, and those that rounding leaves in doubt."""
    from scipy.spatial import KDTree  # half a second to import, which only this needs

    if not len(at) or not len(to):
        return
    # The tree rounds differently from us: a little more reach, so that no pair on the border is lost here.
    tree, reach = KDTree(at), metres * (1 + 1e-9)
    # Blocks wait on a stack with the next on top, so that queries come in order even where a block is halved.
    waiting = [(start, min(start + QUERIES_AT_ONCE, len(to))) for start in range(0, len(to), QUERIES_AT_ONCE)][::-1]
    while waiting:
        start, stop = waiting.pop()
        block, middle = KDTree(to[start:stop]), (start + stop) // 2
        # Counting costs a fraction of listing: where images lie dense, memory is bounded by pairs, not by queries.
        if middle > start and block.count_neighbors(tree, reach) > PAIRS_AT_ONCE:
            waiting += [(middle, stop), (start, middle)]
            continue
        pairs = block.sparse_distance_matrix(tree, reach, output_type="ndarray")
        yield pairs["i"] + start, pairs["j"]


def _from_pairs(parts: list[tuple[Array, Array]], queries: int) -> Positives:
    """Compressed rows of (query, row) pairs, sorted and without repetition."""
    query = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    row = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    # The tree gives pairs in an order of its own; `hits` and `without` search in ascending rows.
    order = np.lexsort((row, query))
    query, row = query[order], row[order]
    fresh = np.ones(len(query), bool)
    fresh[1:] = (np.diff(query) != 0) | (np.diff(row) != 0)
    return Positives(offsets(np.bincount(query[fresh], minlength=queries)), row[fresh])
