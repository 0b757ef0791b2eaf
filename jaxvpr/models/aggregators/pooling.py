"""Pooling without parameters: the mean, the maximum, and the maxima of regions.

Each takes `l2_before`; the L2 after pooling is `PlaceModel.l2_after`.
"""

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.features import Features
from jaxvpr.models.layers import l2_normalise

OVERLAP = 0.4  # of neighbouring regions, as in R-MAC's paper


class SPoC(nn.Module):
    """The mean over the cells of the map (Babenko and Lempitsky, 2015; without its centre prior).

    Attributes:
      l2_before: normalise the local features first.
    """

    l2_before: bool = False

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """Pools `[B, h, w, C]` to `[B, C]` in float32."""
        return jnp.mean(_local(features, self.l2_before), (1, 2))


class MAC(nn.Module):
    """The maximum over the cells of the map (Razavian et al., 2016).

    Attributes:
      l2_before: normalise the local features first.
    """

    l2_before: bool = False

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """Pools `[B, h, w, C]` to `[B, C]` in float32."""
        return jnp.max(_local(features, self.l2_before), (1, 2))


class RMAC(nn.Module):
    """The sum of the normalised maxima of the full map and of square regions at several scales (Tolias et al., 2016).

    Attributes:
      levels: scales; level l has regions of side `2 min(h, w) / (l + 1)`.
      l2_before: normalise the local features first.
      eps: added to the length of a region's vector before the division by it.
    """

    levels: int = 3
    l2_before: bool = False
    eps: float = 1e-6

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """Pools `[B, h, w, C]` to `[B, C]` in float32."""
        x = _local(features, self.l2_before)
        height, width = x.shape[1:3]
        maxima = [jnp.max(x, (1, 2))]
        for top, left, side in regions(height, width, self.levels):
            maxima.append(jnp.max(x[:, top : top + side, left : left + side], (1, 2)))
        stacked = jnp.stack(maxima, 1)
        # The tiny number under the root keeps the gradient of a zero vector finite.
        length = jnp.sqrt(jnp.sum(jnp.square(stacked), -1, keepdims=True) + 1e-24)
        return jnp.sum(stacked / (length + self.eps), 1)


def regions(height: int, width: int, levels: int) -> Iterator[tuple[int, int, int]]:
    """The square regions of R-MAC as (top, left, side) in cells, level by level.

    Along the longer side there are so many more regions that neighbours overlap by about 40 %. Positions are computed
    in float32, as the PyTorch implementations do, since rounding decides which cell a region begins at.
    """
    short, long = min(height, width), max(height, width)
    gaps = np.float32(long - short) / np.arange(1, 7, dtype=np.float32)
    more = int(np.argmin(np.abs((short**2 - short * gaps) / np.float32(short**2) - np.float32(OVERLAP)))) + 1
    for level in range(1, levels + 1):
        side = 2 * short // (level + 1)
        if not side:
            continue
        for top in _starts(height, side, level + (more if height > width else 0)):
            for left in _starts(width, side, level + (more if width > height else 0)):
                yield top, left, side


def _starts(length: int, side: int, count: int) -> list[int]:
    """Where `count` regions of `side` cells begin on a line of `length` cells."""
    gap = np.float32((length - side) / (count - 1) if count > 1 else 0)
    half = np.float32(np.floor(side / 2 - 1))
    return (np.floor(half + np.arange(count, dtype=np.float32) * gap) - half).astype(int).tolist()


def _local(features: Features, l2_before: bool) -> jax.Array:
    return l2_normalise(features.map) if l2_before else features.map.astype(jnp.float32)
