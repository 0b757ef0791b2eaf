"""Miners: masks of the pairs of a batch that a loss uses.

A miner is a function `(similarity [B, M], Pairs, *, options) -> Pairs` of shapes that never change; it has no gradient.
Triplets are (anchor, positive, negative) of the kept pairs of one row. Semantics are those of pytorch-metric-learning
2.9, whose miners the code bases of GSV-Cities, MixVPR, SALAD and BoQ use.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxvpr.losses.compared import Pairs
from jaxvpr.losses.measures import apart


def everything(similarity: jax.Array, pairs: Pairs) -> Pairs:
    """No mining: all pairs."""
    return pairs


def multi_similarity(similarity: jax.Array, pairs: Pairs, *, epsilon: float) -> Pairs:
    """Positives less similar than the row's most similar negative + epsilon, and negatives more similar than its least
    similar positive - epsilon (Wang et al., 2019). GSV-Cities, MixVPR, SALAD and BoQ train with epsilon 0.1.
    """
    positive, negative = pairs
    farthest = jnp.min(jnp.where(positive, similarity, jnp.inf), 1, keepdims=True)
    nearest = jnp.max(jnp.where(negative, similarity, -jnp.inf), 1, keepdims=True)
    return Pairs(positive & (similarity - epsilon < nearest), negative & (similarity + epsilon > farthest))


def pair_margin(similarity: jax.Array, pairs: Pairs, *, positive: float, negative: float, distance: str) -> Pairs:
    """Positives farther than the margin `positive` and negatives nearer than `negative`.

    On `distance="cosine"` that is positives less similar than `positive`, negatives more similar than `negative`.
    pytorch-metric-learning's 0.2 and 0.8 are Euclidean by default; on the cosine they keep only gross mistakes, and
    GSV-Cities uses 0.7 and 0.3 there.

    Raises:
      ValueError: for an unknown distance.
    """
    between, sign = apart(similarity, distance)
    return Pairs(pairs.positive & (between > sign * positive), pairs.negative & (between < sign * negative))


STRATEGIES = ("hard", "semihard", "easy", "all")


def batch_easy_hard(similarity: jax.Array, pairs: Pairs, *, positive: str, negative: str) -> Pairs:
    """One positive and one negative an anchor, each by its own strategy (Xuan et al., 2020).

    `hard`: the least similar positive, the most similar negative; `easy`: the opposite; `semihard`: the hardest
    that is still on the right side of the other choice; `all`: all of them. Rows without either are left out,
    except that a side with `all` stays complete.

    Raises:
      ValueError: for an unknown strategy, `semihard` twice, or `semihard` with `all`.
    """
    for strategy in (positive, negative):
        if strategy not in STRATEGIES:
            raise ValueError(f"unknown strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    if (positive, negative) in {("semihard", "semihard"), ("semihard", "all"), ("all", "semihard")}:
        raise ValueError(f"positive {positive!r} with negative {negative!r} has no fixed side to compare with")
    near, far = pairs.positive, pairs.negative
    # A positive gets harder as its similarity falls, a negative as it rises.
    if positive == "semihard":
        far = _most(similarity if negative == "hard" else -similarity, far)
        right = similarity > jnp.min(jnp.where(far, similarity, jnp.inf), 1, keepdims=True)
        near = _most(-similarity, near & right)
    else:
        near = near if positive == "all" else _most(-similarity if positive == "hard" else similarity, near)
        if negative == "semihard":
            far &= similarity < jnp.max(jnp.where(near, similarity, -jnp.inf), 1, keepdims=True)
        far = far if negative == "all" else _most(-similarity if negative == "easy" else similarity, far)
    if "all" in (positive, negative):
        return Pairs(near, far)
    both = jnp.any(near, 1, keepdims=True) & jnp.any(far, 1, keepdims=True)
    return Pairs(near & both, far & both)


def _most(score: jax.Array, keep: jax.Array) -> jax.Array:
    """Bool [B, M]: the kept column of highest score in each row that keeps any; the first of equals."""
    best = jnp.argmax(jnp.where(keep, score, -jnp.inf), 1)
    return keep & (jax.lax.broadcasted_iota(best.dtype, keep.shape, 1) == best[:, None])


def batch_hard(similarity: jax.Array, pairs: Pairs) -> Pairs:
    """The least similar positive and the most similar negative of each anchor that has both (Hermans et al., 2017)."""
    return batch_easy_hard(similarity, pairs, positive="hard", negative="hard")


# Name -> (function, its options with the values of pytorch-metric-learning; those of `pair_margin` on the cosine).
MINERS: dict[str, tuple[Callable[..., Pairs], dict[str, Any]]] = {
    "none": (everything, {}),
    "multi_similarity": (multi_similarity, {"epsilon": 0.1}),
    "pair_margin": (pair_margin, {"positive": 0.2, "negative": 0.8, "distance": "cosine"}),
    "batch_hard": (batch_hard, {}),
    "batch_easy_hard": (batch_easy_hard, {"positive": "easy", "negative": "semihard"}),
}
# Which negatives may follow a positive of a triplet: (distance to the positive, to the negative, margin) -> bool.
TRIPLETS: dict[str, Callable[[jax.Array, jax.Array, float], jax.Array]] = {
    "all": lambda near, far, margin: far - near < margin,
    "hard": lambda near, far, margin: (far - near < margin) & (far <= near),
    "semihard": lambda near, far, margin: (far - near < margin) & (far > near),
}


def row_weights(pairs: Pairs, *, triplets: bool = False, symmetric: bool = True) -> jax.Array:
    """How often each element stands in mined pairs, over the largest such count: float32 [B].

    Losses that need no pairs (ranking, margins) use a miner by these weights. All ones where nothing was mined.

    Args:
      pairs: the mined masks.
      triplets: an anchor counts once per triplet and not twice, as pytorch-metric-learning's batch-hard has it.
      symmetric: columns are the rows themselves, and count too; False with references.
    """
    positive, negative = (table.astype(jnp.float32) for table in pairs)
    count = jnp.sum(positive, 1) + (0 if triplets else jnp.sum(negative, 1))
    if symmetric:
        count = count + jnp.sum(positive, 0) + jnp.sum(negative, 0)
    most = jnp.max(count)
    return jnp.where(most > 0, count / jnp.maximum(most, 1), jnp.ones_like(count))
