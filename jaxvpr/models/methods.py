"""Published methods as data: backbone, aggregator, preprocessing, and whose names the weights have."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxvpr.models.place_model import IMAGENET_MEAN, IMAGENET_STD


class Preprocess(NamedTuple):
    """How an image becomes the input of a model; plain data, so that it travels with the weights.

    Attributes:
      size: (height, width) in pixels; empty keeps each image's own size.
      resize: rule. Those of `data_pipelines.images.RULES` run on the host and round to whole colours; those that begin
        with "tensor_" run on the device, on real numbers, as originals do that resize after the conversion to a tensor.
        The order of resizing and normalisation changes nothing but rounding: the weights of a filter sum to one.
      multiple: the sides are rounded to the nearest multiple of this many pixels.
      mean, std: of the three colours of images in [0, 1].
    """

    size: tuple[int, ...]
    resize: str = "pil_bilinear"
    multiple: int = 1
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


class Description(NamedTuple):
    """A method.

    Attributes:
      model: keyword arguments of `models.join`.
      preprocess: as published, for evaluation.
      family: key of `weights.FAMILIES` under whose names the original's file is read and written.
    """

    model: Mapping[str, Any]
    preprocess: Preprocess
    family: str


def _cosplace(backbone: str, dim: int) -> Description:
    model = {"backbone": backbone, "aggregator": "cosplace", "aggregator_options": {"dim": dim}}
    return Description(model, Preprocess((512, 512), "tensor_linear_antialias"), "cosplace")


METHODS: dict[str, Description] = {
    **{
        f"cosplace-{backbone}-{dim}": _cosplace(backbone, dim)
        for backbone, dims in {"resnet18": (32, 64, 128, 256, 512)}.items()
        for dim in dims
    },
}
