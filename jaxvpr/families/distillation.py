"""Distillation from a recipe's keys: which teacher, and what it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.places import Places
from data_pipelines.shapes import common_size
from jaxvpr import builders, models
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.models.resizing import RULES
from jaxvpr.objectives.distillation import Teacher, distillation_objective
from jaxvpr.runs import which


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """A student that learns a teacher's descriptors of all training images, of one data set or several."""
    keys = config.objective
    if keys.loss == "similarity" and config.accumulate != 1:
        raise UserError(
            f"accumulate={config.accumulate} would compare the images of one part of the batch with each other alone; "
            "objective.loss=similarity needs accumulate=1"
        )
    if not keys.teacher:
        raise UserError(f"objective.teacher is empty; it names {which.NAMES}")
    recipe, variables = which.named(keys.teacher)
    with recipe.unlocked():
        recipe.model.dtype = keys.teacher_dtype or recipe.model.dtype
    teacher, own = builders.model(recipe), builders.image_size(config)
    if models.depends_on_batch(teacher):
        raise UserError(
            f"objective.teacher={keys.teacher} looks from one image of a batch to the others, so that it has no "
            "descriptor of an image alone; choose another teacher"
        )
    size = teacher_size(recipe, keys, own)
    dim = _dimension(teacher, variables, size, keys)
    shown = None if size == own else size
    objective = distillation_objective(
        builders.model(config),
        Teacher(teacher, variables, dim, shown, device_rule(recipe.image.resize)),
        images=sum(map(len, sets)),
        batch=config.batch,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        projection=keys.projection,
    )
    summary = f"the teacher {keys.teacher}: {dim} dimensions, images of {size[0]}x{size[1]} pixels"
    return Learning(objective, summary=summary)


def teacher_size(recipe: ConfigDict, keys: ConfigDict, own: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the images that the teacher is shown: the key's, else its recipe's, else the student's `own`.

    Raises:
      UserError: for a key that is no size.
    """
    wanted = tuple(keys.teacher_size)
    if wanted and (len(wanted) != 2 or min(wanted) < 1):
        raise UserError(
            f"objective.teacher_size={wanted} must be (height, width) in pixels, or () for the teacher's own"
        )
    return common_size(wanted or tuple(recipe.image.size) or own, recipe.image.multiple, recipe.image.crop)


def device_rule(rule: str) -> str:
    """The rule for the device that is nearest to one for the host."""
    if rule in RULES:
        return rule
    return "tensor_bicubic_antialias" if "bicubic" in rule else "tensor_linear_antialias"


def _dimension(teacher: Any, variables: Any, size: tuple[int, int], keys: ConfigDict) -> int:
    try:
        described = jax.eval_shape(teacher.apply, variables, np.zeros((1, *size, 3), np.uint8))
    except ValueError as error:
        raise UserError(
            f"objective.teacher={keys.teacher} cannot describe images of {size[0]}x{size[1]} pixels: {error}; "
            "objective.teacher_size=(height,width) shows it images of another size than the student"
        ) from error
    return described.shape[-1]
