"""Resizing on the device, on real numbers, as originals do that resize after the conversion to a tensor.

Each axis is a product with a matrix of weights that only depends on the two sizes, so it is made once, on the host.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

Filter = Callable[[np.ndarray], np.ndarray]


def triangle(x: np.ndarray) -> np.ndarray:
    """The linear filter, of support 1."""
    return np.clip(1 - np.abs(x), 0, None)


def cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' cubic filter, of support 2; torch takes a = -0.5 with antialias, as Pillow does, and -0.75 without."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


# rule -> (filter, its support in pixels, whether it widens when shrinking)
RULES: dict[str, tuple[Filter, int, bool]] = {
    "tensor_linear": (triangle, 1, False),
    "tensor_linear_antialias": (triangle, 1, True),
    "tensor_bicubic_antialias": (cubic, 2, True),
}


def resize(
    images: jax.Array, size: tuple[int, int], rule: str, part: tuple[slice, slice] = (slice(None), slice(None))
) -> jax.Array:
    """Squashes images to a size, without rounding to integers or clipping the overshoot of a cubic filter.

    Equals `torch.nn.functional.interpolate(images, size, mode=..., align_corners=False, antialias=...)` with mode
    "bilinear" or "bicubic", which torchvision's `resize` of a float tensor calls. Normalising before or after gives the
    same, but for rounding: the weights of each pixel sum to one.

    Args:
      images: [B, H, W, C], uint8 or floating point.
      size: (height, width) in pixels.
      rule: a key of `RULES`.
      part: rows and columns of the result that are wanted; the others are not computed.

    Returns:
      float32 [B, height, width, C], or that part of it; the images' own numbers where they have this size.

    Raises:
      ValueError: for an unknown rule; lists those that exist.
    """
    if rule not in RULES:
        raise ValueError(f"no rule {rule!r} for resizing on the device; there are {', '.join(RULES)}")
    images = images.astype(jnp.float32)
    (height, width), (tall, wide) = images.shape[1:3], size
    rows_first = tall * width * (height + wide) <= wide * height * (width + tall)
    for axis in (0, 1) if rows_first else (1, 0):
        if images.shape[1 + axis] == size[axis]:
            images = images[:, part[0]] if axis == 0 else images[:, :, part[1]]
        else:
            matrix = weights(images.shape[1 + axis], size[axis], rule)[part[axis]]
            product = ("yh,bhwc->bywc", "xw,bhwc->bhxc")[axis]
            images = jnp.einsum(product, matrix, images, precision=jax.lax.Precision.HIGHEST)
    return images


@lru_cache(maxsize=256)
def weights(source: int, target: int, rule: str) -> np.ndarray:
    """float32 [target, source]: weights of the source's pixels in each of the target's; each row sums to one."""
    kernel, support, antialias = RULES[rule]
    one, half, pixel = np.float32(1), np.float32(0.5), np.arange(source, dtype=np.float32)[None, :]
    # Positions are float32 because torch's are: in a photo of 4,000 pixels the rounding is worth 1/4000 of a pixel.
    scale = np.float32(source) / np.float32(target)
    widened = max(scale, one) if antialias else one
    centre = (np.arange(target, dtype=np.float32)[:, None] + half) * scale
    if antialias:
        offset = pixel - centre + half
    else:  # beyond the border the first and the last pixel are repeated
        offset = pixel - np.clip(centre - half, 0, np.float32(source - 1))
    taken = kernel(offset * (one / widened)) * (np.abs(offset) < support * widened)
    matrix = (taken / taken.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.flags.writeable = False  # one array for all callers
    return matrix
