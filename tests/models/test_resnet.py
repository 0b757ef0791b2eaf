"""Stages, cuts, freezing and recomputation of the residual networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from random_variables import random_variables

from jaxvpr.models.backbones.resnet import ResNet
from jaxvpr.models.backbones.squeezenet import SqueezeNet

IMAGES = np.random.default_rng(0).normal(size=(3, 32, 48, 3)).astype(np.float32)
TINY = {"sizes": (1, 1), "widths": (4, 6), "cut": "layer2", "stem": "small"}


def train_step(model, variables):
    """Gradients and new statistics of a loss that every feature takes part in."""

    def loss(params):
        features, new = model.apply({**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.square(features.map.astype(jnp.float32))), new["batch_stats"]

    return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])


def init(model):
    return random_variables(model, IMAGES)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"cut": "layer1"}, (3, 8, 12, 64)),
        ({"cut": "layer3"}, (3, 2, 3, 256)),
        ({}, (3, 1, 2, 512)),
        ({"bottleneck": True, "sizes": (3, 4, 6, 3), "cut": "layer3"}, (3, 2, 3, 1024)),
        ({"stem": "small", "widths": (16, 32, 64, 128), "sizes": (1, 1, 1, 1)}, (3, 2, 3, 128)),
        ({"sizes": (1, 2), "widths": (5, 7), "cut": "layer2"}, (3, 4, 6, 7)),
    ],
)
def test_shape_after_each_cut(options, shape):
    model = ResNet(**options)
    features = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], IMAGES)
    assert features.map.shape == shape
    assert features.token is None


def test_parameter_paths_mirror_torchvision():
    shapes = jax.eval_shape(ResNet(bottleneck=True).init, jax.random.key(0), IMAGES)
    paths = {"/".join(key): leaf.shape for key, leaf in flatten_dict(shapes["params"]).items()}
    assert paths["conv1/kernel"] == (7, 7, 3, 64)
    assert paths["layer1_0/downsample_0/kernel"] == (1, 1, 64, 256)
    assert paths["layer2_1/conv3/kernel"] == (1, 1, 128, 512)
    assert paths["layer4_0/bn2/scale"] == (512,)
    assert "layer1_1/downsample_0/kernel" not in paths and "layer2_0/downsample_1/bias" in paths


def test_frozen_stages_update_or_keep_their_statistics():
    for until, choices in (("stem", ["fixed"]), ("layer1", ["update", "fixed", "all"])):
        frozen = {"conv1", "bn1"} | ({"layer1_0"} if until == "layer1" else set())
        for choice in choices:
            model = ResNet(**TINY, frozen_until=until, frozen_bn=choice)
            variables = init(model)
            _, stats = train_step(model, variables)
            for name, tree in stats.items():
                moved = any(
                    map(np.any, jax.tree.leaves(jax.tree.map(np.subtract, tree, variables["batch_stats"][name])))
                )
                assert moved == (choice != "all" and (name not in frozen or choice == "update")), (name, until)


def test_recomputation_changes_no_gradient():
    plain, remat = ResNet(**TINY), ResNet(**TINY, remat=True)
    variables = init(plain)
    assert jax.tree.structure(init(remat)) == jax.tree.structure(variables)
    a, b = train_step(plain, variables), train_step(remat, variables)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3), a, b)
    programs = [
        str(jax.make_jaxpr(lambda v, m=m: jax.grad(lambda v: jnp.sum(m.apply(v, IMAGES).map))(v))(variables))
        for m in (plain, remat)
    ]
    assert programs[1].count("conv_general_dilated") > programs[0].count("conv_general_dilated")


def test_evaluation_leaves_statistics_and_does_not_depend_on_the_batch():
    model = ResNet(**TINY)
    variables = init(model)
    apply = jax.jit(lambda x: model.apply(variables, x, mutable=["batch_stats"]))
    features, new = apply(IMAGES)
    jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], variables["batch_stats"])
    np.testing.assert_allclose(apply(IMAGES[::-1])[0].map, features.map[::-1], atol=1e-5)


@pytest.mark.parametrize("model", [ResNet, SqueezeNet])
def test_bfloat16_stays_near_float32(model):
    options = TINY if model is ResNet else {}
    variables = init(model(**options))
    full, half = (
        jax.jit(model(**options, dtype=dtype).apply)(variables, IMAGES).map for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert half.dtype == jnp.bfloat16
    error = np.linalg.norm(half.astype(jnp.float32) - full) / np.linalg.norm(full)
    assert 0 < error < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": "layer5"}, r"cut='layer5'.*\['layer1'"),
        ({"stem": "big"}, r"stem='big'.*\['torchvision', 'small'\]"),
        (
            {"cut": "layer2", "frozen_until": "layer3"},
            r"frozen_until='layer3'.*\['stem', 'layer1', 'layer2'\]",
        ),
        ({"frozen_bn": "off"}, "frozen_bn='off'"),
        ({"sizes": (1, 1)}, r"\b2\b.*\bsizes\b.*\b4 widths"),
    ],
)
def test_unknown_choices_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**options).init(jax.random.key(0), IMAGES)
