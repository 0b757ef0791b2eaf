"""Mined triplets: a query, its best positive and its hardest negatives, mined anew every thousand queries.

So train NetVLAD and the networks of the Deep VG benchmark (Berton et al., CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxvpr.errors import UserError
from jaxvpr.losses.metric import options_of
from jaxvpr.losses.triplets import LOSSES, triplet_loss
from jaxvpr.objectives.objective import Batch, Context, Objective, Planner


def triplets_objective(
    plan: Planner,
    *,
    steps: int,
    negatives: int,
    loss: str = "triplet",
    options: Mapping[str, Any] | None = None,
) -> Objective:
    """The objective of mined triplets.

    Args:
      plan: of `triplet_plans.mined_plan`.
      steps: of one plan. negatives: of each query.
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
        plan=plan,
        loss=partial(_loss, partial(triplet_loss, loss=loss, loss_options=options)),
        images={"source": 2 + negatives},
    )


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
