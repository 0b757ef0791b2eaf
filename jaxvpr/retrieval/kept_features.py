"""Descriptors from features that are kept on disk (`data_pipelines.feature_store`): what a frozen backbone makes of an
image is computed once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.feature_store import FeatureStore, Kept
from data_pipelines.paths import Paths
from jaxvpr.models.features import Features
from jaxvpr.models.place_model import PlaceModel
from jaxvpr.parallel import hosts
from jaxvpr.retrieval.describer import Apply, Describer
from jaxvpr.retrieval.extract import Described

Array = np.ndarray
# What describes some images: (images, of how many in all) -> a row each.
Compute = Callable[[Paths, int], Described]


def keep(store: FeatureStore, compute: Compute, paths: Paths) -> Kept:
    """The rows of some images, after those that the store lacks were computed and added to it.

    All processes compute; the first one looks, and writes. A process that is killed loses a part at most.

    Returns:
      The same rows in every process. An image that cannot be read has none.
    """
    with store.held() if hosts.is_first() else nullcontext():
        found = hosts.first_then_others("looking for kept features", lambda: store.kept(paths))
        there = hosts.of_first(lambda: found.has(paths).astype(np.int32), (len(paths),))
        lacking = np.flatnonzero(there == 0)
        for start in range(0, len(lacking), store.part_rows):
            rows = lacking[start : start + store.part_rows]
            described = compute(paths.take(rows), len(lacking))
            present = np.delete(np.arange(len(rows)), described.missing)
            if hosts.is_first() and len(present):
                store.add(paths.take(rows[present]), described.descriptors[present])
    if not len(lacking):
        return found
    return hosts.first_then_others("reading kept features", lambda: store.kept(paths))


class KeptDescriber(Describer):
    """Describes images whose features are kept by what comes behind the backbone, and all others as `Describer` does.

    Args:
      rest: of `of_features`.
      kept: the images whose features are there.
      more: what a `Describer` takes.
    """

    def __init__(self, rest: Apply, kept: Kept, *more: Any, **options: Any):
        super().__init__(*more, **options)
        self._rest, self._kept = rest, kept

    def _described(
        self, in_order: Any, mixed: Any, variables: Any, images: Any, apply: Apply | None, batch: int
    ) -> Any:
        if apply is None and isinstance(images, Paths):
            images, apply = self._kept.source(images), self._rest
        return super()._described(in_order, mixed, variables, images, apply, batch)


@lru_cache(maxsize=16)
def of_images(model: PlaceModel) -> Apply:
    """(variables, images [B, H, W, 3]) -> float32 [B, numbers]: all that the backbone gives of an image, in a row."""

    def features(variables: Any, images: jax.Array) -> jax.Array:
        found = model.apply(variables, images, method="features")
        parts = [part.astype(jnp.float32) for part in found if part is not None]  # type: ignore[union-attr]
        return jnp.concatenate([part.reshape(len(images), -1) for part in parts], axis=1)

    return features


@lru_cache(maxsize=16)
def of_features(model: PlaceModel) -> Apply:
    """(variables, kept features of images) -> float32 [B, D], their descriptors; the same object for equal models."""

    def descriptors(variables: Any, shown: Any) -> Any:
        return model.apply(variables, Features.of(shown), method="of_features")

    return descriptors
