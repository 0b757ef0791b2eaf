"""A classifier of the domain that an image is from."""

import flax.linen as nn
import jax

from jaxvpr.models.layers import PRECISE


class DomainClassifier(nn.Module):
    """A few layers with ReLU between them, and one logit: above 0 for the target (Ganin and Lempitsky, ICML 2015).

    Attributes:
      hidden: widths of the layers before the last; () is a linear classifier.
    """

    hidden: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Features float32 [B, D] to logits float32 [B]."""
        x = features
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, precision=PRECISE)(x))
        return nn.Dense(1, precision=PRECISE)(x)[:, 0]
