"""Mined triplets: a query, its best positive and its hardest negatives, mined anew every thousand queries.

So train NetVLAD and the networks of the Deep VG benchmark (Berton et al., CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from data_pipelines.loaders import Draw
from jaxvpr.errors import UserError
from jaxvpr.losses.metric import options_of
from jaxvpr.losses.triplets import LOSSES, triplet_loss
from jaxvpr.objectives.objective import Batch, Context, Objective, Plan, embed_images
from jaxvpr.objectives.triplet_plans import Planner


def triplets_objective(
    model: Any, plan: Planner, *, steps: int, loss: str = "triplet", options: Mapping[str, Any] | None = None
) -> Objective:
    """The objective of mined triplets.

    Args:
      model: a `PlaceModel`.
      plan: of `triplet_plans.mined_plan`.
      steps: of one plan.
      loss: name in `losses.triplets.LOSSES`; what it gives is summed over queries and negatives and divided by their
        number.
      options: of the loss.

    Raises:
      UserError: for a loss or an option that does not exist.
    """
    try:
        options_of("loss", LOSSES, loss, options or {})
    except ValueError as error:
        raise UserError(f"objective: {error}") from error
    return Objective(
        streams=("source",),
        period=steps,
        slots=1,
        init=lambda key, dim: ({}, {}),
        plan=plan,
        draw=draw,
        embed=embed_elements(embed_images(model)),
        loss=partial(_loss, partial(triplet_loss, loss=loss, loss_options=options)),
    )


def embed_elements(embed: Callable[..., tuple[jax.Array, Any]]) -> Callable[..., tuple[jax.Array, Any]]:
    """The `embed` of elements of several images: image [B, T, H, W, 3] -> descriptors [B, T, D]."""

    def embed_all(params: Any, stats: Any, aux: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        images = batch["image"]
        flat = images.reshape(-1, *images.shape[2:])
        described, stats = embed(params, stats, aux, {"image": flat}, key)
        return described.reshape(*images.shape[:2], *described.shape[1:]), stats

    return embed_all


def _loss(
    compare: Callable[..., jax.Array],
    extra: Any,
    aux: Any,
    outputs: dict[str, jax.Array],
    batches: dict[str, Batch],
    context: Context,
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    z, mask = outputs["source"], batches["source"]["mask"].astype(jnp.float32)
    query, positive, negatives = z[:, 0], z[:, 1], z[:, 2:]
    summed = compare(query, positive, negatives)
    value = jnp.sum(summed * mask) / (jnp.maximum(jnp.sum(mask), 1.0) * negatives.shape[1])
    return value, aux, {}


def draw(plan: Plan, step: int) -> dict[str, Draw]:
    """The triplets that a plan sets for a step."""
    return {"source": Draw.of(plan["rows"][step])}
