"""Cell classification from a recipe's keys."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ml_collections import ConfigDict

from data_pipelines.partitions import Cells, cosplace_cells, label_cells
from data_pipelines.places import Places
from jaxvpr import build
from jaxvpr.errors import UserError
from jaxvpr.learning.data import PARTITIONS, only
from jaxvpr.objectives.cells import cells_objective
from jaxvpr.objectives.objective import Objective

log = logging.getLogger(__name__)


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Objective:
    """CosPlace's groups of cells, or the places of the data set as classes."""
    images, keys = only(config, sets), config.objective
    options = keys.partition.to_dict()
    by = options.pop("by")
    if by not in PARTITIONS:
        raise UserError(f"objective.partition.by={by!r} does not exist; there are {list(PARTITIONS)}")
    found: Cells
    if by == "place":
        found = label_cells(images.place, min_images=options["min_images"])
    else:
        images.single_zone()
        found = cosplace_cells(images.east, images.north, images.heading, **options)
    counts = found.counts
    log.info("%d groups of %d to %d classes, %d images", len(found), counts.min(), counts.max(), len(found.rows))
    return cells_objective(
        build.model(config),
        found,
        batch=config.batch,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        scale=keys.scale,
        margin=keys.margin,
        margin_warmup=keys.margin_warmup,
        pad_classes=config.mesh.model * 8,
    )
