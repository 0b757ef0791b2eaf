"""Distillation of descriptors: a student learns to describe images as a trained teacher does. No labels are needed.

Either each descriptor is drawn to the teacher's ("cosine"), or the cosines between the images of a batch to those that
the teacher finds between them ("similarity": relational distillation, after Park et al., CVPR 2019, and Tung and Mori,
ICCV 2019), which leaves the student free to have another dimension.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loaders import Draw
from data_pipelines.samplers import open_passes
from jaxvpr.errors import UserError
from jaxvpr.losses.measures import mean
from jaxvpr.models.layers import l2_normalise
from jaxvpr.models.resizing import resize
from jaxvpr.objectives.objective import Batch, Context, Embed, Memory, Objective, Plan, embed_images

HIGHEST = jax.lax.Precision.HIGHEST


def distillation_objective(
    model: Any,
    teacher: Any,
    variables: Any,
    *,
    dim: int,
    images: int,
    batch: int,
    steps: int,
    loss: str = "cosine",
    projection: bool = True,
    size: tuple[int, int] | None = None,
    rule: str = "tensor_linear_antialias",
) -> Objective:
    """A student and a teacher that see the same augmented images.

    Args:
      model, teacher: `PlaceModel`s; each normalises colours in its own way.
      variables: the teacher's, on the host. They ride in `aux`: never trained, in evaluation mode.
      dim: of the teacher's descriptors.
      images: how many there are; they come in shuffled passes.
      batch: images in a global batch. steps: batches of one plan.
      loss: a name in `LOSSES`.
      projection: "cosine" turns descriptors of another dimension than the teacher's by a linear map, which is trained
        beside them and thrown away. Without it they must have the teacher's, and then lie in the teacher's own space.
      size: (height, width) of the images that the teacher is shown; None is the student's. `rule`: how they are
        resized, on the device.

    Raises:
      UserError: for an unknown loss; when the state is made, for dimensions that differ without a projection.
    """
    if loss not in LOSSES:
        raise UserError(f"objective.loss={loss!r} does not exist; there are {sorted(LOSSES)}")
    student = embed_images(model)

    def init(key: jax.Array, own: int) -> tuple[Any, Any]:
        aux = {"teacher": jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)}
        if loss == "similarity" or own == dim:
            return {}, aux
        if not projection:
            raise UserError(
                f"the student's descriptors have {own} dimensions and the teacher's {dim}: give them the same, or "
                "objective.projection=True, or objective.loss=similarity"
            )
        return {"projection": jax.random.normal(key, (1, dim, own), jnp.float32) / np.float32(np.sqrt(own))}, aux

    def plan(index: int, rng: np.random.Generator, memory: Memory, embed: Embed) -> tuple[Plan, Memory]:
        rows, left = open_passes(memory.get("left"), images, batch * steps, rng)
        return {"rows": rows.reshape(steps, batch)}, {"left": left}

    def embed(params: Any, stats: Any, aux: Any, part: Batch, key: jax.Array) -> tuple[Any, Any]:
        described, stats = student(params, stats, aux, part, key)
        shown = part["image"] if size is None else resize(part["image"], size, rule)
        wanted = jax.lax.stop_gradient(teacher.apply(aux["teacher"], shown))
        return {"student": described, "teacher": wanted}, stats

    def loss_of(
        extra: Any, aux: Any, outputs: dict[str, Any], batches: dict[str, Batch], context: Context
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        z, t, mask = outputs["source"]["student"], outputs["source"]["teacher"], batches["source"]["mask"]
        if "projection" in extra:
            z = l2_normalise(jnp.einsum("bd,td->bt", z, extra["projection"], precision=HIGHEST))
        return LOSSES[loss](z, t, mask), aux, {}

    return Objective(
        streams=("source",),
        period=steps,
        slots=1,
        init=init,
        plan=plan,
        draw=draw,
        embed=embed,
        loss=loss_of,
        load_aux=lambda: {"teacher": variables},
    )


def draw(plan: Plan, step: int) -> dict[str, Draw]:
    """The rows that a plan sets for a step."""
    return {"source": Draw.of(plan["rows"][step])}


def cosine(student: jax.Array, teacher: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of 1 - cosine of unit vectors [B, D], over the rows of `mask` [B]; float32 scalar, 0 where none counts.

    Written as half the squared distance, which near 0 keeps the digits that 1 - cosine loses.
    """
    each = jnp.sum(jnp.square(student - teacher), 1) / 2
    return mean(each, mask)


def similarity(student: jax.Array, teacher: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean squared difference between the students' cosines and the teachers', over the pairs of rows of `mask` [B].

    `student` [B, D] and `teacher` [B, E] are of unit length; float32 scalar, 0 where there is no pair.
    """
    between = [jnp.einsum("id,jd->ij", z, z, precision=HIGHEST) for z in (student, teacher)]
    pairs = mask[:, None] & mask[None, :] & ~jnp.eye(len(mask), dtype=bool)
    return mean(jnp.square(between[0] - between[1]), pairs)


LOSSES = {"cosine": cosine, "similarity": similarity}
