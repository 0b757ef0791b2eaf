"""PyTorch's attention and encoder layer, with its names, for BoQ and CricaVPR (Vaswani et al., 2017).

The three projections of the attention are packed into one tensor in PyTorch's layout, `in_proj_weight` [3 dim, dim].
Everything is computed in float32.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.attention import attend
from jaxvpr.models.layers import LayerNorm, Linear

# Xavier's uniform over the packed tensor, as PyTorch draws it: [3 dim, dim] is [out, in] there.
packed_xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=-1, out_axis=-2)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": partial(nn.gelu, approximate=False),
}


class MultiHeadAttention(nn.Module):
    """`torch.nn.MultiheadAttention(dim, heads, dropout, batch_first=True)`.

    Attributes:
      dim: of queries, keys and values; a multiple of `heads`.
      dropout: share of attention weights set to zero in training.
    """

    dim: int
    heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, queries: jax.Array, keys: jax.Array, train: bool = False) -> jax.Array:
        """Queries `[B, Q, dim]` attend to keys `[B, K, dim]`, which are the values too: `[B, Q, dim]`.

        Raises:
          ValueError: where `dim` is not a multiple of `heads`.
        """
        if self.heads < 1 or self.dim % self.heads:
            raise ValueError(f"{self.dim} dimensions cannot be split among {self.heads} heads")
        weight = self.param("in_proj_weight", packed_xavier, (3 * self.dim, self.dim))
        bias = self.param("in_proj_bias", nn.initializers.zeros, (3 * self.dim,))
        parts = zip((queries, keys, keys), jnp.split(weight, 3), jnp.split(bias, 3), strict=True)
        q, k, v = (self._project(x, w, b) for x, w, b in parts)
        y = attend(q, k, v, nn.Dropout(self.dropout, deterministic=not train))
        return Linear(self.dim, name="out_proj")(y.reshape(queries.shape))

    def _project(self, x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
        """`[B, N, dim]` to `[B, N, heads, dim / heads]`."""
        y = jnp.matmul(x, weight.T) + bias.reshape(1, 1, -1)
        return y.reshape(*x.shape[:2], self.heads, -1)


class EncoderLayer(nn.Module):
    """`torch.nn.TransformerEncoderLayer(dim, heads, hidden, dropout, activation, batch_first=True)`.

    Normalises after each sum ("post-norm"), as PyTorch does by default.

    Attributes:
      hidden: width of the feed-forward network.
      activation: "relu" or "gelu" (exact, not its tanh approximation).
      dropout: in training, on attention weights and in the three places of the original.
    """

    dim: int
    heads: int
    hidden: int
    activation: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`[B, N, dim]` to the same shape.

        Raises:
          ValueError: for an unknown activation, or where `dim` is not a multiple of `heads`.
        """
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r}: there are {sorted(ACTIVATIONS)}")
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        attention = MultiHeadAttention(self.dim, self.heads, self.dropout, name="self_attn")
        x = LayerNorm(name="norm1")(x + drop()(attention(x, x, train)))
        y = drop()(ACTIVATIONS[self.activation](Linear(self.hidden, name="linear1")(x)))
        return LayerNorm(name="norm2")(x + drop()(Linear(self.dim, name="linear2")(y)))
