"""Positions from images or from their descriptors: a head that answers where a photo was taken ([000])."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvpr.errors import UserError
from jaxvpr.losses.measures import mean
from jaxvpr.losses.positions import LEARNED_START, loss_for
from jaxvpr.models import PlaceModel
from jaxvpr.models.positions import Coding
from jaxvpr.objectives.objective import Embedding, Objective, passes_plan

AT, DESCRIPTOR = "at", "descriptor"  # tables of a stream: normalised positions, and descriptors in place of images
OfRows = Callable[..., jax.Array]


class Noise(NamedTuple):
    """Standard deviations of what is added to a normalised position in training: north, east, and bearing in turns."""

    north: float = 0.0
    east: float = 0.0
    bearing: float = 0.0


def positions_objective(
    coding: Coding,
    *,
    embed: Embedding,
    images: int,
    batch: int,
    steps: int,
    loss: str,
    options: Mapping[str, Any],
    noise: Noise,
) -> Objective:
    """All images in shuffled passes; the loss of each is that of its answer and its position, by the table `at`.

    Args:
      coding: what the numbers of the head mean.
      embed: gives raw outputs of the head: `of_images` or `of_descriptors`.
      images: how many there are. batch: images in a global batch. steps: batches of one plan.
      loss: a name in `losses.positions.LOSSES`, with `options` over its defaults.

    Raises:
      UserError: for a loss that does not go with the head, or an option that it has not.
    """
    of_rows, learned = row_loss(coding, loss, options)

    def init(key, dim):
        return ({"weights": jnp.full((1, learned), LEARNED_START, jnp.float32)} if learned else {}), {}

    def total(extra, aux, outputs, batches, context):
        part = batches["source"]
        at = noisy(context.key, part[AT].astype(jnp.float32), noise)
        value = mean(of_rows(outputs["source"], at, *extra.values()), part["mask"])
        told = {f"weight_{number}": extra["weights"][number] for number in range(learned)}
        return value, aux, told

    plan = passes_plan(images, batch, steps)
    return Objective(streams=("source",), period=steps, plan=plan, loss=total, embed=embed, init=init)


def row_loss(coding: Coding, loss: str, options: Mapping[str, Any]) -> tuple[OfRows, int]:
    """((raw [B, numbers], at [B, 3], learned weights if any) -> float32 [B], how many weights are learned).

    Raises:
      UserError: as `positions_objective`.
    """
    try:
        found = loss_for(loss, coding)
    except ValueError as error:
        raise UserError(f"objective.loss: {error}") from error
    if unknown := sorted(set(options) - set(found.options)):
        raise UserError(f"objective.loss_options: {loss} has no {unknown}; there are {sorted(found.options)}")
    given = {**found.options, **options}
    return (lambda raw, at, *weights: found.function(raw, at, coding, *weights, **given)), found.learned


def noisy(key: jax.Array, at: jax.Array, noise: Noise) -> jax.Array:
    """Normalised positions [B, 3] with normal noise; bearings stay turns, in [0, 1)."""
    if not any(noise):
        return at
    moved = at + jax.random.normal(key, at.shape, at.dtype) * jnp.asarray([noise], at.dtype)
    return moved.at[:, 2].set(moved[:, 2] % 1.0) if noise.bearing else moved


def of_images(model: PlaceModel) -> Embedding:
    """The `embed` of live images: a training-mode pass of the whole model."""

    def embed(params, stats, aux, batch, key):
        variables = {"params": params, "batch_stats": stats}
        raw, updated = model.apply(
            variables, batch["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}, method="located"
        )
        return raw, updated.get("batch_stats", stats)

    return embed


def of_descriptors(model: PlaceModel) -> Embedding:
    """The `embed` of kept descriptors, the table `descriptor`: the head alone runs."""

    def embed(params, stats, aux, batch, key):
        variables = {"params": params, "batch_stats": stats}
        rngs = {"dropout": key}
        return model.apply(variables, batch[DESCRIPTOR], train=True, rngs=rngs, method="of_descriptors"), stats

    return embed
