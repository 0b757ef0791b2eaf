"""Adapters that let a frozen vision transformer see a patch's neighbours (CricaVPR, Lu et al., 2024)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.layers import BatchNorm, Conv, Dense, torch_default

# The convolutions start near 0, as in the original.
almost_nothing = nn.initializers.constant(1e-5)

# torch's BatchNorm has 1e-5; the original chose this.
EPS = 1e-3


class ConvAdapter(nn.Module):
    """A bottleneck of half the width; inside, convolutions of 1x1, 3x3 and 5x5 pixels beside a shortcut.

    The branches give a half, a quarter and a quarter of the bottleneck's channels; the larger two reduce to a sixteenth
    first. Tokens before the patches (class token, registers) take the shortcut twice instead, as in the original. A new
    adapter adds nothing: training starts from the transformer as it is.

    Attributes:
      grid: (rows, columns) of the patches, the last tokens.
      average: use (and keep) BatchNorm's running averages.
    """

    grid: tuple[int, int]
    average: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` to `[B, N, C]`."""
        rows, columns = self.grid
        inner = x.shape[-1] // 2
        y = nn.relu(Dense(inner, dtype=self.dtype, kernel_init=torch_default, name="D_fc1")(x))
        cells = y[:, -rows * columns :].reshape(y.shape[0], rows, columns, inner)
        narrow = self._conv("branch1", inner // 2, 1)(cells)
        middle = self._conv("branch2_1", inner // 4, 3)(self._conv("branch2_0", inner // 16, 1)(cells))
        wide = self._conv("branch3_1", inner // 4, 5)(self._conv("branch3_0", inner // 16, 1)(cells))
        seen = jnp.concatenate([narrow, middle, wide], -1).reshape(y.shape[0], -1, inner)
        others = y[:, : -rows * columns]
        y = y + jnp.concatenate([others, seen], 1)
        return Dense(x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros, name="D_fc2")(y)

    def _conv(self, name: str, features: int, size: int) -> nn.Module:
        return NormedConv(features, size, self.average, self.dtype, name=name)


class NormedConv(nn.Module):
    """A convolution that keeps the map's size, batch normalisation, ReLU."""

    features: int
    size: int
    average: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, C]` to `[B, h, w, features]`."""
        conv = Conv(self.features, self.size, 1, self.size // 2, True, self.dtype, almost_nothing, name="conv")
        return nn.relu(BatchNorm(self.average, self.dtype, eps=EPS, name="bn")(conv(x)))
