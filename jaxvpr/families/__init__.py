"""Training objectives, one file a method family: from the keys of a recipe to what the loop trains."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import audit
from data_pipelines.places import Places
from data_pipelines.progress import slow
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families import (
    cached,
    cells,
    distillation,
    domain,
    eigenplaces,
    geoclip,
    jist,
    places,
    positions,
    pretraining,
    sfrs,
    triplets,
)
from jaxvpr.families.learning import Learning, complete
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.training.recipe import Recipe

log = logging.getLogger(__name__)
# objective.name -> (config, training sets) -> Learning. Rows of a draw are those of all sets, one after the other.
FAMILIES: dict[str, Callable[[ConfigDict, Sequence[Places]], Learning]] = {
    "cells": cells.from_config,
    "distillation": distillation.from_config,
    "eigenplaces": eigenplaces.from_config,
    "geoclip": geoclip.from_config,
    "jist": jist.from_config,
    "mined_triplets": triplets.from_config,
    "places": places.from_config,
    "positions": positions.from_config,
    "pretraining": pretraining.from_config,
    "sfrs": sfrs.from_config,
}


def recipe(config: ConfigDict, over: Mesh, validation: list[Benchmark], sets: Sequence[Places] | None = None) -> Recipe:
    """What the loop trains.

    Args:
      sets: the recipe's data sets to train on, where they have been read already.

    Raises:
      UserError, DataError: for names, files and data that do not fit.
    """
    name = config.objective.name
    if name not in FAMILIES:
        raise UserError(f"objective.name={name!r} does not exist; there are {sorted(FAMILIES)}")
    builders.check_panoramas(config)
    sets = builders.training_sets(config) if sets is None else sets
    for images in sets:
        log.info("training on %s", audit.line(images))
    builders.shapes(config)  # explains options of the model that do not fit
    # What is quickly told about adaptation comes before the images are prepared, which may take minutes.
    target = domain.target_images(config) if config.domain.method else None
    if target is not None and config.domain.method == domain.BATCHNORM:  # takes the place of the objective
        return complete(config, domain.batchnorm(config, target), sets, over, validation)
    with slow(f"preparing these images for the objective {name}"):
        learning = FAMILIES[name](config, sets)
    if learning.summary:
        log.info(learning.summary)
    if config.maps.cached:
        kept = positions.kept if learning.validator else cached.recipe
        return kept(config, learning, sets, over, validation)
    made = complete(config, learning, sets, over, validation)
    return domain.adapt(config, made, target, over) if target is not None else made
