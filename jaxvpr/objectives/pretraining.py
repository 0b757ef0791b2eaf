"""Pre-training of a backbone: classification of class folders, the result of which initialises every other recipe.

Softmax on what the backbone sees, averaged over the image, as for Places365; or a margin on the sphere of descriptors,
as for Google Landmarks v2 (Berton et al., "Deep Visual Geo-localization Benchmark", CVPR 2022, section 4.4).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loaders import Draw
from data_pipelines.partitions import Cells
from data_pipelines.samplers import class_batches, open_passes
from jaxvpr.errors import UserError
from jaxvpr.losses import softmax
from jaxvpr.losses.margins import arcface, cosface, cosines
from jaxvpr.objectives.objective import Batch, Context, Embed, Memory, Objective, Plan, embed_images
from jaxvpr.objectives.prototypes import fresh_prototypes, grown, padded

MARGINS = {"arcface": arcface, "cosface": cosface}
LOSSES = ("softmax", *sorted(MARGINS))


def pretraining_objective(
    model: Any,
    cells: Cells,
    *,
    batch: int,
    steps: int,
    loss: str = "softmax",
    width: int = 0,
    scale: float = 30.0,
    margin: float = 0.3,
    margin_warmup: float = 0.0,
    smoothing: float = 0.0,
    balanced: bool = False,
    pad_classes: int = 8,
) -> Objective:
    """Classification with one head over all classes.

    Args:
      model: a `PlaceModel`. With "softmax" its aggregator is passed by and does not learn: take one without parameters.
      cells: one group of classes, each with its images.
      batch: images in a global batch. steps: batches of one plan.
      loss: a name in `LOSSES`.
      width: channels of the backbone (`PlaceModel.pooled`); softmax alone needs it.
      scale, margin: of the margin losses; ArcFace's margin is in radians.
      margin_warmup: the share of the run over which the margin grows linearly from 0 (`prototypes.grown`).
      smoothing: of softmax's labels, the share that goes evenly to all classes.
      balanced: draw a class first and then one of its images, so that all classes weigh the same. Else every image
        comes once in a pass, and passes follow one another without a gap, over the ends of plans too.
      pad_classes: the head's classes are rounded up to a multiple of this, so that the mesh can split them.

    Raises:
      UserError: for an unknown loss, fewer than two classes, or label smoothing with a margin.
    """
    _check(loss, cells, smoothing)
    classes = int(cells.counts[0])
    rows_of_head = padded(classes, pad_classes)

    def init(key: jax.Array, dim: int) -> tuple[Any, Any]:
        if loss == "softmax":
            return linear_head(key, rows_of_head, width), {}
        return {"prototypes": fresh_prototypes(key, (1, rows_of_head, dim))}, {}

    def plan(index: int, rng: np.random.Generator, memory: Memory, embed: Embed) -> tuple[Plan, Memory]:
        if balanced:
            rows, labels = class_batches(cells, 0, batch=batch, steps=steps, rng=rng)
            return {"rows": rows, "labels": labels}, memory
        rows, labels = cells.labels(0)
        drawn, left = open_passes(memory.get("left"), len(rows), batch * steps, rng)
        shape = (steps, batch)
        return {"rows": rows[drawn].reshape(shape), "labels": labels[drawn].reshape(shape)}, {"left": left}

    def loss_of(
        extra: Any, aux: Any, outputs: dict[str, Any], batches: dict[str, Batch], context: Context
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        z, labels, mask = outputs["source"], batches["source"]["label"], batches["source"]["mask"]
        if loss == "softmax":
            logits = softmax.linear(z, extra["kernel"], extra["bias"], classes)
            value = softmax.cross_entropy(logits, labels, mask=mask, classes=classes, smoothing=smoothing)
        else:
            logits = softmax.classes_alone(cosines(z, labels, extra["prototypes"]), classes)
            value = MARGINS[loss](
                z,
                labels,
                extra["prototypes"],
                scale=scale,
                margin=grown(margin, margin_warmup, context),
                mask=mask,
                classes=classes,
            )
        return value, aux, {"accuracy": softmax.accuracy(logits, labels, mask)}

    return Objective(
        streams=("source",),
        period=steps,
        slots=1,
        init=init,
        plan=plan,
        draw=draw,
        embed=embed_images(model, "pooled" if loss == "softmax" else None),
        loss=loss_of,
    )


def _check(loss: str, cells: Cells, smoothing: float) -> None:
    if loss not in LOSSES:
        raise UserError(f"objective.loss={loss!r} does not exist; there are {list(LOSSES)}")
    if cells.counts[0] < 2:
        raise UserError(
            f"all {cells.total} training images are of one class, and a classifier needs two or more: give "
            "train_data.root=FOLDER with a folder for each class, or smaller cells (objective.partition)"
        )
    if not 0 <= smoothing < 1:
        raise UserError(f"objective.smoothing={smoothing} must be at least 0 and below 1")
    if smoothing and loss != "softmax":
        raise UserError(f"objective.smoothing={smoothing} is softmax's; with objective.loss={loss!r} it must be 0")


def draw(plan: Plan, step: int) -> dict[str, Draw]:
    """The rows and classes that a plan sets for a step."""
    return {"source": Draw.of(plan["rows"][step], plan["labels"][step])}


def linear_head(key: jax.Array, classes: int, width: int) -> dict[str, jax.Array]:
    """A linear classifier under a leading axis of one slot, as torch draws it: uniform within 1 / sqrt(width)."""
    bound, keys = 1 / np.sqrt(width), jax.random.split(key)
    shapes = {"kernel": (1, classes, width), "bias": (1, classes, 1)}
    return {
        name: jax.random.uniform(one, shape, jnp.float32, -bound, bound)
        for one, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
