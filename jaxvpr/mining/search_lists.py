"""The nearest of short lists of rows, one for each query, in a cache that lies on the devices.

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

from jaxvpr.mining import shards
from jaxvpr.retrieval.cache import Cache
from jaxvpr.retrieval.positives import Positives
from jaxvpr.retrieval.search import smallest

Array = np.ndarray

AT_ONCE = {"cpu": 2048}  # rows that are gathered at once: on a CPU as many as its cache holds
AT_ONCE_ELSEWHERE = 65536


def listed(cache: Cache, queries: Array, lists: Positives, k: int, values: int) -> tuple[Array, Array]:
    """The k nearest of each query's listed rows: distances and rows [Q, k].

    Queries with lists of about one length are searched together, so that little is padded.
    """
    mesh, (_, batch, dimension) = cache.mesh, cache.descriptors.shape
    at_once = AT_ONCE.get(mesh.devices.flat[0].platform, AT_ONCE_ELSEWHERE)
    at_once = min(
        at_once, shards.power_below(values // (4 * dimension))
    )  # the rows, and their differences from a query
    search = _listed_on(mesh, k, at_once)
    order = np.argsort(-lists.counts, kind="stable")
    order = order[: np.count_nonzero(lists.counts)]

    def started() -> Iterator[shards.Started]:
        start = 0
        while start < len(order):
            size = min(shards.QUERY_BLOCK, shards.power_above(len(order) - start))
            size = min(size, shards.power_below(values // (4 * shards.power_above(lists.counts[order[start]]))))
            part = order[start : start + size]
            rows = _Owned(lists.take(part), batch, batch // mesh.size).on_mesh(mesh, size)
            yield part, search((cache.descriptors, cache.present), shards.block(queries, part, size), rows)
            start += size

    return shards.fetched(started(), len(queries), k)


class _Owned:
    """Lists cut into those of each device: padded tables of the places of rows in the device's own memory."""

    def __init__(self, lists: Positives, batch: int, share: int):
        step, column = np.divmod(lists.indices, batch)
        self._owner, within = np.divmod(column, share)
        self._local = (step * share + within).astype(np.int32)
        self._query = np.repeat(np.arange(len(lists)), lists.counts)
        devices = batch // share
        counts = np.bincount(self._owner * len(lists) + self._query, minlength=devices * len(lists))
        self._counts, self._width = counts.reshape(devices, -1), shards.power_above(counts.max(initial=0))

    def on_mesh(self, mesh: Mesh, lines: int) -> jax.Array:
        """int32 [devices, lines, width], split over the devices; -1 pads."""

        def of_device(index):
            table = np.full((1, lines, self._width), -1, np.int32)
            device = index[0].indices(mesh.size)[0]
            counts = self._counts[device]
            filled = np.arange(self._width) < counts[:, None]
            table[0, : len(counts)][filled] = self._local[self._owner == device]
            return table

        split = NamedSharding(mesh, P(mesh.axis_names))
        return jax.make_array_from_callback((mesh.size, lines, self._width), split, of_device)


@lru_cache(maxsize=64)
def _listed_on(mesh: Mesh, k: int, at_once: int):
    """Compiles `_listed_of_shard` for a mesh: (cache, queries, lists of each device) -> (distances, rows)."""
    axes = mesh.axis_names
    search = partial(_listed_of_shard, k=k, at_once=at_once, axes=axes)
    split = P(None, axes)
    whole = jax.shard_map(search, mesh=mesh, in_specs=((split, split), P(), P(axes)), out_specs=P(), check_vma=False)
    return jax.jit(whole, out_shardings=(NamedSharding(mesh, P()),) * 2)


def _listed_of_shard(cache, queries, lists, *, k, at_once, axes):
    """One device: gathers what is listed of its own, `at_once` rows at a time, then merges with all others."""
    descriptors, present = (array.reshape(-1, *array.shape[2:]) for array in cache)
    lines, width = lists.shape[1:]
    wide = min(width, at_once)
    together = min(lines, at_once // wide)
    # [groups of queries, parts of their lists, queries of a group, rows of a part]
    tables = lists[0].reshape(lines // together, together, width // wide, wide).swapaxes(1, 2)

    def visit(best, rows, asked):
        gathered = descriptors.at[rows].get(mode="clip")
        scores = jnp.sum(jnp.square(gathered - asked[:, None]), axis=2)
        known = (rows >= 0) & present.at[rows].get(mode="clip")
        scores = jnp.where(known, scores, jnp.inf)
        return smallest(jnp.hstack([best[0], scores]), jnp.hstack([best[1], rows]), k), None

    def group(given):
        parts, asked = given
        best, _ = jax.lax.scan(lambda best, rows: visit(best, rows, asked), shards.nothing(together, k), parts)
        return best

    best = jax.lax.map(group, (tables, queries.reshape(-1, together, queries.shape[1])))
    return shards.merged(jax.tree.map(lambda array: array.reshape(lines, k), best), cache[0].shape[1], axes)
