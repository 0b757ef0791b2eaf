"""Samplers: which images share a batch, drawn for many steps at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.partitions import Cells

Array = np.ndarray


class Owners(NamedTuple):
    """Hosts that each hold images of their own. Host h reads the h-th of so many equal parts of each batch.

    Attributes:
      of_row: int [rows], the host that holds each image.
      hosts: how many there are.
    """

    of_row: Array
    hosts: int


def class_batches(
    cells: Cells, group: int, *, batch: int, steps: int, rng: np.random.Generator, owners: Owners | None = None
) -> tuple[Array, Array]:
    """Draws `batch` classes of one group for each of `steps` steps, and one image of each class.

    Every class comes once per pass over the group, in shuffled order; passes follow one another without a gap. Where
    the group has at least `batch` classes, those of one batch are distinct, across the seam of two passes too; a
    smaller group repeats classes as evenly as passes allow. As in CosPlace, a class is drawn first, then its image, so
    that all classes weigh the same.

    Args:
      cells: the partition. group: which of its groups.
      rng: the only source of randomness; equal states give equal batches.
      owners: each image is drawn among those that the host of its position holds. The order of classes is the same.

    Raises:
      DataError: where a host holds no image of a class.

    Returns:
      rows int64 [steps, batch], labels int32 [steps, batch] (0 up to the group's number of classes).
    """
    picked, labels = class_picks(cells, group, batch=batch, steps=steps, rng=rng, owners=owners)
    return cells.rows[picked], labels


def class_picks(
    cells: Cells, group: int, *, batch: int, steps: int, rng: np.random.Generator, owners: Owners | None = None
) -> tuple[Array, Array]:
    """As `class_batches`, with positions in `cells.rows`, for callers with more columns beside it, such as a heading.

    Returns:
      int64 [steps, batch] into `cells.rows`, labels int32 [steps, batch].
    """
    if batch < 1 or steps < 0:
        raise ValueError(f"batch must be at least 1 and steps at least 0: {batch=} {steps=}")
    rows, indptr = cells.group(group)
    labels = shuffled_passes(len(indptr) - 1, batch=batch, steps=steps, rng=rng)
    if owners is None:
        picked = rng.integers(indptr[labels], indptr[labels + 1])
    else:
        picked = _of_hosts(owners.of_row[rows], owners.hosts, indptr, labels, rng)
    return cells.indptr[cells.groups[group]] + picked, labels.astype(np.int32)


def _of_hosts(owner: Array, hosts: int, indptr: Array, labels: Array, rng: np.random.Generator) -> Array:
    """An image of each label that the host of its position holds."""
    part = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) * hosts + owner
    order = np.argsort(part, kind="stable")
    begins = np.searchsorted(part[order], np.arange((len(indptr) - 1) * hosts + 1))
    if len(none := np.flatnonzero(np.diff(begins) == 0)):
        label, host = divmod(int(none[0]), hosts)
        raise DataError(
            f"loader.own_shards: host {host} has no image of class {label}, whose {indptr[label + 1] - indptr[label]} "
            f"images lie in shards of others ({len(none)} such gaps). Raise objective.partition.min_images, or set "
            "loader.own_shards=false and give all hosts all shards"
        )
    wanted = labels * hosts + np.arange(labels.shape[1]) * hosts // labels.shape[1]
    return order[rng.integers(begins[wanted], begins[wanted + 1])]


def shuffled_passes(items: int, *, batch: int, steps: int, rng: np.random.Generator) -> Array:
    """int64 [steps, batch]: shuffled passes over `range(items)`, distinct within a batch where items suffice."""
    wanted = batch * steps
    passes = -(-wanted // items)
    if items <= batch or items % batch == 0:
        # No batch can hold a seam that matters: all passes are shuffled at once.
        drawn = np.tile(np.arange(items), (passes, 1))
        return rng.permuted(drawn, axis=1).reshape(-1)[:wanted].reshape(steps, batch)
    drawn = np.empty(passes * items, np.int64)
    for start in range(0, len(drawn), items):
        fresh = rng.permutation(items)
        open_ = start % batch
        drawn[start : start + items] = _beside(fresh, drawn[start - open_ : start], batch) if open_ else fresh
    return drawn[:wanted].reshape(steps, batch)


def open_passes(left: Array | None, items: int, wanted: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """The next `wanted` of shuffled passes over `range(items)`: each item once a pass, and no gap between calls.

    Args:
      left: int64, what the previous call returned; None begins with a new pass.

    Returns:
      int64 [wanted], and what the open pass has left, at least one item.
    """
    drawn = [rng.permutation(items) if left is None else left]
    while sum(map(len, drawn)) <= wanted:
        drawn.append(rng.permutation(items))
    following = np.concatenate(drawn)
    return following[:wanted], following[wanted:]


def _beside(fresh: Array, begun: Array, batch: int) -> Array:
    """`fresh` reordered so that the items that fill up a batch that is `begun` are not in it yet."""
    missing = batch - len(begun)
    late = np.isin(fresh, begun)
    late[np.flatnonzero(~late)[missing:]] = True
    return np.concatenate([fresh[~late], fresh[late]])
