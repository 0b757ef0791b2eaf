"""What a recipe learns: its objective by name, its images, and the `Recipe` that the loop trains."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import audit
from data_pipelines.places import Paths, Places
from data_pipelines.progress import slow
from jaxvpr import builders
from jaxvpr.builders.training_images import image_source, training_sets
from jaxvpr.errors import UserError
from jaxvpr.families import cells, distillation, domain, eigenplaces, places, pretraining, sfrs, triplets
from jaxvpr.models import Variables
from jaxvpr.objectives.objective import Embed, Objective
from jaxvpr.objectives.statistics import TARGET
from jaxvpr.retrieval.classes import ClassPlaces, unfit
from jaxvpr.retrieval.evaluator import Benchmark, Describer, measure
from jaxvpr.training.recipe import Recipe

log = logging.getLogger(__name__)
# Name -> (config, training sets) -> Objective. Rows of a draw are those of all sets, one after the other.
OBJECTIVES = {
    "cells": cells.from_config,
    "distillation": distillation.from_config,
    "eigenplaces": eigenplaces.from_config,
    "mined_triplets": triplets.from_config,
    "places": places.from_config,
    "pretraining": pretraining.from_config,
    "sfrs": sfrs.from_config,
}
# Those whose batches hold queries and what they are compared with, of which only the queries are augmented.
QUERIES_ONLY = ("mined_triplets",)
# Those that cut views out of panoramas.
LOOKING = ("eigenplaces",)
EVERYTHING = ("",)  # the pattern of all parameter paths


def recipe(config: ConfigDict, over: Mesh, validation: list[Benchmark]) -> Recipe:
    """What the loop trains.

    Raises:
      UserError, DataError: for names, files and data that do not fit.
    """
    if config.objective.name not in OBJECTIVES:
        raise UserError(f"objective.name={config.objective.name!r} does not exist; there are {sorted(OBJECTIVES)}")
    _check_panoramas(config)
    sets = training_sets(config)
    for images in sets:
        log.info("training on %s", audit.line(images))
    target = domain.target_images(config) if config.domain.method else None
    with slow(f"preparing these images for the objective {config.objective.name}"):
        objective = _objective(config, sets, target, over)
    builders.shapes(config)
    model = builders.model(config)
    describes, paths = builders.describer(config, over), Paths.concat([images.path for images in sets])
    classes = cells.class_places(config, sets)
    if classes and "LR@" in config.best.measure:
        for bench in validation:
            if why := unfit(classes.places, bench.queries, tuple(bench.positives)):
                raise UserError(f"config.best.measure={config.best.measure!r}: val_data.{bench.name} has none, {why}")
    return Recipe(
        model=model,
        objective=objective,
        sources=_sources(config, objective.streams, sets, paths, target),
        example=builders.blank(config),
        start=lambda drawn: builders.initial_variables(config, drawn=drawn, images=sets[0].path),
        embed=partial(_embed, describes, paths),
        validate=partial(_validate, describes, validation, config, classes, over),
        images=paths,
        frozen=EVERYTHING if config.domain.method == domain.STATISTICS else model.resting(),
        classes=classes,
    )


def _check_panoramas(config: ConfigDict) -> None:
    describes = {"pca.dim": config.pca.dim, "clusters.images": config.clusters.images}
    wrong = [f"{key}={value}" for key, value in describes.items() if value]
    if config.objective.name not in LOOKING:
        wrong.append(f"objective.name={config.objective.name!r}")
    if config.panorama.size and wrong:
        raise UserError(
            f"config.panorama.size={tuple(config.panorama.size)} is for objectives that look somewhere, {LOOKING}: "
            f"{' and '.join(wrong)} would see whole panoramas, squashed. Set it to (), or that to its default"
        )


def _objective(config: ConfigDict, sets: Sequence[Places], target: Paths | None, over: Mesh) -> Objective:
    if target is not None and config.domain.method == domain.STATISTICS:
        return domain.statistics(config, target)
    own = OBJECTIVES[config.objective.name](config, sets)
    return own if target is None else domain.adapt(config, own, target, over)


def _sources(
    config: ConfigDict, streams: Sequence[str], sets: Sequence[Places], paths: Paths, target: Paths | None
) -> dict[str, Any]:
    """Where the images of each stream come from: training images, but for the target's."""
    yaw = np.concatenate([images.heading for images in sets])
    own = image_source(config, paths, yaw=yaw, queries_only=config.objective.name in QUERIES_ONLY)
    others = {TARGET: image_source(config, target)} if target is not None else {}
    return {stream: others.get(stream, own) for stream in streams}


def _embed(describes: Describer, paths: Paths, variables: Variables) -> Embed:
    return Embed(
        rows=lambda rows: describes(variables, paths.take(rows)).descriptors,
        on_mesh=lambda rows: describes.on_mesh(variables, paths.take(rows)),
    )


def _validate(
    describes: Describer,
    validation: list[Benchmark],
    config: ConfigDict,
    places: ClassPlaces | None,
    over: Mesh,
    variables: Variables,
    extra: Any,
) -> dict[str, float]:
    """Recall at the first threshold of every validation set, `<set>/R@<N>` in per cent; with classes that lie in
    `places` also how often they localise, `<set>/LR@<N>`."""
    classes = places.database(extra, over) if places else None
    values: dict[str, float] = {}
    for bench in validation:
        found = measure(describes, variables, bench, builders.recall_ns(config, bench), classes=classes)
        for name, recalls in (("R", found.recalls), ("LR", found.located)):
            for first in list(recalls.values())[:1]:
                values |= {f"{bench.name}/{name}@{n}": value for n, value in first.of_all.items()}
    return values
