"""RandAugment (Cubuk et al., 2020) of uint8 RGB images as torchvision has it for Pillow's images, which GSV-Cities,
MixVPR, SALAD and BoQ train with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from data_pipelines.images import Array

Picture = Image.Image
STRONGEST = 30


class Operation(NamedTuple):
    """A change of an image.

    Attributes:
      apply: (image, strength) -> image of the same size.
      strength: (magnitude in [0, 1], (width, height)) -> the strength that `apply` takes.
      signed: the strength counts for either direction.
    """

    apply: Callable[[Picture, float], Picture]
    strength: Callable[[float, tuple[int, int]], float] = lambda share, size: 0.0
    signed: bool = False


def _affine(image: Picture, matrix: tuple[float, ...], filtered: bool = True) -> Picture:
    """The image read at `matrix` (x, y, 1); black where that lies outside."""
    rule = Image.Resampling.BILINEAR if filtered else Image.Resampling.NEAREST
    return image.transform(image.size, Image.Transform.AFFINE, matrix, rule)


def _along(name: str, apply: Callable[[Picture, float], Picture], most: float) -> dict[str, Operation]:
    return {name: Operation(apply, lambda share, size: most * share, signed=True)}


def _enhanced(name: str, kind: Callable[[Picture], Any]) -> dict[str, Operation]:
    """Blends with black, grey, the mean or a smooth image, with the factor 1 + strength."""
    return _along(name, lambda image, strength: kind(image).enhance(1 + strength), 0.9)


# A shift by an integer number of pixels needs no filter, and is ten times as fast without.
SHIFT = 150 / 331
OPERATIONS: dict[str, Operation] = {
    "Identity": Operation(lambda image, strength: image),
    **_along("ShearX", lambda image, slope: _affine(image, (1, slope, 0, 0, 1, 0)), 0.3),
    **_along("ShearY", lambda image, slope: _affine(image, (1, 0, 0, slope, 1, 0)), 0.3),
    "TranslateX": Operation(
        lambda image, pixels: _affine(image, (1, 0, -int(pixels), 0, 1, 0), filtered=False),
        lambda share, size: SHIFT * size[0] * share,
        signed=True,
    ),
    "TranslateY": Operation(
        lambda image, pixels: _affine(image, (1, 0, 0, 0, 1, -int(pixels)), filtered=False),
        lambda share, size: SHIFT * size[1] * share,
        signed=True,
    ),
    **_along("Rotate", lambda image, degrees: image.rotate(degrees, Image.Resampling.BILINEAR), 30.0),
    **_enhanced("Brightness", ImageEnhance.Brightness),
    **_enhanced("Color", ImageEnhance.Color),
    **_enhanced("Contrast", ImageEnhance.Contrast),
    **_enhanced("Sharpness", ImageEnhance.Sharpness),
    "Posterize": Operation(
        lambda image, bits: ImageOps.posterize(image, int(bits)), lambda share, size: 8 - round(4 * share)
    ),
    # A threshold between two colours is the upper one; rounded, since 255 * (1 - 1/3) is a little above 170.
    "Solarize": Operation(
        lambda image, least: ImageOps.solarize(image, int(least)),
        lambda share, size: math.ceil(round(255 * (1 - share), 6)),
    ),
    "AutoContrast": Operation(lambda image, strength: ImageOps.autocontrast(image)),
    "Equalize": Operation(lambda image, strength: ImageOps.equalize(image)),
}
NAMES = tuple(OPERATIONS)


def rand_augment(image: Array, rng: np.random.Generator, count: int, magnitude: int = 9) -> Array:
    """Applies `count` of `OPERATIONS`, drawn evenly and one after the other, each time in a random direction.

    Args:
      image: uint8 [H, W, 3] RGB.
      rng: draws the same amount of numbers whichever operations they are.
      count: torchvision's `num_ops`; 0 is the identity.
      magnitude: of all operations that have one, 0 (none) to 30. "AutoContrast" and "Equalize" have none, and
        "Solarize" turns full white black even at 0.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ValueError: for a count or a magnitude outside its range.
    """
    if count < 0 or not 0 <= magnitude <= STRONGEST:
        raise ValueError(
            f"randaugment={count} of magnitude={magnitude}: expected 0 operations or more, of 0 to {STRONGEST}"
        )
    if not count:
        return image
    picture = Image.fromarray(image)
    for index, direction in zip(rng.integers(len(NAMES), size=count), rng.choice((-1, 1), count), strict=True):
        operation = OPERATIONS[NAMES[index]]
        strength = operation.strength(magnitude / STRONGEST, picture.size)
        picture = operation.apply(picture, float(direction) * strength if operation.signed else strength)
    return np.array(picture)
