"""The features that a backbone gives to an aggregator."""

from collections.abc import Mapping
from typing import NamedTuple

import jax


class Features(NamedTuple):
    """Local features of a batch of images, or of clips: each with one more axis then, [B, F, ...].

    Attributes:
      map: [B, h, w, C], one vector per cell of the image.
      token: [B, C], a global token, or None where the backbone has none (every convolutional one). Of a clip that its
        backbone took as a whole there is one, [B, C] too.
    """

    map: jax.Array
    token: jax.Array | None = None

    @staticmethod
    def of(arrays: jax.Array | Mapping[str, jax.Array]) -> "Features":
        """Those of a batch: a map, or {"map", "token"}."""
        return Features(arrays["map"], arrays.get("token")) if isinstance(arrays, Mapping) else Features(arrays)

    def folded(self) -> "Features":
        """Those of the frames of clips [B, F, ...] as of images [B F, ...]."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self)

    def unfolded(self, batch: int, frames: int) -> "Features":
        """The inverse of `folded`."""
        return jax.tree.map(lambda x: x.reshape(batch, frames, *x.shape[1:]), self)
