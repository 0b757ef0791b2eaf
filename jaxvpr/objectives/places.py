"""Metric learning on places: batches of P places with K images each, a miner and a loss on the global batch.

So train Conv-AP, MixVPR, SALAD and BoQ (Ali-bey et al., GSV-Cities, Neurocomputing 2022). With `memory` the batch is
also compared with the descriptors of past batches (cross-batch memory; Wang et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loaders import Draw
from data_pipelines.place_batches import place_batches
from data_pipelines.place_table import PlaceTable
from jaxvpr.errors import UserError
from jaxvpr.losses.measures import References
from jaxvpr.losses.metric import LOSSES, options_of, place_loss
from jaxvpr.losses.miners import MINERS
from jaxvpr.objectives.objective import Batch, Context, Memory, Objective, Plan, embed_images

Ring = dict[str, jax.Array]


def places_objective(
    model: Any,
    table: PlaceTable,
    *,
    P: int,
    steps: int,
    loss: str,
    miner: str = "none",
    loss_options: Mapping[str, Any] | None = None,
    miner_options: Mapping[str, Any] | None = None,
    min_distance: float = 0.0,
    by_city: bool = False,
    memory: int = 0,
) -> Objective:
    """The objective of place-grouped metric learning.

    Args:
      model: a `PlaceModel`.
      table: the places; a batch takes `table.K` images of each.
      P: places in a global batch.
      steps: batches of one plan. Places come in shuffled passes; each plan begins with a new one.
      loss, miner: names in `losses.metric.LOSSES` and `losses.miners.MINERS`; their options on top of the defaults.
      min_distance: metres between the places of a batch. by_city: whether a batch stays in one city.
      memory: how many descriptors of the last batches, this one's included, the batch is compared with; 0 for itself.

    Raises:
      UserError: unknown loss, miner or option (lists those that exist), one image a place, or a memory smaller than a
        batch.
    """
    batch = P * table.K
    if table.K < 2:
        raise UserError("objective.K=1 gives no image a second one of its place; pairs need at least 2")
    if memory and memory < batch:
        raise UserError(f"objective.memory={memory} is smaller than a batch of P x K = {batch}; 0 is none")
    try:
        options_of("loss", LOSSES, loss, loss_options or {})
        options_of("miner", MINERS, miner, miner_options or {})
    except ValueError as error:
        raise UserError(f"objective: {error}") from error
    compared = partial(place_loss, loss=loss, miner=miner, loss_options=loss_options, miner_options=miner_options)

    def init(key: jax.Array, dim: int) -> tuple[Any, Any]:
        return {}, empty_ring(memory, dim) if memory else {}

    def plan(
        index: int, rng: np.random.Generator, past: Memory, embed_rows: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[Plan, Memory]:
        drawn = place_batches(table, P=P, steps=steps, rng=rng, min_distance=min_distance, by_city=by_city)
        return {"rows": drawn.rows, "labels": drawn.labels}, past

    def loss_of(
        extra: Any, aux: Ring, outputs: dict[str, Any], batches: dict[str, Batch], context: Context
    ) -> tuple[jax.Array, Ring, dict[str, jax.Array]]:
        z, source = outputs["source"], batches["source"]
        if not memory:
            return compared(z, source["label"], source["mask"]), aux, {}
        ring = pushed(aux, z, source["label"], source["mask"])
        references = References(ring["descriptor"], ring["label"], ring["mask"], own=jnp.arange(len(z)))
        return compared(z, source["label"], source["mask"], references=references), ring, {}

    return Objective(
        streams=("source",),
        period=steps,
        slots=1,
        init=init,
        plan=plan,
        draw=draw,
        embed=embed_images(model),
        loss=loss_of,
    )


def draw(plan: Plan, step: int) -> dict[str, Draw]:
    """The rows and places that a plan sets for a step; -1 pads."""
    return {"source": Draw.of(plan["rows"][step], plan["labels"][step])}


def empty_ring(size: int, dim: int) -> Ring:
    """A cross-batch memory of `size` descriptors that holds none yet."""
    return {
        "descriptor": jnp.zeros((size, dim), jnp.float32),
        "label": jnp.full(size, -1, jnp.int32),
        "mask": jnp.zeros(size, bool),
    }


def pushed(ring: Ring, descriptors: jax.Array, labels: jax.Array, mask: jax.Array) -> Ring:
    """The memory with a batch in front, and the oldest dropped; no gradient passes into it."""
    new = {"descriptor": jax.lax.stop_gradient(descriptors), "label": labels, "mask": mask}
    return {name: jnp.concatenate([new[name], old])[: len(old)] for name, old in ring.items()}
