"""ReGeo's location head (Rothlin and Purandare, SDS 2025), as others describe it: its authors released no code."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.encoder import EncoderLayer
from jaxvpr.models.features import Features
from jaxvpr.models.layers import Linear


class ReGeo(nn.Module):
    """Transformer encoder layers over a frozen backbone's tokens, then a linear layer with tanh.

    That is what is known: two layers on CLIP, each with multi-head attention, and behind them a linear layer with tanh,
    pre-trained as a Siamese network; the regression takes 1,024 numbers (the head `direct` with halving `widths`). Our
    choices, where nothing is said: PyTorch's encoder layer, which normalises after each sum; the tokens are all cells,
    and the class token where it is as long as they are (CLIP's is with projection=0), with no positions beside those
    that the backbone gave them; the result is that of the class token, or of the cells' mean without one.

    Attributes:
      dim: of the result. layers, heads, hidden, dropout: of the encoder; the map's channels are a multiple of `heads`.
    """

    dim: int = 1024
    layers: int = 2
    heads: int = 16
    hidden: int = 4096
    dropout: float = 0.1

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, dim]` in float32, in (-1, 1); training with a dropout needs the key "dropout"."""
        x = features.map.astype(jnp.float32)
        x = x.reshape(len(x), -1, x.shape[-1])
        has_token = features.token is not None and features.token.shape[-1] == x.shape[-1]
        if features.token is not None and has_token:
            x = jnp.concatenate([features.token.astype(jnp.float32)[:, None], x], 1)
        for number in range(self.layers):
            layer = EncoderLayer(x.shape[-1], self.heads, self.hidden, dropout=self.dropout, name=f"layers_{number}")
            x = layer(x, train)
        return jnp.tanh(Linear(self.dim, name="linear")(x[:, 0] if has_token else x.mean(1)))
