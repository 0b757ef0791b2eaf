"""BatchNorm adaptation: the running averages move to those of another domain, and nothing is trained.

What any method of domain adaptation has to beat (after Li et al., "Revisiting Batch Normalization for Practical Domain
Adaptation", 2016).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loaders import Draw
from data_pipelines.samplers import open_passes
from jaxvpr.objectives.objective import Batch, Context, Embed, Memory, Objective, Plan, embed_images

TARGET = "target"


def statistics_objective(model: Any, *, images: int, batch: int, steps: int) -> Objective:
    """Shows the model `batch` images a step in training mode, of `images` in shuffled passes, as the stream "target".

    Its parameters are to rest (`Recipe.frozen`); the loss is 0. One plan lasts `steps`.
    """

    def plan(index: int, rng: np.random.Generator, memory: Memory, embed: Embed) -> tuple[Plan, Memory]:
        rows, left = open_passes(memory.get("left"), images, batch * steps, rng)
        return {"rows": rows.reshape(steps, batch)}, {"left": left}

    return Objective(
        streams=(TARGET,),
        period=steps,
        slots=1,
        init=lambda key, dim: ({}, {}),
        plan=plan,
        draw=draw,
        embed=embed_images(model),
        loss=nothing,
    )


def draw(plan: Plan, step: int) -> dict[str, Draw]:
    """The rows that a plan sets for a step."""
    return {TARGET: Draw.of(plan["rows"][step])}


def nothing(
    extra: Any, aux: Any, outputs: dict[str, Any], batches: dict[str, Batch], context: Context
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """A loss of 0."""
    return jnp.zeros((), jnp.float32), aux, {}
