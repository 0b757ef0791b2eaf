"""What answers positions in a recipe's model: its head, and what the head's numbers mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvpr import models
from jaxvpr.builders.network import model
from jaxvpr.errors import UserError
from jaxvpr.models.positions import Coding, coding_with


def coding(config: ConfigDict, variables: Any = None) -> Coding:
    """What the numbers of the recipe's position head mean.

    Args:
      variables: of its model, where it is to answer: a gallery's are part of the meaning. None: the area alone counts.

    Raises:
      UserError: for a model without such a head, one whose area is not chosen yet, or a gallery that is empty.
    """
    head = model(config).position
    if head is None:
        raise UserError(
            f"the model of {config.name} answers no position itself: give --database=FILE.npy (jaxvpr extract), or a "
            "recipe with a head, model.position"
        )
    meaning: Coding = head.coding
    if not meaning.area.chosen:
        raise UserError(
            "config.model.position_options.area is not chosen: give --workdir=FOLDER of the run that trained the head, "
            "its model file as --database, or the area as (south, west, north, east)"
        )
    if variables is None:
        return meaning
    try:
        return coding_with(head, variables)
    except ValueError as error:
        raise UserError(f"the head of {config.name} cannot answer: {error}") from error


def head(config: ConfigDict) -> Callable[[Any, Any], Any]:
    """(variables, descriptors [B, D]) -> raw outputs [B, numbers] of the recipe's position head."""
    return _head_of(model(config))


def answering(config: ConfigDict, variables: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """(variables, images) -> descriptors float32 [B, D] and answers float32 [B, 4] of the recipe's model.

    `variables` are those that it will be called with: a gallery's embeddings are computed once, here.

    An answer is (north, east, bearing, confidence): parts of the area's height and width, in which float32 is fine
    enough, then degrees clockwise from north, and a share; NaN where the head says nothing.
    """
    return _answering_of(model(config), coding(config, variables))


@lru_cache(maxsize=16)
def _head_of(module: models.PlaceModel) -> Callable[[Any, Any], Any]:
    # The same object for equal models, so that it is compiled once.
    return partial(module.apply, method="of_descriptors")


def _answering_of(module: models.PlaceModel, meaning: Coding) -> Callable[[Any, Any], tuple[Any, Any]]:
    def apply(variables: Any, images: Any) -> tuple[Any, Any]:
        descriptors = module.apply(variables, images)
        raw = module.apply(variables, descriptors, method="of_descriptors")
        at, confidence = meaning.decode(raw)
        turned = jnp.stack([at[:, 2] % 1.0 * 360.0 % 360.0, confidence], -1)
        return descriptors, jnp.concatenate([at[:, :2], turned], -1).astype(jnp.float32)

    return apply
