"""Vectors of locally aggregated descriptors: what the local features of each cluster have in common.

The descriptor is K-major (but for an option of NetVLAD): K blocks of D numbers, normalised each on its own
("intra-normalisation") and then together. All of them sum by two matrix products, `assignment^T x - mass centroid`, and
never hold the B x N x K x D residuals.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.encoder import EncoderLayer
from jaxvpr.models.features import Features
from jaxvpr.models.layers import PRECISE, Linear, l2_normalise

# torch.rand: centroids before a clustering or a file gives better ones.
uniform = nn.initializers.uniform(1.0)


class NetVLAD(nn.Module):
    """Residuals to learned centroids, weighted by a soft assignment (Arandjelović et al., 2016).

    `retrieval.clusters.cluster_start` starts it from clusters of local features; drawn at random it describes badly.

    Attributes:
      clusters: K.
      bias: of the assignment ("vladv2" of the PyTorch port).
      tokens: the assignment's kernel is `[1, D, K]`, as originals store it that pool tokens, not `[1, 1, D, K]`.
      d_major: the descriptor is D blocks of K numbers and the centroids are `centers` `[D, K]`, as the authors' own
        MATLAB code has them, and hloc after it.
      l2_before: normalise the local features first.
    """

    clusters: int = 64
    bias: bool = False
    tokens: bool = False
    d_major: bool = False
    l2_before: bool = True

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, D]` to `[B, K D]` in float32."""
        x = cells(features, self.l2_before)
        dim = x.shape[-1]
        logits = Linear(self.clusters, 1 if self.tokens else 2, self.bias, name="conv")(x)
        if self.d_major:
            centroids = self.param("centers", uniform, (dim, self.clusters)).T
        else:
            centroids = self.param("centroids", uniform, (self.clusters, dim))
        vlad = flat(aggregate(x, jax.nn.softmax(logits), centroids))
        return vlad.reshape(len(vlad), -1, dim).mT.reshape(vlad.shape) if self.d_major else vlad


class SuperVLAD(nn.Module):
    """NetVLAD with few clusters and no centroids; ghost clusters take what should not count (Lu et al., 2024).

    Attributes:
      clusters: K of the descriptor; the original's has 4.
      ghosts: clusters whose part of the descriptor is left out.
      l2_before: normalise the local features first.
      layers, heads, hidden, dropout: of an encoder over the images of a batch, cluster by cluster. The original's is
        off (0 layers), or has 2.
      cross_image: whether that encoder looks at the other images, as the original's does: a descriptor then depends on
        its batch, padding included. Without, each image is encoded as if it were alone.
    """

    clusters: int = 4
    ghosts: int = 1
    l2_before: bool = True
    layers: int = 0
    heads: int = 16
    hidden: int = 2048
    dropout: float = 0.1
    cross_image: bool = True

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, D]` to `[B, K D]` in float32."""
        x = cells(features, self.l2_before)
        batch, _, dim = x.shape
        weights = jax.nn.softmax(Linear(self.clusters + self.ghosts, 2, use_bias=False, name="conv")(x))
        vlad = flat(jnp.matmul(weights[..., : self.clusters].mT, x, precision=PRECISE))
        if not self.layers:
            return vlad
        x = vlad.reshape(batch, -1, dim)
        x = jnp.swapaxes(x, 0, 1) if self.cross_image else x.reshape(-1, 1, dim)
        for i in range(self.layers):
            x = EncoderLayer(dim, self.heads, self.hidden, "gelu", self.dropout, name=f"layers_{i}")(x, train)
        return (jnp.swapaxes(x, 0, 1) if self.cross_image else x).reshape(batch, -1)


class VLAD(nn.Module):
    """Residuals to the nearest word of a vocabulary (Jégou et al., 2010), as AnyLoc has it (Keetha et al., 2023).

    Attributes:
      clusters: K, words of the vocabulary.
      assign: "cosine" or "l2", which word is nearest. The residual is to the word as it is, whatever its length.
      l2_before: normalise the local features first.
    """

    clusters: int = 32
    assign: str = "cosine"
    l2_before: bool = True

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, D]` to `[B, K D]` in float32; no gradient passes through the choice of the word.

        Raises:
          ValueError: for an unknown `assign`.
        """
        if self.assign not in ("cosine", "l2"):
            raise ValueError(f"assign={self.assign!r}: there are ['cosine', 'l2']")
        x = cells(features, self.l2_before)
        words = self.param("centroids", uniform, (self.clusters, x.shape[-1]))
        if self.assign == "cosine":
            likeness = jnp.matmul(x, l2_normalise(words).T, precision=PRECISE)
        else:
            squares = jnp.sum(jnp.square(words), -1).reshape(1, 1, -1)
            likeness = 2 * jnp.matmul(x, words.T, precision=PRECISE) - squares
        return flat(aggregate(x, jax.nn.one_hot(jnp.argmax(likeness, -1), self.clusters), words))


def cells(features: Features, l2_before: bool) -> jax.Array:
    """The map `[B, h, w, D]` as float32 local features `[B, h w, D]`."""
    x = features.map.astype(jnp.float32)
    x = l2_normalise(x) if l2_before else x
    return x.reshape(x.shape[0], -1, x.shape[-1])


def aggregate(x: jax.Array, weights: jax.Array, centroids: jax.Array) -> jax.Array:
    """Weighted residuals of `x` `[B, N, D]` to `centroids` `[K, D]`, summed over N: `[B, K, D]`."""
    mass = jnp.sum(weights, 1)
    return jnp.matmul(weights.mT, x, precision=PRECISE) - mass[..., None] * centroids[None]


def flat(vlad: jax.Array) -> jax.Array:
    """`[B, K, D]` to unit vectors `[B, K D]`, whose K blocks are equally long."""
    return l2_normalise(l2_normalise(vlad).reshape(vlad.shape[0], -1))
