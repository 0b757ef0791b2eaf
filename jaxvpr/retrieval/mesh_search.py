"""Exact nearest neighbours among descriptors that lie on the devices, without those that a list of the query excludes.

Each device multiplies the queries with its rows block by block, sets the distances of excluded rows to infinity and
keeps its k nearest. The results of all devices are merged by distance and then by row, so that they do not depend on
how the rows are sharded, but for rounding. No device and no host ever holds an array of queries x database.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxvpr.retrieval import shards
from jaxvpr.retrieval.cache import Cache
from jaxvpr.retrieval.positives import Positives
from jaxvpr.retrieval.search import check
from jaxvpr.retrieval.shards import smallest

Array = np.ndarray

# Rows of each device that are multiplied with a block of queries, where memory allows: an accelerator is busy only with
# large products, a CPU gains nothing from them.
ROW_BLOCK = {"cpu": 4096}
ROW_BLOCK_ELSEWHERE = 32768
GROUP = 16  # rows of a block of which only the nearest is compared at first


def exact_on_mesh(
    cache: Cache, queries: Array, k: int, *, excluded: Positives | None = None, memory_mib: float = 1024
) -> tuple[Array, Array]:
    """The k nearest rows of each query, by exhaustive search on the devices that hold them; as `search.exact`.

    Args:
      queries: float32 [Q, D], the same in every process.
      k: how many; where there are fewer, the rest is row -1 at an infinite distance.
      excluded: of each query the rows of the cache to leave out.
      memory_mib: what the search may take on each device beside the cache.

    Returns:
      distances float32 [Q, k], squared L2, nearest first, of equal ones the smaller row; and rows int64 [Q, k]. The
      same in every process.

    Raises:
      ValueError: for shapes that do not fit.
    """
    count, (held, batch, dimension) = len(queries), cache.descriptors.shape
    check((cache.count, dimension), queries.shape, k)
    queries = np.ascontiguousarray(queries, np.float32)
    if excluded is None:
        excluded = Positives(np.zeros(count + 1, np.int64), np.empty(0, np.int64))
    mesh, own = cache.mesh, held * batch // cache.mesh.size
    # A quarter for the scores [size, rows]; XLA keeps copies of them beside (the product, the masked scores, what top-k
    # sorts). tests/mining/test_searches.py measures that all fit.
    values = shards.budget(memory_mib)
    room = values // 4
    # Powers of two: plans of other sizes then run the programs that are compiled already. Square blocks first, as the
    # scores are what memory goes to; what is left then goes to more rows, which save passes over the queries.
    size = min(shards.QUERY_BLOCK, shards.power_above(count), shards.power_below(int(room**0.5)))
    most = ROW_BLOCK.get(mesh.devices.flat[0].platform, ROW_BLOCK_ELSEWHERE)
    # XLA copies a block of rows [rows, D] too: half of the memory.
    rows = min(most, shards.power_below(room // size), shards.power_below(values // (2 * dimension)), own)
    # A cache may be allocated for more rows than it holds so far (`cache.first`): blocks after the last are not
    # visited. Their number is an argument, so that another number compiles nothing.
    used = -(-cache.count // batch) * (batch // mesh.size)
    blocks = np.int32(-(-used // rows))
    search = _search_on(mesh, k, rows)
    starts = range(0, count, size)
    # All blocks have room for the longest list of exclusions of any, so that they share one compiled program.
    longest = max((excluded.indptr[min(start + size, count)] - excluded.indptr[start] for start in starts), default=0)

    def started() -> Iterator[shards.Started]:
        for start in starts:
            part = np.arange(start, min(start + size, count))
            # int32 [2, pairs], (query of the block, row of the cache): their size is that of the lists, where a mask
            # would be queries x database. -1 pads, which is a row of no device.
            pairs = np.full((2, shards.power_above(longest)), -1, np.int32)
            first, last = excluded.indptr[start], excluded.indptr[part[-1] + 1]
            pairs[0, : last - first] = np.repeat(part - start, excluded.counts[part])
            pairs[1, : last - first] = excluded.indices[first:last]
            padded = shards.block(queries, part, min(size, shards.power_above(count - start)))
            yield part, search((cache.descriptors, cache.present), padded, pairs, blocks)

    return shards.fetched(started(), count, k)


@lru_cache(maxsize=64)
def _search_on(mesh: Mesh, k: int, rows: int):
    """Compiles `_search_of_shard` for a mesh: (cache, queries, excluded pairs, blocks) -> (distances, rows)."""
    axes = mesh.axis_names
    search = partial(_search_of_shard, k=k, rows=rows, axes=axes)
    split = P(None, axes)
    return shards.compiled(search, mesh, (split, split), P(), P(), P())


def _search_of_shard(cache, queries, pairs, blocks, *, k, rows, axes):
    """One device: its blocks one after the other with a running top-k, then the merge with all others."""
    descriptors, present = (array.reshape(-1, *array.shape[2:]) for array in cache)
    own, share = len(descriptors), cache[0].shape[1]
    local = shards.local_rows(pairs[1], share, axes)
    norms = jnp.sum(jnp.square(queries), axis=1, keepdims=True)

    def visit(block, best):
        first = block * rows
        # The last block begins earlier, as a slice has one size; rows before `first` were seen and are masked out.
        start = jnp.minimum(first, own - rows)
        part, keep = (jax.lax.dynamic_slice_in_dim(array, start, rows) for array in (descriptors, present))
        number = start + jnp.arange(rows, dtype=jnp.int32)
        # |q|^2 + |x|^2 - 2 q x makes a matrix product of what would be [queries, rows, D] of differences. In full
        # precision, as near pairs cancel: TF32's three digits would shuffle the nearest ones.
        dot = jnp.matmul(queries, part.T, precision=jax.lax.Precision.HIGHEST)
        scores = jnp.maximum(norms + jnp.sum(jnp.square(part), axis=1)[None] - 2 * dot, 0)
        scores = jnp.where((keep & (number >= first))[None], scores, jnp.inf)
        # Column `rows` is outside: pairs of other blocks and devices, and those that pad, are dropped there.
        column = jnp.where(local >= start, local - start, rows)
        scores = scores.at[pairs[0], column].set(jnp.inf, mode="drop")
        nearer, where = _nearest_columns(scores, k)
        # The best so far comes first, and `smallest` is stable: of equal distances the smaller row stays.
        return smallest(jnp.hstack([best[0], nearer]), jnp.hstack([best[1], start + where]), k)

    best = jax.lax.fori_loop(0, blocks, visit, shards.no_rows(len(queries), k))
    return shards.merged(best, share, axes)


def _nearest_columns(scores, k):
    """The k smallest of each line of scores [lines, columns] and their columns; of equal ones the earlier.

    A full top-k of every line costs more than the matrix product. The k smallest are in the k groups of neighbouring
    columns whose minima are smallest, so only those groups are sorted.
    """
    lines, columns = scores.shape
    k = min(k, columns)
    if columns % GROUP or columns < 4 * GROUP * k:  # with many groups chosen little is left out
        return smallest(scores, jnp.broadcast_to(jnp.arange(columns, dtype=jnp.int32)[None], scores.shape), k)
    groups = scores.reshape(lines, -1, GROUP)
    _, chosen = jax.lax.top_k(-groups.min(axis=2), k)
    chosen = jnp.sort(chosen, axis=1)  # back to the order of columns, on which the rule for ties rests
    candidates = jnp.take_along_axis(groups, chosen[:, :, None], axis=1).reshape(lines, -1)
    column = chosen[:, :, None] * GROUP + jnp.arange(GROUP, dtype=chosen.dtype)[None, None]
    return smallest(candidates, column.reshape(lines, -1), k)
