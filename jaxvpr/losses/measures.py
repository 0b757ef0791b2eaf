"""Similarities between descriptors and stable sums over chosen pairs, for miners and losses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# How many numbers a table of [rows, chunk, columns] may hold at once: 64 MB in float32.
TRIPLES = 2**24
# Below this squared distance on the unit sphere, float32 cannot distinguish two descriptors.
SAME = 1e-6
# Stands for minus infinity where infinity would make gradients NaN.
LOWEST = -1e30


class References(NamedTuple):
    """Descriptors that a batch is compared with instead of itself: a cross-batch memory (XBM), for example.

    descriptors: [M, D]; labels: int32 [M]; mask: bool [M], references that count (None: all).
    own: int32 [B], for each element of the batch the reference that is the element itself, which is not a pair; or -1
    (None: -1 for all).
    """

    descriptors: jax.Array
    labels: jax.Array
    mask: jax.Array | None = None
    own: jax.Array | None = None


def cosines(descriptors: jax.Array, references: jax.Array | None = None) -> jax.Array:
    """Cosine similarities [B, M] of descriptors [B, D] with references [M, D], or with one another.

    In float32, in float64 where that is given. A zero vector has cosine 0 with all and gets no gradient.

    Raises:
      ValueError: for shapes that do not fit.
    """
    others = descriptors if references is None else references
    if descriptors.ndim != 2 or others.ndim != 2 or descriptors.shape[1] != others.shape[1]:
        raise ValueError(f"descriptors {descriptors.shape} and references {others.shape} must be [B, D] and [M, D]")
    return jnp.einsum("bd,md->bm", unit(descriptors), unit(others), precision=jax.lax.Precision.HIGHEST)


def unit(x: jax.Array) -> jax.Array:
    """`x` [..., D] divided by its length, in float32, in float64 where that is given; a zero vector stays zero."""
    # `models.layers.l2_normalise` rounds to float32; here a float64 check of gradients stays float64.
    x = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
    squares = jnp.sum(jnp.square(x), -1, keepdims=True)
    long = squares > 1e-24
    return x * jnp.where(long, jax.lax.rsqrt(jnp.where(long, squares, 1)), 0)


def euclidean(similarity: jax.Array) -> jax.Array:
    """Distances in [0, 2] on the unit sphere, of cosine similarities.

    Descriptors less than 1e-3 apart count as equal: distance 0, and no gradient.
    """
    squares = 2 - 2 * similarity
    apart = squares > SAME
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)


# Name of a measure -> (how far apart, of the cosine; the sign that a margin on that measure takes).
DISTANCES: dict[str, tuple[Callable[[jax.Array], jax.Array], float]] = {
    "euclidean": (euclidean, 1.0),
    "cosine": (jnp.negative, -1.0),
}


def apart(similarity: jax.Array, distance: str) -> tuple[jax.Array, float]:
    """How far apart pairs are, and the factor of margins: `euclidean`, or `cosine` (then minus the similarity, and -1).

    Raises:
      ValueError: for an unknown measure; lists those that exist.
    """
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; there are {', '.join(DISTANCES)}")
    measure, sign = DISTANCES[distance]
    return measure(similarity), sign


def logsumexp(values: jax.Array, keep: jax.Array, *, plus_one: bool = False) -> jax.Array:
    """Log of the sum over kept columns of exp(values), plus 1 with `plus_one`; `LOWEST` in rows that keep nothing.

    Args:
      values, keep: [B, M]; values that are not kept are ignored.
      plus_one: adds exp(0), so that an empty row is 0.
    """
    top = jax.lax.stop_gradient(jnp.max(jnp.where(keep, values, 0 if plus_one else LOWEST), 1, keepdims=True))
    top = jnp.maximum(top, 0) if plus_one else top
    total = jnp.sum(jnp.where(keep, jnp.exp(jnp.where(keep, values - top, 0)), 0), 1)
    total = total + jnp.exp(-top[:, 0]) if plus_one else total
    some = total > 0
    return jnp.where(some, jnp.log(jnp.where(some, total, 1)) + top[:, 0], LOWEST)


def mean(values: jax.Array, keep: jax.Array) -> jax.Array:
    """The mean of the kept values, 0 where none is kept."""
    count = jnp.sum(keep.astype(values.dtype))
    return jnp.sum(jnp.where(keep, values, 0)) / jnp.maximum(count, 1)


def mean_positive(values: jax.Array, keep: jax.Array) -> jax.Array:
    """The mean of the kept values above 0, 0 where there is none."""
    return mean(values, keep & (values > 0))


def column_sum(one_chunk: Callable[..., Any], *tables: jax.Array) -> Any:
    """Sum over chunks of columns, so that no table of triples [rows, columns, columns] is made.

    Rows may be sharded over devices: each then sums its own. Memory of the backward pass is that of one chunk.

    Args:
      one_chunk: a function of the tables' chunks [rows, chunk] -> a pytree of arrays; columns that pad are zeros.
      *tables: arrays [rows, columns].
    """
    rows, columns = tables[0].shape
    size = max(1, min(columns, TRIPLES // max(1, rows * columns)))
    pieces = -(-columns // size)

    def chunked(table: jax.Array) -> jax.Array:
        padded = jnp.pad(table, ((0, 0), (0, pieces * size - columns)))
        return jnp.moveaxis(padded.reshape(rows, pieces, size), 1, 0)

    chunks = tuple(chunked(table) for table in tables)
    shapes = jax.eval_shape(one_chunk, *(chunk[0] for chunk in chunks))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    again = jax.checkpoint(one_chunk)

    def add(total: Any, chunk: tuple[jax.Array, ...]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, again(*chunk)), None

    return jax.lax.scan(add, zeros, chunks)[0]
