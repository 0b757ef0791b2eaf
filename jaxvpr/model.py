"""The Python interface: a trained model by name or file, and descriptors of images.

import jaxvpr
model = jaxvpr.load("runs/cosplace-city")
descriptors = model.describe(["a.jpg", "b.jpg"])        # float32 [2, D]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines import readers
from data_pipelines.places import Paths
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.parallel.mesh import make_mesh, replicated
from jaxvpr.runs import which

Images: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Sequence[np.ndarray] | np.ndarray"


class Model:
    """A model with its weights and its own preprocessing.

    Attributes:
      config: the recipe it comes from.
      variables: its weights, {"params", "batch_stats"}, on all devices: no call sends them again.
    """

    def __init__(self, config: ConfigDict, variables: Variables):
        # An image that cannot be read is an error here, even where the training passed over some. Worker processes
        # are for long runs; in a notebook or a script without a main guard they could not even start.
        self.config = config.copy_and_resolve_references()
        self.config.loader.on_error, self.config.loader.workers = "raise", 0
        self._mesh = make_mesh()
        self.variables = jax.device_put(variables, replicated(self._mesh))

    def describe(self, images: Images) -> np.ndarray:
        """Descriptors of images, with the preprocessing of the model's recipe.

        Args:
          images: one path or several; or uint8 RGB arrays, [H, W, 3] each (of any sizes) or [N, H, W, 3].

        Returns:
          float32 [N, D], of unit length but for methods that rank descriptors as they are (`model.l2_after`).

        Raises:
          UserError: no images, or an array of another shape or type.
          ImageError: a file that cannot be read.
        """
        items = [images] if isinstance(images, str | os.PathLike) else list(images)
        if not items:
            raise UserError("there are no images to describe")
        describes = builders.describer(self.config, self._mesh)
        if isinstance(items[0], np.ndarray):
            return describes(self.variables, [_image(item) for item in items]).descriptors
        return describes(self.variables, _paths(items)).descriptors


def _image(item: Any) -> np.ndarray:
    if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3 or not item.size:
        raise UserError(f"an image has shape {item.shape} and type {item.dtype}; expected uint8 [H, W, 3] RGB")
    return item


def _paths(items: Any) -> Paths:
    return Paths.of([str(Path(item).resolve()) for item in items])


def load(
    name_or_file: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> Model:
    """Loads a model.

    Args:
      name_or_file: the folder of a run, a `model.safetensors` that a run wrote, a published method and its file of
        weights (`megaloc:FILE`), a recipe whose weights to start from are given: `configs/squeezenet.py,init=FILE`, or
        one that names its own: `imagenet`, whose clusters are those of `images`, and `imagenet:gem`, which needs none.
      images: a folder, or paths, of what clusters are made of that no file gives: of the places to be found.

    Raises:
      UserError: where it does not exist, or has no weights.
    """
    if images is None:
        return Model(*which.named(name_or_file))
    if isinstance(images, str | os.PathLike):
        return Model(*which.named(name_or_file, partial(readers.folder.paths, images)))
    return Model(*which.named(name_or_file, partial(_paths, images)))
