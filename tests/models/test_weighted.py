"""Gradients of weights whose products are bfloat16, on eight simulated devices: where they are summed, and in what."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.models.layers import Conv, Dense
from jaxvpr.models.weighted import summed_in_float32
from jaxvpr.parallel.mesh import batch_sharding, make_mesh

LAYERS = {
    "3x3": (lambda dtype: Conv(6, 3, 2, 1, True, dtype), (16, 9, 7, 4)),
    "1x1": (lambda dtype: Conv(6, 1, 1, 0, True, dtype), (16, 5, 7, 4)),
    "linear": (lambda dtype: Dense(6, dtype=dtype), (16, 5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_each_device_sums_is_made_float32_before_devices_add_it_up(name):
    """Looked at as it is traced: a CPU computes bfloat16 in float32, and adds up in that anyway."""
    make, shape = LAYERS[name]
    mesh, rng = make_mesh(2), np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    params = make(jnp.float32).init(jax.random.key(0), x)
    weight = rng.normal(size=make(jnp.float32).apply(params, x).shape).astype(np.float32)

    def step(dtype):
        def loss(params, x, weight):
            return jnp.sum(make(dtype).apply(params, x).astype(jnp.float32) * weight)

        def gradients(params, x, weight):
            with summed_in_float32(mesh):
                return jax.grad(loss, argnums=(0, 1))(params, x, weight)

        rows = batch_sharding(mesh)
        return jax.jit(gradients, in_shardings=(None, rows, rows))

    def sums(dtype):
        program = step(dtype).lower(params, x, weight).as_text()
        return re.findall(r"stablehlo\.all_reduce.*?-> tensor<(?:\d+x)*(\w+)>", program, re.DOTALL)

    assert sums(jnp.bfloat16) == ["f32", "f32"], "of the kernel and of the bias"
    assert sums(jnp.float32) == [], "there the compiler finds them itself"
    found, want = (step(dtype)(params, x, weight) for dtype in (jnp.bfloat16, jnp.float32))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())
