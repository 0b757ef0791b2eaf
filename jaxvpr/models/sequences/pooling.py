"""Descriptors of clips as long as those of their frames, `[B, F, D]` to `[B, D]`, for clips of any length.

Each takes `l2_frames`: the frames' descriptors are made unit vectors first. `PlaceModel` does that, since it describes
single images the same way.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.gem import GeM
from jaxvpr.models.features import Features


class Mean(nn.Module):
    """The mean of the frames' descriptors"""

    l2_frames: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, D]` in float32."""
        return jnp.mean(frames, 1)


class SeqGeM(nn.Module):
    """The generalised mean of the frames' descriptors, with a learned `p` (JIST: Berton et al., RA-L 2023)

    Numbers below `eps` count as `eps`: so do the negative half of a unit vector's.

    Attributes:
      p: where the exponent starts.
    """

    p: float = 3.0
    eps: float = 1e-6
    l2_frames: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, D]` in float32."""
        return GeM(self.p, self.eps, name="gem")(as_map(frames))


def as_map(frames: jax.Array) -> Features:
    """Descriptors `[B, F, D]` as a map of F cells, for what pools maps."""
    return Features(frames[:, :, None])
