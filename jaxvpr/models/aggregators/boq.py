"""Bag of queries: learned queries attend to the local features, layer by layer (Ali-bey et al., CVPR 2024)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.encoder import EncoderLayer, MultiHeadAttention
from jaxvpr.models.features import Features
from jaxvpr.models.layers import Conv, LayerNorm, Linear, torch_default


class Block(nn.Module):
    """Refines the local features by an encoder layer and lets a bag of `queries` attend to them.

    Attributes:
      dim: of features and queries.
      heads: of all three attentions.
    """

    dim: int
    queries: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """`[B, N, dim]` to the refined features `[B, N, dim]` and the outputs of the queries, `[B, queries, dim]`."""
        x = EncoderLayer(self.dim, self.heads, 4 * self.dim, name="encoder")(x, train)
        q = self.param("queries", nn.initializers.normal(1.0), (1, self.queries, self.dim))
        # The queries do not depend on the image yet, so that once is enough for the batch.
        q = LayerNorm(name="norm_q")(q + MultiHeadAttention(self.dim, self.heads, name="self_attn")(q, q))
        q = jnp.broadcast_to(q, (x.shape[0], *q.shape[1:]))
        return x, LayerNorm(name="norm_out")(MultiHeadAttention(self.dim, self.heads, name="cross_attn")(q, x))


class BoQ(nn.Module):
    """A 3x3 convolution, `layers` blocks, and a linear layer over all their queries.

    Attributes:
      dim: channels after the convolution, a multiple of `head_dim`; the descriptor has `dim * rows` numbers.
      queries: of each block.
      layers: blocks, each with its own queries.
      rows: numbers that the `layers * queries` outputs are projected to.
      head_dim: numbers of an attention head.
    """

    dim: int = 384
    queries: int = 64
    layers: int = 2
    rows: int = 32
    head_dim: int = 64

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, dim * rows]` in float32: channel by channel.

        Raises:
          ValueError: where `dim` is not a multiple of `head_dim`.
        """
        if self.dim < 1 or self.dim % self.head_dim:
            near = max(1, round(self.dim / self.head_dim)) * self.head_dim
            raise ValueError(f"dim={self.dim} is not a multiple of head_dim={self.head_dim}; the nearest is {near}")
        reduce = Conv(self.dim, 3, 1, 1, use_bias=True, kernel_init=torch_default, name="proj_c")
        x = reduce(features.map.astype(jnp.float32))
        x = LayerNorm(name="norm_input")(x.reshape(x.shape[0], -1, self.dim))
        answers = []
        for i in range(self.layers):
            block = Block(self.dim, self.queries, self.dim // self.head_dim, name=f"boqs_{i}")
            x, answer = block(x, train)
            answers.append(answer)
        y = Linear(self.rows, name="fc")(jnp.swapaxes(jnp.concatenate(answers, 1), 1, 2))
        return y.reshape(y.shape[0], -1)
