"""The model of a recipe, its variables and its inputs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.loaders import loading_options
from data_pipelines.shapes import common_size
from jaxvpr import models
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.sequence_search import Score
from jaxvpr.retrieval.where import Where


def model(config: ConfigDict) -> models.PlaceModel:
    """The model of a recipe."""
    options = config.model.to_dict()
    try:
        colours = tuple(config.image.mean), tuple(config.image.std)
        return models.join(**options, mean=colours[0], std=colours[1], train_precision=config.train_precision)
    except (ValueError, TypeError) as error:
        raise UserError(f"config.model: {error}") from error


def shapes(config: ConfigDict) -> Variables:
    """Shapes and types of the model's variables; nothing is computed.

    Raises:
      UserError: for options of the model or an image size that do not fit together.
    """
    try:
        return dict(_shapes_of(model(config), blank(config).shape))
    except UserError:
        raise
    except ArithmeticError as error:
        raise UserError(f"config.model: a size of 0 makes no layer ({error}): {config.model.to_dict()}") from error
    except (ValueError, TypeError) as error:
        own = "" if config.image.size else ". Images keep their own size here: give config.image.size or image.multiple"
        raise UserError(f"config.model: {error}{own}") from error


def fresh_variables(config: ConfigDict) -> Variables:
    """Randomly initialised variables of the recipe's model; traceable, so that `eval_shape` gives their shapes."""
    made = model(config).init(jax.random.key(config.seed), blank(config))
    return {"params": made["params"], "batch_stats": made.get("batch_stats", {})}


def image_size(config: ConfigDict) -> tuple[int, int]:
    """(height, width) the model is shown images at; where they keep their own size, one that stands for them all."""
    return common_size(config.image.size, config.image.multiple, config.image.crop)


def blank(config: ConfigDict) -> np.ndarray:
    """An input of the model, to initialise it with: an image, or a clip of `models.clip_length` frames."""
    frames = models.clip_length(model(config))
    return np.zeros((1, *(frames,) * bool(frames), *image_size(config), 3), np.uint8)


def clip_length(config: ConfigDict) -> int:
    """How many frames the clips have that a recipe's model is for: those of its training, of its first test, of its
    method, that its head wants; 0 for a model of images."""
    least = models.clip_length(model(config))
    specs = config.train_data, *config.more_train_data.values(), *config.test_data.values()
    cut = [spec.clips.length for spec in specs if "clips" in spec]
    published = models.description(config.method).frames if config.method else 0
    return least and next(filter(None, (*cut, published)), least)


def mesh(config: ConfigDict) -> Mesh:
    """The mesh of a recipe, over all devices there are."""
    try:
        return make_mesh(config.mesh.model)
    except ValueError as error:
        raise UserError(str(error)) from error


def apply(config: ConfigDict) -> Any:
    """(variables, images) -> descriptors, in evaluation mode."""
    return _apply_of(model(config))


def descriptor_size(config: ConfigDict, frames: int | None = None) -> int:
    """How many numbers a descriptor of the recipe's model has.

    Args:
      frames: of a clip of so many, since some are longer for longer clips; 0: of an image. None: of `blank`.

    Raises:
      UserError: as `shapes`. ValueError: for a model that does not take such clips.
    """
    clip = () if frames is None else (1, *(frames,) * bool(frames), *image_size(config), 3)
    shown = jax.ShapeDtypeStruct(clip or blank(config).shape, np.uint8)
    return jax.eval_shape(apply(config), shapes(config), shown).shape[-1]


def describer(config: ConfigDict, over: Mesh) -> Describer:
    """What turns images into descriptors as the recipe's model and preprocessing have it."""
    module = model(config)
    return Describer(_apply_of(module), over, **describing(config), depends_on_batch=models.depends_on_batch(module))


def describing(config: ConfigDict) -> dict[str, Any]:
    """The recipe's share of what a `Describer` takes: preprocessing, batch, and how images are read."""
    return {
        "preprocess": models.Preprocess(**config.image),
        "batch": config.eval.batch,
        "loading": loading_options(config.loader),
        "on_error": config.loader.on_error,
    }


def where(config: ConfigDict) -> Where:
    """Where the descriptors of a database lie while they are searched."""
    return Where(config.eval.search, config.eval.host_mib)


def score(config: ConfigDict) -> Score:
    """How clips are compared. Recipes that were saved before these keys came to be lack them."""
    return Score(**config.eval.get("sequence", {}))


@lru_cache(maxsize=64)
def _shapes_of(module: models.PlaceModel, images: tuple[int, ...]) -> Variables:
    # A run asks several times, and the runs of a sweep have the same few models.
    made = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(images, np.uint8))
    return {"params": made["params"], "batch_stats": made.get("batch_stats", {})}


@lru_cache(maxsize=16)
def _apply_of(module: models.PlaceModel) -> Any:
    # The same object for equal models: what is compiled for validation serves the final measurement too.
    return module.apply
