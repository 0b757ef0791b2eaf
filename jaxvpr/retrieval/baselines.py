"""Raw thumbnails as descriptors: a baseline that a trained network must beat."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

HEIGHT, WIDTH = 24, 32
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, what OpenCV and Pillow call grey


def thumbnail(variables: Any, images: Any) -> Any:
    """Grey thumbnails of 32 x 24, mean removed and L2-normalised; pass it to `extract.describe` as `apply`.

    Every n-th pixel is kept, not averages: on Nordland's 64 x 32 frames that is the stronger baseline (R@1
    11.8 against 9.4) and the one of published figures.

    An image of one colour has nothing left when its mean is removed. It gets the constant unit vector, which has cosine
    0 with every other thumbnail: a zero vector would be nearer to all than an unrelated image is.

    Args:
      variables: not used; a thumbnail has no parameters.
      images: [B, H, W, 3] in [0, 255], uint8 or float; or clips [B, F, H, W, 3], whose frames' thumbnails are averaged.

    Returns:
      float32 [B, 768].
    """
    if images.ndim == 5:
        mean = thumbnail(variables, images.reshape(-1, *images.shape[2:])).reshape(*images.shape[:2], -1).mean(axis=1)
        return mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    grey = jnp.einsum("bhwc,c->bhw", images.astype(jnp.float32), jnp.asarray(GREY, jnp.float32))
    down, across = nearest_weights(images.shape[1], HEIGHT), nearest_weights(images.shape[2], WIDTH)
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
