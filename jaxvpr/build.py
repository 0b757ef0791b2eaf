"""From a ConfigDict to plain objects: the one place where the keys of a recipe meet the functions that use them."""

from __future__ import annotations

import dataclasses
import logging
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import audit, readers
from data_pipelines.augment import Augment
from data_pipelines.images import RULES
from data_pipelines.loaders import ImageSource
from data_pipelines.minicity import CityConfig
from data_pipelines.partitions import Cells, cosplace_cells, label_cells
from data_pipelines.place_table import place_table
from data_pipelines.places import Places
from data_pipelines.shapes import target
from jaxvpr import models, weights
from jaxvpr.errors import UserError
from jaxvpr.objectives.cells import cells_objective
from jaxvpr.objectives.objective import Objective
from jaxvpr.objectives.places import places_objective
from jaxvpr.parallel import hosts
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval import clusters
from jaxvpr.retrieval.evaluator import Benchmark, Describer, benchmark, measure
from jaxvpr.training.loop import Recipe, Variables

log = logging.getLogger(__name__)


def model(config: ConfigDict) -> models.PlaceModel:
    """The model of a recipe."""
    options = config.model.to_dict()
    try:
        return models.join(**options, mean=tuple(config.image.mean), std=tuple(config.image.std))
    except (ValueError, TypeError) as error:  # numpy has a TypeError for a dtype that does not exist
        raise UserError(f"config.model: {error}") from error


def shapes(config: ConfigDict) -> Variables:
    """Shapes and types of the model's variables; nothing is computed.

    Raises:
      UserError: for options of the model or an image size that do not fit together.
    """
    try:
        return jax.eval_shape(lambda: fresh_variables(config))
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        own = "" if config.image.size else ". Images keep their own size here: give config.image.size or image.multiple"
        raise UserError(f"config.model: {error}{own}") from error


def mesh(config: ConfigDict) -> Mesh:
    """The mesh of a recipe, over all devices there are."""
    try:
        return make_mesh(config.mesh.model)
    except ValueError as error:
        raise UserError(str(error)) from error


def places(config: ConfigDict, spec: ConfigDict) -> Places:
    """The images of a data set; the embedded city is written first where it is not there yet."""
    options = spec.options.to_dict()
    if spec.reader == "minicity":
        options["city"] = config.city.to_dict()
    read = partial(readers.read, spec.reader, spec.root, split=spec.split or None, **options)
    return hosts.first_then_others(f"read {spec.root}", read)


def benchmarks(config: ConfigDict, specs: ConfigDict) -> list[Benchmark]:
    """The data sets to measure on, in the order of their names."""
    return [_benchmark(config, name, spec) for name, spec in sorted(specs.items())]


def _benchmark(config: ConfigDict, name: str, spec: ConfigDict) -> Benchmark:
    lists = readers.pairs.ground_truth(spec.root) if "list" in spec.thresholds else None
    return benchmark(name, places(config, spec), spec.split or "all", spec.thresholds, lists)


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
    return ImageSource(images.path, image_size(config), rule, augment, config.loader.on_error)


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
        model(config),
        cells,
        batch=config.batch,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        scale=keys.scale,
        margin=keys.margin,
        margin_warmup=keys.margin_warmup,
        pad_classes=config.mesh.model * 8,
    )


PARTITIONS = ("cell", "place")


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
        model(config),
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
    images = places(config, config.train_data)
    log.info("training on %s", audit.line(images))
    objective = OBJECTIVES[config.objective.name](config, images)
    shapes(config)
    describes = describer(config, over)
    return Recipe(
        model=model(config),
        objective=objective,
        sources={"source": image_source(config, images)},
        example=_blank(config),
        start=lambda drawn: initial_variables(config, drawn=drawn),
        embed_rows=lambda variables, rows: describes(variables, images.path.take(rows)).descriptors,
        validate=partial(_validate, describes, validation, config),
    )


def apply(config: ConfigDict) -> Any:
    """(variables, images) -> descriptors, in evaluation mode."""
    return _apply_of(model(config))


def describer(config: ConfigDict, over: Mesh) -> Describer:
    """What turns images into descriptors as the recipe's model and preprocessing have it."""
    return Describer(apply(config), config, over, across=models.looks_across(model(config)))


@lru_cache(maxsize=16)
def _apply_of(module: models.PlaceModel) -> Any:
    # The same object for equal models: what is compiled for validation serves the final measurement too.
    return module.apply


def _validate(
    describes: Describer, validation: list[Benchmark], config: ConfigDict, variables: Variables
) -> dict[str, float]:
    """Recall at the first threshold of every validation set: `<set>/R@<N>` in per cent."""
    values: dict[str, float] = {}
    for bench in validation:
        found = next(iter(measure(describes, variables, bench, recall_ns(config, bench)).recalls.values()))
        values |= {f"{bench.name}/R@{n}": value for n, value in found.of_all.items()}
    return values


def fresh_variables(config: ConfigDict) -> Variables:
    """Randomly initialised variables of the recipe's model; traceable, so that `eval_shape` gives their shapes."""
    made = model(config).init(jax.random.key(config.seed), _blank(config))
    return {"params": made["params"], "batch_stats": made.get("batch_stats", {})}


def initial_variables(config: ConfigDict, then: str = "", drawn: Variables | None = None) -> Variables:
    """The weights that a recipe starts from, on the host: those of its file, random where that says nothing.

    An aggregator with clusters that no file gave starts from those of training images where `clusters.images` says so.

    Args:
      then: further file of weights, FILE or FILE:PATTERN, read over the first.
      drawn: random values, where they are there already.

    Raises:
      UserError: for a file that does not fit; where `clusters.images` asks for clusters that the aggregator has not, or
        names no images to make them of.
    """
    given = shapes(config)
    for source in filter(None, (config.init, then)):
        given = _read(config, given, source)
    wanted = bool(config.clusters.images) and clusters.lacks_clusters(given)
    started = filled(config, given, drawn)
    return _clustered(config, started) if wanted else started


def _read(config: ConfigDict, variables: Variables, source: str) -> Variables:
    file, _, pattern = source.partition(":")
    family = models.describe(config.method).family if config.method else None
    return weights.init_from(variables, Path(file), pattern or None, family)


def filled(config: ConfigDict, given: Variables, drawn: Variables | None = None) -> Variables:
    """`given` with random values (`drawn`, if they are there already) where it has but shapes."""
    if not any(map(_absent, jax.tree.leaves(given))):
        return given  # nothing random is drawn, which takes seconds, and gigabytes for the largest models
    drawn = drawn or jax.device_get(jax.jit(lambda: fresh_variables(config))())
    return jax.tree.map(lambda here, new: new if _absent(here) else here, given, drawn)


def _absent(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _clustered(config: ConfigDict, variables: Variables) -> Variables:
    """Clusters of the training images' local features; of the database's, where nothing is trained."""
    if config.train_data:
        images = places(config, config.train_data)
    elif config.test_data:
        images = benchmarks(config, config.test_data)[0].database
    else:
        raise UserError("clusters.images wants images to cluster: the recipe has neither train_data nor test_data")
    keys, describes = config.clusters, describer(config, mesh(config))
    features = clusters.local_features(
        describes, variables, images.path, model(config),
        count=keys.images * keys.per_image, per_image=keys.per_image, seed=config.seed,
    )  # fmt: skip
    log.info("clusters of %d local features of %d images", len(features), len(features) // keys.per_image)
    return clusters.cluster_start(variables, features, iterations=keys.iterations, seed=config.seed)


def two_folders(config: ConfigDict, database: str, queries: str) -> Benchmark:
    """A benchmark of two folders of images with coordinates, within 25 m."""
    parts = [readers.read("folder", folder, role=role) for folder, role in ((database, "database"), (queries, "query"))]
    return benchmark(Path(queries).resolve().parent.name, Places.concat(parts), "test", ("25m",))


def recall_ns(config: ConfigDict, bench: Benchmark) -> tuple[int, ...]:
    """The N of recall@N that the database is large enough for."""
    ns = tuple(n for n in config.eval.recalls if n <= len(bench.database))
    if not ns:
        raise UserError(
            f"{bench.name}: the database has {len(bench.database)} images, too few for any of "
            f"eval.recalls={tuple(config.eval.recalls)}"
        )
    return ns


def identity(config: ConfigDict) -> dict[str, str]:
    """Digests that say which embedded city, and which difficulty of its test, a figure belongs to."""
    if not any(spec.reader == "minicity" for spec in config.test_data.values()):
        return {}
    city = CityConfig(**config.city.to_dict())
    return {"city_digest": city.digest(), "city_test_digest": city.test_digest()}


def image_size(config: ConfigDict) -> tuple[int, int]:
    """(height, width) the model is shown images at; where they keep their own size, one that stands for them all."""
    return target(config.image.size, config.image.multiple, config.image.crop)


def _blank(config: ConfigDict) -> np.ndarray:
    return np.zeros((1, *image_size(config), 3), np.uint8)
