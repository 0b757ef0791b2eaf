"""Heads on cached feature maps: any family of images, whose backbone stands still and describes each image once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.clips import Clips
from data_pipelines.feature_store import FeatureSource, Kept
from data_pipelines.paths import Paths
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning, complete
from jaxvpr.models import Features, Variables
from jaxvpr.objectives.objective import Embedding
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.training.recipe import Recipe


def recipe(
    config: ConfigDict, learning: Learning, sets: Sequence[Places], over: Mesh, validation: list[Benchmark]
) -> Recipe:
    """What the loop trains: the family's objective on features of its images in their place.

    The recipe is `ready` once the features of its training and validation images are computed, or found.

    Raises:
      UserError: for a family, a model or keys that features cannot stand in for the images of.
    """
    builders.check_maps(config)
    if learning.model or learning.objective.embed or config.domain.method:
        what = f"domain.method={config.domain.method!r}" if config.domain.method else config.objective.name
        raise UserError(
            f"maps.cached=True serves objectives that compare descriptors of images alone, such as places, cells and "
            f"mined_triplets; {what} looks at the images themselves. Set maps.cached=false"
        )
    shown = builders.shown(learning.elements or sets)
    if isinstance(shown, Clips):
        raise UserError("maps.cached=True is for images, and a data set has clips; set its clips.length=0")
    embed = embed_features(builders.model(config))
    own = learning._replace(
        objective=learning.objective.embedding_by(embed),
        frozen=builders.resting(config),
    )
    images = Paths.concat([shown, *(part.path for bench in validation for part in (bench.database, bench.queries))])
    made = partial(_made, config, own, sets, over, validation, shown)
    return made(None)._replace(ready=lambda variables: made(builders.maps_kept(config, variables, images, over)))


def _made(
    config: ConfigDict,
    learning: Learning,
    sets: Sequence[Places],
    over: Mesh,
    validation: list[Benchmark],
    images: Paths,
    kept: Kept | None,
) -> Recipe:
    """The recipe with what is kept; with nothing, its sources give zeros."""
    if kept:
        source = kept.source(images, config.maps.crop)
    else:
        none = np.full(len(images), -1)
        source = FeatureSource(None, images, none, config.maps.crop, builders.map_shapes(config))
    describer = builders.kept_describer(config, over, kept) if kept else None
    own = learning._replace(sources=dict.fromkeys(learning.objective.streams, source))
    return complete(config, own, sets, over, validation, describer)


def embed_features(model: Any) -> Embedding:
    """The `embed` of objectives of single images, of their features `map` and `token` in place of them."""

    def embed(params, stats, aux, batch, key):
        variables = {"params": params, "batch_stats": stats}
        shown: Variables = {name: x for name, x in batch.items() if name in Features._fields}
        descriptors, updated = model.apply(
            variables, Features.of(shown), train=True, mutable=["batch_stats"], rngs={"dropout": key},
            method="of_features",
        )  # fmt: skip
        return descriptors, updated.get("batch_stats", stats)

    return embed
