"""Exact nearest neighbours of descriptors by FAISS on the host, or on a JAX mesh.

Distances are squared Euclidean, nearest first; equal distances are ordered by the smaller database row, so that a
result is the same on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_pipelines.progress import slow

Array = np.ndarray

DATABASE_BLOCK = 1 << 20  # rows that FAISS searches together: bounds the copy of a memory-mapped database
QUERY_BLOCK = 1024  # queries and database rows that a device multiplies at once
ROW_BLOCK = 4096


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
    _check(database, queries, k)
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


def exact_on_mesh(
    database: Array, queries: Array, k: int, mesh: Mesh, *, missing: Sequence[int] | Array = ()
) -> tuple[Array, Array]:
    """As `exact`, with the database spread over all devices of a mesh: for databases beyond one host.

    Every device multiplies its rows block by block and keeps its k nearest; these are gathered and merged. No matrix of
    Q x N ever exists. Every process passes the same arrays and gets the whole result.

    Args:
      database, queries, k, missing: as in `exact`.
      mesh: any mesh; the rows are split over the product of its axes.
    """
    _check(database, queries, k)
    if not len(database) or not len(queries):
        return np.full((len(queries), k), np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    block = min(ROW_BLOCK, -(-len(database) // mesh.size))
    shard = -(-len(database) // (mesh.size * block)) * block
    present = np.zeros(shard * mesh.size, bool)
    present[: len(database)] = True
    present[np.asarray(missing, np.int64)] = False
    table = _spread(mesh, len(present), database)
    valid = _spread(mesh, len(present), present)
    nearest = _nearest_on(mesh, k, block)
    results = []
    for start in range(0, len(queries), QUERY_BLOCK):
        part = np.zeros((min(QUERY_BLOCK, len(queries)), queries.shape[1]), np.float32)
        part[: len(queries) - start] = queries[start : start + QUERY_BLOCK]
        found = jax.device_get(nearest(table, valid, part))
        results.append([np.asarray(values)[: len(queries) - start] for values in found])
    distances, indices = (np.concatenate(values) for values in zip(*results, strict=True))
    return distances, indices.astype(np.int64)


def _spread(mesh: Mesh, total: int, array: Array) -> jax.Array:
    """`array` [n, ...] on the mesh as [total, ...], rows split over all devices, zeros behind the last row."""
    dtype = np.dtype(bool) if array.dtype == bool else np.dtype(np.float32)

    def shard(index):
        start, stop, _ = index[0].indices(total)
        part = np.zeros((stop - start, *array.shape[1:]), dtype)
        part[: max(0, len(array) - start)] = array[start:stop]
        return part

    rows = NamedSharding(mesh, P(mesh.axis_names))
    return jax.make_array_from_callback((total, *array.shape[1:]), rows, shard)


@lru_cache(maxsize=16)
def _nearest_on(mesh: Mesh, k: int, block: int):
    """Compiles the search for one mesh: (database, valid, queries) -> (distances, indices) on every device."""
    axes = mesh.axis_names
    search = partial(_nearest_in_shard, k=k, block=block, axes=axes)
    # The result is the same on all devices after the gather, which the checker of varying axes cannot see.
    whole = jax.shard_map(search, mesh=mesh, in_specs=(P(axes), P(axes), P()), out_specs=P(), check_vma=False)
    everywhere = NamedSharding(mesh, P())
    return jax.jit(whole, out_shardings=(everywhere, everywhere))


def _nearest_in_shard(database, valid, queries, *, k, block, axes):
    """One device: scan the blocks of its rows with a running top-k, then merge with all others."""
    first = jax.lax.axis_index(axes) * len(database)
    norms = jnp.sum(jnp.square(queries), axis=1, keepdims=True)

    def visit(best, part):
        rows, keep, start = part
        dot = jnp.matmul(queries, rows.T, precision=jax.lax.Precision.HIGHEST)
        distances = norms + jnp.sum(jnp.square(rows), axis=1)[None] - 2 * dot
        distances = jnp.where(keep[None], jnp.maximum(distances, 0), jnp.inf)
        numbers = jnp.broadcast_to((start + jnp.arange(block, dtype=jnp.int32))[None], distances.shape)
        return smallest(jnp.hstack([best[0], distances]), jnp.hstack([best[1], numbers]), k), None

    blocks = len(database) // block
    starts = first + block * jnp.arange(blocks, dtype=jnp.int32)
    none = jnp.full((len(queries), k), jnp.inf, jnp.float32), jnp.full((len(queries), k), -1, jnp.int32)
    parts = database.reshape(blocks, block, -1), valid.reshape(blocks, block), starts
    best, _ = jax.lax.scan(visit, none, parts)
    distances, indices = (jax.lax.all_gather(values, axes, axis=1, tiled=True) for values in best)
    distances, indices = smallest(distances, indices, k)
    return distances, jnp.where(jnp.isinf(distances), -1, indices)


def smallest(distances, indices, k):
    """The k smallest distances [Q, k] and their rows, of [Q, n] each on a device.

    `top_k` prefers the earlier of equals; where rows ascend, that is the smaller row.
    """
    values, where = jax.lax.top_k(-distances, k)
    return -values, jnp.take_along_axis(indices, where, axis=1)


def _check(database: Array, queries: Array, k: int) -> None:
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise ValueError(f"database {database.shape} and queries {queries.shape} must be [N, D] and [Q, D]")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
