"""The head of CosPlace: L2, GeM, a linear layer, L2 (Berton et al., 2022)."""

import flax.linen as nn
import jax

from jaxvpr.models.aggregators.gem import GeM
from jaxvpr.models.features import Features
from jaxvpr.models.layers import BatchNorm, Linear


class CosPlace(nn.Module):
    """Pools a map and projects it to `dim` numbers; the last L2 is `PlaceModel`'s.

    Attributes:
      dim: length of the descriptor.
      fc_norm: batch normalisation after the linear layer; not in the original, helps short trainings from scratch.
    """

    dim: int = 512
    p: float = 3.0
    eps: float = 1e-6
    l2_before: bool = True
    fc_norm: bool = False

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, dim]` in float32."""
        x = GeM(self.p, self.eps, l2_before=self.l2_before, name="gem")(features)
        x = Linear(self.dim, name="fc")(x)
        return BatchNorm(not train, name="norm")(x) if self.fc_norm else x
