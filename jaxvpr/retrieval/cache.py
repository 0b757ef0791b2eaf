"""Descriptors that stay on the devices: of a large database, and for mining, which makes them anew again and again.

Each device keeps the descriptors that it computed: none of them is sent to a host, nor to another device where images
come in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_pipelines.progress import Bar
from data_pipelines.shapes import Mixed
from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import local_rows, replicate, replicated
from jaxvpr.retrieval import shards
from jaxvpr.retrieval.extract import NO_IMAGES, Described, NotFiniteError, compiled, mixed_steps, steps

Array = np.ndarray
READ_MIB = 16  # of descriptors on the host that a device gets at once


@dataclass(frozen=True)
class Cache:
    """Descriptors of `count` images, spread over the devices of a mesh.

    Attributes:
      descriptors: float32 [S, B, D], zeros where there is none. Image r is [r // B, r % B], and B is split over all
        axes of the mesh: each device keeps the descriptors that it computed.
      present: bool [S, B], split likewise; False after the last image and where an image could not be read.
      count: number of images, at most S * B.
    """

    descriptors: jax.Array
    present: jax.Array
    count: int

    @property
    def mesh(self) -> Mesh:
        """The mesh of its devices."""
        sharding = self.descriptors.sharding
        if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
            raise ValueError(f"a cache lies on a mesh, not as {sharding}; make it by `fill` or `from_host`")
        return sharding.mesh

    @cached_property
    def missing(self) -> Array:
        """int64 [M], the rows whose images could not be read, ascending; the same in every process."""
        present = np.asarray(replicate(self.mesh)(self.present)).reshape(-1)
        return np.flatnonzero(~present[: self.count])


def fill(
    apply: Callable[[Any, Any], Any],
    variables: Any,
    batches: Iterable[Mapping[str, Array]],
    count: int,
    mesh: Mesh,
    batch: int,
) -> Cache:
    """Describes every image of a set once, as `extract.describe` does, and leaves the descriptors on the devices.

    Args:
      batches: as `extract.describe` takes, all of one size, in order, as `loaders.every_image` gives them.
      batch: images of a global batch, B of the `Cache`; a multiple of the devices.
      apply, variables, count, mesh: as `extract.describe` takes.

    Returns:
      `Cache`. Its S may be a sixteenth larger than the images need, so that sets of about one size share the programs
      compiled for them.

    Raises:
      UserError: no images, or a descriptor that is not finite.
      RuntimeError: batches that do not hold the images in order.
    """
    return _in_order(steps(compiled(apply, mesh), variables, batches, mesh), count, mesh, batch, "describing")


def _in_order(results: Iterator[tuple], count: int, mesh: Mesh, batch: int, doing: str) -> Cache:
    """The cache of what the steps make: `batch` images each, all rows in order."""
    needed, made, held = -(-count // batch), 0, None
    with Bar(doing, count, "images") as bar:
        for values, row, mask in results:
            if held is None:
                held, errors = _empty(mesh, (_few_sizes(needed), batch, values.shape[1]))()
            _refuse_wrong(errors)
            held, errors = _kept(mesh)(held, errors, values, row, mask, np.int32(made), np.int32(count))
            made += 1
            bar.advance(min(batch, count - bar.done))
    if held is None:
        raise UserError(NO_IMAGES)
    misplaced = _refuse_wrong(errors)
    if made != needed or misplaced:
        raise RuntimeError(f"{made} batches of {batch} do not hold {count} images in order: {misplaced} are misplaced")
    return Cache(held[0], held[1], count)


def fill_mixed(
    apply: Callable[[Any, Any], Any],
    variables: Any,
    batches: Iterable[tuple[Mixed, Sequence[Mapping[str, Array]]]],
    count: int,
    mesh: Mesh,
    batch: int,
    rule: str = "",
    crop_from: tuple[int, int] | None = None,
) -> Cache:
    """As `fill`, for images of several sizes, which come in any order: the descriptors of a batch go to all devices,
    and each keeps those of its rows.

    Args:
      batch: B of the `Cache`, a multiple of the devices.
      apply, variables, batches, count, mesh, rule, crop_from: as `extract.describe_mixed` takes.
    """
    held, planned = None, np.zeros(count, np.int64)
    with Bar("describing", count, "images") as bar:

        def shown() -> Iterator[tuple[Mixed, Sequence[Mapping[str, Array]]]]:
            for mixed, chunks in batches:
                rows = np.concatenate([chunk.rows[chunk.rows >= 0] for chunk in mixed.chunks])
                np.add.at(planned, rows, 1)
                yield mixed, chunks
                bar.advance(len(rows))

        results = mixed_steps(compiled(apply, mesh), variables, shown(), mesh, rule, crop_from)
        for values, row, mask in results:
            if held is None:
                held, errors = _empty(mesh, (_few_sizes(-(-count // batch)), batch, values.shape[1]))()
            _refuse_wrong(errors)
            held, errors = _scattered(mesh)(held, errors, values, row, mask)
    if held is None:
        raise UserError(NO_IMAGES)
    read = _refuse_wrong(errors)
    if read != count or (planned != 1).any():
        raise RuntimeError(f"{read} images were read for {(planned == 1).sum()} of {count} rows, each of which is one")
    return Cache(held[0], held[1], count)


def _refuse_wrong(errors: jax.Array) -> int:
    """Raises NotFiniteError where the steps so far made such descriptors; else gives what else they counted.

    It waits for the last of these steps, while the devices have the next: images of more would fill their memory.
    """
    wrong, first, counted = np.asarray(errors).tolist()
    if wrong:
        raise NotFiniteError(first, wrong - 1)
    return counted


def from_host(described: Described, mesh: Mesh, batch: int = 0) -> Cache:
    """The cache of descriptors in memory or in a memory-mapped file, of which a process reads its own devices' rows.

    Args:
      batch: B, a multiple of the devices; 0: as many as make `READ_MIB` on each device.
    """
    present = np.ones(len(described.descriptors), bool)
    present[described.missing] = False
    return _read(described.descriptors, present, mesh, batch)


def stored(descriptors: Array, mesh: Mesh) -> Cache:
    """As `from_host`, of descriptors in a file, where rows of zeros stand for images that could not be read."""
    return _read(descriptors, None, mesh)


def _read(descriptors: Array, present: Array | None, mesh: Mesh, batch: int = 0) -> Cache:
    """The cache of rows [N, D], of which those are there that `present` says, or that are not zeros."""
    count, dimension = descriptors.shape
    each = min(READ_MIB * 2**20 // (4 * dimension) or 1, -(-count // mesh.size))
    batch = batch or each * mesh.size
    own = local_rows(mesh, batch)

    def batches() -> Iterator[dict[str, Array]]:
        for start in range(0, count, batch):
            row = np.arange(start + own.start, start + own.stop)
            first, stop = min(row[0], count), min(row[-1] + 1, count)
            image, mask = np.zeros((len(row), dimension), np.float32), np.zeros(len(row), bool)
            image[: stop - first] = descriptors[first:stop]
            mask[: stop - first] = image[: stop - first].any(axis=1) if present is None else present[first:stop]
            yield {"image": image, "mask": mask, "row": np.where(row < count, row, -1)}

    results = steps(lambda _, *arrays: arrays, None, batches(), mesh)
    return _in_order(results, count, mesh, batch, "reading descriptors")


def first(cache: Cache, count: int) -> Cache:
    """The cache of the first `count` images alone, in the same memory: the others count as absent."""
    return replace(cache, present=_below(cache.mesh)(cache.present, np.int32(count)), count=count)


@lru_cache(maxsize=16)
def _below(mesh: Mesh):
    def strike(present, count):
        numbers = jnp.arange(present.size, dtype=jnp.int32).reshape(present.shape)
        return present & (numbers < count)

    return jax.jit(strike, out_shardings=_split(mesh))


def vectors(cache: Cache, rows: Array) -> Array:
    """float32 [n, D], descriptors of a few rows [n], on the host and the same in every process.

    Of the steps that hold one of the rows, one after the other is copied to the host.
    """
    step, column = np.divmod(rows, cache.descriptors.shape[1])
    result = np.empty((len(rows), cache.descriptors.shape[2]), np.float32)
    for number in np.unique(step):
        chosen = step == number
        result[chosen] = np.asarray(_one_step(cache.mesh)(cache.descriptors, np.int32(number)))[column[chosen]]
    return result


@lru_cache(maxsize=16)
def _one_step(mesh: Mesh):
    def pick(descriptors, step):
        return jax.lax.dynamic_index_in_dim(descriptors, step, 0, keepdims=False)

    return jax.jit(pick, out_shardings=replicated(mesh))


def _few_sizes(needed: int) -> int:
    """The least number from `needed` on that has no more than five significant bits."""
    unit = 1 << max(0, needed.bit_length() - 5)
    return -(-needed // unit) * unit


def _split(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(None, mesh.axis_names))


@lru_cache(maxsize=64)
def _empty(mesh: Mesh, shape: tuple[int, int, int]) -> Callable[[], tuple]:
    """Makes the input of the first `_kept`: no descriptors, none present, no errors."""

    def empty():
        errors = jnp.array([0, jnp.iinfo(jnp.int32).max, 0], jnp.int32)
        return (jnp.zeros(shape, jnp.float32), jnp.zeros(shape[:2], bool)), errors

    return jax.jit(empty, out_shardings=((_split(mesh), _split(mesh)), replicated(mesh)))


@lru_cache(maxsize=16)
def _kept(mesh: Mesh):
    """Writes one batch into its place, in the memory that is allocated.

    It also counts errors, which the host reads a step later: images whose descriptors are not finite, the first of
    these, and rows out of place.
    """

    def put(held, errors, values, row, mask, step, count):
        (descriptors, present), (wrong, first, misplaced) = held, errors
        bad = mask & ~jnp.isfinite(values).all(axis=1)
        expected = step * len(row) + jnp.arange(len(row), dtype=jnp.int32)
        misplaced += jnp.sum(row != jnp.where(expected < count, expected, -1), dtype=jnp.int32)
        lowest = jnp.min(jnp.where(bad, row, jnp.iinfo(jnp.int32).max))
        errors = jnp.stack([wrong + jnp.sum(bad, dtype=jnp.int32), jnp.minimum(first, lowest), misplaced])
        values = jnp.where(mask[:, None], values, 0)
        put_at = jax.lax.dynamic_update_index_in_dim
        return (put_at(descriptors, values, step, 0), put_at(present, mask, step, 0)), errors

    split = _split(mesh)
    return jax.jit(put, donate_argnums=0, out_shardings=((split, split), replicated(mesh)))


@lru_cache(maxsize=16)
def _scattered(mesh: Mesh):
    """As `_kept`, for rows that may be anywhere; counts the rows instead of those out of place."""
    axes = mesh.axis_names

    def put(held, errors, values, row, mask):
        (descriptors, present), (wrong, first, read) = held, errors
        values, row, mask = (jax.lax.all_gather(array, axes, tiled=True) for array in (values, row, mask))
        bad = mask & ~jnp.isfinite(values).all(axis=1)
        lowest = jnp.min(jnp.where(bad, row, jnp.iinfo(jnp.int32).max))
        wrong += jnp.sum(bad, dtype=jnp.int32)
        errors = jnp.stack([wrong, jnp.minimum(first, lowest), read + jnp.sum(row >= 0, dtype=jnp.int32)])
        place = shards.local_rows(row, present.shape[1], axes)
        place = jnp.where(place >= 0, place, present.size)  # of another device: dropped
        values = jnp.where(mask[:, None], values, 0)

        def into(array, new):
            flat = array.reshape(-1, *array.shape[2:])
            return flat.at[place].set(new, mode="drop").reshape(array.shape)

        return (into(descriptors, values), into(present, mask)), errors

    split, batch = P(None, axes), P(axes)
    kept = (split, split), P()
    # Errors are the same on all devices after the gather, which the checker of varying axes cannot see.
    mapped = jax.shard_map(put, mesh=mesh, in_specs=(*kept, batch, batch, batch), out_specs=kept, check_vma=False)
    return jax.jit(mapped, donate_argnums=0, out_shardings=jax.tree.map(partial(NamedSharding, mesh), kept))
