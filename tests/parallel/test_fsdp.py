"""Parameters split over eight simulated devices: which are, how, and what a device then holds of their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.parallel.fsdp import gathered, sized_shardings
from jaxvpr.parallel.mesh import batch_sharding, make_mesh, replicated, whole


@pytest.mark.parametrize("model", [1, 2])
def test_large_leaves_are_split_along_their_longest_axis_that_fits(model):
    shapes = {"matrix": (384, 1024), "tall": (1024, 24, 16), "odd": (1023, 400), "twelve": (12, 513), "small": (8, 8)}
    tree = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    mesh = make_mesh(model)

    def parts(least_mib):
        shardings = sized_shardings(mesh, tree, least_mib)
        return {name: shardings[name].shard_shape(shape) for name, shape in shapes.items()}

    assert parts(0) == shapes
    split = {"matrix": (384, 128), "tall": (128, 24, 16), "odd": (1023, 50)}
    assert parts(1) == {**shapes, **split}
    assert parts(0.02)["twelve"] == ((12, 513) if model == 1 else (3, 513)), "four devices of data divide 12"
    assert parts(1.5)["matrix"] == (384, 128) and parts(1.51)["matrix"] == (384, 1024), "it has 1.5 MiB"


def test_gradients_are_those_of_whole_parameters_and_no_device_holds_them_whole():
    mesh, rng = make_mesh(2), np.random.default_rng(0)
    params = {"w": rng.normal(size=(16, 32)).astype(np.float32), "b": rng.normal(size=32).astype(np.float32)}
    rows = rng.normal(size=(24, 16)).astype(np.float32)
    shardings = sized_shardings(mesh, params, 0.001)
    assert shardings["w"].shard_shape((16, 32)) == (16, 4) and shardings["b"] == replicated(mesh)

    def gradients(params, rows, whole_of):
        def loss(params):
            p = whole_of(params)
            return jnp.square(rows @ p["w"] + p["b"][None]).mean()

        return jax.grad(loss)(params)

    want = gradients(params, rows, lambda p: p)
    step = jax.jit(
        lambda p, r: gradients(p, r, lambda p: gathered(p, shardings)),
        in_shardings=(shardings, batch_sharding(mesh)),
    )
    found = step(params, rows)
    assert found["w"].addressable_shards[0].data.shape == (16, 4)
    for name, value in whole(found).items():
        assert value.sharding.is_fully_replicated
        np.testing.assert_allclose(value, want[name], rtol=1e-5, atol=1e-6)
