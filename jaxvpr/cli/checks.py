"""Whether the values of a recipe, whose types are right, make sense. Every answer names the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import objectives
from data_pipelines.images import DEVICE_RULES, RULES
from jaxvpr.cli import weight_source
from jaxvpr.errors import UserError
from jaxvpr.training.early_stop import deciding

# The smallest number that makes sense; an error far inside the program would not name the key.
AT_LEAST = {
    "seed": 0, "epochs": 0, "steps_per_epoch": 1, "every_epochs": 1, "batch": 1, "accumulate": 1, "mesh.model": 1,
    "grad_cache": 1, "ema.warmup": 0, "plateau.patience": 0, "best.patience": 0,
    "loader.threads": 0, "loader.workers": 0, "loader.prefetch": 1, "checkpoint.keep": 1, "checkpoint.every_steps": 0,
    "eval.batch": 1, "clusters.images": 0, "clusters.per_image": 1, "clusters.iterations": 1, "image.multiple": 1,
    "pca.dim": 0, "pca.images": 1, "pca.memory_mib": 1, "optimizer.rate": 0, "optimizer_extra.rate": 0,
    "optimizer_shared.rate": 0,
}  # fmt: skip

MOST_SEED = 2**32 - 1  # JAX takes no more
RECALL = re.compile(r"(^|/)L?R@\d+$")


def check(config: ConfigDict) -> None:
    """Looks at values whose type is right and whose meaning is not.

    Raises:
      UserError: names the key and what it may be.
    """
    for key, least in AT_LEAST.items():
        value: Any = config
        for part in key.split("."):
            value = value[part]
        if value < least:
            raise UserError(f"config.{key}={value} must be at least {least}")
    if Path(config.name).name != config.name or config.name in ("", ".", ".."):
        raise UserError(f"config.name={config.name!r} names the folder in runs/: give a name without slashes")
    if config.seed > MOST_SEED:
        raise UserError(f"config.seed={config.seed} must be at most {MOST_SEED}, a number of 32 bits")
    _check_image(config.image)
    _check_panorama(config.panorama)
    if not config.eval.recalls or min(config.eval.recalls) < 1:
        raise UserError(
            f"config.eval.recalls={tuple(config.eval.recalls)} must be one or more N of recall@N, from 1 up"
        )
    scale = tuple(config.augment.scale)
    if scale and not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
        raise UserError(f"config.augment.scale={scale} must be (least, most) share of the area, within 0 and 1, or ()")
    _check_patterns(config)


def check_init(config: ConfigDict) -> None:
    """Looks whether the weights are there that a recipe starts from; UserError where they are not."""
    if config.init:
        parts = weight_source.parse(config.init).file.parts
        run = f"; a run of the recipe {parts[1]!r} leaves it: train that first" if parts[:1] == ("runs",) else ""
        weight_source.check("config.init", config.init, run)


def check_training(config: ConfigDict) -> None:
    """As `check`, for keys that training alone looks at.

    Raises:
      UserError: names the key and what it may be.
    """
    if missing := objectives.lacking(config.objective):
        name = config.objective.get("name", "cells")
        raise UserError(
            f"config.objective lacks {', '.join(missing)}, which objective.name={name!r} needs; a recipe has all keys "
            f"from config.objective = common.{name}(...)"
        )
    for key in ("head_steps", "margin_warmup"):
        if config.objective.get(key, 0) < 0:
            raise UserError(f"config.objective.{key}={config.objective[key]} must be at least 0")
    if config.model.aggregator == "crn" and not config.init:
        raise UserError(
            "config.model.aggregator='crn' is trained in a second stage, from a trained NetVLAD, and config.init names "
            "none: init=FILE:^(backbone|aggregator/(conv|centroids)). configs/netvlad.py trains one"
        )
    if config.objective.name not in objectives.SHIPPED and not config.val_data:
        return  # measures are the family's, and it knows whether it has them
    if config.best.patience and not config.val_data:
        raise UserError(
            f"config.best.patience={config.best.patience} ends the run where validation gets no better, and the recipe "
            "validates on nothing; give it val_data, or set config.best.patience=0"
        )
    if RECALL.search(config.best.measure):  # other measures are the family's, and it knows whether it has them
        sets, recalls = sorted(config.val_data), sorted(config.eval.recalls)
        kinds = ("R", "LR") if config.eval.localize else ("R",)
        deciding((f"{name}/{kind}@{n}" for name in sets for kind in kinds for n in recalls), config.best.measure)


def _check_image(image: ConfigDict) -> None:
    size = tuple(image.size)
    if size and (len(size) != 2 or any(not isinstance(side, int) or side < 1 for side in size)):
        raise UserError(
            f"config.image.size={size} must be (height, width) in pixels, two integers, or () for each image's own size"
        )
    rules = (*RULES, *DEVICE_RULES)
    if image.resize not in rules:
        raise UserError(f"config.image.resize: no resize rule {image.resize!r}; there are {', '.join(rules)}")
    if image.crop and min(size or (image.multiple,)) < image.multiple:
        raise UserError(
            f"config.image.crop=True cuts images to multiples of {image.multiple} pixels (image.multiple), which "
            f"config.image.size={size} is too small for"
        )
    for key in ("mean", "std"):
        if len(image[key]) != 3 or (key == "std" and min(image.std) <= 0):
            raise UserError(
                f"config.image.{key}={tuple(image[key])} must be a number for each colour (red, green, blue) of images "
                "in [0, 1]" + ", above 0" * (key == "std")
            )


def _check_panorama(panorama: ConfigDict) -> None:
    size, view = tuple(panorama.size), panorama.view
    if size and (len(size) != 2 or any(not isinstance(side, int) or side < 1 for side in size)):
        raise UserError(
            f"config.panorama.size={size} must be (height, width) in pixels, two integers, or () for images that are "
            "not panoramas"
        )
    if view < 1 or (size and view > size[1]):
        most = f"1 to {size[1]}, the columns of the whole circle" if size else "1 or more columns"
        raise UserError(f"config.panorama.view={view} must be {most}")


def _check_patterns(config: ConfigDict) -> None:
    patterns = [("frozen", pattern) for pattern in config.frozen]
    if wrong := [pattern for _, pattern in patterns if not isinstance(pattern, str)]:
        raise UserError(f"config.frozen={tuple(config.frozen)} must be patterns of parameter paths, got {wrong[0]!r}")
    for group in ("optimizer", "optimizer_extra", "optimizer_shared"):
        for pair in config[group].factors:
            kinds = tuple(map(type, pair)) if isinstance(pair, tuple | list) else ()
            if kinds not in ((str, int), (str, float)):
                raise UserError(f"config.{group}.factors must be pairs (('pattern', factor), ...), got {pair!r}")
            patterns.append((f"{group}.factors", pair[0]))
    for key, pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.{key}: {pattern!r} is not a regular expression: {error}") from error
