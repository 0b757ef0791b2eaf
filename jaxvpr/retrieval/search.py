"""Exact nearest neighbours of descriptors by FAISS on the host; `mesh_search` has those of descriptors on the devices.

Distances are squared Euclidean, nearest first; equal distances are ordered by the smaller database row, so that a
result is the same on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.progress import slow

Array = np.ndarray

DATABASE_BLOCK = 1 << 20  # rows that FAISS searches together: bounds the copy of a memory-mapped database


def exact(database: Array, queries: Array, k: int, *, missing: Sequence[int] | Array = ()) -> tuple[Array, Array]:
    """The k nearest database rows of each query, by exhaustive search (what FAISS calls a flat L2 index).

    Args:
      database: float32 [N, D], may be memory-mapped: it is read in blocks.
      queries: float32 [Q, D].
      k: how many; where there are fewer, the rest is row -1 at an infinite distance.
      missing: database rows whose image could not be read: they are never results.

    Returns:
      distances float32 [Q, k], squared L2 (of unit vectors: 2 - 2 cos), and indices int64 [Q, k].

    Raises:
      ValueError: for shapes that do not fit or descriptors that are not finite.
    """
    check(database.shape, queries.shape, k)
    queries = np.ascontiguousarray(queries, np.float32)
    distances, indices = np.full((len(queries), k), np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    present = np.ones(len(database), bool)
    present[np.asarray(missing, np.int64)] = False
    with slow(f"searching {len(database):,} descriptors for the nearest of {len(queries):,}"):
        for start in range(0, len(database), DATABASE_BLOCK):
            rows = start + np.flatnonzero(present[start : start + DATABASE_BLOCK])
            if len(rows) and len(queries):
                part = np.ascontiguousarray(database[rows], np.float32)
                nearer, where = _flat(part, queries, min(k, len(rows)))
                distances, indices = _merge(distances, indices, nearer, rows[where], k)
    return distances, indices


def at_once(database: Array) -> Callable[[Array, int], tuple[Array, Array]]:
    """A database that is made ready once, `(queries, k) -> (distances, indices)`, for what a search alone takes."""
    import faiss

    index = faiss.IndexFlatL2(database.shape[1])
    index.add(np.ascontiguousarray(database, np.float32))
    return index.search


def _flat(database: Array, queries: Array, k: int) -> tuple[Array, Array]:
    if not (np.isfinite(database).all() and np.isfinite(queries).all()):
        raise ValueError("descriptors are not finite: check the weights and rows that were never written for NaN")
    import faiss  # here, since a search on the devices does not need it

    # FAISS keeps large k in a reservoir that breaks ties at random; its heap keeps the smaller row.
    faiss.cvar.distance_compute_min_k_reservoir = 1 << 30
    return faiss.knn(queries, database, k)


def _merge(distances: Array, indices: Array, more: Array, more_indices: Array, k: int) -> tuple[Array, Array]:
    """The k nearest of two lists; -1 sorts after every row, because its distance is infinite."""
    distances, indices = np.hstack([distances, more]), np.hstack([indices, more_indices])
    order = np.lexsort((indices, distances), axis=-1)[:, :k]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)


def check(database: Sequence[int], queries: Sequence[int], k: int) -> None:
    """Raises ValueError for shapes that are not [N, D] and [Q, D], or k below 1."""
    if len(database) != 2 or len(queries) != 2 or database[1] != queries[1]:
        raise ValueError(f"database {tuple(database)} and queries {tuple(queries)} must be [N, D] and [Q, D]")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
