"""Losses on places by hand, against literal loops with finite differences, and on batches where little or nothing counts."""

import jax
import jax.numpy as jnp
import loss_loops
import numpy as np
import pytest
from loss_loops import cosines, lists

from jaxvpr.losses import measures
from jaxvpr.losses.measures import References
from jaxvpr.losses.metric import LOSSES, place_loss
from jaxvpr.losses.miners import Pairs
from jaxvpr.losses.pairs import PAIR_LOSSES

RNG = np.random.default_rng(1)
X = RNG.normal(size=(9, 3)).astype(np.float32)
Y = np.array([2, 0, 1, 0, 5, 2, 1, 2, 1], np.int32)
COSINE = {"distance": "cosine"}
# Cosines 0.6 (the two of place 0), 0 and 0.8.
THREE = np.array([[1, 0], [3, 4], [0, 2]], np.float32), np.array([0, 0, 1], np.int32)


def softplus(x):
    return np.log(1 + np.exp(x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def half(a, b):
    return (a + b) / 2


def smooth_precision(own, match, other):
    """AP of the list of an anchor with cosine 1 to itself, at temperature 0.2."""
    first, second = 1 + sigmoid((match - own) / 0.2), 1 + sigmoid((own - match) / 0.2)
    return half(first / (first + sigmoid((other - own) / 0.2)), second / (second + sigmoid((other - match) / 0.2)))


BY_HAND = [
    ("contrastive", {"positive_margin": 0.7, "negative_margin": 0.3, **COSINE}, 0.1 + 0.5),
    ("contrastive", {}, np.sqrt(0.8) + 1 - np.sqrt(0.4)),
    ("triplet", {"margin": 0.7, **COSINE}, half(0.1, 0.9)),
    ("triplet", {"margin": 0.7, "choice": "hard", **COSINE}, 0.9),
    ("triplet", {"margin": 0.7, "choice": "semihard", **COSINE}, 0.1),
    (
        "multi_similarity",
        {"alpha": 1.0, "base": 0.0},
        (2 * softplus(-0.6) + np.log(2) / 50 + softplus(40) / 50 + np.log(2 + np.exp(40)) / 50) / 3,
    ),
    ("circle", {"gamma": 1.0}, half(softplus(-0.16), softplus(1.2 * 0.4))),
    (
        "lifted_structure",
        {"positive_margin": 1.0, "negative_margin": 0.0, **COSINE},
        (np.log(1 + np.exp(0.8)) + 0.4) ** 2 / 2,
    ),
    (
        "generalised_lifted",
        {"positive_margin": 1.0, "negative_margin": 0.0, **COSINE},
        (0.4 + (0.4 + 0.8) + np.log(1 + np.exp(0.8))) / 3,
    ),
    ("nt_xent", {"temperature": 0.1}, half(softplus(-6), softplus(2))),
    ("supcon", {}, half(softplus(-6), softplus(2))),
    ("fast_ap", {"bins": 2}, 1 - half(0.6 + 0.4 / 2, 0.6 * 0.6 / 1.4 + 0.4 / 2)),
    ("listwise_ap", {"bins": 3}, 1 - half(1, 0.2 * 0.2 / 0.8 + 0.8 / 2)),
    ("smooth_ap", {"temperature": 0.2}, 1 - half(smooth_precision(1, 0.6, 0), smooth_precision(1, 0.6, 0.8))),
]


@pytest.mark.parametrize(("loss", "options", "expected"), BY_HAND)
def test_three_descriptors_by_hand(loss, options, expected):
    np.testing.assert_allclose(place_loss(*THREE, loss=loss, loss_options=options), expected, rtol=2e-6)


def test_n_pairs_by_hand():
    # The first pairs are (0, 1) and (2, 3); the masked row has the label of the first place.
    x = np.array([[1, 0], [3, 4], [0, 1], [-3, 4], [5, 6]], np.float32)
    labels, mask = np.array([4, 4, 1, 1, 4], np.int32), np.arange(5) < 4
    expected = half(softplus(-0.6 - 0.6), softplus(0.8 - 0.8))
    np.testing.assert_allclose(place_loss(x, labels, mask, loss="n_pairs"), expected, rtol=1e-6)


def slopes(f, x):
    """Central differences."""
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = 1e-5
        gradient[place] = (f(x + step) - f(x - step)) / 2e-5
    return gradient


CASES = [
    *((name, {}) for name in LOSSES if name != "n_pairs"),
    ("triplet", {"choice": "semihard", "margin": 0.3}),
    ("lifted_structure", {"positive_margin": 0.9, "negative_margin": 0.1, **COSINE}),
]


@pytest.mark.parametrize(("loss", "options"), CASES)
def test_values_and_gradients_are_those_of_loops(loss, options, monkeypatch):
    """On all pairs, on three quarters of them, and with rows masked; triples come in chunks of 2 of the 9 columns."""
    monkeypatch.setattr(measures, "TRIPLES", 2 * 9 * 9)
    options = {**LOSSES[loss][1], **options}
    masks = np.stack([np.ones(9, bool), np.ones(9, bool), np.arange(9) != 5])
    kept = np.stack([np.ones((9, 9), bool), RNG.random((9, 9)) < 0.75, np.ones((9, 9), bool)])
    positives = np.array([[[j in row for j in range(9)] for row in lists(Y, mask)[0]] for mask in masks])
    negatives = np.array([[[j in row for j in range(9)] for row in lists(Y, mask)[1]] for mask in masks])
    if loss in PAIR_LOSSES:
        positives, negatives = positives & kept, negatives & kept

    def run(x, mask, positive, negative):
        pairs = {"pairs": Pairs(positive, negative)} if loss in PAIR_LOSSES else {}
        return LOSSES[loss][0](x, Y, mask, **pairs, **options)

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(run), (None, 0, 0, 0)))(X, masks, positives, negatives)
    for mask, *pairs, value, gradient in zip(masks, positives, negatives, values, gradients, strict=True):
        p, n = ([[int(j) for j in np.flatnonzero(row)] for row in table[mask][:, mask]] for table in pairs)
        here, base = X[mask].astype(np.float64), cosines(X[mask].astype(np.float64))

        def slow(x, p=p, n=n, base=base):
            return getattr(loss_loops, loss)(cosines(x), base, p, n, options)

        np.testing.assert_allclose(value, slow(here), rtol=1e-5, atol=1e-6)
        assert value > 0
        np.testing.assert_allclose(gradient[mask], slopes(slow, here), rtol=1e-4, atol=2e-5)
        assert not np.any(gradient[~mask])


# x, labels, mask, and whether every loss must be 0.
DEGENERATE = {
    "one class": (X, 0 * Y, np.ones(9, bool)),
    "identical": (np.tile(X[:1], (9, 1)), Y, np.ones(9, bool)),
    "zero": (0 * X, Y, np.ones(9, bool)),
    "opposite": (np.where(Y[:, None] == 2, X[:1], -X[:1]), Y, np.ones(9, bool)),
    "no positive": (X, np.arange(9, dtype=np.int32), np.ones(9, bool)),
    "one element": (X, Y, np.arange(9) == 3),
    "all masked": (X, Y, np.zeros(9, bool)),
}


@pytest.mark.parametrize("miner", ["none", "multi_similarity", "batch_hard"])
@pytest.mark.parametrize("loss", LOSSES)
def test_degenerate_batches_are_finite_and_nothing_is_zero(loss, miner):
    run = jax.value_and_grad(lambda x, labels, mask: place_loss(x, labels, mask, loss=loss, miner=miner))
    batch = (np.stack(part) for part in zip(*DEGENERATE.values(), strict=True))
    values, gradients = jax.jit(jax.vmap(run))(*batch)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    by_name = dict(zip(DEGENERATE, zip(values, gradients, strict=True), strict=True))
    for name in ("one element", "all masked"):
        assert by_name[name][0] == 0 and not np.any(by_name[name][1]), name


def test_a_batch_against_itself_as_references_is_the_batch():
    """And with others before it, it is the rows of the larger batch that belong to it."""
    own = np.arange(9, dtype=np.int32)
    for loss in ("triplet", "multi_similarity", "smooth_ap"):
        plain = place_loss(X, Y, loss=loss, miner="multi_similarity")
        got = place_loss(X, Y, loss=loss, miner="multi_similarity", references=References(X, Y, own=own))
        if loss == "smooth_ap":  # A miner's weights count columns too where these are the rows.
            plain = place_loss(X, Y, loss=loss)
            got = place_loss(X, Y, loss=loss, references=References(X, Y, own=own))
        np.testing.assert_allclose(got, plain, rtol=1e-6)


def test_masked_references_count_nowhere_and_unmasked_ones_do():
    more, labels = np.concatenate([X, -X]), np.concatenate([Y, Y])
    own, mask = np.arange(9, dtype=np.int32), np.arange(18) < 9
    for loss in ("contrastive", "nt_xent", "fast_ap"):
        plain = place_loss(X, Y, loss=loss)
        masked = place_loss(X, Y, loss=loss, references=References(more, labels, mask, own))
        np.testing.assert_allclose(masked, plain, rtol=1e-6)
        assert abs(place_loss(X, Y, loss=loss, references=References(more, labels, None, own)) - plain) > 1e-3


def test_float64_stays_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        for loss in LOSSES:
            value = place_loss(x, Y, loss=loss)
            assert value.dtype == jnp.float64
    assert place_loss(X.astype(jnp.bfloat16), Y, loss="circle").dtype == jnp.float32
