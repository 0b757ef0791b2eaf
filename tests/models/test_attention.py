"""Attention: equal to its formula, in factors of the type that it is asked in, and by cuDNN where that has it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.device.program import flops
from jaxvpr.models import attention
from jaxvpr.models.platforms import plain

SHAPES = (2, 5, 3, 8), (2, 7, 3, 8), (2, 7, 3, 8)  # batch, count, heads, numbers
PRODUCTS = 2 * 2 * 3 * 5 * 7 * 8  # FLOPs of one


def arrays(dtype="float32", dim=8):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(*shape[:3], dim)), dtype) for shape in SHAPES]


def by_hand(query, key, value, keep=1.0):
    """In float64, image by image and head by head."""
    q, k, v = (np.asarray(x, np.float64).transpose(0, 2, 1, 3) for x in (query, key, value))
    shares = np.exp(q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]))
    shares /= shares.sum(-1, keepdims=True)
    return ((shares * keep) @ v).transpose(0, 2, 1, 3)


# Of 7 keys the first is computed by itself with tiles of 3.
lanes = pytest.mark.parametrize("lanes", [128, 3])


@lanes
@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-6), ("bfloat16", 0.02), ("float16", 0.003)])
def test_it_is_its_formula(dtype, apart, lanes, monkeypatch):
    monkeypatch.setattr(attention, "LANES", lanes)
    given = arrays(dtype)
    found = attention.attend(*given)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), by_hand(*given), atol=apart)


@lanes
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_gradients_in_bfloat16_are_those_of_float32_in_products_of_bfloat16(rate, lanes, monkeypatch):
    monkeypatch.setattr(attention, "LANES", lanes)
    given = arrays()
    weight = np.random.default_rng(1).normal(size=SHAPES[0]).astype(np.float32)

    class Attends(nn.Module):
        @nn.compact
        def __call__(self, *arrays):
            return attention.attend(*arrays, nn.Dropout(rate, deterministic=False))

    def loss(*arrays):
        found = Attends().apply({}, *arrays, rngs={"dropout": jax.random.key(0)})
        return jnp.sum(found.astype(jnp.float32) * weight)

    gradient = jax.grad(loss, (0, 1, 2))
    rounded = [x.astype(jnp.bfloat16) for x in given]
    exact = gradient(*(x.astype(jnp.float32) for x in rounded))
    for ours, theirs in zip(gradient(*rounded), exact, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(ours, np.float32), theirs, atol=0.02 * np.abs(theirs).max())
    assert flops(jax.make_jaxpr(gradient)(*rounded)) == {"bfloat16": 6 * PRODUCTS}
    assert flops(jax.make_jaxpr(gradient)(*given)) == {"float32": 6 * PRODUCTS}


class Device:
    def __init__(self, capability):
        self.compute_capability = capability


@pytest.mark.parametrize(
    ("dtype", "dim", "capability", "wanted"),
    [
        ("bfloat16", 8, "9.0", True),
        ("float16", 64, "8.0", True),
        ("float32", 64, "9.0", False),
        ("bfloat16", 12, "9.0", False),
        ("bfloat16", 136, "9.0", False),
        ("bfloat16", 64, "7.5", False),
        ("bfloat16", 64, "gfx942", False),
    ],
)
def test_cudnn_attends_where_it_can(dtype, dim, capability, wanted, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [Device(capability)])
    asked = []
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, k, v, implementation: asked.append(implementation))
    given = arrays(dtype, dim)
    plain(attention.attend)(*given)
    attention.attend(*given, nn.Dropout(0.5, deterministic=True))
    assert asked == ["cudnn"] * wanted
