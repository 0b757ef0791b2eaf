"""Heads that answer positions from a recipe's keys: on live images, or on descriptors that are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.feature_store import Kept
from data_pipelines.paths import Paths
from data_pipelines.places import Places
from data_pipelines.sources import RowSource
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning, complete
from jaxvpr.families.position_validation import validation
from jaxvpr.models.positions import Cells, Coding, PositionHead, head_bytes
from jaxvpr.objectives.positions import (
    AT,
    DESCRIPTOR,
    Noise,
    of_descriptors,
    of_images,
    positions_objective,
    row_loss,
)
from jaxvpr.parallel import device_memory
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.retrieval.locating import head_of
from jaxvpr.training.recipe import Recipe

RESTS = ("^(?!position/)",)  # all parameters but the head's


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """The head of `model.position` on the images of the area, with all the rest of the model or without.

    Raises:
      UserError: for a model without such a head, a loss that does not go with it, a head that does not fit into memory.
      DataError: for images without a position, or of another frame than the area's.
    """
    keys, images = config.objective, builders.only(config, sets)
    coding, model = builders.coding_of(config), builders.model(config)
    rows, at = builders.to_learn(config, images)
    learned = images.take(rows)
    _check_size(config, coding, head_of(model))
    metres = builders.area_metres(coding.area)
    noise = Noise(keys.noise.metres / metres[0], keys.noise.metres / metres[1], keys.noise.degrees / 360.0)
    objective = positions_objective(
        coding,
        embed=of_descriptors(model) if config.maps.cached else of_images(model),
        images=len(rows),
        batch=config.batch,
        steps=config.steps_per_epoch,
        loss=keys.loss,
        options=keys.loss_options.to_dict(),
        noise=noise,
    )
    loss, _ = row_loss(coding, keys.loss, keys.loss_options.to_dict())
    return Learning(
        objective,
        elements=[learned],
        tables={"source": {AT: at}},
        validator=lambda benches, describer: validation(
            config, learned, benches, describer, loss, rests=config.maps.cached
        ),
        summary=_summary(coding, len(rows), metres, config.batch),
    )


def kept(
    config: ConfigDict, learning: Learning, sets: Sequence[Places], over: Mesh, benches: list[Benchmark]
) -> Recipe:
    """What the loop trains where descriptors are kept: the head alone, on descriptors that lie on the devices.

    The recipe is `ready` once the descriptors of its training and validation images are computed, or found.

    Raises:
      UserError: for a model or keys that descriptors cannot stand in for the images of.
    """
    builders.check_maps(config)
    shown = builders.shown(learning.elements or sets)
    assert isinstance(shown, Paths)
    images = Paths.concat([shown, *(bench.queries.path for bench in benches)])

    def made(found: Kept | None) -> Recipe:
        table, there = _table(config, shown, found)
        own = learning._replace(
            frozen=RESTS,
            sources=dict.fromkeys(learning.objective.streams, RowSource(shown, ~there)),
            tables={"source": {**(learning.tables or {})["source"], DESCRIPTOR: table}},
        )
        describer = builders.describer_of_kept(config, over, found) if found else None
        return complete(config, own, sets, over, benches, describer)

    return made(None)._replace(ready=lambda variables: made(builders.descriptors_kept(config, variables, images, over)))


def _table(config: ConfigDict, images: Paths, found: Kept | None) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors float32 [N, D] of images, and which have one; zeros of one row where nothing is kept yet."""
    if found is None:
        return np.zeros((1, builders.descriptor_size(config)), np.float32), np.ones(len(images), bool)
    return found.arrays(images)


def _check_size(config: ConfigDict, coding: Coding, head: PositionHead) -> None:
    if not isinstance(coding, Cells):
        return
    width = (head.layer_widths(builders.descriptor_size(config)) or (builders.descriptor_size(config),))[-1]
    needed = head_bytes(coding.numbers, width, config.batch)
    room = device_memory.limit()
    if needed.training > room:
        raise UserError(
            f"model.position_options.cells={coding.cells} makes {coding.numbers:,} classes: with Adam their layer "
            f"takes {4 * needed.layer:,} bytes, and outputs of batch={config.batch} {3 * needed.outputs:,}, of the "
            f"{room:,} that a device has. Take fewer cells, or a smaller area"
        )


def _summary(coding: Coding, images: int, metres: tuple[float, float], batch: int) -> str:
    classes = f", {coding.numbers:,} classes" if isinstance(coding, Cells) else ""
    return (
        f"positions of {images:,} images in {metres[0]:,.0f} x {metres[1]:,.0f} m{classes}; a pass takes "
        f"{-(-images // batch):,} batches"
    )
