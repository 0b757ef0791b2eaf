"""Distances between the features of two domains, and gradient reversal, by which a network learns to remove them.

Source features are [B, D], target features [T, D]; B and T may differ. Rows that a mask leaves out do not count,
and gradients are finite where the images of a domain are all alike.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxvpr.losses.measures import mean

PRECISE = jax.lax.Precision.HIGHEST
# Of the mean squared distance; what a Gaussian kernel's width is a multiple of (Long et al., ICML 2015).
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Below this mean squared distance all features count as equal.
ALIKE = 1e-12


@jax.custom_vjp
def reverse(x: jax.Array, coefficient: jax.Array) -> jax.Array:
    """`x` itself, whose gradient comes back times `-coefficient` (Ganin and Lempitsky, ICML 2015).

    Args:
      x: features of any shape.
      coefficient: scalar; it gets no gradient.
    """
    return x


def _reverse_forward(x: jax.Array, coefficient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, coefficient


def _reverse_backward(coefficient: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return -coefficient.astype(gradient.dtype) * gradient, jnp.zeros_like(coefficient)


reverse.defvjp(_reverse_forward, _reverse_backward)


def reversal(progress: jax.Array, gamma: float) -> jax.Array:
    """The coefficient of `reverse`, `2 / (1 + exp(-gamma p)) - 1`: 0 at progress p = 0, towards 1 as p grows to 1."""
    return jnp.tanh(gamma * progress / 2)


def mmd(
    source: jax.Array,
    target: jax.Array,
    source_mask: jax.Array | None = None,
    target_mask: jax.Array | None = None,
    *,
    widths: Sequence[float] = WIDTHS,
) -> jax.Array:
    """The squared maximum mean discrepancy under a sum of Gaussian kernels (Gretton et al., JMLR 2012).

    `mean k(s, s') + mean k(t, t') - 2 mean k(s, t)` over all pairs, those of an image with itself included, so that it
    is never negative and 0 for equal samples. A kernel is `exp(-d² / (w m))` with m the mean squared distance of all
    pairs of both domains, which counts as a constant.

    Returns:
      Scalar, float32; 0 where a domain has no image.
    """
    ws, wt = _shares(source, source_mask), _shares(target, target_mask)
    both, weight = jnp.concatenate([source, target]).astype(jnp.float32), jnp.concatenate([ws, -wt])
    distances, share = _squared_distances(both), jnp.abs(weight)
    others = share[:, None] * share[None] * (1 - jnp.eye(len(share), dtype=jnp.float32))
    kernel = _kernels(distances, _width(distances, others), widths)
    return jnp.where((jnp.sum(ws) > 0) & (jnp.sum(wt) > 0), jnp.maximum(weight @ kernel @ weight, 0), 0)


def linear_mmd(
    source: jax.Array,
    target: jax.Array,
    source_mask: jax.Array | None = None,
    target_mask: jax.Array | None = None,
    *,
    widths: Sequence[float] = WIDTHS,
) -> jax.Array:
    """As `mmd`, estimated without bias and in linear time from neighbouring rows (Gretton et al., JMLR 2012).

    It is the mean of `k(s, s') + k(t, t') - k(s, t') - k(s', t)` over the rows 2i and 2i + 1 of both, may be negative,
    and is 0 for equal samples. An odd last row is left out, and so are four rows of which one does not count.

    Raises:
      ValueError: for domains of different sizes, or of fewer than two images.
    """
    if source.shape != target.shape or len(source) < 2:
        raise ValueError(f"source {source.shape} and target {target.shape} must be of one shape, of two rows or more")
    last = len(source) // 2 * 2
    s, s2, t, t2 = (x[first:last:2].astype(jnp.float32) for x in (source, target) for first in (0, 1))
    pairs = jnp.stack([jnp.sum(jnp.square(a - b), 1) for a, b in ((s, s2), (t, t2), (s, t2), (s2, t))])
    shares = [_shares(x, mask)[:last].reshape(-1, 2) > 0 for x, mask in ((source, source_mask), (target, target_mask))]
    counts = jnp.all(jnp.concatenate(shares, 1), 1)
    kernels = _kernels(pairs, _width(pairs, jnp.broadcast_to(counts, pairs.shape).astype(jnp.float32)), widths)
    return mean(kernels[0] + kernels[1] - kernels[2] - kernels[3], counts)


def coral(
    source: jax.Array, target: jax.Array, source_mask: jax.Array | None = None, target_mask: jax.Array | None = None
) -> jax.Array:
    """The squared Frobenius distance of the covariances over `4 D²` (Sun and Saenko, ECCV workshops 2016).

    Products of images with images give the same without the covariances themselves, D x D.

    Returns:
      Scalar, float32; 0 where a domain has fewer than two images.
    """
    s, t = _centred(source, source_mask), _centred(target, target_mask)
    squares = [jnp.sum(jnp.square(jnp.matmul(a, b.T, precision=PRECISE))) for a, b in ((s, s), (t, t), (s, t))]
    counts = [_count(x, mask) for x, mask in ((source, source_mask), (target, target_mask))]
    distance = jnp.maximum(squares[0] + squares[1] - 2 * squares[2], 0) / (4 * source.shape[1] ** 2)
    return jnp.where((counts[0] > 1) & (counts[1] > 1), distance, 0)


def _count(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jnp.float32(len(x)) if mask is None else jnp.sum(mask, dtype=jnp.float32)


def _shares(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Each row's share of the mean over its domain, float32 [n]."""
    held = jnp.ones(len(x), jnp.float32) if mask is None else mask.astype(jnp.float32)
    return held / jnp.maximum(jnp.sum(held), 1)


def _squared_distances(x: jax.Array) -> jax.Array:
    """[n, n], by products; what rounding leaves of the distance of a row to itself hardly changes a kernel."""
    dots = jnp.matmul(x, x.T, precision=PRECISE)
    norms = jnp.sum(jnp.square(x), 1)
    return jnp.maximum(norms[:, None] + norms[None] - 2 * dots, 0)


def _width(distances: jax.Array, weights: jax.Array) -> jax.Array:
    """The weighted mean of squared distances, as a constant; 1 where all rows are alike."""
    width = jnp.sum(distances * weights) / jnp.maximum(jnp.sum(weights), ALIKE)
    return jax.lax.stop_gradient(jnp.where(width > ALIKE, width, 1))


def _kernels(distances: jax.Array, width: jax.Array, widths: Sequence[float]) -> jax.Array:
    return sum((jnp.exp(-distances / (factor * width)) for factor in widths), start=jnp.zeros_like(distances))


def _centred(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Rows less their mean, over the root of their number less one; rows left out are 0."""
    x, share, count = x.astype(jnp.float32), _shares(x, mask), _count(x, mask)
    held = share > 0
    rows = jnp.where(held[:, None], x, 0)
    return jnp.where(held[:, None], rows - (share @ rows)[None], 0) / jnp.sqrt(jnp.maximum(count - 1, 1))
