"""Perspective and rotation of uint8 RGB images, with the parameters of torchvision and an explicit generator.

What lies outside the image is black. Perspective interpolates, rotation takes the nearest pixel, as torchvision's
RandomPerspective and RandomRotation do by default.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_pipelines.images import Array, Size


def corners(full: Size) -> Array:
    """(x, y) of the corners of an image of `full` = (height, width): int64 [4, 2], clockwise from the top left."""
    right, bottom = full[1] - 1, full[0] - 1
    return np.array([(0, 0), (right, 0), (right, bottom), (0, bottom)])


def perspective(image: Array, ends: Array) -> Array:
    """Shows the image as a plane whose corners appear at `ends` (torchvision's `perspective` of Pillow's images).

    Args:
      image: uint8 [H, W, 3].
      ends: [4, 2], (x, y) in pixels to which the `corners` move. Where they do not move, this is the identity.

    Returns:
      uint8 [H, W, 3].
    """
    starts = corners((image.shape[0], image.shape[1]))
    if np.array_equal(starts, ends):
        return image
    picture = Image.fromarray(image)
    back = _homography(ends, starts).tolist()
    return np.array(picture.transform(picture.size, Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR))


def _homography(ends: Array, starts: Array) -> Array:
    """a to h of (x, y) -> (ax + by + c, dx + ey + f) / (gx + hy + 1), which takes the four `ends` to `starts`.

    Least squares, so that corners on one line, which no such map moves apart, still give an image.
    """
    equations = []
    for (x, y), (u, v) in zip(ends.tolist(), starts.tolist(), strict=True):
        equations += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    solved = np.linalg.lstsq(np.array(equations, np.float64), starts.ravel().astype(np.float64))[0]
    return solved.astype(np.float32)  # as torchvision rounds them


def perspective_ends(rng: np.random.Generator, full: Size, distortion: float) -> Array:
    """Where the corners of an image go (torchvision's RandomPerspective.get_params).

    Args:
      rng: draws an integer number of pixels for each coordinate of each corner.
      full: (height, width) of the image.
      distortion: 0 to 1; every corner moves inwards by at most this share of half the width and half the height.

    Returns:
      int64 [4, 2], for `perspective`.
    """
    reach = [int(distortion * (full[1] // 2)), int(distortion * (full[0] // 2))]
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    return corners(full) + inwards * rng.integers(0, reach, (4, 2), endpoint=True)


def random_perspective(image: Array, rng: np.random.Generator, distortion: float, probability: float = 0.5) -> Array:
    """With `probability`, uint8 [H, W, 3] seen from another side (torchvision's RandomPerspective).

    Draws the same amount of numbers whether it changes the image or not.
    """
    chosen, ends = rng.random() < probability, perspective_ends(rng, (image.shape[0], image.shape[1]), distortion)
    return perspective(image, ends) if chosen else image


def rotate(image: Array, degrees: float) -> Array:
    """Turns uint8 [H, W, 3] anticlockwise about its middle; the size stays (torchvision's `rotate`, exactly)."""
    return image if degrees % 360 == 0 else np.array(Image.fromarray(image).rotate(degrees))


def random_rotation(image: Array, rng: np.random.Generator, most: float) -> Array:
    """Rotated by an angle drawn evenly from [-most, most] degrees (torchvision's RandomRotation)."""
    return rotate(image, most * (2 * float(rng.random()) - 1))
