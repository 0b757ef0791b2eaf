"""JIST from a recipe's keys: cells of single images and triplets of clips, two streams of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import common
from data_pipelines.clips import Clips
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families import cells, triplets
from jaxvpr.families.learning import Learning
from jaxvpr.objectives.jist import jist_objective


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """The one data set of images and those of clips, each by the keys of its own objective: `objective.images` are
    those of `cells`, `objective.clips` those of `mined_triplets`, whose queries `batch` counts. Images alone are
    augmented.

    Raises:
      UserError: for data sets of one kind alone, a batch of images that does not come in as many parts as the recipe's,
        or what either objective refuses.
    """
    keys, parts = config.objective, builders.cut_sets(config, sets)
    images = [part for part in parts if isinstance(part, Places)]
    clips = [part for part in parts if isinstance(part, Clips)]
    if len(images) != 1 or not clips:
        raise UserError(
            f"objective.name='jist' trains on images and clips, but the recipe has {len(images)} data sets of images, "
            f"{len(clips)} of clips: give one of images (train_data) and one or more of clips "
            "(more_train_data.NAME.clips.length=5)"
        )
    if keys.batch < 1 or keys.batch % (config.accumulate * config.grad_cache):
        raise UserError(
            f"objective.batch={keys.batch} images must be a multiple of accumulate={config.accumulate} and "
            f"grad_cache={config.grad_cache}, as the clips are"
        )
    of_clips = _of(config, keys.clips, {"augment": common.base().augment.to_dict()})
    steps = triplets.settings(of_clips).steps
    size = tuple(keys.size) or tuple(config.image.size)
    of_images = _of(config, keys.images, {"batch": keys.batch, "steps_per_epoch": steps, "image": {"size": size}})
    mined, classified = triplets.of_elements(of_clips, clips), cells.from_config(of_images, images)
    model = builders.model(config)
    objective = jist_objective(
        classified.objective.embedding_with(model),
        mined.objective.embedding_with(model),
        weights=tuple(keys.weights),
        dim=builders.descriptor_size(config, frames=0),
        turn=config.steps_per_epoch // steps,
    )
    return Learning(
        objective,
        elements=clips,
        sources={
            "images": builders.training_source(of_images, images),
            "clips": builders.training_source(of_clips, clips),
        },
        classes=classified.classes,
        summary=f"{classified.summary}; {mined.summary}",
    )


def _of(config: ConfigDict, objective: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """The recipe of one stream alone."""
    alone = config.copy_and_resolve_references().unlock()
    alone.objective = objective
    alone.update(changes)
    return alone.lock()
