"""Losses on pairs of descriptors of places: pure functions of a batch beside its references.

All share one form, `loss(batch, *, options) -> scalar`, with `batch` a `Compared` whose pairs a miner kept.

The result is 0, with zero gradients, where nothing counts, and finite on every batch. Reductions and defaults are
those of pytorch-metric-learning 2.9, but for its 0 on a batch with no more than one positive and one negative pair.
Docstrings give the options that GSV-Cities publishes, where they differ.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxvpr.losses.compared import Compared
from jaxvpr.losses.measures import LOWEST, apart, column_sum, logsumexp, mean, mean_positive
from jaxvpr.losses.miners import TRIPLETS


def contrastive(batch: Compared, *, positive_margin: float, negative_margin: float, distance: str) -> jax.Array:
    """Positives pulled within one margin, negatives pushed beyond the other (Hadsell et al., 2006), without squares.

    Each kind is averaged over its pairs that violate the margin. GSV-Cities: 0 and 1 on the Euclidean distance.
    """
    positive, negative = batch.pairs
    between, sign = apart(batch.similarity, distance)
    pull = mean_positive(between - sign * positive_margin, positive)
    return pull + mean_positive(sign * negative_margin - between, negative)


def triplet(batch: Compared, *, margin: float, choice: str, distance: str) -> jax.Array:
    """Hinge of (distance to a positive - distance to a negative + margin), averaged over triplets above 0.

    Args:
      choice: of the triplets that the pairs of one row make: `all`; `hard`, whose negative is no farther than the
        positive; `semihard`, whose negative is farther, but by less than the margin. GSV-Cities: 0.1 and `semihard`.

    Raises:
      ValueError: for an unknown choice or distance.
    """
    if choice not in TRIPLETS:
        raise ValueError(f"unknown choice of triplets {choice!r}; there are {', '.join(TRIPLETS)}")
    positive, negative = batch.pairs
    between, _ = apart(batch.similarity, distance)

    def violations(near: jax.Array, is_positive: jax.Array) -> tuple[jax.Array, jax.Array]:
        near, far = near[:, :, None], between[:, None]
        keep = is_positive[:, :, None] & negative[:, None] & TRIPLETS[choice](near, far, margin)
        return jnp.sum(jnp.where(keep, near - far + margin, 0), (1, 2)), jnp.sum(keep, (1, 2), dtype=between.dtype)

    total, count = column_sum(violations, between, positive)
    return jnp.sum(total) / jnp.maximum(jnp.sum(count), 1)


def multi_similarity(batch: Compared, *, alpha: float, beta: float, base: float) -> jax.Array:
    """Soft weights by similarity, within each kind and between them (Wang et al., 2019), averaged over the elements.

    GSV-Cities, MixVPR, SALAD and BoQ: alpha 1, beta 50, base 0, with the miner of the same name at 0.1.
    """
    similarity, (positive, negative) = batch.similarity, batch.pairs
    pull = logsumexp(alpha * (base - similarity), positive, plus_one=True) / alpha
    push = logsumexp(beta * (similarity - base), negative, plus_one=True) / beta
    return mean(pull + push, batch.rows)


def circle(batch: Compared, *, m: float, gamma: float) -> jax.Array:
    """Each similarity weighted by its distance from its optimum (Sun et al., 2020), over rows with both kinds.

    GSV-Cities: m 0.4, gamma 80, the paper's values for fine-grained retrieval.
    """
    similarity, (positive, negative) = batch.similarity, batch.pairs
    still = jax.lax.stop_gradient(similarity)
    pull = -gamma * jax.nn.relu(1 + m - still) * (similarity - (1 - m))
    push = gamma * jax.nn.relu(still + m) * (similarity - m)
    both = jnp.any(positive, 1) & jnp.any(negative, 1)
    exponent = logsumexp(pull, positive) + logsumexp(push, negative)
    return mean_positive(jax.nn.softplus(jnp.where(both, exponent, 0)), both)


def lifted_structure(batch: Compared, *, positive_margin: float, negative_margin: float, distance: str) -> jax.Array:
    """Every positive pair against all negatives of its two ends (Song et al., 2016); half the square, averaged.

    With references a positive is not in the batch, and the negatives are those of the anchor. A positive pair without
    any negative counts by its distance alone, unless no row of the batch has a negative: then the loss is 0.
    """
    positive, negative = batch.pairs
    between, sign = apart(batch.similarity, distance)
    push = logsumexp(sign * negative_margin - between, negative)
    if batch.mutual:
        push = jnp.logaddexp(push[:, None], push[None])
        some = jnp.any(negative, 1)[:, None] | jnp.any(negative, 1)[None]
    else:
        push = jnp.broadcast_to(push[:, None], between.shape)
        some = jnp.broadcast_to(jnp.any(negative, 1)[:, None], between.shape)
    over = jax.nn.relu(jnp.where(some, push, 0) + between - sign * positive_margin)
    return mean(jnp.square(jnp.where(positive, over, 0)) / 2, positive & jnp.any(negative))


def generalised_lifted(batch: Compared, *, positive_margin: float, negative_margin: float, distance: str) -> jax.Array:
    """Smooth maximum of all positives against that of all negatives of an anchor (Hermans et al., 2017, section 2).

    GSV-Cities' "Lifted": margins 1 and 0 on the cosine.
    """
    positive, negative = batch.pairs
    between, sign = apart(batch.similarity, distance)
    pull = logsumexp(between - sign * positive_margin, positive)
    push = logsumexp(sign * negative_margin - between, negative)
    pull, push = jnp.where(pull > LOWEST, pull, 0), jnp.where(push > LOWEST, push, 0)
    return mean(jax.nn.relu(pull + push), batch.rows)


def n_pairs(batch: Compared) -> jax.Array:
    """One positive pair a place, its first, classified among the positives of the other places (Sohn, 2016)."""
    labels, positive = batch.labels, batch.pairs.positive
    some = jnp.any(positive, 1)
    order = jnp.arange(labels.shape[0], dtype=jnp.int32)
    earlier = (labels[:, None] == labels[None]) & some[None] & (order[None] < order[:, None])
    chosen = some & ~jnp.any(earlier, 1)
    logits = jnp.take(batch.similarity, jnp.argmax(positive, 1), axis=1)
    rest = logsumexp(logits, jnp.broadcast_to(chosen[None], logits.shape))
    return mean(rest - jnp.diagonal(logits), chosen)


def nt_xent(batch: Compared, *, temperature: float) -> jax.Array:
    """Each positive pair classified among the anchor's negatives (van den Oord et al., 2018; Chen et al., 2020).

    0 where the batch has no negative. GSV-Cities: temperature 0.07.
    """
    positive, negative = batch.pairs
    logits = batch.similarity / temperature
    rest = logsumexp(logits, negative)[:, None]
    return mean(jax.nn.softplus(jnp.where(positive, rest - logits, 0)), positive & jnp.any(negative))


def supcon(batch: Compared, *, temperature: float) -> jax.Array:
    """Mean log probability of an anchor's positives among all its pairs (Khosla et al., 2020), over anchors above 0.

    An anchor whose only pair is a positive is 0. 0 where the batch has no negative. GSV-Cities: temperature 0.07.
    """
    positive, negative = batch.pairs
    logits = batch.similarity / temperature
    normaliser = logsumexp(logits, positive | negative)[:, None]
    count = jnp.maximum(jnp.sum(positive, 1, dtype=logits.dtype), 1)
    surprise = jnp.sum(jnp.where(positive, normaliser - logits, 0), 1) / count
    # Rows with one pair are found by its count, since rounding keeps their surprise from being exactly 0.
    counts = jnp.any(positive, 1) & (jnp.sum(positive | negative, 1) > 1)
    return mean_positive(surprise, counts & jnp.any(negative))


# Name -> (function, its options with the values of pytorch-metric-learning).
PAIR_LOSSES: dict[str, tuple[Callable[..., jax.Array], dict[str, Any]]] = {
    "contrastive": (contrastive, {"positive_margin": 0.0, "negative_margin": 1.0, "distance": "euclidean"}),
    "triplet": (triplet, {"margin": 0.05, "choice": "all", "distance": "euclidean"}),
    "multi_similarity": (multi_similarity, {"alpha": 2.0, "beta": 50.0, "base": 0.5}),
    "circle": (circle, {"m": 0.4, "gamma": 80.0}),
    "lifted_structure": (lifted_structure, {"positive_margin": 0.0, "negative_margin": 1.0, "distance": "euclidean"}),
    "generalised_lifted": (
        generalised_lifted,
        {"positive_margin": 0.0, "negative_margin": 1.0, "distance": "euclidean"},
    ),
    "n_pairs": (n_pairs, {}),
    "nt_xent": (nt_xent, {"temperature": 0.07}),
    "supcon": (supcon, {"temperature": 0.1}),
}
