"""Pre-training on class folders from a recipe's keys."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from data_pipelines.partitions import label_cells
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.families.learning import Learning
from jaxvpr.objectives.pretraining import pretraining_objective


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """One classifier over the places of a data set: its class folders, or cells of the map."""
    keys, images = config.objective, builders.only(config, sets)
    cells = label_cells(builders.partitioned(config, [images])[0].place, min_images=keys.min_images)
    passes = -(-len(cells.rows) // config.batch)
    summary = f"{cells.counts[0]:,} classes, {len(cells.rows):,} images; a pass takes {passes:,} batches"
    model, shapes = builders.model(config), builders.shapes(config)
    pooled = jax.eval_shape(
        lambda variables, images: model.apply(variables, images, method="pooled"), shapes, builders.blank(config)
    )
    objective = pretraining_objective(
        model,
        cells,
        batch=config.batch,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        width=pooled.shape[-1],
        scale=keys.scale,
        margin=keys.margin,
        margin_warmup=keys.margin_warmup,
        smoothing=keys.smoothing,
        balanced=keys.balanced,
        head_steps=keys.head_steps,
    )
    return Learning(objective, partitioned=True, summary=summary)
