"""Raw thumbnails as descriptors: what a recall must beat before a network has shown anything."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

HEIGHT, WIDTH = 24, 32
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, what OpenCV and Pillow call grey


def thumbnail(variables: Any, images: Any, sampling: Literal["nearest", "area"] = "nearest") -> Any:
    """Grey thumbnails of 32 x 24, mean removed and L2-normalised; pass it to `extract.describe` as `apply`.

    Single pixels are kept by default, not averages: on Nordland's 64 x 32 frames that is the stronger baseline (R@1
    11.8 against 9.4) and the one that figures elsewhere were taken with.

    An image of one colour has nothing left when its mean is removed. It gets the constant unit vector, which has cosine
    0 with every other thumbnail: a zero vector would be nearer to all than a stranger is.

    Args:
      variables: not used; a thumbnail has no parameters.
      images: [B, H, W, 3] in [0, 255], uint8 or float.
      sampling: 'nearest' takes every n-th pixel, 'area' the mean of the pixels that a pixel of the thumbnail covers.

    Returns:
      float32 [B, 768].
    """
    grey = jnp.einsum("bhwc,c->bhw", images.astype(jnp.float32), jnp.asarray(GREY, jnp.float32))
    weights = {"nearest": nearest_weights, "area": area_weights}[sampling]
    down, across = weights(images.shape[1], HEIGHT), weights(images.shape[2], WIDTH)
    small = jnp.einsum("yh,bhw,xw->byx", down, grey, across, precision="highest").reshape(len(images), -1)
    centred = small - small.mean(axis=1, keepdims=True)
    length = jnp.linalg.norm(centred, axis=1, keepdims=True)
    flat = jnp.full_like(centred, (HEIGHT * WIDTH) ** -0.5)
    # Rounding of the resampling leaves up to some 1e-4 of 255 where nothing should be.
    return jnp.where(length > 1e-2, centred / jnp.maximum(length, 1e-2), flat)


def nearest_weights(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: each row picks the source pixel at floor(i * source / target), as OpenCV does."""
    picked = np.arange(target) * source // target
    return (picked[:, None] == np.arange(source)).astype(np.float32)


def area_weights(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: each row averages the source pixels that one target pixel covers (area resampling)."""
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0, None) * target / source).astype(np.float32)
