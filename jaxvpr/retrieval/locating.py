"""Where images were taken, as a trained head says it of their descriptors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.place_model import PlaceModel
from jaxvpr.models.positions import Cells, Coding, Located, coding_with, located

Array = np.ndarray
OUTPUTS = 1 << 24  # of the head at a time, 64 MiB
ROWS = 4096


class Answers(NamedTuple):
    """What a head says of N descriptors.

    located: the positions.
    losses: float32 [N], of each; NaN where none was asked for.
    classes: int32 [N], of a head of cells; -1 of others.
    """

    located: Located
    losses: Array
    classes: Array


def answers(
    model: PlaceModel,
    variables: Any,
    descriptors: Array,
    at: Array | None = None,
    loss: Callable[..., jax.Array] | None = None,
    weights: tuple[Any, ...] = (),
    meaning: Coding | None = None,
) -> Answers:
    """The answers to descriptors, a few thousand at a time.

    Args:
      model: with a `position` head.
      descriptors: [N, D].
      at: float32 [N, 3], the normalised positions that `loss` compares with.
      loss: (raw, at, *weights) -> [n]; the same object for every call that is to be compiled once.
      meaning: `positions.coding_with` of these variables, where several calls share it.
    """
    coding = model.position.coding
    size = int(np.clip(OUTPUTS // coding.numbers, 1, min(ROWS, max(len(descriptors), 1))))
    said = np.empty((len(descriptors), 5 if isinstance(coding, Cells) else coding.numbers), np.float32)
    losses = np.full(len(descriptors), np.nan, np.float32)
    at = np.zeros((len(descriptors), 3), np.float32) if at is None else at
    run = _program(model, loss)
    for start in range(0, len(descriptors), size):
        rows = slice(start, start + size)
        short = size - len(descriptors[rows])
        padded = (np.pad(x[rows], ((0, short), (0, 0))) for x in (descriptors, at))
        found, each = jax.device_get(run(variables, *padded, weights))
        said[rows], losses[rows] = found[: size - short], each[: size - short]
    if not isinstance(coding, Cells):
        return Answers(
            located(meaning or coding_with(model.position, variables), said), losses, np.full(len(said), -1, np.int32)
        )
    # A class is decoded on the device, where there may be a hundred thousand outputs of each image.
    whole = said.astype(np.float64)
    north, east = coding.area.placed(whole[:, 0], whole[:, 1])
    return Answers(Located(north, east, whole[:, 2] * 360.0, whole[:, 3]), losses, said[:, 4].astype(np.int32))


@lru_cache(maxsize=16)
def _program(model: PlaceModel, loss: Callable[..., jax.Array] | None) -> Callable[..., Any]:
    coding = model.position.coding

    @jax.jit
    def run(variables: Any, descriptors: jax.Array, at: jax.Array, weights: tuple[Any, ...]) -> Any:
        raw = model.apply(variables, descriptors, method="of_descriptors")
        each = loss(raw, at, *weights) if loss else jnp.zeros(len(raw))
        if not isinstance(coding, Cells):
            return raw, each
        place, confidence = coding.decode(raw)
        best = jnp.argmax(raw, -1).astype(jnp.float32)  # exact to 16.7 million classes
        return jnp.concatenate([place, confidence[:, None], best[:, None]], -1), each

    return run
