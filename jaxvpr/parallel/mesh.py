"""The mesh of devices and the few ways an array lies on it.

Two axes: `data` splits the batch, `model` splits the class prototypes (class-parallel softmax). The backbone has
nothing to split over `model`, so the batch of images is split over both axes: no device repeats the work of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA, MODEL = "data", "model"
BATCH = P((DATA, MODEL))


def make_mesh(model: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """A `[data, model]` mesh over all devices of all hosts, host by host, so that a host's part of a batch is one
    slice.

    Args:
      model: how many devices share one set of class prototypes; divides the number of devices. 0: all of them.
      devices: the devices to use, all by default.

    Raises:
      ValueError: if `model` does not divide the number of devices.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    model = model or len(devices)
    if model < 1 or len(devices) % model:
        raise ValueError(f"mesh.model={model} must divide the number of devices, which is {len(devices)}")
    grid = np.asarray(devices).reshape(-1, model)
    return Mesh(grid, (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, P())


@lru_cache(maxsize=16)
def replicate(mesh: Mesh) -> Callable[[Any], Any]:
    """Compiles (arrays) -> the same arrays on every device, so that each process can read all of them."""
    return jax.jit(lambda arrays: arrays, out_shardings=replicated(mesh))


def whole(tree: Any) -> Any:
    """Arrays as they are on every device, so that each process can read all of them; those that are split are
    gathered."""
    leaves, structure = jax.tree.flatten(tree)
    split = {i: leaf for i, leaf in enumerate(leaves) if not leaf.sharding.is_fully_replicated}
    if not split:
        return tree
    gathered = replicate(next(iter(split.values())).sharding.mesh)(split)
    return jax.tree.unflatten(structure, [gathered.get(i, leaf) for i, leaf in enumerate(leaves)])


def batch_sharding(mesh: Mesh, stacked: bool = False) -> NamedSharding:
    """The leading axis split over all devices; of `stacked` batches the second one."""
    return NamedSharding(mesh, P(None, *BATCH) if stacked else BATCH)


def class_shardings(mesh: Mesh, tree: Any, by_class: Sequence[str]) -> Any:
    """Shardings of stacked heads or their optimiser state: `[slots, classes, ...]` is split over `model` by class.

    That is the case of leaves with one of the names `by_class` in their path. All others are replicated (a step count a
    slot, a head of another kind), and so are heads whose classes `model` does not divide.
    """

    def rule(path: Any, leaf: Any) -> NamedSharding:
        named = any(getattr(key, "key", None) in by_class for key in path)
        split = named and len(leaf.shape) >= 3 and leaf.shape[1] % mesh.shape[MODEL] == 0
        return NamedSharding(mesh, P(None, MODEL) if split else P())

    return jax.tree.map_with_path(rule, tree)


def outputs_sharding(mesh: Mesh, tree: Any) -> Any:
    """Shardings of a model's outputs for a batch: rows split over `data` alone, so that `model` is free for classes.

    Scalars are replicated, and so are rows that the devices of `data` do not divide.
    """

    def rule(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, P(DATA) if leaf.ndim and leaf.shape[0] % mesh.shape[DATA] == 0 else P())

    return jax.tree.map(rule, tree)


def local_rows(mesh: Mesh, batch: int) -> slice:
    """Which rows of a global batch of `batch` this host reads.

    Raises:
      ValueError: if the devices do not divide the batch.
    """
    if batch % mesh.size:
        raise ValueError(f"a batch of {batch} cannot be split over {mesh.size} devices; use a multiple of {mesh.size}")
    spans = [index[0] for index in batch_sharding(mesh).addressable_devices_indices_map((batch,)).values() if index]
    starts = [span.start or 0 for span in spans]
    stops = [batch if span.stop is None else span.stop for span in spans]
    return slice(min(starts), max(stops))


def to_global(mesh: Mesh, batch: dict[str, np.ndarray], stacked: bool = False) -> dict[str, jax.Array]:
    """A dict of this host's rows, `[local, ...]` each, or of several batches of them, `[steps, local, ...]`, as arrays
    of the global batch on the mesh."""
    sharding = batch_sharding(mesh, stacked)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def devices() -> str:
    """The devices of the run, for the console."""
    kinds = {device.device_kind for device in jax.devices()}
    return f"{jax.device_count()} x {', '.join(sorted(kinds))}, {jax.process_count()} process(es)"
