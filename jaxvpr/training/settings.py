"""The loop's settings from the keys of a recipe, each checked before anything begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Objective
from jaxvpr.training import early_stop, optimisers
from jaxvpr.training.ema import averaged
from jaxvpr.training.options import checked
from jaxvpr.training.plateau import Watch, plateau
from jaxvpr.training.recipe import Recipe
from jaxvpr.training.schedules import Schedule

Follow = Callable[[Watch, float, int], Watch]
# Group of `optimisers.GROUPS` -> the recipe's key.
KEYS = {"model": "optimizer", "heads": "optimizer_extra", "shared": "optimizer_shared"}
SUMS = ("float32", "bfloat16")


class Settled(NamedTuple):
    """What a recipe's keys and its family settle between them, before anything is computed.

    Attributes:
      groups: the optimiser of each group. by_image: as of `split_by_image`. averages: as of `ema.averaged`.
      frozen: patterns of parameter paths that do not train.
    """

    groups: dict[str, optimisers.Optimiser]
    by_image: dict[str, int]
    averages: dict[str, Any]
    deciding: early_stop.Deciding
    follow: Follow
    frozen: tuple[str, ...]


def settle(config: ConfigDict, recipe: Recipe, mesh: Mesh) -> Settled:
    """The settings of a run; UserError for what does not fit."""
    groups = optimiser_groups(config)
    check_parts(config, recipe.objective.period)
    check_groups(config, recipe.objective)
    check_sums(config)
    by_image = split_by_image(config, mesh, recipe.objective)
    deciding = early_stop.Deciding(config.best.measure, recipe.measures)
    following = follow(config, groups["model"].rate, deciding)
    return Settled(groups, by_image, averages(config), deciding, following, (*config.frozen, *recipe.frozen))


def state_options(config: ConfigDict, recipe: Recipe, settled: Settled) -> dict[str, Any]:
    """The options of `state.init_state` and `state.planned`."""
    return {
        "example": recipe.example,
        "frozen": settled.frozen,
        "seed": config.seed,
        "ema": bool(settled.averages),
        "fsdp_mib": config.mesh.fsdp_mib,
    }


def step_options(config: ConfigDict, settled: Settled) -> dict[str, Any]:
    """The options of `step.make_step`."""
    return {
        "total": config.epochs * config.steps_per_epoch,
        "epoch": config.steps_per_epoch,
        "frozen": settled.frozen,
        "accumulate": config.accumulate,
        "grad_cache": config.grad_cache,
        "ema": settled.averages,
        "by_image": settled.by_image,
        "gradient_dtype": config.gradient_dtype,
    }


def optimiser_groups(config: ConfigDict) -> dict[str, optimisers.Optimiser]:
    """The optimiser of each group.

    Raises:
      UserError: for settings that make no sense; names the key.
    """
    return {group: optimiser(config, key) for group, key in KEYS.items()}


def optimiser(config: ConfigDict, group: str) -> optimisers.Optimiser:
    """The optimiser of a group of keys; raises as `optimiser_groups`."""
    epoch = config.steps_per_epoch
    try:
        return optimisers.from_keys(config[group].to_dict(), total=config.epochs * epoch, period=epoch)
    except UserError as error:
        raise UserError(f"config.{group}: {error}") from error


def check_parts(config: ConfigDict, period: int) -> None:
    """Raises UserError where a plan of `period` steps does not fit an epoch, or two keys take a batch in parts."""
    if config.steps_per_epoch % period:
        raise UserError(
            f"steps_per_epoch={config.steps_per_epoch} must be a multiple of the {period} steps that a plan of "
            f"objective.name={config.objective.name!r} lasts"
        )
    if config.accumulate > 1 and config.grad_cache > 1:
        raise UserError(
            f"accumulate={config.accumulate} and grad_cache={config.grad_cache} both take the batch in parts. The loss "
            "sees each part alone with accumulate, the whole batch with grad_cache; set one of them to 1"
        )


def check_sums(config: ConfigDict) -> None:
    """Raises UserError where gradients cannot be summed over devices in the type that the recipe says."""
    if config.gradient_dtype not in SUMS:
        raise UserError(f"gradient_dtype={config.gradient_dtype!r} is no type to add up in; there are {list(SUMS)}")


def check_groups(config: ConfigDict, objective: Objective) -> None:
    """Raises UserError where the images that BatchNorm takes at a time do not make up (a part of) a batch."""
    group = config.model.batch_norm_images
    parts = max(config.accumulate, config.grad_cache)
    for images in set(objective.images.values()) or {1}:
        if group and (config.batch * images // parts) % group:
            raise UserError(
                f"model.batch_norm_images={group} must divide the {config.batch * images // parts} images that the "
                "model sees at a time (those of batch, over accumulate or grad_cache)"
            )


def split_by_image(config: ConfigDict, mesh: Mesh, objective: Objective) -> dict[str, int]:
    """{stream: images of an element} of the streams whose elements are fewer than the devices can split, so that their
    images are split.

    Raises:
      UserError: for a batch that the devices cannot split either way.
    """
    name = "grad_cache" if config.grad_cache > 1 else "accumulate"
    step, parts = mesh.size * config[name], config[name]
    if config.batch % step == 0:
        return {}
    fits = [config.batch * images % mesh.size == 0 for images in objective.images.values()]
    if fits and all(fits) and config.batch % parts == 0:
        return dict(objective.images)
    elements = f" elements of {max(objective.images.values())} images" if objective.images else ""
    raise UserError(
        f"batch={config.batch}{elements} must be a multiple of {step} = devices x {name} = {mesh.size} x {parts}"
        + (f", or its images one of {mesh.size} and the batch one of {parts}" if elements else "")
    )


def averages(config: ConfigDict) -> dict[str, Any]:
    """How weights are averaged; empty for not at all. UserError for a decay or warm-up that makes no sense."""
    averaged({}, {}, jnp.int32(0), **config.ema)  # says what is wrong before anything has begun
    return config.ema.to_dict() if config.ema.decay else {}


def follow(config: ConfigDict, rate: Schedule, deciding: early_stop.Deciding) -> Follow:
    """(watch, value, step) -> watch: what a validation after this step means for the learning rate.

    Raises:
      UserError: for a rule that makes no sense, or nothing to validate on.
    """
    if not config.plateau.factor:
        return lambda watch, value, step: watch
    if not (deciding.measures or config.val_data):
        raise UserError(
            f"plateau.factor={config.plateau.factor} lowers the learning rate where validation gets no better, and the "
            "recipe validates on nothing; give it val_data, or set plateau.factor=0"
        )
    known = dict.fromkeys(deciding.measures, 0.0)
    mode = "min" if known and deciding.lower_is_better(deciding.name(known)) else "max"
    keys, validations = config.plateau.to_dict(), -(-config.epochs // config.every_epochs)
    options = keys.pop("options")
    try:
        options = checked("reduction on a plateau", plateau, options, (*keys, "validations"))
    except UserError as error:
        raise UserError(f"config.plateau: {error}") from error
    rule = plateau(**{"mode": mode, **keys, **options}, validations=validations)
    return lambda watch, value, step: rule(watch, value, float(rate(jnp.int32(step))))
