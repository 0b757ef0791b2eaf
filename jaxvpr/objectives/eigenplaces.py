"""EigenPlaces: classification of cells by what their images look at (Berton et al., ICCV 2023).

Each step sees images of lateral classes and images of frontal ones, each kind with prototypes of its own: a cell is one
class of either. Plan k trains both kinds of group k mod G.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.eigen import Looks
from data_pipelines.loaders import Draw
from data_pipelines.samplers import class_picks
from jaxvpr.losses.margins import cosface
from jaxvpr.objectives.objective import Batch, Context, Embed, Memory, Objective, Plan, embed_images
from jaxvpr.objectives.prototypes import fresh_prototypes, grown, padded

KINDS = ("lateral", "frontal")


def eigenplaces_objective(
    model: Any,
    lateral: Looks,
    frontal: Looks,
    *,
    batch: int,
    steps: int,
    scale: float = 100.0,
    margin: float = 0.4,
    margin_warmup: float = 0.0,
    weights: tuple[float, float] = (1.0, 1.0),
    pad_classes: int = 8,
) -> Objective:
    """CosFace over lateral and over frontal classes: two streams, and two stacked heads that train in the same step.

    Args:
      model: a `PlaceModel`.
      lateral, frontal: of `eigen_classes`; the same groups of as many classes.
      batch: images of each stream (32 and 32 in the paper), each of another class where the group has enough.
      steps: steps that one group trains before the next.
      scale, margin: of the softmax.
      margin_warmup: the share of the run over which the margin grows linearly from 0 (`prototypes.grown`).
      weights: of the lateral and of the frontal loss; the loss is their weighted sum.
      pad_classes: the number of prototypes is rounded up to a multiple of this, so that the mesh can split them.

    Raises:
      ValueError: for classes that differ in their groups; weights that are not two numbers of at least 0, one above.
    """
    if not np.array_equal(lateral.cells.groups, frontal.cells.groups):
        raise ValueError(
            f"lateral groups of {lateral.cells.counts} classes, but frontal ones of {frontal.cells.counts}"
        )
    if len(weights) != 2 or min(weights) < 0 or max(weights) <= 0:
        raise ValueError(f"weights={weights}: give two numbers, of the lateral and of the frontal loss, not both 0")
    looks = dict(zip(KINDS, (lateral, frontal), strict=True))
    groups, counts = len(lateral.cells), lateral.cells.counts.astype(np.int32)
    width = padded(counts.max(), pad_classes)

    def init(key: jax.Array, dim: int) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(KINDS))
        return {kind: fresh_prototypes(k, (groups, width, dim)) for kind, k in zip(KINDS, keys, strict=True)}, {}

    def plan(index: int, rng: np.random.Generator, memory: Memory, embed: Embed) -> tuple[Plan, Memory]:
        group = index % groups
        drawn: Plan = {"slot": np.asarray(group)}
        for kind, look in looks.items():
            picked, labels = class_picks(look.cells, group, batch=batch, steps=steps, rng=rng)
            drawn[f"{kind}_rows"], drawn[f"{kind}_labels"] = look.cells.rows[picked], labels
            drawn[f"{kind}_views"] = look.view[picked]
        return drawn, memory

    def loss(
        extra: Any, aux: Any, outputs: dict[str, Any], batches: dict[str, Batch], context: Context
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        losses = {
            kind: cosface(
                outputs[kind],
                batches[kind]["label"],
                extra[kind],
                scale=scale,
                margin=grown(margin, margin_warmup, context),
                mask=batches[kind]["mask"],
                classes=jnp.asarray(counts)[context.slot],
            )
            for kind in KINDS
        }
        value = weights[0] * losses["lateral"] + weights[1] * losses["frontal"]
        return value, aux, {f"{kind}_loss": one for kind, one in losses.items()}

    return Objective(
        streams=KINDS,
        period=steps,
        slots=groups,
        init=init,
        plan=plan,
        draw=draw,
        embed=embed_images(model),
        loss=loss,
    )


def draw(plan: Plan, step: int) -> dict[str, Draw]:
    """The rows, labels and headings that a plan of `eigenplaces_objective` sets for a step."""
    return {
        kind: Draw.of(plan[f"{kind}_rows"][step], plan[f"{kind}_labels"][step], plan[f"{kind}_views"][step])
        for kind in KINDS
    }
