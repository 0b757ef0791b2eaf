"""Metric learning on places from a recipe's keys."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ml_collections import ConfigDict

from data_pipelines.place_table import place_table
from data_pipelines.places import Places
from jaxvpr import build
from jaxvpr.errors import UserError
from jaxvpr.learning.data import with_places
from jaxvpr.objectives.objective import Objective
from jaxvpr.objectives.places import places_objective

log = logging.getLogger(__name__)


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Objective:
    """Batches of P places with K images each, of one data set or several."""
    keys = config.objective
    if config.accumulate != 1:
        raise UserError(
            f"accumulate={config.accumulate} would compare the images of one part of the batch with each other alone; "
            "metric learning on places needs accumulate=1"
        )
    if config.batch != keys.P * keys.K:
        raise UserError(f"batch={config.batch} must be objective.P x objective.K = {keys.P} x {keys.K}")
    table = place_table([with_places(keys.partition, images) for images in sets], K=keys.K)
    log.info("%d places with %d images or more; a pass takes %d batches", len(table), keys.K, -(-len(table) // keys.P))
    return places_objective(
        build.model(config),
        table,
        P=keys.P,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        miner=keys.miner,
        loss_options=keys.loss_options.to_dict(),
        miner_options=keys.miner_options.to_dict(),
        min_distance=keys.min_distance,
        by_city=keys.by_city,
        memory=keys.memory,
    )
