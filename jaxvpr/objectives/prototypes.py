"""Prototypes of classes and their softmax with a margin: the trained head of every classification of places."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.errors import UserError
from jaxvpr.losses.margins import arcface, cosface, easy_arcface, subcenter_arcface
from jaxvpr.objectives.objective import Context

log = logging.getLogger(__name__)
# Name -> (loss, its options). The defaults are those of pytorch-metric-learning, whose angle is 28.6 degrees, and of
# the head itself: `margin_warmup` and `sub_centers`, how many centres a class has.
ANGULAR = {"scale": 64.0, "margin": math.radians(28.6), "margin_warmup": 0.0}
MARGIN_LOSSES: dict[str, tuple[Callable[..., jax.Array], dict[str, Any]]] = {
    "cosface": (cosface, {"scale": 64.0, "margin": 0.35, "margin_warmup": 0.0}),
    "arcface": (arcface, ANGULAR),
    "easy_arcface": (easy_arcface, ANGULAR),
    "subcenter_arcface": (subcenter_arcface, {**ANGULAR, "sub_centers": 3}),
}


class Prototypes(NamedTuple):
    """A head of stacked prototypes, one stack a slot.

    Attributes:
      counts: int [slots], classes of each slot.
      loss: a name in `MARGIN_LOSSES`.
      scale, margin: of the softmax; angular margins are in radians.
      margin_warmup: the share of the run over which the margin grows linearly from 0. Short runs need it: with the full
        margin from the start a small network does not begin to learn.
      sub_centers: prototypes of a class, for the losses that take several; 0 for one without an axis of its own.
    """

    counts: np.ndarray
    loss: str
    scale: float
    margin: float
    margin_warmup: float = 0.0
    sub_centers: int = 0

    def init(self, key: jax.Array, dim: int) -> jax.Array:
        """Random prototypes float32 [slots, classes, dim] or [slots, classes, centres, dim]."""
        centres = (self.sub_centers,) if self.sub_centers else ()
        return fresh_prototypes(key, (len(self.counts), padded(max(self.counts)), *centres, dim))

    def __call__(
        self, prototypes: jax.Array, descriptors: jax.Array, batch: Mapping[str, jax.Array], at: Context, **options: Any
    ) -> jax.Array:
        """The loss of descriptors [B, D] of a batch with its slot's prototypes; float32 scalar."""
        return MARGIN_LOSSES[self.loss][0](
            descriptors,
            batch["label"],
            prototypes,
            scale=self.scale,
            margin=self.margin * jnp.minimum(at.progress / self.margin_warmup, 1.0)
            if self.margin_warmup
            else self.margin,
            mask=batch["mask"],
            classes=self.classes(at),
            **options,
        )

    def classes(self, at: Context) -> jax.Array | int:
        """How many classes the slot has; the prototypes behind them only pad."""
        counts = np.asarray(self.counts, np.int32)
        return int(counts[0]) if len(counts) == 1 else jnp.asarray(counts)[at.slot]


def check_classes(counts: np.ndarray, images: int) -> None:
    """Warns of slots with a single class, which teach nothing.

    Args:
      counts: int [slots], classes of each slot. images: those of all classes and of none, for the message.

    Raises:
      UserError: where no slot has two classes: the loss would be 0 from the first step to the last.
    """
    single = int(np.sum(np.asarray(counts) < 2))
    if single == len(counts):
        raise UserError(
            f"all {images} training images are of one class, or each group has one alone, and a classifier needs two "
            "or more: give train_data.root=FOLDER with more places, or smaller or fewer groups of cells "
            "(objective.partition)"
        )
    if single:
        log.warning("%d of %d groups have one class alone: their turns teach nothing", single, len(counts))


def padded(classes: int) -> int:
    """`classes` rounded up, so that a mesh can split them; the losses leave out those that pad.

    To a multiple of 8 where classes are few, of 128 or 1024 where they are many: whatever the mesh, so that a run can
    go on with another one.
    """
    multiple = 1024 if classes >= 2**20 else 128 if classes >= 4096 else 8
    return int(-(-classes // multiple) * multiple)


def fresh_prototypes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random prototypes float32 [slots, classes, D] or [slots, classes, centres, D].

    Of Xavier's scale, as CosPlace's: only the direction enters the loss, the length sets the effective step.
    """
    return jax.random.normal(key, shape, jnp.float32) * np.float32(np.sqrt(2.0 / (shape[1] + shape[-1])))


def head_start(steps: int, index: int, slots: int) -> int:
    """In how many first steps of plan `index` the heads train alone: `steps` where its slot has a new head, else 0.

    The loss of new prototypes is high and its gradient knows no place yet; it would drag the model along.
    """
    return steps if index < slots else 0
