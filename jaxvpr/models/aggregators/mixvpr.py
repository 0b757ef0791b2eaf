"""MixVPR: every channel's map, flattened, through a cascade of small networks (Ali-bey et al., WACV 2023)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import LayerNorm, Linear, small_normal


class Mix(nn.Module):
    """A residual block over the cells of a map: LayerNorm, linear, ReLU, linear, numbered as the original's are."""

    ratio: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, C, cells]` to the same shape."""
        y = LayerNorm(name="mix_0")(x)
        y = nn.relu(Linear(int(x.shape[-1] * self.ratio), kernel_init=small_normal, name="mix_1")(y))
        return x + Linear(x.shape[-1], kernel_init=small_normal, name="mix_3")(y)


class MixVPR(nn.Module):
    """Mixes all cells of each channel, then projects the channels to `dim` and the cells to `rows`.

    The weights belong to one size of the map, so images must have the size of the training.

    Attributes:
      dim: channels after the projection; the descriptor has `dim * rows` numbers.
      rows: numbers that the cells are projected to.
      depth: mixing blocks.
      cells: height and width of the map; 20x20 is that of 320x320 pixels after layer3 of a ResNet.
      ratio: width of a block's hidden layer, over its input's.
    """

    dim: int = 1024
    rows: int = 4
    depth: int = 4
    cells: tuple[int, int] = (20, 20)
    ratio: float = 1.0

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, dim * rows]` in float32: channel by channel.

        Raises:
          ValueError: for a map of other than `cells`; gives the factors to scale the images by.
        """
        batch, height, width, channels = features.map.shape
        if (height, width) != tuple(self.cells):
            raise ValueError(
                f"a map of {height}x{width} cells, but this MixVPR mixes {self.cells[0]}x{self.cells[1]}: "
                f"scale the images' height by {self.cells[0] / height:.4g} and width by {self.cells[1] / width:.4g}"
            )
        x = jnp.moveaxis(features.map.astype(jnp.float32), -1, 1).reshape(batch, channels, -1)
        for i in range(self.depth):
            x = Mix(self.ratio, name=f"mix_{i}")(x)
        x = Linear(self.dim, name="channel_proj")(jnp.swapaxes(x, 1, 2))
        x = Linear(self.rows, name="row_proj")(jnp.swapaxes(x, 1, 2))
        return x.reshape(batch, -1)
