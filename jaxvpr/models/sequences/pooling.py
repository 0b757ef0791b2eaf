"""Descriptors of clips that are as long as those of their frames: `[B, F, D]` to `[B, D]`, of clips of any length.

With `l2_frames` the frames' descriptors are unit vectors, and those of single images too: `PlaceModel` sees to that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.aggregators.gem import GeM
from jaxvpr.models.aggregators.seqpool import SeqPool
from jaxvpr.models.features import Features


class Mean(nn.Module):
    """The mean of the frames' descriptors."""

    l2_frames: bool = True

    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, D]`."""
        return jnp.mean(frames, 1)


class Max(nn.Module):
    """The largest of the frames' numbers, each by itself."""

    l2_frames: bool = True

    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, D]`."""
        return jnp.max(frames, 1)


class SeqGeM(nn.Module):
    """The generalised mean of the frames' descriptors, with a learned `p` (JIST: Berton et al., RA-L 2023).

    Numbers below `eps` count as `eps`; of a unit vector that is the negative half.

    Attributes:
      p: where the exponent starts.
    """

    p: float = 3.0
    eps: float = 1e-6
    l2_frames: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, D]`."""
        return GeM(self.p, self.eps, name="gem")(as_map(frames))


class SeqPoolFrames(nn.Module):
    """The mean of the frames' descriptors, weighted by the softmax of a learned score of each (as CCT pools tokens)."""

    l2_frames: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, D]`."""
        return SeqPool(name="seqpool")(as_map(frames))


class Delta(nn.Module):
    """How descriptors change: the second half's sum less the first half's, over half the number of frames.

    Garg et al., "Delta Descriptors", RA-L 2020, as SeqNet's code has it. Of an even number of frames it is the
    difference of the halves' means; the middle one of an odd number counts in the second half.
    """

    l2_frames: bool = True

    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, D]`."""
        count = frames.shape[1]
        signs = np.where(np.arange(count) < count // 2, -1, 1).astype(np.float32)
        return jnp.einsum("bfd,f->bd", frames, signs / np.float32(count / 2))


def as_map(frames: jax.Array) -> Features:
    """Descriptors `[B, F, D]` as a map of F cells, for what pools maps."""
    return Features(frames[:, :, None])
