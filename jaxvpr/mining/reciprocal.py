"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) of a few candidates, without a matrix of all pairs.

Two images are similar if they share k-reciprocal neighbours: images that are each among the nearest of the other.
The lists of all images come from one search of the cache with its own rows; distances are computed for listed pairs
alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipelines.answers import offsets
from jaxvpr.mining.search_lists import search_lists
from jaxvpr.retrieval.cache import Cache, vectors
from jaxvpr.retrieval.mesh_search import exact_on_mesh
from jaxvpr.retrieval.positives import Positives
from jaxvpr.retrieval.shards import power_above

Array = np.ndarray

BLOCK = 1024  # rows whose descriptors lie on the host together


class Encoded(NamedTuple):
    """The weighted sets of k-reciprocal neighbours of M rows.

    Attributes:
      members: of each row, the rows of the cache in its set.
      shares: float32, the weight of each member, beside `members.indices`; those of one row sum to 1.
      farthest: float32 [M], the squared distance of each row to the row farthest from it.
    """

    members: Positives
    shares: Array
    farthest: Array


def reciprocal_distances(
    cache: Cache, queries: Array, candidates: Array, *, k: int = 20, plain_weight: float = 0.1, memory_mib: float = 1024
) -> Array:
    """Distances of queries to their candidates by the neighbours that they share.

    `(1 - w) (1 - J) + w u²`, with w `plain_weight`, J the Jaccard similarity of the weighted sets of k-reciprocal
    neighbours and u the squared distance as a share of that to the farthest row. Sets are expanded, but not averaged
    over neighbours (k2=1 of the paper).

    Args:
      cache: of unit vectors; holds the queries too.
      queries: int [Q], rows of the cache. candidates: int [Q, m], rows of the cache, -1 pads.
      k: neighbours of an image, beside itself.
      plain_weight: of the plain distance.
      memory_mib: as in `hard_examples`.

    Returns:
      float32 [Q, m]; infinite where there is no candidate, or it could not be read.
    """
    nearest = _nearest(cache, k + 1, memory_mib)
    rows = np.union1d(queries, candidates[candidates >= 0])
    encoded = _encoded(cache, rows, expanded(nearest, rows, k), memory_mib)
    lists, place = _lists(candidates)
    plain = np.full(candidates.shape, np.inf, np.float32)
    plain[place] = _squares(cache, queries, lists, memory_mib)
    of_candidate, of_query = np.searchsorted(rows, candidates), np.searchsorted(rows, queries)
    shared, scratch = np.zeros(candidates.shape, np.float32), np.zeros(cache.count, np.float32)
    indptr, indices = encoded.members.indptr, encoded.members.indices
    for query, positions in enumerate(of_candidate):
        # The query's set as a dense vector [N], into which each candidate's set is looked up: one scratch for all
        # queries, cleared where it was written, since a matrix [Q, N] is too large.
        mine = slice(indptr[of_query[query]], indptr[of_query[query] + 1])
        scratch[indices[mine]] = encoded.shares[mine]
        for number in np.flatnonzero(np.isfinite(plain[query])):
            theirs = slice(indptr[positions[number]], indptr[positions[number] + 1])
            shared[query, number] = np.minimum(scratch[indices[theirs]], encoded.shares[theirs]).sum()
        scratch[indices[mine]] = 0
    relative = np.square(plain / encoded.farthest[of_query][:, None])
    # Shares of a set sum to 1, so that the sum of maxima is 2 - that of minima: J = shared / (2 - shared).
    return (1 - plain_weight) * (1 - shared / (2 - shared)) + plain_weight * relative


def expanded(nearest: Array, rows: Array, k: int) -> Positives:
    """The k-reciprocal neighbours of `rows`, and those (of k / 2) of each neighbour that shares two thirds of its set.

    Args:
      nearest: int64 [N, k + 1], each row's nearest rows, itself among them; -1 pads.

    Returns:
      `Positives` over `rows`, of rows.
    """
    mutual, half = reciprocal(nearest, k), reciprocal(nearest, round(k / 2))
    members = []
    for row in rows:
        own = mutual[row][mutual[row] >= 0]
        theirs = half[own]  # [len(own), k / 2 + 1]; -1 pads
        known = theirs >= 0
        # Two thirds of a neighbour's set must lie in `own` as it was, not as it grows: the order of neighbours must
        # not matter.
        common = (np.isin(theirs, own) & known).sum(1)
        alike = theirs[common > 2 / 3 * known.sum(1)]
        members.append(np.union1d(own, alike[alike >= 0]))
    indptr = np.concatenate([[0], np.cumsum([len(own) for own in members])])
    return Positives(indptr, np.concatenate([*members, np.empty(0, np.int64)]).astype(np.int64))


def reciprocal(nearest: Array, k: int) -> Array:
    """Of each row's k + 1 nearest those that have the row among their own k + 1: int64 [N, k + 1], the others -1."""
    lists = nearest[:, : k + 1]
    kept = np.full(lists.shape, -1, np.int64)
    for start in range(0, len(lists), BLOCK):
        part = lists[start : start + BLOCK]
        # [rows, k + 1, k + 1]: a block of rows at a time, as that of all rows is too large for many images.
        back = lists[np.maximum(part, 0)] == np.arange(start, start + len(part))[:, None, None]
        kept[start : start + BLOCK] = np.where(back.any(2) & (part >= 0), part, -1)
    return kept


def _nearest(cache: Cache, k: int, memory_mib: float) -> Array:
    """int64 [N, k], the nearest rows of every row, nearest first, itself among them; -1 pads."""
    nearest = np.empty((cache.count, k), np.int64)
    for start in range(0, cache.count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, cache.count))
        _, nearest[rows] = exact_on_mesh(cache, vectors(cache, rows), k, memory_mib=memory_mib)
    return nearest


def _encoded(cache: Cache, rows: Array, members: Positives, memory_mib: float) -> Encoded:
    """Weights exp(-u^2) of the members, u being the squared distance as a share of that to the farthest row."""
    farthest = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, min(start + BLOCK, len(rows)))
        # Of unit vectors |x + y|^2 = 4 - |x - y|^2: what is nearest to -x is farthest from x.
        opposite = -vectors(cache, rows[part])
        farthest[part] = 4 - exact_on_mesh(cache, opposite, 1, memory_mib=memory_mib)[0][:, 0]
    owner = np.repeat(np.arange(len(rows)), members.counts)
    relative = _squares(cache, rows, members, memory_mib) / np.maximum(farthest, 1e-12)[owner]
    weights = np.exp(-np.square(relative))
    sums = np.bincount(owner, weights, len(rows))
    return Encoded(members, (weights / sums[owner]).astype(np.float32), farthest)


def _squares(cache: Cache, rows: Array, lists: Positives, memory_mib: float) -> Array:
    """float32 [P], squared distances of rows to what they list, as `lists.indices`; infinite where one is missing."""
    squares = np.full(len(lists.indices), np.inf, np.float32)
    longest = power_above(lists.counts.max(initial=0))  # few lengths, as each is a program to compile
    for start in range(0, len(rows), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(rows)))
        own = lists.take(part)
        distances, nearest = search_lists(cache, vectors(cache, rows[part]), own, longest, memory_mib)
        query, column = np.nonzero(nearest >= 0)
        # The search returns rows by distance, the caller wants them in the order of its lists. Keys (query, row) in one
        # number ascend, as rows do within a list: a binary search finds the place of each result.
        keys = np.repeat(np.arange(len(part)), own.counts) * cache.count + own.indices
        at = np.searchsorted(keys, query * cache.count + nearest[query, column])
        squares[lists.indptr[start] + at] = distances[query, column]
    return squares


def _lists(table: Array) -> tuple[Positives, tuple[Array, Array]]:
    """The rows of a table, -1 pads, as lists, and where each of them stood in it."""
    order = np.argsort(table, axis=1, kind="stable")
    query, rank = np.nonzero(np.take_along_axis(table, order, 1) >= 0)
    place = query, order[query, rank]
    counts = (table >= 0).sum(1)
    return Positives(offsets(counts), table[place].astype(np.int64)), place
