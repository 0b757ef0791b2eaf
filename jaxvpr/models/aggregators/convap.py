"""Conv-AP: a 1x1 convolution and averages over a grid of the map (Ali-bey et al., "GSV-Cities", 2022)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.features import Features
from jaxvpr.models.layers import Conv, torch_default


class ConvAP(nn.Module):
    """Projects every cell to `dim` channels and averages them over `rows` x `columns` parts of the map.

    Attributes:
      dim: channels; the descriptor has `dim * rows * columns` numbers.
      rows, columns: parts of the map, from top to bottom and from left to right.
    """

    dim: int = 1024
    rows: int = 2
    columns: int = 2

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, dim * rows * columns]` in float32: channel by channel, each row by row."""
        # A linear map and an average may be swapped: averaged first, 4 cells are projected instead of a hundred.
        x = adaptive_average(features.map.astype(jnp.float32), self.rows, self.columns)
        project = Conv(self.dim, 1, use_bias=True, kernel_init=torch_default, name="channel_pool")
        return jnp.moveaxis(project(x), -1, 1).reshape(x.shape[0], -1)


def adaptive_average(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """`[B, h, w, C]` averaged to `[B, rows, columns, C]`, with the windows of `torch.nn.AdaptiveAvgPool2d`.

    Where a side is not a multiple of the parts, neighbouring windows share cells; where it is smaller, cells repeat.
    """
    down, across = (jnp.asarray(_windows(*pair)) for pair in ((x.shape[1], rows), (x.shape[2], columns)))
    return jnp.einsum("rh,bhwc,sw->brsc", down, x, across)


def _windows(length: int, parts: int) -> np.ndarray:
    """[parts, length]: row i averages the cells from floor(i length / parts) to ceil((i + 1) length / parts)."""
    weight = np.zeros((parts, length), np.float32)
    for part in range(parts):
        first, last = part * length // parts, -(-(part + 1) * length // parts)
        weight[part, first:last] = 1 / (last - first)
    return weight
