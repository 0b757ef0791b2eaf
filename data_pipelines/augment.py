"""Random crops and colours of uint8 RGB images, with the parameters of torchvision and an explicit generator.

Brightness, contrast and saturation are affine maps of a pixel's colour, so each is one call of `cv2.transform`, which
rounds and saturates to 0..255. Hue turns in OpenCV's 8-bit HSV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from data_pipelines.images import Array, Size, resize
from data_pipelines.randaugment import rand_augment
from data_pipelines.warps import random_perspective, random_rotation

GREY = np.array([0.2989, 0.587, 0.114])  # torchvision.transforms.functional.rgb_to_grayscale
EYE, TO_GREY = np.eye(3), np.tile(GREY, (3, 1))
Strength = float | tuple[float, float]
Box = tuple[int, int, int, int]  # top, left, height, width
ERASED = (0.02, 0.33), (0.3, 3.3)  # ranges of an erased box's share of the area, and of its ratio
MOST = {  # of the keys of `Augment` that are one number, with its unit
    "flip": (1, ""),
    "perspective": (1, ""),
    "rotation": (180, " degrees"),
    "grey": (1, ""),
    "blur": (30, " pixels"),
    "erasing": (1, ""),
}


def adjust_brightness(image: Array, factor: float) -> Array:
    """`factor` * image, saturated; 0 is black, 1 the identity."""
    return image if factor == 1 else cv2.transform(image, EYE * factor)


def adjust_contrast(image: Array, factor: float) -> Array:
    """Blends with the image's mean grey: `factor` 0 is that grey everywhere, 1 the identity."""
    if factor == 1:
        return image
    mean = float(GREY @ np.array(cv2.mean(image)[:3]))
    return cv2.transform(image, np.hstack([EYE * factor, np.full((3, 1), (1 - factor) * mean)]))


def adjust_saturation(image: Array, factor: float) -> Array:
    """Blends with the grey of each pixel: `factor` 0 is a grey image, 1 the identity."""
    return image if factor == 1 else cv2.transform(image, EYE * factor + TO_GREY * (1 - factor))


def adjust_hue(image: Array, turns: float) -> Array:
    """Turns the hue by `turns` of the colour circle (0 is the identity, 0.5 the opposite colour)."""
    shift = round(turns * 256) % 256
    if not shift:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(shift)  # wraps round: the circle has 256 steps
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def color_jitter(
    image: Array,
    rng: np.random.Generator,
    brightness: Strength = 0,
    contrast: Strength = 0,
    saturation: Strength = 0,
    hue: Strength = 0,
) -> Array:
    """Random brightness, contrast, saturation and hue, in random order (torchvision's ColorJitter).

    Args:
      image: uint8 [H, W, 3] RGB.
      rng: draws the same amount of numbers whatever the strengths are.
      brightness, contrast, saturation: strength s draws a factor from [max(0, 1 - s), 1 + s]; a pair is the range.
      hue: strength s <= 0.5 draws a turn from [-s, s]; a pair is the range.

    Raises:
      ValueError: for a strength or range out of bounds.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    ranges = [_range(name, strength) for name, strength in strengths.items()]
    order, unit = rng.permutation(4), rng.random(4)
    for index in order:
        low, high = ranges[index]
        image = ADJUSTMENTS[index](image, low + (high - low) * float(unit[index]))
    return image


def _range(name: str, strength: Strength) -> tuple[float, float]:
    centre, least, most = (0.0, -0.5, 0.5) if name == "hue" else (1.0, 0.0, math.inf)
    if isinstance(strength, tuple):
        low, high = strength
    else:
        low, high = max(centre - strength, least) if name != "hue" else -strength, centre + strength
    if not least <= low <= high <= most:
        raise ValueError(f"{name}={strength}: expected a strength of at least 0 or a range within [{least}, {most}]")
    return low, high


def crop_box(
    rng: np.random.Generator, full: Size, scale: tuple[float, float], ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Box:
    """A random box of an image (torchvision's RandomResizedCrop.get_params).

    Args:
      rng: ten tries are drawn, one after the other, until one fits.
      full: (height, width) of the image.
      scale: range of the box's share of the area.
      ratio: range of its width over its height; drawn evenly in the logarithm.

    Returns:
      (top, left, height, width). Where no try fits: the largest box in the middle whose ratio is in range.
    """
    height, width = full
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    h = min(height, max(1, round(width / ratio[0])))
    w = min(width, max(1, round(height * ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def crop_resize(image: Array, box: Box, size: Size, rule: str) -> Array:
    """Cuts `box` = (top, left, height, width) and resizes it to `size` by `rule` of `images.RULES`."""
    top, left, height, width = box
    return resize(image[top : top + height, left : left + width], size, rule)


def random_blur(image: Array, rng: np.random.Generator, most: float, probability: float = 0.5) -> Array:
    """With `probability`, blurred by a Gaussian whose standard deviation is drawn evenly from 0.1 to `most` pixels."""
    chosen, sigma = rng.random() < probability, rng.uniform(min(0.1, most), most)
    return cv2.GaussianBlur(image, (0, 0), sigma) if chosen else image


def random_erasing(image: Array, rng: np.random.Generator, probability: float) -> Array:
    """With `probability`, a box of the image's mean colour, of the areas and ratios of torchvision's RandomErasing."""
    chosen, box = rng.random() < probability, crop_box(rng, (image.shape[0], image.shape[1]), *ERASED)
    if not chosen:
        return image
    top, left, height, width = box
    erased = image.copy()
    erased[top : top + height, left : left + width] = np.rint(cv2.mean(image)[:3])
    return erased


@dataclass(frozen=True)
class Augment:
    """Random changes of one image; picklable, so that it travels to workers.

    The order is crop, flip, colours, RandAugment, rotation, grey, blur, erasing. With perspective the colours come
    first of all, then perspective and crop, as the Deep VG benchmark changes its queries (Berton et al., 2022): what
    perspective leaves black stays black. Without it no pixel outside the crop is needed, so that colours cost as little
    as they can. What is 0 draws no random number, but for colours and flip.

    Attributes:
      brightness, contrast, saturation, hue: see `color_jitter`.
      scale, ratio: see `crop_box`; scale None keeps the full image.
      flip: probability of mirroring left and right (a mirrored street is another street: 0 for place recognition).
      randaugment, magnitude: count of operations and their magnitude, see `rand_augment`.
      perspective: distortion of every second image, see `warps.perspective_ends`.
      rotation: the most degrees, see `warps.random_rotation`.
      grey: probability of an image without colours.
      blur: the most pixels, of every second image, see `random_blur`.
      erasing: probability of a box without content, see `random_erasing`.
      one_of: an image has either the colours or the blur, each with half the probability; never both.

    Raises:
      ValueError: for a value out of range; names both.
    """

    brightness: Strength = 0
    contrast: Strength = 0
    saturation: Strength = 0
    hue: Strength = 0
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    randaugment: int = 0
    magnitude: int = 9
    perspective: float = 0.0
    rotation: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    erasing: float = 0.0
    one_of: bool = False

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation", "hue"):
            _range(name, getattr(self, name))
        for name, (most, unit) in MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 to {most}{unit}")
        if self.one_of and self.perspective:
            raise ValueError("one_of=True chooses after the crop, and with perspective the colours come before it")
        _check_pair("scale", (1.0, 1.0) if self.scale is None else self.scale, 1)
        _check_pair("ratio", self.ratio, math.inf)

    def __call__(self, image: Array, rng: np.random.Generator, size: Size, rule: str) -> Array:
        """uint8 [H, W, 3] to uint8 [*size, 3]."""
        box = self.box(rng, (image.shape[0], image.shape[1]))
        return self.finish(crop_resize(self.begin(image, rng), box, size, rule), rng)

    def box(self, rng: np.random.Generator, full: Size) -> Box:
        """The part to keep of an image of `full` = (height, width); known before a pixel is decoded."""
        return (0, 0, *full) if self.scale is None else crop_box(rng, full, self.scale, self.ratio)

    def begin(self, image: Array, rng: np.random.Generator) -> Array:
        """What needs the full image, before the crop: the colours and perspective where there is perspective."""
        return random_perspective(self._colours(image, rng), rng, self.perspective) if self.perspective else image

    def finish(self, image: Array, rng: np.random.Generator) -> Array:
        """The changes after the crop."""
        if rng.random() < self.flip:
            image = np.ascontiguousarray(image[:, ::-1])
        blurred = self.one_of and rng.random() < 0.5
        if not self.perspective and not blurred:
            image = self._colours(image, rng)
        image = rand_augment(image, rng, self.randaugment, self.magnitude)
        image = random_rotation(image, rng, self.rotation) if self.rotation else image
        image = adjust_saturation(image, 0) if self.grey and rng.random() < self.grey else image
        if self.blur and (blurred or not self.one_of):
            image = random_blur(image, rng, self.blur, 1.0 if blurred else 0.5)
        return random_erasing(image, rng, self.erasing) if self.erasing else image

    def _colours(self, image: Array, rng: np.random.Generator) -> Array:
        return color_jitter(image, rng, self.brightness, self.contrast, self.saturation, self.hue)


def _check_pair(name: str, pair: tuple[float, ...], most: float) -> None:
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
        upper = "" if most == math.inf else f" up to {most}"
        raise ValueError(f"{name}={pair}: expected two numbers above 0{upper}, the smaller one first")
