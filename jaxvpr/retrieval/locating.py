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
from jaxvpr.models.positions import answers as decoded

Array = np.ndarray
OUTPUTS = 1 << 24  # of the head at a time, 64 MiB
ROWS = 4096


class Answers(NamedTuple):
    """What a head says of N descriptors.

    located: the positions.
    losses: float32 [N], of each; zeros where none was asked for.
    """

    located: Located
    losses: Array


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
    coding = head_of(model).coding
    size = int(np.clip(OUTPUTS // coding.numbers, 1, min(ROWS, max(len(descriptors), 1))))
    said = np.empty((len(descriptors), 4 if isinstance(coding, Cells) else coding.numbers), np.float32)
    losses = np.zeros(len(descriptors), np.float32)
    at = np.zeros((len(descriptors), 3), np.float32) if at is None else at
    run = _program(model, loss)
    for start in range(0, len(descriptors), size):
        rows = slice(start, start + size)
        short = size - len(descriptors[rows])
        padded = (np.pad(x[rows], ((0, short), (0, 0))) for x in (descriptors, at))
        found, each = jax.device_get(run(variables, *padded, weights))
        said[rows], losses[rows] = found[: size - short], each[: size - short]
    if isinstance(coding, Cells):  # decoded on the device, where there may be a hundred thousand outputs of each image
        return Answers(decoded(coding.area, said[:, :3], said[:, 3]), losses)
    return Answers(located(meaning or coding_with(model.position, variables), said), losses)


def head_of(model: PlaceModel) -> Any:
    """The head of a model that has one."""
    assert model.position is not None
    return model.position


@lru_cache(maxsize=16)
def _program(model: PlaceModel, loss: Callable[..., jax.Array] | None) -> Callable[..., Any]:
    coding = head_of(model).coding

    @jax.jit
    def run(variables: Any, descriptors: jax.Array, at: jax.Array, weights: tuple[Any, ...]) -> Any:
        raw: Any = model.apply(variables, descriptors, method="of_descriptors")
        each = loss(raw, at, *weights) if loss else jnp.zeros(len(raw))
        if not isinstance(coding, Cells):
            return raw, each
        place, confidence = coding.decode(raw)
        return jnp.concatenate([place, confidence[:, None]], -1), each

    return run
