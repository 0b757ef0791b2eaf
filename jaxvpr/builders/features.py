"""What the frozen part of a recipe's model makes of images, kept on disk (`data_pipelines.feature_store`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import common
from data_pipelines import digests
from data_pipelines.feature_store import FeatureStore, Kept, Shapes
from data_pipelines.paths import Paths
from jaxvpr.builders.network import apply, blank, describer, describing, descriptor_size, model, shapes
from jaxvpr.errors import UserError
from jaxvpr.models import Variables, depends_on_batch
from jaxvpr.retrieval import kept_features
from jaxvpr.retrieval.extract import Described
from jaxvpr.retrieval.kept_features import KeptDescriber

DESCRIPTOR = "descriptor"  # the array of a row of kept descriptors
VERSION = 1  # of what is computed; another one lets what lies on disk be


def check_maps(config: ConfigDict) -> None:
    """Raises UserError for a model or a preprocessing whose features cannot be kept."""
    module, size = model(config), config.image.size
    if depends_on_batch(module):
        raise UserError(
            "maps.cached=True describes images one by one, but this model's descriptors depend on the other images of "
            "a batch; set model.aggregator_options.cross_image=false, or maps.cached=false"
        )
    if module.sequence is not None or getattr(module.backbone, "takes_clips", False):
        raise UserError("maps.cached=True is for models of images; set model.sequence='', or maps.cached=false")
    if not size:
        raise UserError("maps.cached=True needs images of one size: set image.size=HEIGHT,WIDTH, or maps.cached=false")
    if config.augment != common.base().augment:
        raise UserError(
            "maps.cached=True keeps the features of images as they are, so that nothing of config.augment would happen "
            "to them: set it to its defaults, and maps.crop for random crops of the maps"
        )


def resting(config: ConfigDict) -> tuple[str, ...]:
    """Patterns of the parameters that do not train where features are kept, those that an aggregator itself freezes
    among them."""
    module = model(config)
    before = ("^backbone/", "^non_local/") if module.non_local is not None else ("^backbone/",)
    return (*before, *(path for path in module.frozen_paths() if not path.startswith(before)))


def map_shapes(config: ConfigDict) -> Shapes:
    """{name: shape} of what the backbone gives of an image."""
    found = jax.eval_shape(
        lambda variables, images: model(config).apply(variables, images, method="features"), shapes(config),
        jax.ShapeDtypeStruct(blank(config).shape, np.uint8),
    )  # fmt: skip
    return {name: part.shape[1:] for name, part in found._asdict().items() if part is not None}


def maps_kept(config: ConfigDict, variables: Variables, paths: Paths, over: Mesh) -> Kept:
    """The features of some images by the recipe's backbone, computed where they are not on disk yet.

    Raises:
      UserError, ImageError: as describing images does.
    """
    keys = ("backbone", "backbone_options", "non_local", "dtype", "precision")
    key = _key(config, variables, "features", lambda part: part in ("backbone", "non_local"), keys)
    store = FeatureStore(config.maps.folder, key, map_shapes(config))
    describes, features = describer(config, over), kept_features.of_images(model(config))

    def compute(some: Paths, of_all: int) -> Described:
        return describes(variables, some, features, sized_for=of_all)

    return kept_features.keep(store, compute, paths)


def descriptors_kept(config: ConfigDict, variables: Variables, paths: Paths, over: Mesh) -> Kept:
    """The descriptors of some images by the recipe's model, computed where they are not on disk yet; float32, as the
    model gives them. A head for positions behind it decides none of them.

    Raises:
      UserError, ImageError: as describing images does.
    """
    keys = [name for name in config.model if not name.startswith("position")]
    key = _key(config, variables, "descriptors", lambda part: part != "position", keys)
    store = FeatureStore(config.maps.folder, key, {DESCRIPTOR: (descriptor_size(config),)}, "float32")
    describes = describer(config, over)

    def compute(some: Paths, of_all: int) -> Described:
        return describes(variables, some, sized_for=of_all)

    return kept_features.keep(store, compute, paths)


def describer_of_kept(config: ConfigDict, over: Mesh, kept: Kept) -> KeptDescriber:
    """As `describer`, for images whose descriptors are kept."""
    return KeptDescriber(_as_kept, kept, apply(config), over, **describing(config))


def _as_kept(variables: Variables, shown: jax.Array) -> jax.Array:
    return shown


def _key(
    config: ConfigDict, variables: Variables, of: str, decides: Callable[[str], bool], keys: Iterable[str]
) -> dict[str, Any]:
    """What decides kept arrays but the image: the weights of the parts that decide them, keys of the model, and how
    images become its input."""
    own = {path: leaf for path, leaf in flatten_dict(dict(variables), sep="/").items() if decides(path.split("/")[1])}
    return {
        "of": of,
        "version": VERSION,
        "weights": digests.of_arrays(np.asarray(own[path]) for path in sorted(own)),
        "model": {name: value for name, value in config.model.to_dict().items() if name in keys},
        "image": config.image.to_dict(),
    }


def kept_describer(config: ConfigDict, over: Mesh, kept: Kept) -> KeptDescriber:
    """As `describer`, for images whose features are kept."""
    module = model(config)
    return KeptDescriber(kept_features.of_features(module), kept, apply(config), over, **describing(config))
