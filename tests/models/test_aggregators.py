"""Generalised-mean pooling and the head of CosPlace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.models.aggregators.cosplace import CosPlace
from jaxvpr.models.aggregators.gem import GeM
from jaxvpr.models.features import Features

MAP = np.random.default_rng(0).uniform(0, 2, (2, 3, 4, 5)).astype(np.float32)


def gem(x, p, **options):
    return GeM(**options).apply({"params": {"p": jnp.atleast_1d(jnp.float32(p))}}, Features(jnp.asarray(x)))


def test_by_hand():
    x = np.array([1, 2, 3, 0], np.float32).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(gem(x, 3), [[((1 + 8 + 27 + 1e-18) / 4) ** (1 / 3)]], rtol=1e-6)
    np.testing.assert_allclose(gem(x, 1), [[1.5]], rtol=1e-5)


def test_between_the_mean_and_the_maximum():
    np.testing.assert_allclose(gem(MAP, 1), MAP.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(gem(MAP, 300), MAP.max((1, 2)), rtol=0.02)
    assert (np.diff([gem(MAP, p) for p in (1, 2, 4, 9, 30)], axis=0) > 0).all()


@settings(deadline=None, max_examples=30)
@given(p=st.floats(1, 12), factor=st.floats(0.01, 100))
def test_scales_with_its_input(p, factor):
    np.testing.assert_allclose(gem(MAP * np.float32(factor), p), gem(MAP, p) * factor, rtol=1e-3)


def test_one_exponent_a_channel():
    p = np.array([1, 2, 3, 4, 5], np.float32)
    got = GeM(per_channel=True).apply({"params": {"p": p}}, Features(MAP))
    for channel in range(5):
        np.testing.assert_allclose(got[:, channel], gem(MAP, p[channel])[:, channel], rtol=1e-6)
    assert GeM(per_channel=True).init(jax.random.key(0), Features(MAP))["params"]["p"].shape == (5,)


def test_negative_features_and_large_exponents_stay_finite():
    for p in (3.0, 7.0, 40.0):
        value, gradient = jax.value_and_grad(lambda x, p=p: jnp.sum(gem(x, p)))(-MAP)
        np.testing.assert_allclose(value, 10 * 1e-6, rtol=1e-3)
        assert np.isfinite(gradient).all()


def test_normalisation_before_pooling():
    unit = MAP / np.linalg.norm(MAP, axis=-1, keepdims=True)
    np.testing.assert_allclose(gem(MAP, 3, l2_before=True), gem(unit, 3), rtol=1e-5)


def test_cosplace_is_l2_gem_and_a_linear_layer():
    head = CosPlace(dim=7)
    variables = head.init(jax.random.key(0), Features(MAP))
    fc = jax.tree.map(np.asarray, variables["params"]["fc"])
    bias = np.arange(7, dtype=np.float32)
    variables = {"params": {**variables["params"], "fc": {**fc, "bias": bias}}}
    unit = MAP / np.linalg.norm(MAP, axis=-1, keepdims=True)
    pooled = ((unit**3).mean((1, 2))) ** (1 / 3)
    np.testing.assert_allclose(head.apply(variables, Features(MAP)), pooled @ fc["kernel"] + bias, rtol=1e-4)
    assert np.abs(fc["kernel"]).max() <= 1 / np.sqrt(5)


def test_fc_norm_normalises_each_dimension_over_the_batch():
    head = CosPlace(dim=6, fc_norm=True)
    x = Features(np.random.default_rng(1).uniform(0, 1, (16, 2, 2, 5)).astype(np.float32))
    variables = head.init(jax.random.key(0), x)
    out, new = head.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    assert np.any(new["batch_stats"]["norm"]["mean"])
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(head.apply(variables, x).mean(0), 0, atol=1e-4)
