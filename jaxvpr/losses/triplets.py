"""Losses on a query, one positive and several negatives, for mined triplets.

All share one form: `query` [B, D], `positive` [B, D] and `negatives` [B, n, D] to [B], one number a query. It is summed
over the negatives, not averaged. Results and gradients are float32 (float64 for float64 descriptors) and finite, equal
descriptors included.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxvpr.losses.metric import options_of


def triplet(
    query: jax.Array, positive: jax.Array, negatives: jax.Array, *, margin: float, squared: bool, eps: float
) -> jax.Array:
    """Hinges `max(d(q, p) + margin - d(q, n), 0)`, summed over the negatives (Arandjelović et al., CVPR 2016).

    Args:
      squared: d is the squared Euclidean distance, as in the paper. Without, it is the distance, as torch's
        `TripletMarginLoss(margin, p=2)` has it.
      eps: added to each coordinate of a difference whose length is taken, as torch does; not used with `squared`.
    """
    near, far = _differences(query, positive, negatives)
    distance = _squares if squared else lambda difference: _length(difference + eps)
    return jnp.sum(jax.nn.relu(distance(near) + margin - distance(far)), 1)


def sare_independent(query: jax.Array, positive: jax.Array, negatives: jax.Array, *, temperature: float) -> jax.Array:
    """`-log` of the share of the positive against each negative alone, summed (Liu, Li and Dai, ICCV 2019).

    The share is that of `exp(-d² / temperature)`, with d the Euclidean distance: the paper's Gaussian kernel, without
    its factor 1/2. On unit vectors, `temperature=2 t` compares dot products over t, as SFRS does.
    """
    near, far = _exponents(query, positive, negatives, temperature)
    return jnp.sum(jax.nn.softplus(far - near), 1)


def sare_joint(query: jax.Array, positive: jax.Array, negatives: jax.Array, *, temperature: float) -> jax.Array:
    """As `sare_independent`, with the share of the positive against all negatives at once: one term, not n."""
    near, far = _exponents(query, positive, negatives, temperature)
    return jax.nn.logsumexp(jnp.concatenate([near, far], 1), 1) - near[:, 0]


# Name -> (function, its options with the values of the Deep Visual Geo-localization benchmark).
LOSSES: dict[str, tuple[Callable[..., jax.Array], dict[str, Any]]] = {
    "triplet": (triplet, {"margin": 0.1, "squared": False, "eps": 1e-6}),
    "sare_independent": (sare_independent, {"temperature": 1.0}),
    "sare_joint": (sare_joint, {"temperature": 1.0}),
}


def triplet_loss(
    query: jax.Array,
    positive: jax.Array,
    negatives: jax.Array,
    *,
    loss: str,
    loss_options: Mapping[str, Any] | None = None,
) -> jax.Array:
    """A loss of `LOSSES` by name, with what differs from its options' defaults.

    Args:
      query, positive: [B, D]. negatives: [B, n, D].

    Returns:
      [B], summed over the negatives.

    Raises:
      ValueError: for an unknown loss or option (lists those that exist), or shapes that do not fit.
    """
    options = options_of("loss", LOSSES, loss, loss_options or {})
    return LOSSES[loss][0](query, positive, negatives, **options)


def _differences(query: jax.Array, positive: jax.Array, negatives: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The query minus its positive, [B, 1, D], and minus its negatives, [B, n, D]."""
    shape = query.shape
    fits = len(shape) == 2 and positive.shape == shape and negatives.ndim == 3
    if not (fits and (negatives.shape[0], negatives.shape[2]) == shape):
        raise ValueError(
            f"query {shape}, positive {positive.shape} and negatives {negatives.shape} "
            "must be [B, D], [B, D] and [B, n, D]"
        )
    query, positive, negatives = (
        x if x.dtype == jnp.float64 else x.astype(jnp.float32) for x in (query, positive, negatives)
    )
    return (query - positive)[:, None], query[:, None] - negatives


def _exponents(
    query: jax.Array, positive: jax.Array, negatives: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    near, far = _differences(query, positive, negatives)
    return -_squares(near) / temperature, -_squares(far) / temperature


def _squares(difference: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(difference), -1)


def _length(difference: jax.Array) -> jax.Array:
    """The length along the last axis; 0 with no gradient where it is 0, as torch's norm has it."""
    squares = _squares(difference)
    some = squares > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), 0)
