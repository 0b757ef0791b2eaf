"""Attention pooling of tokens (Hassani et al., "Escaping the Big Data Paradigm …", arXiv 2104.05704, 2021)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import Linear, small_normal


class SeqPool(nn.Module):
    """The mean of all cells, weighted by the softmax of a learned linear score of each.

    The normalisation that precedes it in the original is the backbone's last layer, there as here.

    Attributes:
      frozen: learn no scores, as the Deep VG benchmark does when it freezes any part of the network (`freeze_te`).
    """

    frozen: bool = False

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, C]` in float32."""
        x = features.map.astype(jnp.float32)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        scores = Linear(1, kernel_init=small_normal, name="attention_pool")(x)
        return jnp.einsum("bnc,bn->bc", x, nn.softmax(scores[..., 0]))

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters that are frozen."""
        return ("attention_pool/",) if self.frozen else ()
