"""The mesh: which rows and classes lie where, with eight simulated devices."""

import jax
import numpy as np
import pytest

from jaxvpr.parallel.mesh import (
    batch_sharding,
    class_shardings,
    local_rows,
    make_mesh,
    replicated,
    to_global,
)


@pytest.mark.parametrize(("model", "shape"), [(1, (8, 1)), (2, (4, 2)), (8, (1, 8)), (0, (1, 8))])
def test_all_devices_in_order(model, shape):
    mesh = make_mesh(model)
    assert mesh.axis_names == ("data", "model") and mesh.devices.shape == shape
    assert [device.id for device in mesh.devices.flat] == sorted(device.id for device in jax.devices())
    backwards = make_mesh(model, devices=jax.devices()[::-1])
    assert list(backwards.devices.flat) == list(mesh.devices.flat)


@pytest.mark.parametrize("model", [-1, 3, 16])
def test_what_does_not_divide_the_devices(model):
    with pytest.raises(ValueError, match=rf"mesh\.model={model}\b.*devices.*\b8\b"):
        make_mesh(model)


@pytest.mark.parametrize("model", [1, 2, 4])
def test_every_row_lies_on_one_device_in_order(model):
    mesh = make_mesh(model)
    rows = {"image": np.arange(16 * 3).reshape(16, 3), "label": np.arange(16)}
    placed = to_global(mesh, rows)
    for name, array in placed.items():
        np.testing.assert_array_equal(array, rows[name])
        shards = sorted(array.addressable_shards, key=lambda shard: shard.device.id)
        np.testing.assert_array_equal(np.concatenate([shard.data for shard in shards]), rows[name])
    assert local_rows(mesh, 16) == slice(0, 16)
    with pytest.raises(ValueError, match=r"\b12\b.*\b8 devices.*\b8\b"):
        local_rows(mesh, 12)


def test_heads_are_split_by_class_and_nothing_else_is():
    mesh = make_mesh(4)
    tree = {
        "prototypes": np.zeros((3, 8, 5), np.float32),
        "odd classes": np.zeros((3, 6, 5), np.float32),
        "count": np.zeros(3, np.int32),
        "bias": np.zeros((3, 8), np.float32),
        "projection": np.zeros((3, 8, 5), np.float32),
    }
    by_class = ("prototypes", "odd classes", "count", "bias")
    shardings = class_shardings(mesh, {"head": tree}, by_class)["head"]
    shapes = {name: shardings[name].shard_shape(leaf.shape) for name, leaf in tree.items()}
    assert shapes == {
        "prototypes": (3, 2, 5), "odd classes": (3, 6, 5), "count": (3,), "bias": (3, 8), "projection": (3, 8, 5),
    }  # fmt: skip
    assert replicated(mesh).shard_shape((7, 2)) == (7, 2)
    assert batch_sharding(mesh).shard_shape((16, 2)) == (2, 2)
