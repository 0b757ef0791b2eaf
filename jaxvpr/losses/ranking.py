"""Losses that are 1 - average precision (AP) of the list that each descriptor retrieves, smoothed in three ways.

All share one form, `loss(batch, *, options) -> scalar`, as in `losses.pairs`, but they rank full lists, so that the
batch's pairs are all pairs. A miner acts through its `weight` (`miners.row_weights`), a factor of each row's 1 - AP.
The loss is the mean over the rows that have a positive, 0 where none has. Only `smooth_ap` keeps an element in its own
list.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxvpr.losses.compared import Compared, own_column
from jaxvpr.losses.measures import column_sum, mean


def fast_ap(batch: Compared, *, bins: int) -> jax.Array:
    """AP of a histogram of squared distances in [0, 4], with `bins` intervals (Cakir et al., 2019). GSV-Cities: 30."""
    similarity, (positive, negative) = batch.similarity, batch.pairs
    centres = jnp.linspace(0, 4, bins + 1, dtype=similarity.dtype)
    return _mean_loss(_binned_ap(2 - 2 * similarity, positive, negative, centres), batch)


def listwise_ap(batch: Compared, *, bins: int) -> jax.Array:
    """AP of a histogram of cosines in [0, 1], centred on `bins` values (AP-GeM: Revaud et al., 2019, with 25).

    Cosines below 0 share the last bin, and get no gradient.
    """
    similarity, (positive, negative) = batch.similarity, batch.pairs
    inside = jnp.where(similarity > 0, jnp.where(similarity < 1, similarity, 1), 0)
    centres = jnp.linspace(1, 0, bins, dtype=similarity.dtype)
    return _mean_loss(_binned_ap(inside, positive, negative, centres), batch)


def _binned_ap(values: jax.Array, positive: jax.Array, negative: jax.Array, centres: jax.Array) -> jax.Array:
    """AP [B] of values [B, M] that fall linearly into the two nearest bins; the bins come best first.

    AP is the sum over bins of (positives in the bin) x (positives up to it) / (all up to it), over all positives.
    """
    width = jnp.abs(centres[1] - centres[0])
    share = jax.nn.relu(1 - jnp.abs(values[None] - centres[:, None, None]) / width)
    hits = jnp.sum(jnp.where(positive[None], share, 0), 2)
    positives, seen = jnp.cumsum(hits, 0), jnp.cumsum(hits + jnp.sum(jnp.where(negative[None], share, 0), 2), 0)
    some = seen > 0
    precision = jnp.where(some, positives / jnp.where(some, seen, 1), 0)
    return jnp.sum(hits * precision, 0) / jnp.maximum(jnp.sum(positive, 1, dtype=values.dtype), 1)


def smooth_ap(batch: Compared, *, temperature: float) -> jax.Array:
    """AP whose ranks are sums of sigmoids of differences between cosines (Brown et al., 2020).

    As in the original, an element is in its own list, as one of the positives, where it is among the references.
    """
    similarity, (positive, negative) = batch.similarity, batch.pairs
    # A masked row has no positive, and so does not count whatever its list holds.
    match = positive | own_column(batch.own, positive.shape)
    listed = match | negative

    def precisions(score: jax.Array, matches: jax.Array) -> jax.Array:
        above = jax.nn.sigmoid((similarity[:, None] - score[:, :, None]) / temperature)
        # The element itself adds sigmoid(0) to its own rank, which is 1 + the sum over the others.
        among_matches = 0.5 + jnp.sum(jnp.where(match[:, None], above, 0), 2)
        among_all = 0.5 + jnp.sum(jnp.where(listed[:, None], above, 0), 2)
        return jnp.sum(jnp.where(matches, among_matches / among_all, 0), 1)

    average = column_sum(precisions, similarity, match) / jnp.maximum(jnp.sum(match, 1, dtype=similarity.dtype), 1)
    return _mean_loss(average, batch)


def _mean_loss(precision: jax.Array, batch: Compared) -> jax.Array:
    loss = 1 - precision if batch.weight is None else (1 - precision) * batch.weight.astype(precision.dtype)
    return mean(loss, jnp.any(batch.pairs.positive, 1))


# Name -> (function, its options with the values of pytorch-metric-learning; AP-GeM's own for its loss).
LIST_LOSSES: dict[str, tuple[Callable[..., jax.Array], dict[str, Any]]] = {
    "fast_ap": (fast_ap, {"bins": 10}),
    "smooth_ap": (smooth_ap, {"temperature": 0.01}),
    "listwise_ap": (listwise_ap, {"bins": 25}),
}
