"""The best positive and the hardest negatives of each query, found on the devices that hold the descriptors.

Two programs, both compiled once for the size of a cache and not for what a plan draws:

- *the rest*: every row is a candidate but for a few. Each device multiplies the queries with its rows block by block,
  strikes out what is no candidate and keeps its k nearest, as `search.exact_on_mesh` does.
- *the listed*: each query has its own short list. Each device gathers those of the listed rows that it holds.

What the devices found is merged by distance and then by row, so that a result does not depend on how the rows are
spread, but for rounding. Nothing of size queries x database exists, on no device and on no host.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvpr.mining import shards
from jaxvpr.mining.search_lists import listed
from jaxvpr.retrieval.cache import Cache
from jaxvpr.retrieval.positives import Positives
from jaxvpr.retrieval.search import smallest

Array = np.ndarray
Lists = Positives | None

ROW_BLOCK = {"cpu": 4096}  # rows of each device that are multiplied with a block of queries, where memory allows
ROW_BLOCK_ELSEWHERE = 32768
GROUP = 16  # rows of a block of which only the nearest is compared at first


class Hardest(NamedTuple):
    """What was found for Q queries. Distances are squared L2; nearest first, of equal ones the smaller row.

    Attributes:
      positive: int64 [Q], the nearest of the query's positives, a row of the cache; -1 where it has none.
      positive_distances: float32 [Q]; infinite where there is none.
      negatives: int64 [Q, k], rows of the cache; -1 behind the last where there are fewer than k.
      negative_distances: float32 [Q, k]; infinite where there is none.
    """

    positive: Array
    positive_distances: Array
    negatives: Array
    negative_distances: Array


def hardest(
    cache: Cache,
    queries: Array,
    positives: Positives,
    *,
    k: int,
    only: Lists = None,
    but: Lists = None,
    memory_mib: float = 1024,
) -> Hardest:
    """Searches a cache. Images that could not be read are never found.

    Args:
      queries: float32 [Q, D], the same in every process.
      positives: of each query the rows of the cache that may be its positive.
      k: how many negatives; 0 for best positives alone.
      only: of each query the rows that may be its negatives; or
      but: of each query the rows that may not, where all others may.
      memory_mib: what the search may take on each device beside the cache, in MiB: its blocks are cut accordingly. (No
        block is smaller than one query and one row.)

    Returns:
      `Hardest`, the same in every process.

    Raises:
      ValueError: for shapes or rows that do not fit, or not exactly one of `only` and `but` where k > 0.
    """
    _check(cache, queries, positives, k, only, but, memory_mib)
    queries = np.ascontiguousarray(queries, np.float32)
    values = int(memory_mib * 2**20) // 4 // 2  # float32 that each of two searches may take
    best, row = listed(cache, queries, positives, 1, values)
    if k and only is not None:
        distances, rows = listed(cache, queries, only, k, values)
    elif k and but is not None:
        distances, rows = _rest(cache, queries, but, k, values)
    else:
        distances, rows = shards.fetched(iter(()), len(queries), 0)
    return Hardest(row[:, 0], best[:, 0], rows, distances)


def _check(
    cache: Cache, queries: Array, positives: Positives, k: int, only: Lists, but: Lists, memory_mib: float
) -> None:
    if queries.ndim != 2 or queries.shape[1] != cache.descriptors.shape[2]:
        raise ValueError(f"queries {queries.shape} must be [Q, {cache.descriptors.shape[2]}], as the cache is")
    if k < 0 or memory_mib <= 0:
        raise ValueError(f"k={k} must not be negative, and memory_mib={memory_mib} must be more than nothing")
    if k and (only is None) == (but is None):
        raise ValueError("give either the rows that may be negatives (only) or those that may not (but)")
    for name, lists in (("positives", positives), ("only", only), ("but", but)):
        if lists is None:
            continue
        if len(lists) != len(queries):
            raise ValueError(f"{name} has lists for {len(lists)} queries, not {len(queries)}")
        lowest, highest = lists.indices.min(initial=0), lists.indices.max(initial=-1)
        if lowest < 0 or highest >= cache.count:
            raise ValueError(f"{name} has rows from {lowest} to {highest}, but the cache holds {cache.count}")


def _rest(cache: Cache, queries: Array, but: Positives, k: int, values: int) -> tuple[Array, Array]:
    """The k nearest of all rows that `but` does not strike out: distances and rows [Q, k]."""
    count, (held, batch, _) = len(queries), cache.descriptors.shape
    mesh, own = cache.mesh, held * batch // cache.mesh.size
    room = values // 4  # one number of four for the scores, the others for what they are made from
    size = min(shards.QUERY_BLOCK, shards.power_above(count), shards.power_below(int(room**0.5)))
    most = ROW_BLOCK.get(mesh.devices.flat[0].platform, ROW_BLOCK_ELSEWHERE)
    rows = min(most, shards.power_below(room // size), own)
    used = -(-cache.count // batch) * (batch // mesh.size)
    blocks = np.int32(-(-used // rows))
    search = _rest_on(mesh, k, rows)
    starts = range(0, count, size)
    longest = max((but.indptr[min(start + size, count)] - but.indptr[start] for start in starts), default=0)

    def started() -> Iterator[shards.Started]:
        for start in starts:
            part = np.arange(start, min(start + size, count))
            pairs = np.full((2, shards.power_above(longest)), -1, np.int32)
            first, last = but.indptr[start], but.indptr[part[-1] + 1]
            pairs[0, : last - first] = np.repeat(part - start, but.counts[part])
            pairs[1, : last - first] = but.indices[first:last]
            asked = shards.block(queries, part, min(size, shards.power_above(count - start)))
            yield part, search((cache.descriptors, cache.present), asked, pairs, blocks)

    return shards.fetched(started(), count, k)


@lru_cache(maxsize=64)
def _rest_on(mesh: Mesh, k: int, rows: int):
    """Compiles `_rest_of_shard` for a mesh: (cache, queries, struck out pairs, blocks) -> (distances, rows)."""
    axes = mesh.axis_names
    search = partial(_rest_of_shard, k=k, rows=rows, axes=axes)
    split = P(None, axes)
    # The result is the same on all devices after the merge, which the checker of varying axes cannot see.
    whole = jax.shard_map(search, mesh=mesh, in_specs=((split, split), P(), P(), P()), out_specs=P(), check_vma=False)
    return jax.jit(whole, out_shardings=(NamedSharding(mesh, P()),) * 2)


def _rest_of_shard(cache, queries, pairs, blocks, *, k, rows, axes):
    """One device: its blocks one after the other with a running top-k, then the merge with all others."""
    descriptors, present = (array.reshape(-1, *array.shape[2:]) for array in cache)
    own, share = len(descriptors), cache[0].shape[1]
    local = shards.local_rows(pairs[1], share, axes)
    norms = jnp.sum(jnp.square(queries), axis=1, keepdims=True)

    def visit(block, best):
        first = block * rows
        start = jnp.minimum(first, own - rows)  # the last block begins earlier, and looks at its own rows only
        part, keep = (jax.lax.dynamic_slice_in_dim(array, start, rows) for array in (descriptors, present))
        number = start + jnp.arange(rows, dtype=jnp.int32)
        dot = jnp.matmul(queries, part.T, precision=jax.lax.Precision.HIGHEST)
        scores = jnp.maximum(norms + jnp.sum(jnp.square(part), axis=1)[None] - 2 * dot, 0)
        scores = jnp.where((keep & (number >= first))[None], scores, jnp.inf)
        column = jnp.where(local >= start, local - start, rows)
        scores = scores.at[pairs[0], column].set(jnp.inf, mode="drop")
        nearer, where = _nearest_columns(scores, k)
        return smallest(jnp.hstack([best[0], nearer]), jnp.hstack([best[1], start + where]), k)

    best = jax.lax.fori_loop(0, blocks, visit, shards.nothing(len(queries), k))
    return shards.merged(best, share, axes)


def _nearest_columns(scores, k):
    """The k smallest of each line and their columns; of equal ones the earlier.

    They stand in the k groups of neighbouring columns whose smallest are smallest, so that only those are looked into.
    """
    lines, columns = scores.shape
    k = min(k, columns)
    if columns % GROUP or columns < 4 * GROUP * k:  # with many groups chosen little is left out
        return smallest(scores, jnp.broadcast_to(jnp.arange(columns, dtype=jnp.int32)[None], scores.shape), k)
    groups = scores.reshape(lines, -1, GROUP)
    _, chosen = jax.lax.top_k(-groups.min(axis=2), k)
    chosen = jnp.sort(chosen, axis=1)
    candidates = jnp.take_along_axis(groups, chosen[:, :, None], axis=1).reshape(lines, -1)
    column = chosen[:, :, None] * GROUP + jnp.arange(GROUP, dtype=chosen.dtype)[None, None]
    return smallest(candidates, column.reshape(lines, -1), k)
