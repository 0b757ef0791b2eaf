"""Generalised-mean pooling (Radenović et al., 2018)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import l2_normalise


class GeM(nn.Module):
    """`mean(max(x, eps)^p)^(1/p)` over the cells of the map, with a learned `p`.

    Attributes:
      p: where the exponent starts.
      per_channel: one exponent for each channel instead of one for all.
      l2_before: normalise the local features first (`PlaceModel.l2_after` is about the descriptor).
    """

    p: float = 3.0
    eps: float = 1e-6
    per_channel: bool = False
    l2_before: bool = False

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """Pools `[B, h, w, C]` to `[B, C]` in float32."""
        x = features.map.astype(jnp.float32)
        x = l2_normalise(x) if self.l2_before else x
        size = x.shape[-1] if self.per_channel else 1
        p = self.param("p", nn.initializers.constant(self.p), (size,))
        # In logarithms: eps^p alone would fall out of float32 once p grows past 6.
        logs = jnp.log(jnp.maximum(x, self.eps)) * p.reshape(1, 1, 1, -1)
        cells = jnp.float32(x.shape[1] * x.shape[2])
        return jnp.exp((jax.nn.logsumexp(logs, axis=(1, 2)) - jnp.log(cells)) / p.reshape(1, -1))
