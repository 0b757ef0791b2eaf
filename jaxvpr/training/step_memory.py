"""What to say where the training step needs more memory than a device has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from jaxvpr.parallel import device_memory

SHARED = "let several devices share what each would hold: --config.mesh.model=0 --config.mesh.fsdp_mib=1"


class StepMemory:
    """The step and the shapes of its arguments, which it may have taken over when it fails.

    Args:
      made: the step, of `make_step`.
      batch, accumulate, grad_cache: the recipe's keys. devices: of the mesh.
    """

    def __init__(self, made: Any, *, batch: int, accumulate: int, grad_cache: int, devices: int):
        self._made, self._batch, self._devices = made, batch, devices
        self._accumulate, self._grad_cache = accumulate, grad_cache
        self._shapes: Any = None

    def noting(self, before: Callable[..., None]) -> Callable[..., None]:
        """`before`, which is called with the step's arguments before it, and notes their shapes too."""

        def note(*arguments: Any) -> None:
            self._shapes = jax.tree.map(_shape, arguments)
            before(*arguments)

        return note

    def advice(self) -> str:
        """The largest half, quarter, ... of the batch that fits, and the keys that make one fit."""
        if self._shapes is None:
            return "Give it more devices, or a smaller model"
        parts = max(self._accumulate, self._grad_cache)
        fits, found = device_memory.that_fits(self._takes, "batch", self._batch, self._devices * parts)
        batch = fits or max(self._batch // 2, 1)
        times = self._batch // batch
        in_parts = f"--config.accumulate={self._accumulate * times}" if self._grad_cache == 1 else ""
        cached = f"--config.grad_cache={self._grad_cache * times}" if self._accumulate == 1 else ""
        return (
            f"{found}. Start with --config.batch={batch}; or keep the batch and take it in parts, with "
            f"{' or, where the loss compares images, '.join(filter(None, (in_parts, cached)))}; or compute more and "
            f"keep less: --config.model.backbone_options.remat=true; or {SHARED}"
        )

    def _takes(self, batch: int) -> int:
        state, batches, turn, *others = self._shapes
        axis = len(turn.number.shape)  # behind that of the steps of a call
        fewer = jax.tree.map(partial(_share, axis, batch, self._batch), batches)
        return device_memory.taken(self._made.lower(state, fewer, turn, *others).compile())


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))


def _share(axis: int, batch: int, whole: int, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    shape = list(x.shape)
    shape[axis] = shape[axis] * batch // whole
    return x.update(shape=tuple(shape))
