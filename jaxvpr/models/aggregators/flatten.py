"""The full map, cell by cell, through one linear layer: for cameras with a fixed view."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import BatchNorm, Linear, l2_normalise


class Flatten(nn.Module):
    """Keeps the position of a feature in the image, which pooling drops; the last L2 is `PlaceModel`'s.

    On a railway or a fixed rig the same place fills the same pixels, and the layout distinguishes places best
    (Sünderhauf et al., "On the Performance of ConvNet Features for Place Recognition", IROS 2015). The linear
    layer belongs to one size of the map, so images must have the size of the training.

    Attributes:
      dim: length of the descriptor.
      reduce: channels that each cell is projected to first, without a bias; 0 leaves them as they are.
      l2_before: normalise the local features first, so that bright or busy cells do not outweigh the others.
      fc_norm: batch normalisation after the linear layer.
    """

    dim: int = 512
    reduce: int = 0
    l2_before: bool = True
    fc_norm: bool = True

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, dim]` in float32."""
        x = features.map.astype(jnp.float32)
        x = l2_normalise(x) if self.l2_before else x
        x = Linear(self.reduce, use_bias=False, name="reduce")(x) if self.reduce else x
        x = Linear(self.dim, name="fc")(x.reshape(x.shape[0], -1))
        return BatchNorm(not train, name="norm")(x) if self.fc_norm else x
