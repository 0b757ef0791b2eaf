"""Non-local blocks between a backbone and an aggregator (Wang et al., "Non-local Neural Networks", CVPR 2018).

To each cell of a map the mean of others is added, weighted by how alike they are ("embedded Gaussian"): of those of
its own frame, of those at its own place in all frames, or of all.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.attention import attend
from jaxvpr.models.layers import Dense

# kind -> which cells attend to each other, one block after the other
KINDS = {"2d": ("space",), "temporal": ("time",), "2d+t": ("space", "time"), "3d": ("clip",)}


class NonLocal(nn.Module):
    """Adds to each cell what it finds in others.

    It starts as the identity, since the last layer starts at zero: as the original's last BatchNorm does, which is left
    out here so that an image does not depend on its batch. There is no pooling of keys, an option of the original's.

    Attributes:
      kind: "2d" attends within each frame, "temporal" among all frames at a place, "2d+t" first the one and then the
        other, "3d" among all cells of the clip.
      bottleneck: channels of queries, keys and values; 0 for half of the map's, as in the original.
      weight: of what is added.
      dtype: type of the computation; parameters stay float32.
    """

    kind: str = "2d"
    bottleneck: int = 0
    weight: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """A map of clips `[B, F, h, w, C]` to the same shape, in `dtype`.

        Raises:
          ValueError: for an unknown `kind`.
        """
        if self.kind not in KINDS:
            raise ValueError(f"non_local.kind={self.kind!r}: there are {list(KINDS)}")
        batch, frames, height, width, channels = x.shape
        x = x.astype(self.dtype).reshape(batch, frames, height * width, channels)
        for over in KINDS[self.kind]:
            if over == "time":
                x = x.swapaxes(1, 2)
            tokens = x.reshape((batch, -1, channels) if over == "clip" else (-1, *x.shape[2:]))
            block = Block(self.bottleneck or channels // 2, self.weight, self.dtype, name=over)
            x = block(tokens).reshape(x.shape)
            if over == "time":
                x = x.swapaxes(1, 2)
        return x.reshape(batch, frames, height, width, channels)


class Block(nn.Module):
    """One of them, among tokens: `x + weight W softmax(theta(x) phi(x)^T) g(x)`."""

    channels: int
    weight: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` to `[B, N, C]`."""
        query, key, value = (
            Dense(self.channels, dtype=self.dtype, name=name)(x)[:, :, None] for name in ("theta", "phi", "g")
        )
        # Attention divides the products by the root of the channels, which non-local blocks do not.
        found = attend(query * jnp.asarray(self.channels**0.5, self.dtype), key, value)[:, :, 0]
        out = Dense(x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")
        return x + jnp.asarray(self.weight, self.dtype) * out(found)
