"""Cell classification: CosPlace's groups of classes, and any other partition into classes.

Plan k trains group k mod G with that group's own prototypes [Berton et al., CVPR 2022]: two cells of one group are
never neighbours, so that no class has a near twin among the negatives.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loaders import Draw
from data_pipelines.partitions import Cells
from data_pipelines.samplers import class_batches
from jaxvpr.errors import UserError
from jaxvpr.losses.margins import arcface, cosface, easy_arcface
from jaxvpr.objectives.objective import Batch, Context, Embed, Memory, Objective, Plan, embed_images
from jaxvpr.objectives.prototypes import fresh_prototypes, grown, padded

LOSSES = {"cosface": cosface, "arcface": arcface, "easy_arcface": easy_arcface}


def cells_objective(
    model: Any,
    cells: Cells,
    *,
    batch: int,
    steps: int,
    loss: str = "cosface",
    scale: float = 30.0,
    margin: float = 0.4,
    margin_warmup: float = 0.0,
    pad_classes: int = 8,
) -> Objective:
    """Classification of cells with a margin softmax over stacked, class-sharded prototypes.

    Args:
      model: a `PlaceModel`.
      cells: groups of classes, each with its images.
      batch: images in a global batch; each is of another class where the group has enough.
      steps: steps that one group trains before the next.
      loss: a name in `LOSSES`.
      scale, margin: of the softmax; CosPlace's are 30 and 0.4.
      margin_warmup: the share of the run over which the margin grows linearly from 0 (`prototypes.grown`).
      pad_classes: the number of prototypes is rounded up to a multiple of this, so that the mesh can split them.

    Raises:
      UserError: for an unknown loss.
    """
    if loss not in LOSSES:
        raise UserError(f"objective.loss={loss!r} does not exist; there are {sorted(LOSSES)}")
    counts = cells.counts.astype(np.int32)
    width = padded(counts.max(), pad_classes)

    def init(key: jax.Array, dim: int) -> tuple[Any, Any]:
        return {"prototypes": fresh_prototypes(key, (len(cells), width, dim))}, {}

    def plan(index: int, rng: np.random.Generator, memory: Memory, embed: Embed) -> tuple[Plan, Memory]:
        group = index % len(cells)
        rows, labels = class_batches(cells, group, batch=batch, steps=steps, rng=rng)
        return {"slot": np.asarray(group), "rows": rows, "labels": labels}, memory

    def loss_of(
        extra: Any, aux: Any, outputs: dict[str, Any], batches: dict[str, Batch], context: Context
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        source = batches["source"]
        value = LOSSES[loss](
            outputs["source"],
            source["label"],
            extra["prototypes"],
            scale=scale,
            margin=grown(margin, margin_warmup, context),
            mask=source["mask"],
            classes=jnp.asarray(counts)[context.slot],
        )
        return value, aux, {}

    return Objective(
        streams=("source",),
        period=steps,
        slots=len(cells),
        init=init,
        plan=plan,
        draw=draw,
        embed=embed_images(model),
        loss=loss_of,
    )


def draw(plan: Plan, step: int) -> dict[str, Draw]:
    """The rows and labels that a plan of `cells_objective` sets for a step."""
    return {"source": Draw.of(plan["rows"][step], plan["labels"][step])}
