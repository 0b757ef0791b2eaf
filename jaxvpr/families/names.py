"""What of a recipe can be wrong without any data: names, options and settings, all mistakes in one message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial, reduce
from typing import Any

from ml_collections import ConfigDict

from configs.objectives import PARTITIONS, SHIPPED
from jaxvpr import builders, models
from jaxvpr.errors import UserError
from jaxvpr.families import FAMILIES, domain, triplets
from jaxvpr.models.intermediates import AT
from jaxvpr.objectives import cells, distillation, pretraining, triplet_plans
from jaxvpr.objectives.place_heads import LOSSES, MARGIN_LOSSES, MINERS, Choice
from jaxvpr.objectives.triplets import LOSSES as TRIPLET_LOSSES
from jaxvpr.retrieval.positions import metres_of
from jaxvpr.retrieval.sequence_search import SCORES
from jaxvpr.retrieval.thresholds import parse_threshold
from jaxvpr.retrieval.where import SEARCHES
from jaxvpr.training import settings
from jaxvpr.training.directions import DIRECTIONS
from jaxvpr.training.schedules import PER, SCHEDULES

Known = dict[str, Iterable[str]]
MINED: Known = {"loss": TRIPLET_LOSSES, "mining": triplet_plans.MINING, "sets": triplets.SETS}
# Keys of `objective` that are names, and the tables of what they may be, by the objective's name.
OF_OBJECTIVE: dict[str, Known] = {
    "cells": {"loss": cells.LOSSES, "partition.by": PARTITIONS},
    "distillation": {"loss": distillation.LOSSES},
    "jist": {
        "images.loss": cells.LOSSES,
        "images.partition.by": PARTITIONS,
        **{f"clips.{key}": known for key, known in MINED.items()},
    },
    "mined_triplets": MINED,
    "places": {"miner": MINERS, "partition.by": (*builders.PARTITIONS, "near")},
    "pretraining": {"loss": pretraining.LOSSES, "partition.by": builders.PARTITIONS},
    "sfrs": MINED,
}


def check(config: ConfigDict, training: bool = True) -> None:
    """Looks at all names of a recipe, and at the options of what they name, before any data is read.

    Args:
      training: also at what training alone uses.

    Raises:
      UserError: names every key that is wrong, and what it may be.
    """
    if wrong := mistakes(config, training):
        found = wrong[0] if len(wrong) == 1 else f"{len(wrong)} mistakes in the recipe:\n  " + "\n  ".join(wrong)
        raise UserError(found)


def mistakes(config: ConfigDict, training: bool = True) -> list[str]:
    """What is wrong with the names of a recipe and their options, one line each."""
    known = {**_of_model(), **_of_training(config)} if training else _of_model()
    values = {key: reduce(lambda group, part: group[part], key.split("."), config) for key in known}
    unknown = [key for key, value in values.items() if value not in known[key]]
    lines = [f"config.{key}={values[key]!r} does not exist; there are {sorted(known[key])}" for key in unknown]
    for group, look in _looks(config, training):
        if any(key.startswith(group) for key in unknown):
            continue  # the unknown name would only be told again
        try:
            look()
        except UserError as error:
            lines += [] if str(error) in lines else [str(error)]
    return lines


def _of_model() -> Known:
    return {
        "model.backbone": models.BACKBONES,
        "model.aggregator": models.AGGREGATORS,
        "model.sequence": ("", *models.SEQUENCES),
        "model.position": ("", *models.POSITIONS),
        "model.precision": models.PRECISIONS,
        "model.head_precision": ("", *models.PRECISIONS),
        "train_precision": ("", *models.PRECISIONS),
        "loader.on_error": ("raise", "skip"),
        "eval.search": SEARCHES,
        "eval.sequence.score": SCORES,
    }


def _of_training(config: ConfigDict) -> Known:
    known: Known = {
        "objective.name": FAMILIES,
        "domain.method": ("", *domain.EVERY_METHOD),
        "domain.on": AT,
    }
    for group in settings.KEYS.values():
        known |= {f"{group}.name": DIRECTIONS, f"{group}.schedule": SCHEDULES, f"{group}.per": PER}
    of_objective = dict(OF_OBJECTIVE.get(config.objective.name, {}))
    if config.objective.name == "places":  # whose tables a recipe may have added to
        of_objective["loss"] = [*LOSSES, *MARGIN_LOSSES]
    return known | {f"objective.{key}": names for key, names in of_objective.items()}


def _looks(config: ConfigDict, training: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(group of keys, what looks at them)."""
    yield "model.", partial(builders.shapes, config)
    measured = ("val_data", "test_data") if training else ("test_data",)
    sets = {f"{group}.{name}": spec for group in measured for name, spec in sorted(config[group].items())}
    held_out = {key: spec for key, spec in builders.specs(config).items() if training and spec.get("hold_out", 0.0)}
    for key, spec in (sets | held_out).items():
        yield f"{key}.", partial(_thresholds, f"config.{key}.thresholds", spec.thresholds)
    yield "eval.", partial(_distances, config)
    if not training or config.objective.name in SHIPPED:  # else the model may be the family's own
        sets |= builders.specs(config) if training else {}
        for key, spec in sets.items():
            yield "model.", partial(builders.check_model, config, key, spec)
    if not training:
        return
    yield "train_data.", partial(builders.training_cuts, config)
    for key in settings.KEYS.values():
        yield f"{key}.", partial(settings.optimiser, config, key)
    yield "augment.", partial(builders.augmentation, config)
    if config.objective.name == "places":
        yield "objective.", partial(_choice, config.objective)


def _thresholds(key: str, thresholds: Iterable[str]) -> None:
    for text in thresholds:
        try:
            parse_threshold(text)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error


def _distances(config: ConfigDict) -> None:
    for text in config.eval.get("distances", ()):
        metres_of(text, "eval.distances")


def _choice(keys: ConfigDict) -> None:
    try:
        Choice(keys.loss, keys.miner, keys.loss_options.to_dict(), keys.miner_options.to_dict()).check()
    except ValueError as error:
        raise UserError(f"config.objective: {error}") from error
