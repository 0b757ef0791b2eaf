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
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.models.intermediates import AT, intermediates
from jaxvpr.objectives.batchnorm import TARGET, batchnorm_objective
from jaxvpr.objectives.domain import METHODS, REVERSAL, Adaptation, adapted
from jaxvpr.objectives.objective import embed_images
from jaxvpr.training.grad_cache import layer_of_batch_statistics
from jaxvpr.training.recipe import Recipe

log = logging.getLogger(__name__)
BATCHNORM = "batchnorm"
EVERY_METHOD = (*METHODS, BATCHNORM)
EVERYTHING = ("",)  # the pattern of all parameter paths


def target_images(config: ConfigDict) -> Paths:
    """The unlabelled images of `target_data`.

    Raises:
      UserError: for an unknown method; where the recipe names no images.
      DataError: where there are none.
    """
    if config.domain.method not in EVERY_METHOD:
        raise UserError(
            f"domain.method={config.domain.method!r} does not exist; there are {list(EVERY_METHOD)}, and '' for none"
        )
    if not config.target_data:
        raise UserError(
            f"domain.method={config.domain.method!r} adapts to images of another domain, and the recipe has no "
            "target_data: target_data.reader=folder,target_data.root=FOLDER takes any images; the queries of a data "
            "set are target_data.reader=READER,target_data.root=FOLDER,target_data.split=test,target_data.role=query"
        )
    images = builders.places(config, config.target_data)
    log.info("adapting to %s", audit.line(images))
    return images.path


def batchnorm(config: ConfigDict, images: Paths) -> Learning:
    """BatchNorm adaptation alone: batches of the target `images`, and nothing is trained.

    Raises:
      UserError: for a model without such statistics, or random weights.
    """
    if not config.init:
        raise UserError(
            f"domain.method={BATCHNORM!r} trains nothing, and the recipe starts from random weights; give init=FILE"
        )
    shapes, embed = builders.shapes(config), embed_images(builders.model(config))

    def update(stats: Any, shown: Any) -> Any:
        return embed(shown["params"], stats, {}, shown, jax.random.key(0))[1]

    shown = {"params": shapes["params"], "image": jax.ShapeDtypeStruct(builders.blank(config).shape, "uint8")}
    if layer_of_batch_statistics(update, shapes["batch_stats"], shown) is None:
        raise UserError(
            f"domain.method={BATCHNORM!r} moves the averages of BatchNorm, and this model has none that move: "
            f"model.backbone={config.model.backbone!r} with {config.model.backbone_options.to_dict()}, "
            f"model.aggregator={config.model.aggregator!r}. Set model.backbone_options.frozen_bn=update where it is "
            f"'all', or take one of {METHODS}"
        )
    objective = batchnorm_objective(images=len(images), batch=config.batch, steps=config.steps_per_epoch)
    return Learning(objective, sources={TARGET: builders.image_source(config, images)}, frozen=EVERYTHING)


def adapt(config: ConfigDict, recipe: Recipe, images: Paths, over: Mesh) -> Recipe:
    """The recipe with the adaptation to the target `images` that `config.domain` describes: a further stream, and a
    loss between domains.

    Raises:
      UserError: for numbers that do not fit the devices or make no sense.
    """
    keys, unit = config.domain, over.size * config.accumulate * config.grad_cache
    if keys.on not in AT:
        raise UserError(f"domain.on={keys.on!r} does not exist; there are {AT}")
    if keys.source < 1 or keys.target < 1 or keys.weight < 0 or keys.gamma < 0 or min((1, *keys.hidden)) < 1:
        raise UserError(
            f"domain: source={keys.source}, target={keys.target} and the widths hidden={tuple(keys.hidden)} must be at "
            f"least 1, weight={keys.weight} and gamma={keys.gamma} not negative"
        )
    if keys.target % unit or keys.source % config.accumulate:
        raise UserError(
            f"domain.target={keys.target} must be a multiple of {unit}, since target images are split over {over.size} "
            f"devices, accumulate={config.accumulate} and grad_cache={config.grad_cache} as the batch is; and "
            f"domain.source={keys.source} one of {config.accumulate}"
        )
    few = keys.method != REVERSAL and min(keys.source, keys.target) // config.accumulate < 2
    if few or (keys.method == "linear_mmd" and keys.source != keys.target):
        raise UserError(
            f"domain.method={keys.method!r} compares samples of domain.source={keys.source} and domain.target="
            f"{keys.target} images: each of accumulate={config.accumulate} parts needs 2 or more of both, and "
            "linear_mmd as many of one as of the other"
        )
    if config.epochs < 2 and keys.gamma:
        raise UserError(
            f"epochs={config.epochs}: domain.gamma={keys.gamma} leaves the first epoch without adaptation, and there "
            "is no other; give 2 epochs or more, of fewer steps"
        )
    how = Adaptation(**{**keys, "hidden": tuple(keys.hidden)})
    objective = adapted(
        recipe.objective, recipe.model, how, images=len(images), width=_width(config, recipe), epochs=config.epochs
    )
    sources = {**recipe.sources, TARGET: builders.image_source(config, images)}
    return recipe._replace(objective=objective, sources=sources)


def _width(config: ConfigDict, recipe: Recipe) -> int:
    """How many features of an image the domains are compared by, in the model that the recipe trains."""
    embed = embed_images(recipe.model)

    def features(key: jax.Array, images: Any) -> Any:
        variables = recipe.model.init(key, images)
        run = partial(embed, variables["params"], variables.get("batch_stats", {}), {}, {"image": images}, key)
        return intermediates(run, config.domain.on)[1]

    return jax.eval_shape(features, jax.random.key(config.seed), recipe.example).shape[-1]
