"""Prototypes of classes, the trained head of every softmax over places: how many there are, and how they begin."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.objectives.objective import Context


def padded(classes: int, multiple: int) -> int:
    """`classes` rounded up to a multiple, so that a mesh can split them; the losses leave out those that pad."""
    return int(-(-classes // multiple) * multiple)


def fresh_prototypes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random prototypes float32 [slots, classes, D] or [slots, classes, centres, D].

    Of Xavier's scale, as CosPlace's: only the direction enters the loss, the length sets the effective step.
    """
    return jax.random.normal(key, shape, jnp.float32) * np.float32(np.sqrt(2.0 / (shape[1] + shape[-1])))


def grown(margin: float, warmup: float, context: Context) -> jax.Array | float:
    """The margin of the moment: from 0 to all of it over the share `warmup` of a run; 0 starts with all of it.

    Short runs need it: with the full margin from the start a small network does not leave the ground.
    """
    return margin * jnp.minimum(context.progress / warmup, 1.0) if warmup else margin
