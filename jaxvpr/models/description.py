"""What a published method is described by: its model, the preprocessing of images, the names of its weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxvpr.models.place_model import IMAGENET_MEAN, IMAGENET_STD


class Preprocess(NamedTuple):
    """How an image becomes the input of a model; plain data, so that it travels with the weights.

    Attributes:
      size: (height, width) in pixels; empty keeps each image's own size.
      resize: rule. Those of `data_pipelines.images.RULES` run on the host and round to integers; those that begin
        with "tensor_" run on the device, on real numbers, as originals do that resize after the conversion to a tensor.
        The order of resizing and normalisation changes nothing but rounding: the weights of a filter sum to one.
      multiple: the sides are rounded to the nearest multiple of this many pixels.
      crop: instead the image is resized to `size` as it is, or keeps its own, and its middle is cut out: the largest
        multiples that fit.
      mean, std: of the three colours of images in [0, 1].
    """

    size: tuple[int, ...]
    resize: str = "pil_bilinear"
    multiple: int = 1
    crop: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


class Description(NamedTuple):
    """A method.

    Attributes:
      model: keyword arguments of `models.join`.
      preprocess: as published, for evaluation.
      family: key of `weights.FAMILIES` under whose names the original's file is read and written.
      frames: of the clips that it was published for; 0 for images. Most take clips of other lengths too.
    """

    model: Mapping[str, Any]
    preprocess: Preprocess
    family: str
    frames: int = 0
