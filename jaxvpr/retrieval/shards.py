"""Shared parts of the searches of a cache: blocks of queries, rows as each device numbers them, and the final merge.

A device numbers the rows it holds in the order of its own memory, which is also their order in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from data_pipelines.progress import Bar
from jaxvpr.parallel.mesh import replicated

Array = np.ndarray
Started = tuple[Array, tuple[jax.Array, jax.Array]]  # numbers of queries; their distances and rows, in time

QUERY_BLOCK = 1024  # queries of one search, where memory allows


def budget(memory_mib: float) -> int:
    """How many float32 one search may take of `memory_mib`: half, as `fetched` runs two at a time."""
    return int(memory_mib * 2**20) // 4 // 2


def power_below(number: int) -> int:
    """The greatest power of two that is not above `number`; at least 1."""
    return 1 << max(0, int(number).bit_length() - 1)


def power_above(number: int) -> int:
    """The least power of two that is not below `number`; at least 1."""
    return 1 << max(0, int(number) - 1).bit_length()


def smallest(distances, indices, k):
    """The k smallest distances [Q, k] and their rows, of [Q, n] each on a device.

    `top_k` prefers the earlier of equals; where rows ascend, that is the smaller row.
    """
    values, where = jax.lax.top_k(-distances, k)
    return -values, jnp.take_along_axis(indices, where, axis=1)


def block(queries: Array, rows: Array, size: int) -> Array:
    """`queries[rows]`, with zeros after them: [size, D]."""
    filled = np.zeros((size, queries.shape[1]), np.float32)
    filled[: len(rows)] = queries[rows]
    return filled


def fetched(started: Iterator[Started], count: int, k: int) -> tuple[Array, Array]:
    """The results of all searches in arrays [count, k]; infinite distances and -1 for other queries.

    Each is fetched only when the next was started: the host prepares one while the devices work on another. At
    most two run at a time, which limits their memory.
    """
    distances, rows = np.full((count, k), np.inf, np.float32), np.full((count, k), -1, np.int64)
    running: Started | None = None
    with Bar("searching", count, "queries") as bar:
        for search in chain(started, [None]):
            if running is not None:
                part, result = running
                distances[part], rows[part] = (np.asarray(array)[: len(part)] for array in result)
                bar.advance(len(part))
            running = search
    return distances, rows


def compiled(search: Callable, mesh: Mesh, *in_specs: Any):
    """Compiles a search of one shard, with inputs sharded by `in_specs`, whose result is (distances, rows)."""
    # The result is the same on all devices after `merged`, which the checker of varying axes cannot see.
    mapped = jax.shard_map(search, mesh=mesh, in_specs=in_specs, out_specs=P(), check_vma=False)
    return jax.jit(mapped, out_shardings=(replicated(mesh),) * 2)


def no_rows(lines, k):
    """The k nearest before any row was compared: distances and rows [lines, k]."""
    return jnp.full((lines, k), jnp.inf, jnp.float32), jnp.full((lines, k), -1, jnp.int32)


def local_rows(rows, share, axes):
    """Where rows of the cache lie in this device's memory, which has `share` of each batch; -1 for those of others."""
    # Row = step * batch + column; of every step a device holds `share` columns, from share * its index on.
    batch = share * jax.lax.axis_size(axes)
    step, column = rows // batch, rows % batch - share * jax.lax.axis_index(axes)
    return jnp.where((rows >= 0) & (column >= 0) & (column < share), step * share + column, -1)


def merged(best, share, axes):
    """The k best of all devices, as rows of the cache: by distance, then by row."""
    distances, local = best
    k = distances.shape[1]
    # The inverse of `local_rows`. -1 gives an arbitrary row, but its distance is infinite.
    rows = local // share * share * jax.lax.axis_size(axes) + share * jax.lax.axis_index(axes) + local % share
    # k of each device suffice, and are all that is sent. Sorted by both keys: devices come in the order of the mesh,
    # not of the rows, so that a stable sort by distance alone would break ties by layout.
    distances, rows = (jax.lax.all_gather(array, axes, axis=1, tiled=True) for array in (distances, rows))
    distances, rows = (array[:, :k] for array in jax.lax.sort((distances, rows), num_keys=2))
    return distances, jnp.where(jnp.isinf(distances), -1, rows)
