"""What a recipe learns: its objective by name, its images, and the `Recipe` that the loop trains."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import audit
from data_pipelines.augment import Augment
from data_pipelines.images import RULES
from data_pipelines.loaders import ImageSource
from data_pipelines.partitions import Cells, cosplace_cells, label_cells
from data_pipelines.place_table import place_table
from data_pipelines.places import Places
from jaxvpr import build
from jaxvpr.errors import UserError
from jaxvpr.objectives.cells import cells_objective
from jaxvpr.objectives.objective import Objective
from jaxvpr.objectives.places import places_objective
from jaxvpr.retrieval.evaluator import Benchmark, Describer, measure
from jaxvpr.training.loop import Recipe, Variables

log = logging.getLogger(__name__)
PARTITIONS = ("cell", "place")


def image_source(config: ConfigDict, images: Places) -> ImageSource:
    """Training images, augmented.

    Raises:
      UserError: for strengths that make no sense, or images that could not share a batch.
    """
    size, rule = tuple(config.image.size), config.image.resize
    if not size or rule not in RULES or config.image.crop:
        raise UserError(
            f"config.image: size={size}, resize={rule!r} and crop={config.image.crop} serve evaluation only. Crops of "
            f"training are random and made on the host: give a size (height, width), one of the rules "
            f"{', '.join(RULES)}, and crop=False"
        )
    strengths = config.augment.to_dict()
    strengths["scale"], strengths["ratio"] = tuple(strengths["scale"]) or None, tuple(strengths["ratio"])
    augment = Augment(**strengths)
    try:
        augment.finish(np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0))
    except ValueError as error:
        raise UserError(f"config.augment: {error}") from error
    return ImageSource(images.path, build.image_size(config), rule, augment, config.loader.on_error)


def _cells(config: ConfigDict, images: Places) -> Objective:
    keys = config.objective
    options = keys.partition.to_dict()
    by = options.pop("by")
    if by not in PARTITIONS:
        raise UserError(f"objective.partition.by={by!r} does not exist; there are {list(PARTITIONS)}")
    cells: Cells
    if by == "place":
        cells = label_cells(images.place, min_images=options["min_images"])
    else:
        images.single_zone()
        cells = cosplace_cells(images.east, images.north, images.heading, **options)
    counts = cells.counts
    log.info("%d groups of %d to %d classes, %d images", len(cells), counts.min(), counts.max(), len(cells.rows))
    return cells_objective(
        build.model(config),
        cells,
        batch=config.batch,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        scale=keys.scale,
        margin=keys.margin,
        margin_warmup=keys.margin_warmup,
        pad_classes=config.mesh.model * 8,
    )


def _places(config: ConfigDict, images: Places) -> Objective:
    keys = config.objective
    if config.accumulate != 1:
        raise UserError(
            f"accumulate={config.accumulate} would compare the images of one part of the batch with each other alone; "
            "metric learning on places needs accumulate=1"
        )
    if config.batch != keys.P * keys.K:
        raise UserError(f"batch={config.batch} must be objective.P x objective.K = {keys.P} x {keys.K}")
    table = place_table(_with_places(keys.partition, images), K=keys.K)
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


def _with_places(partition: ConfigDict, images: Places) -> Places:
    """The images with the places that the data set gives them, or with cells of the map as places."""
    if partition.by == "place":
        return images
    if partition.by != "cell":
        raise UserError(f"objective.partition.by={partition.by!r} does not exist; there are {list(PARTITIONS)}")
    images.single_zone()
    sides = {"M": partition.M, "alpha": partition.alpha}
    cells = cosplace_cells(images.east, images.north, images.heading, N=1, L=1, groups=1, min_images=1, **sides)
    rows, labels = cells.labels(0)
    place = np.full(len(images), -1, np.int64)
    place[rows] = labels
    return dataclasses.replace(images, place=place)


OBJECTIVES = {"cells": _cells, "places": _places}


def recipe(config: ConfigDict, over: Mesh, validation: list[Benchmark]) -> Recipe:
    """What the loop trains.

    Raises:
      UserError, DataError: for names, files and data that do not fit.
    """
    if config.objective.name not in OBJECTIVES:
        raise UserError(f"objective.name={config.objective.name!r} does not exist; there are {sorted(OBJECTIVES)}")
    if not config.train_data:
        raise UserError(f"the recipe {config.name} has no train_data to train on; configs/cosplace.py has, for one")
    images = build.places(config, config.train_data)
    log.info("training on %s", audit.line(images))
    objective = OBJECTIVES[config.objective.name](config, images)
    build.shapes(config)
    describes = build.describer(config, over)
    return Recipe(
        model=build.model(config),
        objective=objective,
        sources={"source": image_source(config, images)},
        example=build.blank(config),
        start=lambda drawn: build.initial_variables(config, drawn=drawn),
        embed_rows=lambda variables, rows: describes(variables, images.path.take(rows)).descriptors,
        validate=partial(_validate, describes, validation, config),
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
