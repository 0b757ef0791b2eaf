"""What a recipe learns: its objective by name, its images, and the `Recipe` that the loop trains."""

from __future__ import annotations

import logging
from functools import partial

from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import audit
from data_pipelines.places import Paths
from jaxvpr import build
from jaxvpr.errors import UserError
from jaxvpr.learning import cells, distillation, places, pretraining, sfrs, triplets
from jaxvpr.learning.data import image_source, training_sets
from jaxvpr.objectives.objective import Embed
from jaxvpr.retrieval.evaluator import Benchmark, Describer, measure
from jaxvpr.training.loop import Recipe, Variables

log = logging.getLogger(__name__)
# Name -> (config, training sets) -> Objective. Rows of a draw are those of all sets, one after the other.
OBJECTIVES = {
    "cells": cells.from_config,
    "distillation": distillation.from_config,
    "mined_triplets": triplets.from_config,
    "places": places.from_config,
    "pretraining": pretraining.from_config,
    "sfrs": sfrs.from_config,
}
# Those whose batches hold queries and what they are compared with, of which only the queries are augmented.
QUERIES_ONLY = ("mined_triplets",)


def recipe(config: ConfigDict, over: Mesh, validation: list[Benchmark]) -> Recipe:
    """What the loop trains.

    Raises:
      UserError, DataError: for names, files and data that do not fit.
    """
    if config.objective.name not in OBJECTIVES:
        raise UserError(f"objective.name={config.objective.name!r} does not exist; there are {sorted(OBJECTIVES)}")
    sets = training_sets(config)
    for images in sets:
        log.info("training on %s", audit.line(images))
    objective = OBJECTIVES[config.objective.name](config, sets)
    build.shapes(config)
    model = build.model(config)
    describes, paths = build.describer(config, over), Paths.concat([images.path for images in sets])
    return Recipe(
        model=model,
        objective=objective,
        sources={"source": image_source(config, paths, queries_only=config.objective.name in QUERIES_ONLY)},
        example=build.blank(config),
        start=lambda drawn: build.initial_variables(config, drawn=drawn, images=sets[0].path),
        embed=partial(_embed, describes, paths),
        validate=partial(_validate, describes, validation, config),
        frozen=model.resting(),
    )


def _embed(describes: Describer, paths: Paths, variables: Variables) -> Embed:
    return Embed(
        rows=lambda rows: describes(variables, paths.take(rows)).descriptors,
        on_mesh=lambda rows: describes.on_mesh(variables, paths.take(rows)),
    )


def _validate(
    describes: Describer, validation: list[Benchmark], config: ConfigDict, variables: Variables
) -> dict[str, float]:
    """Recall at the first threshold of every validation set: `<set>/R@<N>` in per cent."""
    values: dict[str, float] = {}
    for bench in validation:
        found = next(iter(measure(describes, variables, bench, build.recall_ns(config, bench)).recalls.values()))
        values |= {f"{bench.name}/R@{n}": value for n, value in found.of_all.items()}
    return values
