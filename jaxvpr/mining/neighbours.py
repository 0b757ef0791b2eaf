"""Potential positives and definite negatives of every query, by position, from which triplets are mined.

A potential positive is a database image within a narrow threshold (10 m, say); every image beyond a wider one (25 m) is
a definite negative. The images within each threshold are kept as compressed rows, never as an array of queries x
database. All of it holds for clips in place of images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.answers import taken
from data_pipelines.clips import Clips, table_of
from data_pipelines.places import ROLES, VIEWS, Places
from jaxvpr.errors import UserError
from jaxvpr.retrieval.positives import Positives, from_lists, without
from jaxvpr.retrieval.thresholds import parse_threshold

Array = np.ndarray

METRES = re.compile(r"(\d+(?:\.\d+)?)m(?:_|$)")
SIDEWAYS = VIEWS.index("sideways")


class Neighbours(NamedTuple):
    """Queries and the database that their positives and negatives come from.

    Attributes:
      queries: int64 [Q], rows of queries that have a positive.
      database: int64 [N], rows of database images.
      positives: of each query, its potential positives, as positions in `database`.
      near: of each query, the database images that are not definite negatives; its positives are among them.
      weights: float64 [Q], how often a query is drawn; sums to one.
      skipped: how many queries are left out, because they have no positive.
    """

    queries: Array
    database: Array
    positives: Positives
    near: Positives
    weights: Array
    skipped: int


def neighbours(
    sets: Sequence[Places] | Sequence[Clips], positive: str, soft: str, *, weighted: bool = False, first: int = 0
) -> Neighbours:
    """The neighbours of all queries of several data sets, with one database of all of them.

    Positives lie in the data set and UTM zone of their query; a negative may come from any, as if the data sets lay far
    apart. Of a data set without queries every image is a query, and all other images are its database; of clips all
    others that share no frame with it.

    Args:
      sets: of images, or of clips; rows are counted over all of them, one after the other. Where a clip is, in which
        role and when, its `Clips.places` say.
      positive: threshold of `thresholds.parse_threshold` within which an image may be a positive, such as "10m".
      soft: threshold within which an image is not a negative, such as "25m"; never stricter than `positive`.
      weighted: draw queries taken at night, and sideways ones, as often as all others together, as
        the weighted sampling of MSLS does (Warburg et al., CVPR 2020).
      first: number of the first row.

    Raises:
      UserError: where no query has a positive, for a soft threshold below the hard one, or for weights
        without a query at night or sideways.
    """
    _check_thresholds(positive, soft)
    queries, database, (close, near, shared) = _within(sets, (positive, soft), first)
    # An image that is both query and database would be its own best positive, at distance 0.
    close = without(close, shared)
    # Checked on the lists, not on the numbers of the thresholds: "10m_40deg" and "25m_30deg" contradict each other
    # only where images do.
    if without(close, near).indices.size:
        raise UserError(
            f"objective.soft={soft!r} is stricter than objective.positive={positive!r}: an image could be a positive "
            "and a negative of one query. Give a soft threshold that holds every positive"
        )
    keep, every = close.counts > 0, [table_of(one) for one in sets]
    names = ", ".join(one.name for one in every)
    if not keep.any():
        raise UserError(
            f"{names}: none of {len(keep)} queries has a positive, a database image within "
            f"objective.positive={positive!r} (negatives lie beyond objective.soft={soft!r}). Widen the threshold, or "
            "check the coordinates"
        )
    weights = (
        _night_sideways(Places.concat([*map(table_of, sets)]), queries[keep] - first)
        if weighted
        else np.ones(keep.sum())
    )
    skipped = int((~keep).sum())
    return Neighbours(queries[keep], database, close.take(keep), near.take(keep), weights / weights.sum(), skipped)


def _check_thresholds(positive: str, soft: str) -> None:
    metres = [float(match[1]) for text in (positive, soft) if (match := METRES.match(text))]
    if len(metres) == 2 and metres[1] < metres[0]:
        raise UserError(
            f"objective.soft={soft!r} is below objective.positive={positive!r}: positives lie within the latter, "
            "negatives beyond the former, which must be at least as wide"
        )


def _within(
    sets: Sequence[Places] | Sequence[Clips], thresholds: Sequence[str], first: int
) -> tuple[Array, Array, list[Positives]]:
    """Rows of all queries and of the database; for each threshold the images within it, as positions in the latter,
    and last those that are the query or share a frame with it.

    Data sets, and the UTM zones of one, are searched one at a time: their metres cannot be compared.
    """
    queries, database, images = [], [], 0  # images: how many the database has so far
    lists: list[list[Positives]] = [[] for _ in (*thresholds, "shared")]
    makers = [parse_threshold(text) for text in thresholds]
    for elements in sets:
        places = table_of(elements)
        frames = elements.rows if isinstance(elements, Clips) else np.arange(len(elements))[:, None]
        roles = _roles(places)
        for zone in np.unique(places.zone):
            of_queries, of_database = (np.flatnonzero(role & (places.zone == zone)) for role in roles)
            found = [make(elements.take(of_database), elements.take(of_queries)) for make in makers]
            for within, parts in zip([*found, _sharing(frames[of_database], frames[of_queries])], lists, strict=True):
                parts.append(Positives(within.indptr, within.indices + images))
            queries.append(first + of_queries)
            database.append(first + of_database)
            images += len(of_database)
        first += len(elements)
    return np.concatenate(queries), np.concatenate(database), [_joined(parts) for parts in lists]


def _roles(places: Places) -> tuple[Array, Array]:
    """bool [N] each: which images are queries, and which are database. Without queries every image is both."""
    queries = places.role == ROLES.index("query")
    database = places.role == ROLES.index("database")
    if not queries.any():
        every = np.ones(len(places), bool)
        return every, every
    if not database.any():
        raise UserError(f"{places.name}: {len(places)} images, all of them queries; mining needs database images too")
    return queries, database


def _joined(parts: Sequence[Positives]) -> Positives:
    """One list of several, the queries of each part after those of the one before."""
    ends = np.cumsum([0] + [len(part.indices) for part in parts])
    indptr = [part.indptr[1:] + end for part, end in zip(parts, ends, strict=False)]
    return Positives(np.concatenate([[0], *indptr]), np.concatenate([part.indices for part in parts]))


def _sharing(database: Array, queries: Array) -> Positives:
    """Of each row of `queries` the rows of `database` with a number in common; both int64, [rows, frames]."""
    order = np.argsort(database, axis=None)
    ordered, wanted = database.ravel()[order], queries.ravel()
    starts, ends = (np.searchsorted(ordered, wanted, side=side) for side in ("left", "right"))
    places, indptr = taken(order, starts, ends - starts)
    return from_lists(indptr[:: queries.shape[1]], places // database.shape[1])


def _night_sideways(places: Places, queries: Array) -> Array:
    """float64 [Q]: 1 for every query, and queries at night share as much weight again as all have; so do sideways ones.

    A query that is both gets both, as in MSLS's published code.
    """
    weights = np.ones(len(queries))
    night = places.having("night") if "night" in places.conditions else np.zeros(len(places), bool)
    for name, rare in (("taken at night", night[queries]), ("taken sideways", places.view[queries] == SIDEWAYS)):
        if not rare.any():
            raise UserError(
                f"objective.weighted=True draws queries {name} more often, but none of the {len(queries)} queries is "
                "known to be one; it is meant for MSLS, whose file names say so. Set objective.weighted=False"
            )
        weights[rare] += len(queries) / rare.sum()
    return weights
