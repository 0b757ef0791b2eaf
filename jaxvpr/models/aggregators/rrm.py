"""The Residual Retrieval Module of Kordopatis-Zilos et al. (2021), as the Deep VG benchmark has it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import LayerNorm, Linear, l2_normalise


class RRM(nn.Module):
    """The mean over the map and a residual block of two linear layers, each followed by a normalisation."""

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """Pools `[B, h, w, C]` to `[B, C]` in float32."""
        x = jnp.mean(features.map.astype(jnp.float32), (1, 2))
        x = LayerNorm(name="ln1")(x)
        y = Linear(x.shape[-1], name="fc2")(nn.relu(Linear(x.shape[-1], name="fc1")(x)))
        return l2_normalise(LayerNorm(name="ln2")(x + y))
