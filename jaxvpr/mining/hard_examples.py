"""The best positive and the hardest negatives of each query, searched on the devices that hold the descriptors.

There are two searches, each compiled once for the size of a cache, not for each plan: `search_lists` where each query
has its own short list of candidates, `exact_on_mesh` where all rows but a few are candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxvpr.mining.search_lists import search_lists
from jaxvpr.retrieval import shards
from jaxvpr.retrieval.cache import Cache
from jaxvpr.retrieval.mesh_search import exact_on_mesh
from jaxvpr.retrieval.positives import Positives

Array = np.ndarray
Lists = Positives | None


class HardExamples(NamedTuple):
    """The positive and the negatives of Q queries. Distances are squared L2; nearest first, then the smaller row.

    Attributes:
      positive: int64 [Q], the nearest of the query's positives, a row of the cache; -1 where it has none.
      positive_distances: float32 [Q]; infinite where there is none.
      negatives: int64 [Q, k], rows of the cache; -1 after the last where there are fewer than k.
      negative_distances: float32 [Q, k]; infinite where there is none.
    """

    positive: Array
    positive_distances: Array
    negatives: Array
    negative_distances: Array


def hard_examples(
    cache: Cache,
    queries: Array,
    positives: Positives,
    *,
    k: int,
    allowed: Lists = None,
    excluded: Lists = None,
    memory_mib: float = 1024,
) -> HardExamples:
    """Searches a cache. Images that could not be read are never results.

    Args:
      queries: float32 [Q, D], the same in every process.
      positives: of each query the rows of the cache that may be its positive.
      k: how many negatives; 0 for best positives alone.
      allowed: of each query the rows that may be its negatives; or
      excluded: of each query the rows that may not, where all others may.
      memory_mib: what the search may take on each device beside the cache, in MiB, which limits the size of its blocks
        (at least one query and one row).

    Returns:
      `HardExamples`, the same in every process.

    Raises:
      ValueError: for shapes or rows that do not fit, or not exactly one of `allowed` and `excluded` where k > 0.
    """
    _check(cache, queries, positives, k, allowed, excluded, memory_mib)
    # Positives are a few a query, so that they need no search of all rows.
    best, row = search_lists(cache, queries, positives, 1, memory_mib)
    if k and allowed is not None:
        distances, rows = search_lists(cache, queries, allowed, k, memory_mib)
    elif k and excluded is not None:
        distances, rows = exact_on_mesh(cache, queries, k, excluded=excluded, memory_mib=memory_mib)
    else:
        distances, rows = shards.fetched(iter(()), len(queries), 0)
    return HardExamples(row[:, 0], best[:, 0], rows, distances)


def _check(
    cache: Cache, queries: Array, positives: Positives, k: int, allowed: Lists, excluded: Lists, memory_mib: float
) -> None:
    if queries.ndim != 2 or queries.shape[1] != cache.descriptors.shape[2]:
        raise ValueError(f"queries {queries.shape} must be [Q, {cache.descriptors.shape[2]}], as the cache is")
    if k < 0 or memory_mib <= 0:
        raise ValueError(f"k={k} must not be negative, and memory_mib={memory_mib} must be above 0")
    if k and (allowed is None) == (excluded is None):
        raise ValueError("give either the rows that may be negatives (allowed) or those that may not (excluded)")
    for name, lists in (("positives", positives), ("allowed", allowed), ("excluded", excluded)):
        if lists is None:
            continue
        if len(lists) != len(queries):
            raise ValueError(f"{name} has lists for {len(lists)} queries, not {len(queries)}")
        lowest, highest = lists.indices.min(initial=0), lists.indices.max(initial=-1)
        if lowest < 0 or highest >= cache.count:
            raise ValueError(f"{name} has rows from {lowest} to {highest}, but the cache holds {cache.count}")
