"""Whether the values of a recipe, whose types are right, make sense. Every answer names the key."""

from __future__ import annotations

import math
import re
from pathlib import Path

from ml_collections import ConfigDict

from configs import objectives
from data_pipelines.clips import Cutting
from data_pipelines.errors import DataError
from data_pipelines.images import DEVICE_RULES, RULES
from jaxvpr.cli import ranges, weight_source
from jaxvpr.cli.overrides import data_sets
from jaxvpr.errors import UserError
from jaxvpr.training.early_stop import deciding

TRAINED_ON = ("train_data", "more_train_data")
RECALL = re.compile(r"(^|/)L?R@\d+$")


def check(config: ConfigDict) -> None:
    """Looks at values whose type is right and whose meaning is not.

    Raises:
      UserError: names the key and what it may be.
    """
    looks = (
        _check_name,
        _check_image,
        _check_panorama,
        _check_data,
        _check_held_out,
        _check_clips,
        _check_sequence,
        _check_patterns,
    )
    found = list(ranges.mistakes(config))
    for look in looks:
        try:
            look(config)
        except UserError as error:
            found.append(str(error))
    if found:
        raise UserError(
            found[0] if len(found) == 1 else f"{len(found)} mistakes in the recipe:\n  " + "\n  ".join(found)
        )


def _check_name(config: ConfigDict) -> None:
    if Path(config.name).name != config.name or config.name in ("", ".", ".."):
        raise UserError(f"config.name={config.name!r} names the folder in runs/: give a name without slashes")


def check_init(config: ConfigDict) -> None:
    """Looks whether the weights are there that a recipe starts from; UserError where they are not."""
    if config.init:
        parts = Path(weight_source.parse(config.init).name).parts
        run = f"; a run of the recipe {parts[1]!r} leaves it: train that first" if parts[:1] == ("runs",) else ""
        weight_source.check("config.init", config.init, run)


def clusters_of_database(config: ConfigDict) -> bool:
    """Whether the clusters of a recipe's aggregator are those of whichever database a verb describes: the recipe makes
    clusters and trains on nothing."""
    return bool(config.clusters.images) and not config.train_data


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
    if config.model.aggregator == "crn" and not config.init:
        raise UserError(
            "config.model.aggregator='crn' is trained in a second stage, from a trained NetVLAD, and config.init names "
            "none: init=FILE:^(backbone|aggregator/(conv|centroids)). configs/netvlad.py trains one"
        )
    sets, recalls = sorted(config.val_data) or sorted(held_out_sets(config)), sorted(config.eval.recalls)
    if config.objective.name not in objectives.SHIPPED and not sets:
        return  # measures are the family's, and it knows whether it has them
    if config.best.patience and not sets:
        raise UserError(
            f"config.best.patience={config.best.patience} ends the run where validation gets no better, and the recipe "
            "validates on nothing; give it val_data or train_data.hold_out=0.2, or set config.best.patience=0"
        )
    if RECALL.search(config.best.measure):  # other measures are the family's, and it knows whether it has them
        kinds = ("R", "LR") if config.eval.localize else ("R",)
        deciding((f"{name}/{kind}@{n}" for name in sets for kind in kinds for n in recalls), config.best.measure)


def _check_size(key: str, size: tuple[int, ...], empty: str) -> None:
    if size and (len(size) != 2 or any(not isinstance(side, int) or side < 1 for side in size)):
        raise UserError(f"config.{key}={size} must be (height, width) in pixels, two integers, or () for {empty}")


def _check_image(config: ConfigDict) -> None:
    image, size, scale = config.image, tuple(config.image.size), tuple(config.augment.scale)
    _check_size("image.size", size, "each image's own size")
    if scale and not (len(scale) == 2 and scale[0] <= scale[1]):
        raise UserError(f"config.augment.scale={scale} must be (least, most) share of the area, within 0 and 1, or ()")
    rules = (*RULES, *DEVICE_RULES)
    if image.resize not in rules:
        raise UserError(f"config.image.resize: no resize rule {image.resize!r}; there are {', '.join(rules)}")
    if image.crop and min(size or (image.multiple,)) < image.multiple:
        raise UserError(
            f"config.image.crop=True cuts images to multiples of {image.multiple} pixels (image.multiple), which "
            f"config.image.size={size} is too small for"
        )
    for key in ("mean", "std"):
        if len(image[key]) != 3:
            raise UserError(
                f"config.image.{key}={tuple(image[key])} must be a number for each colour (red, green, blue) of images "
                "in [0, 1]"
            )


def _check_panorama(config: ConfigDict) -> None:
    size, view = tuple(config.panorama.size), config.panorama.view
    _check_size("panorama.size", size, "images that are not panoramas")
    if size and view > size[1]:
        raise UserError(f"config.panorama.view={view} must be 1 to {size[1]}, the columns of the whole circle")


def _check_data(config: ConfigDict) -> None:
    if not config.eval.recalls:
        raise UserError("config.eval.recalls=() must be one or more N of recall@N, from 1 up")
    for group in ("val_data", "test_data"):
        for name, spec in config[group].items():
            if not spec.thresholds:
                raise UserError(
                    f"config.{group}.{name}.thresholds=() must say which database images answer a query: 25m, "
                    "2m_30deg, 1frame, label or list"
                )


def _check_held_out(config: ConfigDict) -> None:
    for key, spec in data_sets(config):
        share, gap = spec.get("hold_out", 0.0), spec.get("gap", 0.0)
        if not (0 <= share < 1 and 0 <= gap < math.inf):
            raise UserError(
                f"config.{key}: hold_out={share} must be from 0 to below 1, and gap={gap} metres at least 0"
            )
        if share and key.partition(".")[0] not in TRAINED_ON:
            raise UserError(
                f"config.{key}.hold_out={share} keeps a part of a set to train on apart, and this one does not train. "
                "Set it to 0"
            )
    chosen = "train_data.hold_out" in config.get("auto", ())  # then it is 0 beside val_data
    if (held := held_out_sets(config)) and config.val_data and not chosen:
        key = next(iter(held.values()))
        raise UserError(
            f"config.{key}.hold_out keeps a part of the map apart to validate on, and the recipe validates on val_data "
            f"{sorted(config.val_data)}. Take {key}.hold_out=0, or val_data={{}}"
        )
    if held and config.loader.get("own_shards", False):
        raise UserError(
            "config.loader.own_shards=True: no host sees all images, so that none knows the map that hold_out divides. "
            "Set one of the two to its default"
        )


def held_out_sets(config: ConfigDict) -> dict[str, str]:
    """The validation sets that are parts of training sets, by name, each with the key of its training set."""
    sets = {key: spec for key, spec in data_sets(config) if key.partition(".")[0] in TRAINED_ON}
    names = {
        key: "_".join(["held_out", *key.split(".")[1:]]) for key, spec in sets.items() if spec.get("hold_out", 0.0)
    }
    return {name: key for key, name in names.items()}


def _check_clips(config: ConfigDict) -> None:
    for key, spec in data_sets(config):
        try:
            Cutting.of(spec.get("clips", {}))
        except DataError as error:
            raise UserError(f"config.{key}.{error}") from error


def _check_sequence(config: ConfigDict) -> None:
    keys = config.eval.get("sequence", {})
    velocity = tuple(keys.get("velocity", (1, 1)))
    if len(velocity) != 2 or velocity[0] > velocity[1]:
        raise UserError(f"config.eval.sequence.velocity={velocity} must be (least, greatest)")
    if (score := keys.get("score", "")) in ("average", "seqslam") and config.eval.search == "mesh":
        raise UserError(
            f"config.eval.search='mesh' splits a database over the devices, and eval.sequence.score={score!r} needs "
            "all of its frames on each. Set eval.search=auto"
        )


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
