"""Cell classification from a recipe's keys."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from configs.objectives import PARTITIONS
from data_pipelines.partitions import Cells, cosplace_cells, label_cells, square_cells
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.objectives.cells import cells_objective
from jaxvpr.retrieval.classes import ClassPlaces


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """CosPlace's groups of cells, Divide & Classify's of squares, or the places of the data set as classes.

    Raises:
      UserError: for several data sets, or a recipe whose classes cannot localise as `eval.localize` asks.
      DataError: for images without a position.
    """
    keys, images = config.objective, builders.only(config, sets)
    found = _partition(keys.partition, images)
    counts = found.counts
    summary = f"{len(found)} groups of {counts.min():,} to {counts.max():,} classes, {len(found.rows):,} images"
    objective = cells_objective(
        found,
        batch=config.batch,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        scale=keys.scale,
        margin=keys.margin,
        margin_warmup=keys.margin_warmup,
        head_steps=keys.head_steps,
        owners=builders.owners(config, images),
    )
    classes = _class_places(config, found, images) if config.eval.localize else None
    return Learning(objective, classes=classes, summary=summary)


def _class_places(config: ConfigDict, found: Cells, images: Places) -> ClassPlaces:
    """Where the classes lie on the map."""
    if config.pca.dim:
        raise UserError(
            f"config.eval.localize=True compares descriptors with prototypes as they were trained, and "
            f"pca.dim={config.pca.dim} shortens the descriptors. Set one of them to its default"
        )
    keys = config.objective.partition
    of_squares = keys.by != "place"
    return ClassPlaces.of(
        found,
        images,
        side=keys.M if of_squares else None,
        sector=keys.get("alpha") if keys.by == "cell" else None,
    )


def _partition(keys: ConfigDict, images: Places) -> Cells:
    """The classes; `groups` of 0 keeps all groups."""
    if keys.by not in PARTITIONS:
        raise UserError(f"objective.partition.by={keys.by!r} does not exist; there are {list(PARTITIONS)}")
    options = {key: keys[key] for key in PARTITIONS[keys.by]}
    if keys.by == "place":
        return label_cells(images.place, **options)
    options["groups"] = options["groups"] or None
    images.single_zone()
    if keys.by == "cell":
        return cosplace_cells(images.east, images.north, images.heading, names=images.path, **options)
    return square_cells(images.east, images.north, names=images.path, **options)
