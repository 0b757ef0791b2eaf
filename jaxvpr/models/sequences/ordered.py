"""Descriptors of clips that depend on the order of the frames: `[B, F, D]` to `[B, D']`.

With `l2_frames` the frames' descriptors are unit vectors, and those of single images too: `PlaceModel` sees to that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.tokens import TokenEncoder
from jaxvpr.models.layers import Linear, small_normal, torch_default
from jaxvpr.models.sequences.pooling import as_map


class Cat(nn.Module):
    """The frames' descriptors one behind the other.

    Attributes:
      frames: how many a clip has; 0 takes any number, and clips of one length alone can be compared with each other.
    """

    frames: int = 0
    l2_frames: bool = True

    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, F D]`."""
        return frames.reshape(frames.shape[0], -1)


class CatFC(nn.Module):
    """A fully connected layer behind the frames' descriptors, one behind the other.

    Attributes:
      frames: how many a clip has.
      dim: length of the descriptor; 0 for that of a frame's.
      bias: of the layer.
      mean_start: start as the mean of the frames (JIST's `meanfc`).
    """

    frames: int = 5
    dim: int = 0
    bias: bool = True
    mean_start: bool = False
    l2_frames: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, dim]`.

        Raises:
          ValueError: for `mean_start` where `dim` is not D.
        """
        batch, count, length = frames.shape
        dim = self.dim or length
        if self.mean_start and dim != length:
            raise ValueError(f"mean_start needs a dim of the {length} numbers of a frame's descriptor, not {dim}")

        def mean(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
            return jnp.tile(jnp.eye(length, dtype=dtype) / count, (count, 1))

        start = mean if self.mean_start else torch_default
        return Linear(dim, use_bias=self.bias, kernel_init=start, name="fc")(frames.reshape(batch, -1))


class TemporalConv(nn.Module):
    """A convolution over time, then the mean over time (SeqNet: Garg and Milford, RA-L 2021).

    The mean over time is taken first, of each tap's frames, which gives the same for less.

    Attributes:
      width: frames that the convolution sees at once; clips are at least as long. As many as a clip has gives JIST's
        `conv1d`.
      dim: length of the descriptor; 0 for that of a frame's.
    """

    width: int = 5
    dim: int = 0
    l2_frames: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, dim]`.

        Raises:
          ValueError: for fewer frames than `width`.
        """
        _, count, length = frames.shape
        places = count - self.width + 1
        if places < 1:
            raise ValueError(f"a clip of {count} frames is shorter than model.sequence_options.width={self.width}")
        kernel = self.param("kernel", torch_default, (self.width, length, self.dim or length))
        bias = self.param("bias", nn.initializers.zeros, kernel.shape[-1:])
        taps = jnp.stack([jnp.mean(frames[:, tap : tap + places], 1) for tap in range(self.width)], 1)
        return jnp.einsum("bwd,wde->be", taps, kernel) + bias.reshape(1, -1)


class ClipEncoder(nn.Module):
    """A class token and the frames' descriptors through a transformer encoder, which gives the token.

    R. Mereu's thesis, from which SeqVLAD's paper came, tried it with 16 heads and 3, 6 or 8 layers, and does not say
    whether frames had positions. The aggregator `encoder` is the same for local features; with "joint", of all frames.

    Attributes:
      layers, heads, hidden, dropout: of the encoder; a multiple of `heads` is the length of a frame's descriptor.
      frames: how many a clip has, which gives each a learned position; 0 takes any number in any order.
    """

    layers: int = 3
    heads: int = 16
    hidden: int = 2048
    dropout: float = 0.1
    frames: int = 0
    l2_frames: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, D]`; training with a dropout needs the random key "dropout"."""
        if self.frames:
            positions = self.param("positions", small_normal, (1, self.frames, frames.shape[-1]))
            frames = frames + jnp.broadcast_to(positions, frames.shape)
        return TokenEncoder(self.layers, self.heads, self.hidden, self.dropout, name="encoder")(as_map(frames), train)
