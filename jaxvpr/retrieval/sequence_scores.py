"""How alike two sequences are, from the differences of their frames: no model sees more than one image.

With one trajectory and without contrast the score of two clips is the mean distance of their aligned frames (SeqNet's
SeqMatch: Garg and Milford, 2021). SeqSLAM (Milford and Wyeth, 2012) first enhances contrast: from each difference it
subtracts the mean of those beside it along the database, and divides by their standard deviation. It then takes the
best of several straight trajectories through the database, one for each velocity.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxvpr.retrieval import shards

Array = np.ndarray
MEMORY_MIB = 1024  # what a search takes on each device beside the descriptors of the database


class Drives(NamedTuple):
    """A database: the frames of one drive after the other, and its clips.

    Attributes:
      frames: float32 [N, D], descriptors.
      first, stop: int32 [N], where the drive of each frame begins and ends; a frame that could not be read has an empty
        one, `first == stop`.
      at: int32 [C], the frame that stands for each clip.
    """

    frames: Array
    first: Array
    stop: Array
    at: Array


def trajectories(steps: Array, velocities: Array) -> Array:
    """The different ways through a database, int32 [V', F].

    Args:
      steps: int [F], how many frames from the one that stands for a clip on each of its frames is.
      velocities: float [V], how many frames of the database go by with one of the query; below 0 it is driven the other
        way. A frame is rounded to the nearest, the half to the even one.
    """
    return np.unique(np.rint(np.outer(velocities, steps)).astype(np.int32), axis=0)


def search(
    drives: Drives, frames: Array, rows: Array, table: Array, window: int, k: int, mesh: Mesh,
    memory_mib: float = MEMORY_MIB,
) -> tuple[Array, Array]:  # fmt: skip
    """The k clips of a database with the best score for each query clip, by exhaustive search.

    Queries are split over the devices, each of which holds all frames of the database. They are searched in blocks, so
    that a device holds a few arrays of (frames of a block) x (frames of the database), however many velocities there
    are.

    Args:
      frames: float32 [M, D], descriptors of the queries' frames.
      rows: int [Q, F], the frames of each query clip in order.
      table: int32 [V, F], see `trajectories`. A trajectory that leaves the drive of a clip does not count.
      window: so many frames of the database, half before and half after it, are what a difference is compared with to
        enhance contrast; 0: none.
      k: how many; where fewer have a trajectory, the rest is clip -1 at an infinite score.
      memory_mib: what the search may take on each device beside the database.

    Returns:
      Scores float32 [Q, k], the mean over the frames of the best trajectory, lowest first, of equal ones the smaller
      clip; and clips int64 [Q, k]. The same in every process.
    """
    (count, length), devices = rows.shape, mesh.size
    size, held = _block_size(rows, len(drives.frames), devices, shards.budget(memory_mib))
    run = _search_on(mesh, min(k, len(drives.at)), window, int(np.abs(table).max()))

    def started() -> Iterator[shards.Started]:
        for start in range(0, count, size * devices):
            part = np.arange(start, min(start + size * devices, count))
            shown = np.zeros((devices, held, frames.shape[1]), np.float32)
            inside = np.zeros((devices, size, length), np.int32)
            for device in range(-(-len(part) // size)):
                own = rows[part[device * size : (device + 1) * size]]
                used, local = np.unique(own, return_inverse=True)
                shown[device, : len(used)], inside[device, : len(own)] = frames[used], local.reshape(own.shape)
            yield part, run(drives, shown, inside, table)

    scores, clips = shards.fetched(started(), count, min(k, len(drives.at)))
    more = ((0, 0), (0, k - scores.shape[1]))
    return np.pad(scores, more, constant_values=np.inf), np.pad(clips, more, constant_values=-1)


def _block_size(rows: Array, database: int, devices: int, values: int) -> tuple[int, int]:
    """How many query clips a device compares at once, so that `values` numbers suffice, and of how many frames."""
    size = min(shards.QUERY_BLOCK, shards.power_above(-(-len(rows) // devices)))
    while True:
        held = max(len(np.unique(rows[start : start + size])) for start in range(0, len(rows), size))
        if size == 1 or 4 * (held + size) * database <= values:
            return size, held
        size //= 2


@lru_cache(maxsize=64)
def _search_on(mesh: Mesh, k: int, window: int, reach: int):
    """Compiles `_search_of_shard` for a mesh: (database, frames, their rows, trajectories) -> (scores, clips)."""
    search = partial(_search_of_shard, k=k, window=window, reach=reach, axes=mesh.axis_names)
    return shards.compiled(search, mesh, P(), P(), P(), P())


def _search_of_shard(drives, frames, rows, table, *, k, window, reach, axes):
    """One device: its share of the queries, frames [devices, M, D] and rows [devices, Q, F], against all clips."""
    mine = jax.lax.axis_index(axes)
    apart = differences(frames[mine], drives.frames)
    if window:
        apart = enhanced(apart, drives.first, drives.stop, window)
    scores = best_trajectories(apart, rows[mine], table, drives.first, drives.stop, reach)[:, drives.at]
    numbers = jnp.broadcast_to(jnp.arange(len(drives.at), dtype=jnp.int32)[None], scores.shape)
    scores, clips = shards.smallest(scores, numbers, k)
    clips = jnp.where(jnp.isinf(scores), -1, clips)
    return tuple(jax.lax.all_gather(array, axes, tiled=True) for array in (scores, clips))


def differences(queries, database):
    """Euclidean distances float32 [M, N] of descriptors [M, D] and [N, D]."""
    # As in `mesh_search`: a matrix product in full precision, as near pairs cancel.
    dot = jnp.matmul(queries, database.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(jnp.square(queries), axis=1)[:, None] + jnp.sum(jnp.square(database), axis=1)[None]
    return jnp.sqrt(jnp.maximum(norms - 2 * dot, 0))


def enhanced(apart, first, stop, window):
    """Differences [M, N] with local contrast: less the mean of those of the frames beside it, over their deviation.

    Each is compared with `window // 2` frames of its drive on either side and itself, fewer at the ends of the drive.
    The standard deviation is that of a sample (n - 1). A frame alone, or among equal ones, gets 0.
    """
    count, half = apart.shape[1], window // 2
    number = jnp.arange(count, dtype=jnp.int32)
    padded = jnp.pad(apart, ((0, 0), (half, half)))
    moves = range(-half, half + 1)
    beside = {move: ((number + move >= first) & (number + move < stop))[None] for move in moves}
    values = {move: padded[:, half + move : half + move + count] for move in moves}
    n = sum(inside.astype(jnp.float32) for inside in beside.values())
    mean = sum(jnp.where(beside[move], values[move], 0) for move in moves) / jnp.maximum(n, 1)
    squares = sum(jnp.where(beside[move], jnp.square(values[move] - mean), 0) for move in moves)
    deviation = jnp.sqrt(squares / jnp.maximum(n - 1, 1))
    # Deviations of less than a millionth of the mean are the rounding of equal differences.
    return jnp.where(deviation > 1e-6 * mean, (apart - mean) / jnp.maximum(deviation, 1e-30), 0)


def best_trajectories(apart, rows, table, first, stop, reach):
    """The lowest mean difference along any trajectory, float32 [Q, N], infinite where none stays in the drive.

    Args:
      apart: float32 [M, N], frames of queries and of the database.
      rows: int32 [Q, F], the frames of each query clip.
      table: int32 [V, F], trajectories; `reach` is at least the largest of its numbers, without sign.
      first, stop: int32 [N], the drive of each frame of the database.
    """
    (clips, length), count = rows.shape, apart.shape[1]
    number = jnp.arange(count, dtype=jnp.int32)
    padded = jnp.pad(apart, ((0, 0), (reach, reach)))

    def along(best, steps):
        def frame(total, of):
            step, row = of
            return total + jax.lax.dynamic_slice_in_dim(padded, reach + step, count, axis=1)[row], None

        total, _ = jax.lax.scan(frame, jnp.zeros((clips, count), jnp.float32), (steps, rows.T))
        inside = (number + steps.min() >= first) & (number + steps.max() < stop)
        return jnp.minimum(best, jnp.where(inside[None], total / length, jnp.inf)), None

    best, _ = jax.lax.scan(along, jnp.full((clips, count), jnp.inf, jnp.float32), table)
    return best


def reranked(
    database: Array, clips: Array, frames: Array, rows: Array, candidates: Array, lost: Array
) -> tuple[Array, Array]:
    """Candidates of each query in the order of their mean distance of aligned frames: SeqNet's second stage.

    Args:
      database: float32 [N, D], descriptors of frames. clips: int [C, F], those of each clip.
      frames: float32 [M, D]; rows: int [Q, F], likewise of the queries.
      candidates: int [Q, K], clips of the database; -1 pads.
      lost: bool [C], clips with a frame that could not be read: they come last, as -1.

    Returns:
      Distances float32 [Q, K], lowest first, of equal ones the smaller clip; and clips int64 [Q, K].
    """
    distances, found = np.full(candidates.shape, np.inf, np.float32), np.full(candidates.shape, -1, np.int64)
    for query, own in enumerate(candidates):
        own = own[(own >= 0) & ~lost[own]]
        apart = np.linalg.norm(database[clips[own]] - frames[rows[query]], axis=-1).mean(axis=-1)
        order = np.lexsort((own, apart))
        distances[query, : len(own)], found[query, : len(own)] = apart[order], own[order]
    return distances, found
