"""SALAD: local features to clusters by optimal transport (Izquierdo & Civera, CVPR 2024), and MegaLoc's head on it.

CliqueMining and MegaLoc (Berton & Masone, 2025) use the same module.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.features import Features
from jaxvpr.models.layers import Conv, Linear, l2_normalise, torch_default

_conv = partial(Conv, size=1, use_bias=True, kernel_init=torch_default)


class SALAD(nn.Module):
    """Assigns cells to clusters, or to a dustbin, so that every cluster gets the same mass; adds a global token.

    Attributes:
      clusters, cluster_dim: the descriptor's local part has `clusters * cluster_dim` numbers.
      token_dim: of its global part, which comes first.
      hidden: width of the hidden layer of the three networks.
      dropout: share of hidden numbers set to zero in training, in the networks of the local part.
      iterations: of Sinkhorn's algorithm.
    """

    clusters: int = 64
    cluster_dim: int = 128
    token_dim: int = 256
    hidden: int = 512
    dropout: float = 0.3
    iterations: int = 3

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """A map `[B, h, w, C]` and a token `[B, C]` to `[B, token_dim + cluster_dim * clusters]` in float32.

        Raises:
          ValueError: for a backbone without a token, or a map of no more cells than clusters.
        """
        batch, height, width, channels = features.map.shape
        if features.token is None:
            raise ValueError("SALAD needs the global token of a backbone such as dinov2_vitb14; this one has none")
        if height * width <= self.clusters:
            raise ValueError(
                f"a map of {height}x{width} cells for {self.clusters} clusters; it needs at least {self.clusters + 1} "
                "cells: give larger images or fewer clusters"
            )
        token = nn.relu(Linear(self.hidden, name="token_features_0")(features.token.astype(jnp.float32)))
        token = Linear(self.token_dim, name="token_features_2")(token)
        cells = features.map.astype(jnp.float32).reshape(batch, 1, height * width, channels)
        local = self._network("cluster_features", self.cluster_dim, cells, train)
        scores = jnp.swapaxes(self._network("score", self.clusters, cells, train), 1, 2)
        dust_bin = self.param("dust_bin", nn.initializers.ones, ())
        shares = jnp.exp(sinkhorn(scores, dust_bin, self.iterations))
        # [B, cluster_dim, clusters]: each cluster's column is normalised, the rows are written one after the other.
        sums = jnp.einsum("bmn,bnl->bml", shares, local)
        sums = jnp.swapaxes(l2_normalise(sums), 1, 2).reshape(batch, -1)
        return jnp.concatenate([l2_normalise(token), sums], -1)

    def _network(self, name: str, dim: int, cells: jax.Array, train: bool) -> jax.Array:
        """`[B, 1, N, C]` to `[B, N, dim]`; numbered as the original's Sequential: 1 is the dropout, 2 the ReLU."""
        x = _conv(self.hidden, name=f"{name}_0")(cells)
        x = nn.relu(nn.Dropout(self.dropout, deterministic=not train)(x))
        return _conv(dim, name=f"{name}_3")(x)[:, 0]


class MegaLoc(nn.Module):
    """SALAD with clusters of 256 numbers and a linear layer from its 16640 to `dim`.

    Attributes:
      dim: length of the descriptor.
      clusters, cluster_dim, token_dim, hidden, dropout, iterations: of `SALAD`.
    """

    dim: int = 8448
    clusters: int = 64
    cluster_dim: int = 256
    token_dim: int = 256
    hidden: int = 512
    dropout: float = 0.3
    iterations: int = 3

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """A map `[B, h, w, C]` and a token `[B, C]` to `[B, dim]` in float32.

        Raises:
          ValueError: as `SALAD`.
        """
        networks = self.hidden, self.dropout, self.iterations
        salad = SALAD(self.clusters, self.cluster_dim, self.token_dim, *networks, name="agg")
        return Linear(self.dim, name="linear")(l2_normalise(salad(features, train)))


def sinkhorn(scores: jax.Array, dust_bin: jax.Array, iterations: int) -> jax.Array:
    """Optimal transport between clusters and cells, in logarithms (Sinkhorn & Knopp, 1967; SuperGlue, 2020).

    Args:
      scores: float32 [B, m, n], how well each of n cells fits each of m clusters, m < n.
      dust_bin: scalar, the score of every cell for the dustbin.
      iterations: rounds of normalising over cells, then over clusters.

    Returns:
      [B, m, n], the logarithms of the shares of each cell: those of a cell sum to 1 with the dustbin's, and
      those of a cluster to 1 after enough rounds; the dustbin, which is left out, gets the other n - m.
    """
    batch, m, n = scores.shape
    bin_row = jnp.broadcast_to(dust_bin.reshape(1, 1, 1), (batch, 1, n))
    scores = jnp.concatenate([scores, bin_row], 1)
    mass = np.zeros((1, m + 1), np.float32)
    mass[0, -1] = np.log(n - m)
    v = jnp.zeros((batch, n), jnp.float32)
    for _ in range(iterations):
        u = mass - jax.nn.logsumexp(scores + v[:, None], 2)
        v = -jax.nn.logsumexp(scores + u[:, :, None], 1)
    return (scores + u[:, :, None] + v[:, None])[:, :-1]
