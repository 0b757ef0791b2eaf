"""Descriptors of clips from those of their frames in their order."""

import flax.linen as nn
import jax


class Cat(nn.Module):
    """The frames' descriptors one after the other; its length is the clip's, times theirs

    Attributes:
      frames: how many a clip has; 0 takes any number.
      l2_frames: make the frames' descriptors unit vectors first.
    """

    frames: int = 0
    l2_frames: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, F D]`."""
        return frames.reshape(frames.shape[0], -1)
