"""Similarities and pairs of a batch and its references, computed once for miners and losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvpr.losses.measures import References, cosines


class Pairs(NamedTuple):
    """Pairs of an element of the batch (row) and a reference (column), bool [B, M] each."""

    positive: jax.Array
    negative: jax.Array


class Compared(NamedTuple):
    """The input of a loss.

    Attributes:
      similarity: cosines [B, M] of the batch with its references.
      pairs: the pairs that count; a miner keeps some of all.
      labels: int32 [B], the place of each element.
      rows: bool [B], elements that count.
      own: int32 [B], for each element the reference that is the element itself, or -1; None: -1 for all.
      mutual: whether the references are the batch itself, so that columns are rows.
      weight: [B], a factor of each row's loss; None: 1.
    """

    similarity: jax.Array
    pairs: Pairs
    labels: jax.Array
    rows: jax.Array
    own: jax.Array | None
    mutual: bool
    weight: jax.Array | None = None


def compare(
    descriptors: jax.Array, labels: jax.Array, mask: jax.Array | None = None, references: References | None = None
) -> Compared:
    """The batch beside its references, with all of its pairs.

    Args:
      descriptors: [B, D], of any length: only directions count.
      labels: int32 [B], the place of each. Labels of elements that do not count are ignored.
      mask: bool [B], elements that count; None counts all.
      references: what the batch is compared with; None: itself.

    Raises:
      ValueError: for shapes that do not fit.
    """
    if labels.shape != descriptors.shape[:1]:
        raise ValueError(f"labels {labels.shape} must be [{descriptors.shape[0]}], one per descriptor")
    if references is not None and references.labels.shape != references.descriptors.shape[:1]:
        raise ValueError(
            f"the references' labels {references.labels.shape} must be [{references.descriptors.shape[0]}]"
        )
    return Compared(
        similarity=cosines(descriptors, None if references is None else references.descriptors),
        pairs=all_pairs(labels, mask, references),
        labels=labels,
        rows=jnp.ones(labels.shape, bool) if mask is None else mask,
        own=_numbers(labels) if references is None else references.own,
        mutual=references is None,
    )


def all_pairs(labels: jax.Array, mask: jax.Array | None = None, references: References | None = None) -> Pairs:
    """Every pair of the same label, and every pair of two labels; no element is its own pair.

    Arguments and errors are those of `compare`.
    """
    if references is None:
        references = References(labels, labels, mask, _numbers(labels))
    for what, array in (("mask", mask), ("own", references.own)):
        if array is not None and array.shape != labels.shape:
            raise ValueError(f"{what} {array.shape} must be {labels.shape}, one per label")
    if references.mask is not None and references.mask.shape != references.labels.shape:
        raise ValueError(f"the references' mask {references.mask.shape} must be {references.labels.shape}")
    valid = jnp.ones((labels.shape[0], references.labels.shape[0]), bool)
    if mask is not None:
        valid &= mask[:, None]
    if references.mask is not None:
        valid &= references.mask[None]
    same = labels[:, None] == references.labels[None]
    return Pairs(valid & same & ~own_column(references.own, valid.shape), valid & ~same)


def own_column(own: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Bool [B, M]: which reference is the element of the row itself."""
    if own is None:
        return jnp.zeros(shape, bool)
    return jax.lax.broadcasted_iota(own.dtype, shape, 1) == own[:, None]


def _numbers(labels: jax.Array) -> jax.Array:
    return jnp.arange(labels.shape[0], dtype=jnp.int32)
