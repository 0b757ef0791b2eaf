"""A transformer encoder over the cells of a map, whose class token is the descriptor (Vaswani et al., 2017)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.encoder import EncoderLayer
from jaxvpr.models.features import Features
from jaxvpr.models.layers import small_normal


class TokenEncoder(nn.Module):
    """A class token and all cells through a transformer encoder, which gives the token.

    Cells have no positions beside those that the backbone gave them.

    Attributes:
      layers, heads, hidden, dropout: of the encoder; the map's channels are a multiple of `heads`.
    """

    layers: int = 3
    heads: int = 16
    hidden: int = 2048
    dropout: float = 0.1

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, C]` in float32; training with a dropout needs the random key "dropout"."""
        x = features.map.astype(jnp.float32)
        batch, channels = x.shape[0], x.shape[-1]
        token = self.param("cls_token", small_normal, (1, 1, channels))
        tokens = jnp.broadcast_to(token, (batch, 1, channels))
        x = jnp.concatenate([tokens, x.reshape(batch, -1, channels)], 1)
        for i in range(self.layers):
            x = EncoderLayer(channels, self.heads, self.hidden, dropout=self.dropout, name=f"layers_{i}")(x, train)
        return x[:, 0]
