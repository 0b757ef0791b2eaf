"""The aggregator that keeps the layout, and the backbone cut where the layout is still fine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.models import join
from jaxvpr.models.aggregators.flatten import Flatten
from jaxvpr.models.backbones.squeezenet import Fire
from jaxvpr.models.features import Features

MAP = np.random.default_rng(0).uniform(0, 2, (4, 2, 3, 5)).astype(np.float32)


@pytest.mark.parametrize("reduce", [0, 2])
def test_is_l2_a_linear_layer_of_each_cell_and_one_of_all(reduce):
    head = Flatten(dim=7, reduce=reduce, fc_norm=False)
    params = jax.tree.map(np.asarray, head.init(jax.random.key(0), Features(jnp.asarray(MAP)))["params"])
    params["fc"]["bias"] = np.arange(7, dtype=np.float32)
    expected = MAP / np.linalg.norm(MAP, axis=-1, keepdims=True)
    if reduce:
        expected = np.einsum("bhwc,cd->bhwd", expected, params["reduce"]["kernel"])
    expected = expected.reshape(4, -1) @ params["fc"]["kernel"] + params["fc"]["bias"]
    np.testing.assert_allclose(head.apply({"params": params}, Features(jnp.asarray(MAP))), expected, atol=1e-5)


def test_tells_apart_what_pooling_does_not():
    head = Flatten(dim=16, fc_norm=False)
    both = jnp.asarray(np.concatenate([MAP, MAP[:, :, ::-1]]))
    found = head.apply(head.init(jax.random.key(1), Features(both)), Features(both))
    assert np.linalg.norm(found[:4] - found[4:], axis=1).min() > 0.05


def test_normalises_each_dimension_over_the_batch_in_training_only():
    head, x = Flatten(dim=6), Features(jnp.asarray(MAP))
    variables = head.init(jax.random.key(0), x)
    out, new = head.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(0), 1, atol=0.02)
    assert np.any(new["batch_stats"]["norm"]["mean"])
    assert np.abs(head.apply(variables, x).mean(0)).max() > 1e-3


@pytest.mark.parametrize(("cut", "shape"), [(2, (6, 14, 96)), (6, (3, 7, 256)), (10, (3, 7, 512)), (12, (1, 3, 512))])
def test_squeezenet_stops_after_the_layer_it_is_told(cut, shape):
    net = join(backbone="squeezenet", aggregator="gem", backbone_options={"cut": cut}).backbone
    image = jax.ShapeDtypeStruct((1, 32, 64, 3), jnp.float32)
    found, variables = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x), image)
    assert found.map.shape[1:] == shape
    assert max(int(name.removeprefix("features_")) for name in variables["params"]) <= cut


def test_a_cut_that_does_not_exist_lists_those_that_do():
    with pytest.raises(ValueError, match=r"cut=1 .*\[2, 3, 4"):
        join(backbone="squeezenet", aggregator="gem", backbone_options={"cut": 1}).init(
            jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8)
        )


def test_squeezenet_starts_as_torchvision_draws_it():
    fire = Fire(8, 16, jnp.float32).init(jax.random.key(0), np.ones((1, 4, 4, 24), np.float32))["params"]
    for name, fan_in in (("squeeze", 24), ("expand1x1", 8), ("expand3x3", 9 * 8)):
        # Kaiming's uniform distribution, which keeps the spread of what a ReLU has halved.
        assert 0.9 < np.abs(fire[name]["kernel"]).max() / np.sqrt(6 / fan_in) <= 1, name
        assert not fire[name]["bias"].any()
