"""The class token of a transformer as the descriptor (Dosovitskiy et al., 2021)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features


class CLS(nn.Module):
    """The backbone's class token; has no parameters."""

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """The token `[B, C]` in float32.

        Raises:
          ValueError: for a backbone without one.
        """
        if features.token is None:
            raise ValueError("aggregator 'cls' needs a backbone with a class token, such as dinov2_vitb14 or vit_b16")
        return features.token.astype(jnp.float32)
