"""CricaVPR's head: a pyramid of regions, and an encoder across the images of a batch (Lu et al., CVPR 2024)."""

from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.encoder import EncoderLayer
from jaxvpr.models.aggregators.gem import GeM
from jaxvpr.models.features import Features
from jaxvpr.models.layers import l2_normalise


class CricaVPR(nn.Module):
    """The token and 4 + 9 pooled regions, each of them attending to the same region in the batch.

    With `cross_image` a descriptor depends on which other images are described with it, padding included: this is the
    published method (batches of 16, of 8 for Pittsburgh, queries after the database), and its figures depend on it.
    Without, each image is encoded as if it were alone in its batch, and the descriptor depends on nothing else.

    Attributes:
      cross_image: attend across the batch.
      layers, heads, hidden, dropout: of the encoder.
      cuts: per level of the pyramid, the rows (and columns) at which the map is cut. The published ones are halves
        and thirds of 224x224 pixels (16x16 cells) and do not move with the image's size.
    """

    cross_image: bool = True
    layers: int = 2
    heads: int = 16
    hidden: int = 2048
    dropout: float = 0.1
    cuts: tuple[tuple[int, ...], ...] = ((8,), (5, 11))

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """A map `[B, h, w, C]` and a token `[B, C]` to `[B, 14 C]` in float32.

        Raises:
          ValueError: for a backbone without a token, or a map too small for `cuts`.
        """
        batch, height, width, channels = features.map.shape
        least = max(cut for level in self.cuts for cut in level) + 1
        if features.token is None:
            raise ValueError("CricaVPR needs the global token of a backbone such as dinov2_vitb14; this one has none")
        if min(height, width) < least:
            raise ValueError(f"a map of {height}x{width} cells; cuts {self.cuts} need at least {least}x{least}")
        unit, gem = l2_normalise(features.map), GeM(name="gem")
        regions = [unit[:, top:bottom, left:right] for top, bottom, left, right in self._regions(height, width)]
        x = jnp.stack([features.token.astype(jnp.float32), *(gem(Features(region)) for region in regions)])
        x = x if self.cross_image else x.reshape(-1, 1, channels)
        for i in range(self.layers):
            x = EncoderLayer(channels, self.heads, self.hidden, "gelu", self.dropout, name=f"layers_{i}")(x, train)
        return jnp.swapaxes(x.reshape(-1, batch, channels), 0, 1).reshape(batch, -1)

    def _regions(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(top, bottom, left, right) of each region: level by level, row by row."""
        return [
            (top, bottom, left, right)
            for level in self.cuts
            for top, bottom in pairwise((0, *level, height))
            for left, right in pairwise((0, *level, width))
        ]
