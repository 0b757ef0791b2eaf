"""Pre-training of a backbone: classification of class folders, the result of which initialises every other recipe.

Softmax on what the backbone sees, averaged over the image, as for Places365; or a margin on the sphere of descriptors,
as for Google Landmarks v2 (Berton et al., "Deep Visual Geo-localization Benchmark", CVPR 2022, section 4.4).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.draws import Draw
from data_pipelines.partitions import Cells
from data_pipelines.samplers import class_batches, open_passes
from jaxvpr.errors import UserError
from jaxvpr.losses import softmax
from jaxvpr.losses.margins import cosines
from jaxvpr.objectives.objective import Memory, Objective, Plan, embed_images
from jaxvpr.objectives.prototypes import Prototypes, check_classes, head_start, padded

LOSSES = ("softmax", "arcface", "cosface")
Drawn = tuple[np.ndarray, np.ndarray, Memory]  # rows and labels [steps, batch], and the memory for the next plan


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
    head_steps: int = 0,
) -> Objective:
    """Classification with one head over all classes.

    Args:
      model: a `PlaceModel`. With "softmax" its aggregator is passed by and does not learn: take one without parameters.
      cells: one group of classes, each with its images.
      batch: images in a global batch. steps: batches of one plan.
      loss: a name in `LOSSES`.
      width: channels of the backbone (`PlaceModel.pooled`); softmax alone needs it.
      scale, margin, margin_warmup: of the margin losses, as of `Prototypes`.
      smoothing: of softmax's labels, the share that goes evenly to all classes.
      balanced: draw a class first and then one of its images, so that all classes weigh the same. Else every image
        comes once in a pass, and passes follow one another without a gap, over the ends of plans too.
      head_steps: so many first steps of the run train the head alone.

    Raises:
      UserError: for an unknown loss, fewer than two classes, or label smoothing with a margin.
    """
    _check(loss, cells, smoothing)
    classes = int(cells.counts[0])
    head = None if loss == "softmax" else Prototypes(cells.counts[:1], loss, scale, margin, margin_warmup)

    def init(key, dim):
        if head is None:
            return linear_head(key, padded(classes), width), {}
        return {"prototypes": head.init(key, dim)}, {}

    def plan(index, rng, memory, embed):
        draw = _balanced if balanced else _in_passes
        rows, labels, memory = draw(cells, batch, steps, rng, memory)
        return Plan({"source": Draw.of_steps(rows, labels)}, heads_only=head_start(head_steps, index, 1)), memory

    def loss_of(extra, aux, outputs, batches, context):
        z, labels, mask = outputs["source"], batches["source"]["label"], batches["source"]["mask"]
        if head is None:
            logits = softmax.linear(z, extra["kernel"], extra["bias"], classes)
            value = softmax.cross_entropy(logits, labels, mask=mask, classes=classes, smoothing=smoothing)
        else:
            logits = softmax.classes_alone(cosines(z, labels, extra["prototypes"]), classes)
            value = head(extra["prototypes"], z, batches["source"], context)
        return value, aux, {"accuracy": softmax.accuracy(logits, labels, mask)}

    embed, by_class = embed_images(model, "pooled" if head is None else None), ("kernel", "bias", "prototypes")
    return Objective(("source",), steps, plan, loss_of, embed, init, by_class=by_class)


def _balanced(cells: Cells, batch: int, steps: int, rng: np.random.Generator, memory: Memory) -> Drawn:
    return *class_batches(cells, 0, batch=batch, steps=steps, rng=rng), memory


def _in_passes(cells: Cells, batch: int, steps: int, rng: np.random.Generator, memory: Memory) -> Drawn:
    rows, labels = cells.labels(0)
    drawn, left = open_passes(memory.get("left"), len(rows), batch * steps, rng)
    return rows[drawn].reshape(steps, batch), labels[drawn].reshape(steps, batch), {"left": left}


def _check(loss: str, cells: Cells, smoothing: float) -> None:
    if loss not in LOSSES:
        raise UserError(f"objective.loss={loss!r} does not exist; there are {list(LOSSES)}")
    check_classes(cells.counts[:1], cells.total)
    if not 0 <= smoothing < 1:
        raise UserError(f"objective.smoothing={smoothing} must be at least 0 and below 1")
    if smoothing and loss != "softmax":
        raise UserError(f"objective.smoothing={smoothing} is softmax's; with objective.loss={loss!r} it must be 0")


def linear_head(key: jax.Array, classes: int, width: int) -> dict[str, jax.Array]:
    """A linear classifier under a leading axis of one slot, as torch draws it: uniform within 1 / sqrt(width)."""
    bound, keys = 1 / np.sqrt(width), jax.random.split(key)
    shapes = {"kernel": (1, classes, width), "bias": (1, classes, 1)}
    return {
        name: jax.random.uniform(one, shape, jnp.float32, -bound, bound)
        for one, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
