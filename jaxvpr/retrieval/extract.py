"""Images to descriptors on a mesh: sharded, padded, masked; every image counts exactly once.

The result depends neither on the batch size nor on the order of the batches nor on the number of devices or processes,
but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_pipelines.images import middle
from data_pipelines.progress import Bar, first_slow
from data_pipelines.shapes import Mixed
from data_pipelines.sources import BOOKKEEPING
from jaxvpr.errors import UserError
from jaxvpr.models import resizing
from jaxvpr.parallel import compiling, device_memory
from jaxvpr.parallel.mesh import replicate

Array = np.ndarray

# (N, D) -> an array of zeros, or what takes `table[rows] = values` as one does and has its `shape`.
Table = Callable[[tuple[int, int]], Any]
NO_IMAGES = "there are no images to describe: check the folder and the split"


class Described(NamedTuple):
    """Descriptors of `count` images.

    Attributes:
      descriptors: float32 [count, D]; zeros where an image could not be read.
      missing: int64 [M], the rows that could not be read, ascending. Give them to `search.exact`, or a zero vector will
        be nearer to a query than an unrelated image is.
    """

    descriptors: Array
    missing: Array


def in_memory(shape: tuple[int, int]) -> Array:
    """The table of descriptors in the memory of this process."""
    return np.zeros(shape, np.float32)


def describe(
    apply: Callable[[Any, Any], Any],
    variables: Any,
    batches: Iterable[Mapping[str, Array]],
    count: int,
    mesh: Mesh,
    table: Table = in_memory,
) -> Described:
    """Describes every image of a set once.

    While the devices work on one batch, the next is read and sent: the host never waits for more than one step.

    Args:
      apply: `(variables, images uint8 [B, H, W, 3]) -> float [B, D]`. Compiled once for each `apply` and mesh, so pass
        the same object again to reuse it.
      variables: pytree of arrays, on the mesh or in NumPy.
      batches: this process's share of each global batch: `image` uint8 [b, H, W, 3] or the model's other inputs,
        `mask` bool [b] (False: no image here), `row` int [b] (-1 pads). All processes give equally many, of one size;
        the batches of a lone process may be smaller than its first.
      count: number of images; the rows are 0 to count - 1, each exactly once over all batches and processes.
      mesh: the batch is split over all of its axes.
      table: makes what the descriptors are put into as they come.

    Returns:
      `Described`, the same in every process.

    Raises:
      UserError: no images, or a descriptor that is not finite.
      RuntimeError: rows that are repeated or missing in the batches.
    """
    return _collected(steps(compiled(apply, mesh), variables, batches, mesh), count, mesh, table)


def describe_mixed(
    apply: Callable[[Any, Any], Any],
    variables: Any,
    batches: Iterable[tuple[Mixed, Sequence[Mapping[str, Array]]]],
    count: int,
    mesh: Mesh,
    rule: str = "",
    crop_from: tuple[int, int] | None = None,
    table: Table = in_memory,
) -> Described:
    """`describe` for images of several sizes.

    Args:
      batches: as `shapes.mixed_batches` yields them.
      rule: of `models.resizing`, which brings the images to the size of their batch on the device: float32 then, not
        rounded to integers. Only this small program is compiled for each size that images are read at. Without a
        rule a batch is one chunk, whose images have the batch's size already.
      crop_from: (height, width) that the rule brings them to instead, where batches are the middle of that.
      apply, variables, count, mesh, table: as `describe` takes; `apply` is compiled for each size of the batches.
    """
    results = mixed_steps(compiled(apply, mesh), variables, batches, mesh, rule, crop_from)
    return _collected(results, count, mesh, table)


def _collected(results: Iterator[tuple], count: int, mesh: Mesh, table: Table) -> Described:
    """The results of all steps, each row in its place."""
    seen, present = np.zeros(count, np.int64), np.zeros(count, bool)
    descriptors = None
    with Bar("describing", count, "images") as bar:
        for values, rows, mask in _one_ahead(replicate(mesh)(result) for result in results):
            real = rows >= 0
            np.add.at(seen, rows[real], 1)
            present[rows[mask]] = True
            wrong = rows[mask & ~np.isfinite(values).all(axis=1)]
            if len(wrong):
                raise NotFiniteError(int(wrong[0]))
            if descriptors is None:
                descriptors = table((count, values.shape[1]))
            descriptors[rows[mask]] = values[mask]
            bar.advance(int(real.sum()))
    if descriptors is None:
        raise UserError(NO_IMAGES)
    if (seen != 1).any():
        raise RuntimeError(
            f"{(seen == 0).sum()} of {count} images were never read and {(seen > 1).sum()} more than once "
            f"(first row: {int(np.flatnonzero(seen != 1)[0])})"
        )
    return Described(descriptors, np.flatnonzero(~present))


@lru_cache(maxsize=16)
def compiled(apply: Callable, mesh: Mesh):
    """jit of `apply` over the mesh: (variables, image, row, mask) -> (descriptors, row, mask), split as the batch."""

    def shapes(_, image, *__):
        return tuple(leaf.shape for leaf in jax.tree.leaves(image))

    jitted, what = _jitted(apply, mesh), "the model that describes images"
    return first_slow(jitted, compiling.message(what), shapes, compiling.together(jitted, what))


@lru_cache(maxsize=16)
def _jitted(apply: Callable, mesh: Mesh):
    def step(variables, image, row, mask):
        return apply(variables, image).astype(np.float32), row, mask

    return jax.jit(step, out_shardings=(NamedSharding(mesh, P(mesh.axis_names)),) * 3)


def trace(apply: Callable, variables: Any, mesh: Mesh, length: int, size: Sequence[int], dtype: Any) -> int:
    """How many numbers a descriptor has. Traces the program that describes a batch of `length` images of `size` and
    `dtype`, and computes nothing; what the model raises for images of that size comes out here. Of clips `size` is
    (frames, height, width)."""
    return _jitted(apply, mesh).eval_shape(variables, *_batch_like(mesh, length, size, dtype))[0].shape[1]


def memory(apply: Callable, variables: Any, mesh: Mesh, length: int, size: Sequence[int], dtype: Any) -> int:
    """Bytes of each device that the program takes which `trace` traces; it is compiled for that."""
    arguments = _batch_like(mesh, length, size, dtype)
    return device_memory.taken(_jitted(apply, mesh).lower(variables, *arguments).compile())


def _batch_like(mesh: Mesh, length: int, size: Sequence[int], dtype: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    sharding = NamedSharding(mesh, P(mesh.axis_names))  # as the batches will have it, so that a trace serves them
    like = partial(jax.ShapeDtypeStruct, sharding=sharding)
    return like((length, *size, 3), dtype), like((length,), np.int32), like((length,), np.bool_)


def steps(step: Callable, variables: Any, batches: Iterable[Mapping[str, Array]], mesh: Mesh) -> Iterator[tuple]:
    """Starts one step after the other and yields its results, which may not be ready yet.

    Args:
      step: `(variables, image, row, mask) -> results`, compiled, of a global batch that is split over all devices.
      variables, batches, mesh: as `describe` takes.
    """
    sharding = NamedSharding(mesh, P(mesh.axis_names))
    local = len([device for device in mesh.devices.flat if device.process_index == jax.process_index()])
    size = 0
    for batch in batches:
        rows = np.asarray(batch["row"], np.int32)
        mask = np.asarray(batch["mask"], bool) & (rows >= 0)
        # All batches get the shape of the first, so that nothing is compiled twice.
        size = max(size, -(-len(rows) // local) * local)
        shown = jax.tree.map(partial(_pad, size=size, fill=0), shown_to_model(batch))
        padded = shown, _pad(rows, size, -1), _pad(mask, size, False)
        yield step(variables, *jax.tree.map(partial(jax.make_array_from_process_local_data, sharding), padded))


def shown_to_model(batch: Mapping[str, Array]) -> Any:
    """The model's input in a batch: the one array beside the bookkeeping, or a dict of several."""
    shown = {name: array for name, array in batch.items() if name not in BOOKKEEPING}
    return next(iter(shown.values())) if len(shown) == 1 else shown


def mixed_steps(
    step: Callable,
    variables: Any,
    batches: Iterable[tuple[Mixed, Sequence[Mapping[str, Array]]]],
    mesh: Mesh,
    rule: str,
    crop_from: tuple[int, int] | None,
) -> Iterator[tuple]:
    """As `steps`; chunks are resized into their places in a batch that stays on the devices."""
    sharding = NamedSharding(mesh, P(mesh.axis_names))
    for mixed, chunks in batches:
        held = _nothing(mesh, mixed.length, mixed.size)() if rule else ()
        for chunk in chunks:
            image, rows, place = chunk["image"], np.asarray(chunk["row"], np.int32), chunk["place"]
            mask = np.asarray(chunk["mask"], bool) & (rows >= 0)
            *read, places = (
                jax.make_array_from_process_local_data(sharding, array) for array in (image, rows, mask, place)
            )
            held = _filling(mesh, rule, crop_from)(held, tuple(read), places) if rule else tuple(read)
        yield step(variables, *held)


@lru_cache(maxsize=256)
def _nothing(mesh: Mesh, count: int, size: tuple[int, int]) -> Callable[[], tuple]:
    """Makes a batch without images: (image, row, mask)."""

    def empty():
        return jnp.zeros((count, *size, 3), jnp.float32), jnp.full(count, -1, jnp.int32), jnp.zeros(count, bool)

    return jax.jit(empty, out_shardings=(NamedSharding(mesh, P(mesh.axis_names)),) * 3)


@lru_cache(maxsize=16)
def _filling(mesh: Mesh, rule: str, crop_from: tuple[int, int] | None) -> Callable[[tuple, tuple, jax.Array], tuple]:
    """Resizes a chunk and puts it into its places in a batch; a place beyond the batch is dropped."""

    def fill(held, chunk, place):
        image, row, mask = held
        size = image.shape[1:3]
        resized = resizing.resize(chunk[0], crop_from or size, rule, middle(crop_from or size, size))
        return tuple(
            old.at[place].set(new, mode="drop") for old, new in ((image, resized), (row, chunk[1]), (mask, chunk[2]))
        )

    return jax.jit(fill, donate_argnums=0, out_shardings=(NamedSharding(mesh, P(mesh.axis_names)),) * 3)


def _one_ahead(results: Iterator[tuple]) -> Iterator[tuple[Array, Array, Array]]:
    """NumPy copies of the results, each fetched only when the next step was started."""
    waiting = None
    for result in results:
        if waiting is not None:
            yield _fetch(waiting)
        waiting = result
    if waiting is not None:
        yield _fetch(waiting)


def _fetch(result: tuple) -> tuple[Array, Array, Array]:
    values, rows, mask = (np.asarray(array) for array in result)
    return values, rows.astype(np.int64), mask


def _pad(array: Array, size: int, fill: Any) -> Array:
    array = np.asarray(array)
    if len(array) == size:
        return array
    return np.concatenate([array, np.full((size - len(array), *array.shape[1:]), fill, array.dtype)])


class NotFiniteError(UserError):
    """Descriptors that are not finite: of the image in `row`, which names it where nothing else does, and of `more`."""

    def __init__(self, row: int, more: int = 0, name: str = ""):
        self.row, self.more = row, more
        super().__init__(
            f"{name or f'image {row}'}{f' and {more:,} more' if more else ''}: descriptors that are not finite. The "
            "weights hold NaN, are not those of this model, or need more range than model.dtype has"
        )
