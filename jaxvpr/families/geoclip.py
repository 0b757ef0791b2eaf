"""GeoCLIP from a recipe's keys: on live images, each with several views, or on descriptors that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.families.position_validation import validation
from jaxvpr.families.positions import RESTS
from jaxvpr.models import Variables
from jaxvpr.models.positions import GeoCLIP
from jaxvpr.objectives.geoclip import geoclip_objective
from jaxvpr.objectives.positions import AT


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """The head `geoclip` and whatever else of the model does not rest, on the images of the area.

    Raises:
      UserError: for a model with another head, a gallery of another size, or keys that would compare parts of a batch.
      DataError: as `builders.to_learn`.
    """
    keys, images = config.objective, builders.only(config, sets)
    _check(config)
    model, coding = builders.model(config), builders.coding_of(config)
    rows, at = builders.to_learn(config, images)
    learned = images.take(rows)
    objective = geoclip_objective(
        model,
        images=len(rows),
        batch=config.batch,
        steps=config.steps_per_epoch,
        queue=keys.queue,
        noise=keys.noise.metres,
        queue_noise=keys.noise.queue,
        near=keys.near,
        views=keys.views,
    )
    of_images = config.model.position_options.get("source", builders.OF_TRAINING) in ("", builders.OF_TRAINING)
    gallery = builders.training_gallery(at) if of_images else builders.table_gallery(config)
    passes, (tall, wide) = -(-len(rows) // config.batch), builders.area_metres(coding.area)
    return Learning(
        objective,
        elements=[learned],
        tables={"source": {AT: at}},
        start=partial(_start, config, gallery),
        validator=lambda benches, describer: validation(
            config, learned, benches, describer, None, rests=config.maps.cached
        ),
        summary=f"coordinates of {len(rows):,} images in {tall:,.0f} x {wide:,.0f} m, answers among {len(gallery):,}; "
        f"a pass takes {passes:,} batches",
    )


def _start(config: ConfigDict, gallery: Any, drawn: Variables) -> Variables:
    """The weights to start from, with the gallery in them."""
    resting = RESTS if config.maps.cached else builders.model(config).frozen_paths()
    started = builders.initial_variables(config, drawn=drawn, frozen=(*config.frozen, *resting))
    return builders.filled_gallery(config, started, gallery)


def _check(config: ConfigDict) -> None:
    if not isinstance(builders.model(config).position, GeoCLIP):
        raise UserError(
            f"objective.name='geoclip' trains the head model.position='geoclip', not {config.model.position!r}"
        )
    for name in ("accumulate", "grad_cache"):
        if config[name] != 1:
            raise UserError(
                f"{name}={config[name]} would compare the images of one part of the batch with the coordinates of that "
                f"part alone; objective.name=geoclip needs {name}=1"
            )
    if config.maps.cached and config.objective.views > 1:
        raise UserError(
            f"objective.views={config.objective.views} shows each image augmented several times, and of maps.cached="
            "True there is one descriptor of each. Take views=1, or maps.cached=false"
        )
