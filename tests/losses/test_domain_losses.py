"""Domain losses against direct formulas in NumPy, and the reversal against the gradient it turns round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.losses.domain import WIDTHS, coral, linear_mmd, mmd, reversal, reverse


def sample(seed, count, dim=5, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(count, dim)) + shift).astype(np.float32)


def test_reversal_gives_the_features_and_turns_their_gradient_round():
    x = jnp.asarray(sample(0, 4))
    np.testing.assert_array_equal(reverse(x, jnp.float32(0.3)), x)
    plain = jax.grad(lambda x: jnp.sum(jnp.sin(x)))(x)
    turned, of_coefficient = jax.grad(lambda x, c: jnp.sum(jnp.sin(reverse(x, c))), argnums=(0, 1))(x, jnp.float32(0.3))
    np.testing.assert_allclose(turned, -0.3 * plain, rtol=1e-6)
    assert float(of_coefficient) == 0


def test_reversal_is_the_min_max_by_finite_differences():
    """One scalar network: features f = a x, a classifier b f. It goes down the loss by b and up by a."""
    x = jnp.asarray(sample(1, 6, 1)[:, 0])
    y = jnp.array([0, 1, 1, 0, 1, 0], jnp.float32)

    def loss(a, b, turned):
        features = a * x
        logits = b * (reverse(features, jnp.float32(0.7)) if turned else features)
        return jnp.mean(jax.nn.softplus(logits) - y * logits)

    a, b, step = 0.8, -0.5, 1e-2
    by_a, by_b = jax.grad(loss, argnums=(0, 1))(jnp.float32(a), jnp.float32(b), True)
    slope_a = (loss(a + step, b, False) - loss(a - step, b, False)) / (2 * step)
    slope_b = (loss(a, b + step, False) - loss(a, b - step, False)) / (2 * step)
    assert float(by_a) == pytest.approx(-0.7 * float(slope_a), rel=2e-3)
    assert float(by_b) == pytest.approx(float(slope_b), rel=2e-3)


@pytest.mark.parametrize(("gamma", "epoch"), [(7, 9), (10, 6), (15, 4)])
def test_the_coefficient_reaches_nine_tenths_when_the_figure_says(gamma, epoch):
    at = [float(reversal(jnp.float32(number / 20), gamma)) for number in range(21)]
    assert at[0] == 0 and next(number for number, value in enumerate(at) if value >= 0.9) == epoch
    np.testing.assert_allclose(at, [2 / (1 + np.exp(-gamma * number / 20)) - 1 for number in range(21)], rtol=1e-5)


def kernel(x, y, width):
    return sum(np.exp(-np.sum((x - y) ** 2) / (factor * width)) for factor in WIDTHS)


def direct_mmd(source, target):
    """Pair by pair, with the width worked out over all pairs of different rows."""
    both = np.concatenate([source, target]).astype(np.float64)
    width = np.mean([np.sum((a - b) ** 2) for i, a in enumerate(both) for j, b in enumerate(both) if i != j])
    mean = lambda xs, ys: np.mean([kernel(x, y, width) for x in xs for y in ys])  # noqa: E731
    return mean(source, source) + mean(target, target) - 2 * mean(source, target)


def test_mmd_pair_by_pair():
    source, target = sample(0, 7), sample(1, 7, shift=0.5)
    assert float(mmd(source, target)) == pytest.approx(direct_mmd(source, target), rel=1e-4)
    nearer = float(mmd(source, sample(1, 7, shift=0.1)))
    assert 0 < nearer < float(mmd(source, sample(1, 7, shift=2.0)))


def test_linear_mmd_pair_by_pair():
    source, target = sample(0, 9), sample(1, 9, shift=0.5)  # four pairs and a row left over
    pairs = [(source[i], source[i + 1], target[i], target[i + 1]) for i in range(0, 8, 2)]
    both = [(s, s2, t, t2) for s, s2, t, t2 in pairs]
    width = np.mean([np.sum((a - b) ** 2) for s, s2, t, t2 in both for a, b in ((s, s2), (t, t2), (s, t2), (s2, t))])
    terms = [
        kernel(s, s2, width) + kernel(t, t2, width) - kernel(s, t2, width) - kernel(s2, t, width)
        for s, s2, t, t2 in both
    ]
    assert float(linear_mmd(source, target)) == pytest.approx(np.mean(terms), rel=1e-4)
    with pytest.raises(ValueError, match=r"source \(9, 5\).*target \(7, 5\)"):
        linear_mmd(source, target[:7])


def test_coral_is_the_distance_of_covariances():
    source, target = sample(0, 8), 2 * sample(1, 11)
    difference = np.cov(source.T) - np.cov(target.T)
    assert float(coral(source, target)) == pytest.approx(np.sum(difference**2) / (4 * 25), rel=1e-4)
    moved = float(coral(source, source + 3))
    assert moved == pytest.approx(0, abs=1e-6), "a shift leaves covariances as they are"


@pytest.mark.parametrize("loss", [mmd, linear_mmd, coral])
def test_equal_samples_are_not_apart(loss):
    z = sample(3, 8)
    assert float(loss(z, z)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [mmd, linear_mmd, coral])
@pytest.mark.parametrize("constant", ["source", "target", "both"])
def test_gradients_are_finite_where_a_domain_is_all_alike(loss, constant):
    alike = jnp.full((6, 4), 0.5, jnp.float32)
    source = alike if constant != "target" else jnp.asarray(sample(0, 6, 4))
    target = alike if constant != "source" else jnp.asarray(sample(1, 6, 4))
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(source, target)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("loss", [mmd, coral])
def test_rows_left_out_count_for_nothing(loss):
    source, target = sample(0, 7), sample(1, 6, shift=1)
    masks = jnp.arange(7) < 5, jnp.arange(6) > 1
    spoiled = source.copy()
    spoiled[5:] = 1e3
    value, gradient = jax.value_and_grad(loss)(jnp.asarray(spoiled), target, *masks)
    assert float(value) == pytest.approx(float(loss(source[:5], target[2:])), rel=1e-4)
    assert not np.any(gradient[5:]) and np.any(gradient[:5])
    assert float(loss(source, target, jnp.zeros(7, bool), masks[1])) == 0


def test_pairs_of_linear_mmd_count_whole_or_not_at_all():
    source, target = sample(0, 8), sample(1, 8, shift=1)
    spoiled, kept = source.copy(), np.array([0, 1, 4, 5, 6, 7])
    spoiled[3] = 1e3
    mask = jnp.arange(8) != 3
    value, gradient = jax.value_and_grad(linear_mmd)(jnp.asarray(spoiled), target, mask, jnp.ones(8, bool))
    assert float(value) == pytest.approx(float(linear_mmd(source[kept], target[kept])), rel=1e-4)
    assert not np.any(gradient[2:4]) and np.any(gradient[4:])
    assert float(linear_mmd(source, target, mask, jnp.zeros(8, bool))) == 0
