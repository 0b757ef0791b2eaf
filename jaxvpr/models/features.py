"""The features that a backbone gives to an aggregator."""

from typing import NamedTuple

import jax


class Features(NamedTuple):
    """Local features of a batch of images.

    Attributes:
      map: [B, h, w, C], one vector per cell of the image.
      token: [B, C], a global token, or None where the backbone has none (every convolutional one).
    """

    map: jax.Array
    token: jax.Array | None = None
