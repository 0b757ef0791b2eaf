"""Domain adaptation from a recipe's keys: which unlabelled images, and how any objective is adapted to them."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import audit
from data_pipelines.places import Paths
from jaxvpr import build
from jaxvpr.errors import UserError
from jaxvpr.models.seen import AT, seen
from jaxvpr.objectives.domain import METHODS, adapted
from jaxvpr.objectives.objective import Objective, embed_images
from jaxvpr.objectives.statistics import statistics_objective
from jaxvpr.training.loop import Variables

log = logging.getLogger(__name__)
STATISTICS = "batchnorm"


def target_images(config: ConfigDict) -> Paths:
    """The unlabelled images of `target_data`.

    Raises:
      UserError: where the recipe names none.
      DataError: where there are none.
    """
    if not config.target_data:
        raise UserError(
            f"domain.method={config.domain.method!r} adapts to images of another domain, and the recipe has no "
            "target_data: target_data.reader=folder,target_data.root=FOLDER takes any images; the queries of a data "
            "set are target_data.reader=READER,target_data.root=FOLDER,target_data.split=test,target_data.role=query"
        )
    images = build.places(config, config.target_data)
    log.info("adapting to %s", audit.line(images))
    return images.path


def statistics(config: ConfigDict, images: Paths) -> Objective:
    """BatchNorm adaptation alone: batches of target images, and nothing is trained.

    Raises:
      UserError: for a model without such statistics.
    """
    if not build.shapes(config)["batch_stats"]:
        raise UserError(
            f"domain.method={STATISTICS!r} moves the statistics of BatchNorm, and model.backbone="
            f"{config.model.backbone!r} with model.aggregator={config.model.aggregator!r} has none; take one of "
            f"{METHODS}"
        )
    return statistics_objective(
        build.model(config), images=len(images), batch=config.batch, steps=config.steps_per_epoch
    )


def adapt(config: ConfigDict, objective: Objective, images: Paths, over: Mesh) -> Objective:
    """The objective with the adaptation that `config.domain` describes.

    Raises:
      UserError: for numbers that do not fit the devices, or make no sense.
    """
    keys, unit = config.domain, over.size * config.accumulate * config.grad_cache
    if keys.on not in AT:
        raise UserError(f"domain.on={keys.on!r} does not exist; there are {AT}")
    if keys.source < 1 or keys.target < 1 or keys.weight < 0 or keys.gamma < 0 or min((1, *keys.hidden)) < 1:
        raise UserError(
            f"domain: source={keys.source}, target={keys.target} and the widths hidden={tuple(keys.hidden)} must be at "
            f"least 1, weight={keys.weight} and gamma={keys.gamma} not negative"
        )
    if keys.target % unit:
        raise UserError(
            f"domain.target={keys.target} must be a multiple of {unit}: target images are split over {over.size} "
            f"devices, accumulate={config.accumulate} and grad_cache={config.grad_cache} as the batch is"
        )
    if keys.method == "linear_mmd" and (keys.source != keys.target or keys.target // config.accumulate < 2):
        raise UserError(
            f"domain.method='linear_mmd' compares pairs of images: domain.source={keys.source} and "
            f"domain.target={keys.target} must be the same number, 2 or more for each of accumulate="
            f"{config.accumulate} parts"
        )
    return adapted(
        objective,
        build.model(config),
        images=len(images),
        width=_width(config),
        epochs=config.epochs,
        method=keys.method,
        weight=keys.weight,
        gamma=keys.gamma,
        on=keys.on,
        hidden=tuple(keys.hidden),
        source=keys.source,
        target=keys.target,
    )


def _width(config: ConfigDict) -> int:
    """How many features of an image the domains are told by."""
    embed, key = embed_images(build.model(config)), jax.random.key(config.seed)

    def look(variables: Variables, images: Any) -> Any:
        run = partial(embed, variables["params"], variables["batch_stats"], {}, {"image": images}, key)
        return seen(run, config.domain.on)[1]

    return jax.eval_shape(look, build.shapes(config), build.blank(config)).shape[-1]
