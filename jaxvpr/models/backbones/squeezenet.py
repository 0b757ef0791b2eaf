"""SqueezeNet 1.0 up to its last fire module, `features.12` of torchvision (Iandola et al., 2016)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import Conv, max_pool

# torchvision draws it uniformly over the fan-in, unlike its other networks.
kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")

# position in torchvision's Sequential -> (squeeze, expand) channels, or None for a pooling layer
LAYERS = {
    2: None,
    3: (16, 64),
    4: (16, 64),
    5: (32, 128),
    6: None,
    7: (32, 128),
    8: (48, 192),
    9: (48, 192),
    10: (64, 256),
    11: None,
    12: (64, 256),
}


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 expansions side by side."""

    squeeze: int
    expand: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H, W, 2 expand]`."""
        options = {"use_bias": True, "dtype": self.dtype, "kernel_init": kaiming_fan_in}
        x = nn.relu(Conv(self.squeeze, 1, name="squeeze", **options)(x))
        narrow = Conv(self.expand, 1, name="expand1x1", **options)(x)
        wide = Conv(self.expand, 3, padding=1, name="expand3x3", **options)(x)
        return nn.relu(jnp.concatenate([narrow, wide], -1))


class SqueezeNet(nn.Module):
    """A small network without batch normalisation; 512 channels at a sixteenth of the image's size.

    Attributes:
      cut: the last of torchvision's `features` that runs, 2 to 12 (an eighth of the size after 6, a quarter after 2).
    """

    cut: int = 12
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, h, w, C]`, C = 512 uncut; `train` changes nothing."""
        if self.cut not in LAYERS:
            raise ValueError(f"cut={self.cut!r} is not a layer of SqueezeNet; there are {list(LAYERS)}")
        x = Conv(96, 7, 2, use_bias=True, dtype=self.dtype, kernel_init=kaiming_fan_in, name="features_0")(images)
        x = nn.relu(x)
        for i, channels in LAYERS.items():
            if i > self.cut:
                break
            x = Fire(*channels, self.dtype, name=f"features_{i}")(x) if channels else max_pool(x, 3, 2, ceil=True)
        return Features(x)
