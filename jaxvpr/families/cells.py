"""Cell classification from a recipe's keys."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ml_collections import ConfigDict

from data_pipelines.partitions import Cells, cosplace_cells, label_cells, square_cells
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.builders.training_images import only
from jaxvpr.errors import UserError
from jaxvpr.families.domain import STATISTICS
from jaxvpr.objectives.cells import cells_objective
from jaxvpr.objectives.objective import Objective
from jaxvpr.retrieval.classes import ClassPlaces

log = logging.getLogger(__name__)
PARTITIONS = ("cell", "square", "place")


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Objective:
    """CosPlace's groups of cells, Divide & Classify's of squares, or the places of the data set as classes."""
    keys = config.objective
    found = _partition(keys.partition, only(config, sets))
    counts = found.counts
    log.info("%d groups of %d to %d classes, %d images", len(found), counts.min(), counts.max(), len(found.rows))
    return cells_objective(
        builders.model(config),
        found,
        batch=config.batch,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        scale=keys.scale,
        margin=keys.margin,
        margin_warmup=keys.margin_warmup,
        pad_classes=config.mesh.model * 8,
    )


def class_places(config: ConfigDict, sets: Sequence[Places]) -> ClassPlaces | None:
    """Where the classes of the recipe's heads lie, if it localises by classification (`eval.localize`).

    Raises:
      UserError: for a recipe whose heads are no classes of places, or whose descriptors a PCA shortens.
      DataError: for images without a position.
    """
    if not config.eval.localize:
        return None
    if config.objective.name != "cells":
        raise UserError(
            "config.eval.localize=True answers with the classes of objective.name='cells'; this recipe's is "
            f"{config.objective.name!r}. Set eval.localize=false"
        )
    if config.domain.method == STATISTICS:
        raise UserError(
            f"config.eval.localize=True answers with trained classes, and domain.method={STATISTICS!r} trains none. "
            "Set eval.localize=false"
        )
    if config.pca.dim:
        raise UserError(
            f"config.eval.localize=True compares descriptors with prototypes as they were trained, and "
            f"pca.dim={config.pca.dim} shortens the descriptors. Set one of them to its default"
        )
    images, keys = only(config, sets), config.objective.partition
    of_squares = keys.by != "place"
    return ClassPlaces.of(
        _partition(keys, images),
        images,
        side=keys.M if of_squares else None,
        sector=keys.get("alpha") if keys.by == "cell" else None,
    )


def _partition(keys: ConfigDict, images: Places) -> Cells:
    """The classes; `groups` of 0 keeps all groups."""
    options = keys.to_dict()
    by, options["groups"] = options.pop("by"), options.get("groups") or None
    if by not in PARTITIONS:
        raise UserError(f"objective.partition.by={by!r} does not exist; there are {list(PARTITIONS)}")
    if by == "place":
        return label_cells(images.place, min_images=options["min_images"])
    images.single_zone()
    if by == "cell":
        return cosplace_cells(images.east, images.north, images.heading, **options)
    squares = {key: options[key] for key in ("M", "N", "groups", "min_images")}
    return square_cells(images.east, images.north, **squares)
