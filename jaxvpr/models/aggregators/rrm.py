"""The Residual Retrieval Module of Kordopatis-Zilos et al. (2021), as the Deep VG benchmark has it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import LayerNorm, l2_normalise, torch_default


class RRM(nn.Module):
    """The mean over the map and a residual block of two linear layers, each followed by a normalisation."""

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """Pools `[B, h, w, C]` to `[B, C]` in float32."""
        x = jnp.mean(features.map.astype(jnp.float32), (1, 2))
        linear = partial(nn.Dense, x.shape[-1], precision=jax.lax.Precision.HIGHEST, kernel_init=torch_default)
        x = LayerNorm(name="ln1")(x)
        y = linear(name="fc2")(nn.relu(linear(name="fc1")(x)))
        return l2_normalise(LayerNorm(name="ln2")(x + y))
