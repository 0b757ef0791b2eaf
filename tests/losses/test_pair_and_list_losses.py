"""Losses on places by hand, against literal loops with finite differences, and where little or nothing counts."""

from functools import partial

import jax
import jax.numpy as jnp
import loss_loops
import numpy as np
import pytest
from loss_loops import cosines, lists

from jaxvpr.losses import measures
from jaxvpr.losses.compared import Pairs, compare
from jaxvpr.losses.measures import References
from jaxvpr.losses.metric import LOSSES, place_loss
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
    run = jax.jit(partial(place_loss, loss=loss, loss_options=options))
    np.testing.assert_allclose(run(*THREE), expected, rtol=2e-6)


def test_n_pairs_by_hand():
    # The first pairs are (0, 1) and (2, 3); the masked row has the label of the first place.
    x = np.array([[1, 0], [3, 4], [0, 1], [-3, 4], [5, 6]], np.float32)
    labels, mask = np.array([4, 4, 1, 1, 4], np.int32), np.arange(5) < 4
    expected = half(softplus(-0.6 - 0.6), softplus(0.8 - 0.8))
    run = jax.jit(partial(place_loss, loss="n_pairs"))
    np.testing.assert_allclose(run(x, labels, mask), expected, rtol=1e-6)


def slopes(f, x):
    """Central differences."""
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = 1e-5
        gradient[place] = (f(x + step) - f(x - step)) / 2e-5
    return gradient


# x, labels, mask, and the share of pairs that a miner keeps.
BATCHES = {
    "all pairs": (X, Y, np.ones(9, bool), 1),
    "mined": (X, Y, np.ones(9, bool), 0.75),
    "padded": (X, Y, np.arange(9) != 5, 1),
    "one class": (X, 0 * Y, np.ones(9, bool), 1),
    "no positive": (X, np.arange(9, dtype=np.int32), np.ones(9, bool), 1),
    "identical": (np.tile(X[:1], (9, 1)), Y, np.ones(9, bool), 1),
    "zero": (0 * X, Y, np.ones(9, bool), 1),
    "opposite": (np.where(Y[:, None] == 2, X[:1], -X[:1]), Y, np.ones(9, bool), 1),
    "one element": (X, Y, np.arange(9) == 3, 1),
    "all masked": (X, Y, np.zeros(9, bool), 1),
    "nothing mined": (X, Y, np.ones(9, bool), 0),
}
SMOOTH = ("all pairs", "mined", "padded", "one class", "no positive")
CASES = [
    *((name, {}) for name in LOSSES),
    ("triplet", {"choice": "semihard", "margin": 0.3}),
    ("lifted_structure", {"positive_margin": 0.9, "negative_margin": 0.1, **COSINE}),
]


def masks_of(labels, mask, share):
    table = np.zeros((2, 9, 9), bool)
    for kind, rows in zip(table, lists(labels, mask), strict=True):
        for i, row in enumerate(rows):
            kind[i, row] = True
    return table & (np.random.default_rng(3).random((9, 9)) < share)


@pytest.mark.parametrize(("loss", "options"), CASES)
def test_values_and_gradients_are_those_of_loops_and_always_finite(loss, options, monkeypatch):
    """All batches in one program, whose triples come in chunks of 2 of the 9 columns."""
    monkeypatch.setattr(measures, "TRIPLES", 2 * 9 * 9)
    options, by_pairs = {**LOSSES[loss][1], **options}, loss in PAIR_LOSSES
    x, labels, mask, share = (np.stack(part) for part in zip(*BATCHES.values(), strict=True))
    tables = np.stack(
        [masks_of(*batch) for batch in zip(labels, mask, share if by_pairs else 0 * share + 1, strict=True)]
    )

    def run(x, labels, mask, pairs):
        batch = compare(x, labels, mask)
        return LOSSES[loss][0](batch._replace(pairs=Pairs(*pairs)) if by_pairs else batch, **options)

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(run)))(x, labels, mask, tables)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    for name, value, gradient, keep, table in zip(BATCHES, values, gradients, mask, tables, strict=True):
        assert not np.any(gradient[~keep])
        if not table.any():
            assert value == 0 and not np.any(gradient), name
        if name not in SMOOTH or loss == "n_pairs":
            continue
        p, n = ([[int(j) for j in np.flatnonzero(row)] for row in kind[keep][:, keep]] for kind in table)
        here = X[keep].astype(np.float64)
        base = cosines(here)

        def slow(x, p=p, n=n, base=base):
            return getattr(loss_loops, loss)(cosines(x), base, p, n, options)

        np.testing.assert_allclose(value, slow(here), rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(gradient[keep], slopes(slow, here), rtol=1e-4, atol=2e-5, err_msg=name)
    assert values[0] > 0


def test_references_that_are_the_batch_or_masked_change_nothing_and_others_do():
    own, labels = np.arange(9, dtype=np.int32), np.concatenate([Y, Y])
    references = References(np.concatenate([X, -X]), labels, np.arange(18) < 9, own)

    @jax.jit
    def run(loss_references):
        return place_loss(X, Y, loss="smooth_ap", references=loss_references), place_loss(
            X, Y, loss="multi_similarity", miner="multi_similarity", references=loss_references
        )

    plain, itself, masked, more = (
        np.array(run(given)) for given in (None, References(X, Y, own=own), references, references._replace(mask=None))
    )
    np.testing.assert_allclose(itself, plain, rtol=1e-6)
    np.testing.assert_allclose(masked, plain, rtol=1e-6)
    assert np.all(np.abs(more - plain) > 1e-3)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        for loss in ("triplet", "smooth_ap"):
            shape = jax.eval_shape(partial(place_loss, loss=loss), jax.ShapeDtypeStruct((9, 3), jnp.float64), Y)
            assert shape.dtype == jnp.float64
    half_precision = jax.ShapeDtypeStruct((9, 3), jnp.bfloat16)
    assert jax.eval_shape(partial(place_loss, loss="circle"), half_precision, Y).dtype == jnp.float32
