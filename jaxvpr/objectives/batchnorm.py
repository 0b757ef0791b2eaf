"""BatchNorm adaptation: the running averages move to those of another domain, and nothing is trained.

What any method of domain adaptation has to beat (after Li et al., "Revisiting Batch Normalization for Practical Domain
Adaptation", 2016).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvpr.objectives.objective import Batch, Context, Objective, passes_plan

TARGET = "target"


def batchnorm_objective(*, images: int, batch: int, steps: int) -> Objective:
    """Shows the model `batch` images a step in training mode, of `images` in shuffled passes, as the stream "target".

    All its parameters are to be frozen; the loss is 0. One plan lasts `steps`.
    """

    return Objective(streams=(TARGET,), period=steps, plan=passes_plan(images, batch, steps, TARGET), loss=_zero)


def _zero(
    extra: Any, aux: Any, outputs: dict[str, Any], batches: dict[str, Batch], context: Context
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    return jnp.zeros((), jnp.float32), aux, {}
