"""Vectors of locally aggregated descriptors (VLAD): sums of the local features of each cluster.

The descriptor is K-major (but for an option of NetVLAD): K blocks of D numbers, normalised each on its own
("intra-normalisation") and then together. All of them sum by two matrix products,
`assignment^T x - mass centroid`, without the B x N x K x D residuals.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.aggregators.encoder import EncoderLayer
from jaxvpr.models.features import Features
from jaxvpr.models.layers import Linear, l2_normalise

# torch.rand: centroids before a clustering or a file gives better ones.
uniform = nn.initializers.uniform(1.0)

# Which quarters of the map (top left, top right, bottom left, bottom right) make a region.
REGIONS = {
    "whole": (1, 1, 1, 1),
    "top": (1, 1, 0, 0),
    "bottom": (0, 0, 1, 1),
    "left": (1, 0, 1, 0),
    "right": (0, 1, 0, 1),
    "top_left": (1, 0, 0, 0),
    "top_right": (0, 1, 0, 0),
    "bottom_left": (0, 0, 1, 0),
    "bottom_right": (0, 0, 0, 1),
}


class NetVLAD(nn.Module):
    """Residuals to learned centroids, weighted by a soft assignment (Arandjelović et al., 2016).

    `fitting.clusters.cluster_start` starts it from clusters of local features; random centroids give poor descriptors.

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

    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, D]` to `[B, K D]` in float32."""
        return self._flat(aggregate(*self._assigned(features)))

    def regions(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, D]` to `[B, 9, K D]` in float32: the image, its halves and its quarters, ordered as `REGIONS`.

        Residuals add up, so that each region is the sum of its quarters, normalised (Ge et al., ECCV 2020). The middle
        row or column of an odd side counts half on either side of it. The full image gives the descriptor of a call.
        """
        x, weights, centroids = self._assigned(features)
        batch, _, dim = x.shape
        shares = quarter_shares(*features.map.shape[1:3])[None, :, :, None]
        in_quarters = (weights[:, :, None] * shares).reshape(batch, -1, 4 * self.clusters)
        quarters = aggregate(x, in_quarters, jnp.tile(centroids, (4, 1)))
        members = jnp.asarray(list(REGIONS.values()), x.dtype)[None]
        sums = jnp.matmul(members, quarters.reshape(batch, 4, -1))
        return self._flat(sums.reshape(-1, self.clusters, dim)).reshape(batch, len(REGIONS), -1)

    @nn.compact
    def _assigned(self, features: Features) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Local features [B, N, D], their shares of the clusters [B, N, K], and the centroids [K, D]."""
        x = cells(features, self.l2_before)
        dim = x.shape[-1]
        logits = Linear(self.clusters, 1 if self.tokens else 2, self.bias, name="conv")(x)
        if self.d_major:
            centroids = self.param("centers", uniform, (dim, self.clusters)).T
        else:
            centroids = self.param("centroids", uniform, (self.clusters, dim))
        return x, jax.nn.softmax(logits), centroids

    def _flat(self, sums: jax.Array) -> jax.Array:
        vlad = flat(sums)
        return vlad.reshape(len(vlad), *sums.shape[1:]).mT.reshape(vlad.shape) if self.d_major else vlad


class SuperVLAD(nn.Module):
    """NetVLAD with few clusters and no centroids; ghost clusters take the features to ignore (Lu et al., 2024).

    Attributes:
      clusters: K of the descriptor; the original's has 4.
      ghosts: clusters whose part of the descriptor is left out.
      l2_before: normalise the local features first.
      layers, heads, hidden, dropout: of an encoder over the images of a batch, cluster by cluster. The original's is
        off (0 layers), or has 2.
      cross_image: whether that encoder attends to other images, as the original's does: a descriptor then depends on
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
        vlad = flat(jnp.matmul(weights[..., : self.clusters].mT, x))
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
            likeness = jnp.matmul(x, l2_normalise(words).T)
        else:
            squares = jnp.sum(jnp.square(words), -1).reshape(1, 1, -1)
            likeness = 2 * jnp.matmul(x, words.T) - squares
        return flat(aggregate(x, jax.nn.one_hot(jnp.argmax(likeness, -1), self.clusters), words))


def cells(features: Features, l2_before: bool) -> jax.Array:
    """The map `[B, h, w, D]` as float32 local features `[B, h w, D]`."""
    x = features.map.astype(jnp.float32)
    x = l2_normalise(x) if l2_before else x
    return x.reshape(x.shape[0], -1, x.shape[-1])


def quarter_shares(height: int, width: int) -> np.ndarray:
    """How much of each cell of a map lies in each quarter, float32 [height width, 4]; a cell's shares sum to 1."""

    def first_half(length: int) -> np.ndarray:
        return np.clip(length / 2 - np.arange(length, dtype=np.float32), 0, 1)

    rows, columns = (np.stack([half, 1 - half], -1) for half in map(first_half, (height, width)))
    return (rows[:, None, :, None] * columns[None, :, None]).reshape(-1, 4).astype(np.float32)


def aggregate(x: jax.Array, weights: jax.Array, centroids: jax.Array) -> jax.Array:
    """Weighted residuals of `x` `[B, N, D]` to `centroids` `[K, D]`, summed over N: `[B, K, D]`."""
    mass = jnp.sum(weights, 1)
    return jnp.matmul(weights.mT, x) - mass[..., None] * centroids[None]


def flat(vlad: jax.Array) -> jax.Array:
    """`[B, K, D]` to unit vectors `[B, K D]`, whose K blocks are equally long."""
    return l2_normalise(l2_normalise(vlad).reshape(vlad.shape[0], -1))
