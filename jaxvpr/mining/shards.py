"""What the searches of a cache share: blocks of queries, rows as each device numbers them, and the final merge.

A device numbers the rows it holds in the order of its own memory, which is also their order in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.progress import Bar

Array = np.ndarray
Started = tuple[Array, tuple[jax.Array, jax.Array]]  # numbers of queries; their distances and rows, in time

QUERY_BLOCK = 1024  # queries of one search, where memory allows


def power_below(number: int) -> int:
    """The greatest power of two that is not above `number`; at least 1."""
    return 1 << max(0, int(number).bit_length() - 1)


def power_above(number: int) -> int:
    """The least power of two that is not below `number`; at least 1."""
    return 1 << max(0, int(number) - 1).bit_length()


def block(queries: Array, rows: Array, size: int) -> Array:
    """`queries[rows]`, with zeros behind them: [size, D]."""
    filled = np.zeros((size, queries.shape[1]), np.float32)
    filled[: len(rows)] = queries[rows]
    return filled


def fetched(started: Iterator[Started], count: int, k: int) -> tuple[Array, Array]:
    """What the searches found, in arrays [count, k]; queries that none of them asked for have found nothing.

    Each is fetched only when the next was started: the host prepares one while the devices work on another.
    """
    distances, rows = np.full((count, k), np.inf, np.float32), np.full((count, k), -1, np.int64)
    waiting: Started | None = None
    with Bar("searching", count, "queries") as bar:
        for one in chain(started, [None]):
            if waiting is not None:
                part, result = waiting
                distances[part], rows[part] = (np.asarray(array)[: len(part)] for array in result)
                bar.advance(len(part))
            waiting = one
    return distances, rows


def nothing(lines, k):
    """What k nearest are before any was looked at: distances and rows [lines, k]."""
    return jnp.full((lines, k), jnp.inf, jnp.float32), jnp.full((lines, k), -1, jnp.int32)


def local_rows(rows, share, axes):
    """Where rows of the cache lie in this device's memory, which has `share` of each batch; -1 for those of others."""
    batch = share * jax.lax.axis_size(axes)
    step, column = rows // batch, rows % batch - share * jax.lax.axis_index(axes)
    return jnp.where((rows >= 0) & (column >= 0) & (column < share), step * share + column, -1)


def merged(best, share, axes):
    """The k best of all devices, as rows of the cache: by distance, then by row."""
    distances, local = best
    k = distances.shape[1]
    rows = local // share * share * jax.lax.axis_size(axes) + share * jax.lax.axis_index(axes) + local % share
    distances, rows = (jax.lax.all_gather(array, axes, axis=1, tiled=True) for array in (distances, rows))
    distances, rows = (array[:, :k] for array in jax.lax.sort((distances, rows), num_keys=2))
    return distances, jnp.where(jnp.isinf(distances), -1, rows)
