"""Max pooling from slices is lax's to the bit, and stays on CPUs."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvpr.models.layers import max_pool
from jaxvpr.models.platforms import plain
from jaxvpr.parallel.mesh import make_mesh

RNG = np.random.default_rng(0)
RESNETS = (3, 2, 1)
SPOILED = {
    "distinct": lambda x: x,
    "ties": np.round,
    "NaN": lambda x: np.where(RNG.random(x.shape) < 0.2, np.nan, x),
    "-inf": lambda x: np.where(RNG.random(x.shape) < 0.7, -np.inf, x),
}


def both(x, dy, size, stride, padding=0, ceil=False):
    """The largest values and their gradient."""
    y, pull = jax.vjp(partial(max_pool, size=size, stride=stride, padding=padding, ceil=ceil), x)
    return y, pull(dy(y))[0]


def bits(array):
    array = np.asarray(array)
    return np.where(np.isnan(array), array.dtype.type(np.nan), array).view(f"u{array.itemsize}")


@settings(deadline=None, max_examples=14)
@given(
    height=st.integers(5, 10),
    width=st.integers(5, 10),
    window=st.sampled_from([RESNETS, (2, 2, 0), (3, 2, 0), (3, 1, 1), (2, 3, 1)]),
    ceil=st.booleans(),
    spoil=st.sampled_from(list(SPOILED)),
    dtype=st.sampled_from([np.float32, jnp.bfloat16]),
)
def test_it_is_laxs_to_the_bit_and_so_is_its_gradient(height, width, window, ceil, spoil, dtype):
    x = jnp.asarray(SPOILED[spoil](RNG.normal(size=(2, height, width, 3))), dtype)

    def gradient(y):
        return jnp.asarray(np.random.default_rng(1).normal(size=y.shape), dtype)

    def ours(x):
        return both(x, gradient, *window, ceil)

    for found, wanted in zip(jax.jit(ours)(x), jax.jit(plain(ours))(x), strict=True):
        np.testing.assert_array_equal(bits(found), bits(wanted))


def step(x):
    return both(x, jnp.ones_like, *RESNETS)


def plain_step(x):
    return jax.value_and_grad(lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))).sum())(x)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_a_program_for_a_cpu_has_it(platform):
    program = jax.jit(step).trace(jnp.ones((1, 6, 6, 2))).lower(lowering_platforms=(platform,)).as_text()
    laxs = jax.jit(plain_step).trace(jnp.ones((1, 6, 6, 2))).lower(lowering_platforms=(platform,)).as_text()
    assert "select_and_scatter" in laxs and "reduce_window" in laxs
    assert ("select_and_scatter" in program) == ("reduce_window" in program) == (platform != "cpu")


def test_a_program_for_all_platforms_is_laxs_also_after_another_trace():
    images, pool = jax.ShapeDtypeStruct((2, 6, 6, 2), np.float32), partial(max_pool, size=2, stride=2)
    platforms = {"platforms": ("cpu", "cuda", "tpu")}
    assert "case" in jax.export.export(jax.jit(pool), **platforms)(images).mlir_module()
    file = jax.export.export(jax.jit(plain(pool)), **platforms)(images).mlir_module()
    assert "reduce_window" in file and "case" not in file
    assert "case" in jax.export.export(jax.jit(pool), **platforms)(images).mlir_module()


def test_a_batch_stays_on_its_devices():
    split = NamedSharding(make_mesh(), P("data"))
    x = RNG.normal(size=(16, 9, 8, 4)).astype(np.float32)
    compiled = jax.jit(step, in_shardings=split, out_shardings=split).lower(x).compile()
    assert not [line for line in compiled.as_text().splitlines() if "all-" in line or "collective-" in line]
    for found, wanted in zip(compiled(jax.device_put(x, split)), jax.jit(step)(x), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_it_maps_over_examples():
    x = RNG.normal(size=(3, 1, 7, 8, 2)).astype(np.float32)
    for found, wanted in zip(jax.vmap(step)(x), step(x[:, 0]), strict=True):
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
