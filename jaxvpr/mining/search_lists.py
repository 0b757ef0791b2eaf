"""The nearest rows of each query within a short list of its own, in a cache that lies on the devices.

Each device gathers those of the listed rows that it holds: work and memory grow with the lists, not with the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvpr.retrieval import shards
from jaxvpr.retrieval.cache import Cache
from jaxvpr.retrieval.positives import Positives
from jaxvpr.retrieval.shards import smallest

Array = np.ndarray

# Rows that a device gathers at once: on a CPU as many as its cache holds, else enough to fill an accelerator.
GATHERED = {"cpu": 2048}
GATHERED_ELSEWHERE = 65536


def search_lists(cache: Cache, queries: Array, lists: Positives, k: int, memory_mib: float) -> tuple[Array, Array]:
    """The k nearest of each query's listed rows: distances float32 and rows int64, both [Q, k].

    Args:
      queries: float32 [Q, D]. lists: of each query the rows of the cache to search.
      memory_mib: what the search may take on each device beside the cache.

    Returns:
      Squared L2, nearest first, of equal ones the smaller row; infinite and -1 after the last.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    mesh, (_, batch, dimension) = cache.mesh, cache.descriptors.shape
    values = shards.budget(memory_mib)
    gathered = GATHERED.get(mesh.devices.flat[0].platform, GATHERED_ELSEWHERE)
    # Gathered rows [gathered, D] and their differences from a query, each with a copy that XLA makes.
    gathered = min(gathered, shards.power_below(values // (4 * dimension)))
    search = _search_on(mesh, k, gathered)
    # Longest lists first: the queries of a block have about as many rows, so that little is padded. Queries without a
    # row are not searched at all.
    order = np.argsort(-lists.counts, kind="stable")
    order = order[: np.count_nonzero(lists.counts)]

    def started() -> Iterator[shards.Started]:
        start = 0
        while start < len(order):
            size = min(shards.QUERY_BLOCK, shards.power_above(len(order) - start))
            # The first list of a block is its longest: it bounds the table of rows [size, width].
            size = min(size, shards.power_below(values // (4 * shards.power_above(lists.counts[order[start]]))))
            part = order[start : start + size]
            rows = _ListsOfDevices(lists.take(part), batch, batch // mesh.size).on_mesh(mesh, size)
            yield part, search((cache.descriptors, cache.present), shards.block(queries, part, size), rows)
            start += size

    return shards.fetched(started(), len(queries), k)


class _ListsOfDevices:
    """Lists cut into those of each device: padded tables of where rows lie in the device's own memory.

    Row r of the cache is element r % batch of step r // batch, and each device holds `share` elements of every step.
    """

    def __init__(self, lists: Positives, batch: int, share: int):
        step, column = np.divmod(lists.indices, batch)
        self._device, within = np.divmod(column, share)
        self._local = (step * share + within).astype(np.int32)
        query = np.repeat(np.arange(len(lists)), lists.counts)
        devices = batch // share
        counts = np.bincount(self._device * len(lists) + query, minlength=devices * len(lists))
        self._counts = counts.reshape(devices, -1)  # [devices, queries]
        # One width for all devices, a power of two: a plan with other lists finds its program compiled.
        self._width = shards.power_above(counts.max(initial=0))

    def on_mesh(self, mesh: Mesh, lines: int) -> jax.Array:
        """int32 [devices, lines, width], split over the devices; -1 pads."""

        def of_device(index):
            # Called for the devices of this process alone: no host builds the tables of others.
            table = np.full((1, lines, self._width), -1, np.int32)
            device = index[0].indices(mesh.size)[0]
            counts = self._counts[device]
            # A mask fills line after line in the order of the lists, which is ascending: ties go to the smaller row.
            filled = np.arange(self._width) < counts[:, None]
            table[0, : len(counts)][filled] = self._local[self._device == device]
            return table

        split = NamedSharding(mesh, P(mesh.axis_names))
        return jax.make_array_from_callback((mesh.size, lines, self._width), split, of_device)


@lru_cache(maxsize=64)
def _search_on(mesh: Mesh, k: int, gathered: int):
    """Compiles `_search_of_shard` for a mesh: (cache, queries, lists of each device) -> (distances, rows)."""
    axes = mesh.axis_names
    search = partial(_search_of_shard, k=k, gathered=gathered, axes=axes)
    split = P(None, axes)
    return shards.compiled(search, mesh, (split, split), P(), P(axes))


def _search_of_shard(cache, queries, lists, *, k, gathered, axes):
    """One device: gathers the listed rows that it holds, `gathered` at a time, then merges with all others."""
    descriptors, present = (array.reshape(-1, *array.shape[2:]) for array in cache)
    lines, width = lists.shape[1:]
    # Of a long list a part at a time; of short lists those of several queries together. All sizes are powers of two,
    # so that they divide each other.
    wide = min(width, gathered)
    together = min(lines, gathered // wide)
    # [groups of queries, parts of their lists, queries of a group, rows of a part]
    tables = lists[0].reshape(lines // together, together, width // wide, wide).swapaxes(1, 2)

    def visit(best, rows, block):
        # Differences, not |q|^2 + |x|^2 - 2 q x: a gathered row serves one query, so a matrix product gains nothing.
        near = descriptors.at[rows].get(mode="clip")
        scores = jnp.sum(jnp.square(near - block[:, None]), axis=2)
        known = (rows >= 0) & present.at[rows].get(mode="clip")  # -1 was clipped to row 0
        scores = jnp.where(known, scores, jnp.inf)
        return smallest(jnp.hstack([best[0], scores]), jnp.hstack([best[1], rows]), k), None

    def group(given):
        parts, block = given
        best, _ = jax.lax.scan(lambda best, rows: visit(best, rows, block), shards.no_rows(together, k), parts)
        return best

    # `map`, not `vmap`: one group after the other keeps the gathered rows within the limit of memory.
    best = jax.lax.map(group, (tables, queries.reshape(-1, together, queries.shape[1])))
    return shards.merged(jax.tree.map(lambda array: array.reshape(lines, k), best), cache[0].shape[1], axes)
