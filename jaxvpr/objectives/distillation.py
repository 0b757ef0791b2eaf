"""Distillation of descriptors: a student learns to describe images as a trained teacher does. No labels are needed.

Either each descriptor is drawn to the teacher's ("cosine"), or the cosines between the images of a batch to those that
the teacher finds between them ("similarity": relational distillation, after Park et al., CVPR 2019, and Tung and Mori,
ICCV 2019), which leaves the student free to have another dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.errors import UserError
from jaxvpr.losses.measures import cosines, mean, unit
from jaxvpr.models.resizing import resize
from jaxvpr.objectives.objective import Objective, embed_images, passes_plan


class Teacher(NamedTuple):
    """A trained model, and what it is shown.

    Attributes:
      model: a `PlaceModel`; it normalises colours in its own way.
      variables: its weights, on the host. They are carried in `aux`: never trained, in evaluation mode.
      dim: of its descriptors.
      size: (height, width) of the images that it is shown; None is the student's.
      rule: how they are resized, on the device.
    """

    model: Any
    variables: Any
    dim: int
    size: tuple[int, int] | None = None
    rule: str = "tensor_linear_antialias"


def distillation_objective(
    model: Any, teacher: Teacher, *, images: int, batch: int, steps: int, loss: str = "cosine", projection: bool = True
) -> Objective:
    """A student and a teacher that see the same augmented images.

    Args:
      model: a `PlaceModel`, the student.
      images: how many there are; they come in shuffled passes.
      batch: images in a global batch. steps: batches of one plan.
      loss: a name in `LOSSES`.
      projection: "cosine" turns descriptors of another dimension than the teacher's by a linear map, which is trained
        beside them and thrown away. Without it they must have the teacher's, and then lie in the teacher's own space.

    Raises:
      UserError: for an unknown loss, or no pair of images to compare; when the state is made, for dimensions that
        differ without a projection.
    """
    if loss not in LOSSES:
        raise UserError(f"objective.loss={loss!r} does not exist; there are {sorted(LOSSES)}")
    if loss == "similarity" and min(batch, images) < 2:
        raise UserError(
            f"objective.loss='similarity' compares images of a batch: batch={batch} of {images} images has no pair; "
            "take 2 or more, or objective.loss=cosine"
        )
    student, dim = embed_images(model), teacher.dim

    def init(key, own):
        aux = {"teacher": jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), teacher.variables)}
        if loss == "similarity" or own == dim:
            return {}, aux
        if not projection:
            raise UserError(
                f"the student's descriptors have {own} dimensions and the teacher's {dim}: give them the same, or "
                "objective.projection=True, or objective.loss=similarity"
            )
        return {"projection": jax.random.normal(key, (1, dim, own), jnp.float32) / np.float32(np.sqrt(own))}, aux

    def embed(params, stats, aux, part, key):
        described, stats = student(params, stats, aux, part, key)
        shown = part["image"] if teacher.size is None else resize(part["image"], teacher.size, teacher.rule)
        wanted = jax.lax.stop_gradient(teacher.model.apply(aux["teacher"], shown))
        return {"student": described, "teacher": wanted}, stats

    def loss_of(extra, aux, outputs, batches, context):
        z, t, mask = outputs["source"]["student"], outputs["source"]["teacher"], batches["source"]["mask"]
        if "projection" in extra:
            z = jnp.einsum("bd,td->bt", z, extra["projection"], precision=jax.lax.Precision.HIGHEST)
        return LOSSES[loss](z, t, mask), aux, {}

    return Objective(
        streams=("source",),
        period=steps,
        plan=passes_plan(images, batch, steps),
        loss=loss_of,
        embed=embed,
        init=init,
        load_aux=lambda: {"teacher": teacher.variables},
    )


def cosine(student: jax.Array, teacher: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of 1 - cosine of descriptors [B, D], over the rows of `mask` [B]; float32 scalar, 0 where none counts.

    Written as half the squared distance, which near 0 keeps the digits that 1 - cosine loses.
    """
    each = jnp.sum(jnp.square(unit(student) - unit(teacher)), 1) / 2
    return mean(each, mask)


def similarity(student: jax.Array, teacher: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean squared difference between the students' cosines and the teachers', over the pairs of rows of `mask` [B].

    `student` is [B, D], `teacher` [B, E]; float32 scalar, 0 where there is no pair.
    """
    between = [cosines(z) for z in (student, teacher)]
    pairs = mask[:, None] & mask[None, :] & ~jnp.eye(len(mask), dtype=bool)
    return mean(jnp.square(between[0] - between[1]), pairs)


LOSSES = {"cosine": cosine, "similarity": similarity}
