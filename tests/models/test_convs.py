"""VGG16 and EfficientNet: shapes, sizes, cuts, freezing and skipped blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from random_variables import random_variables

from jaxvpr.models import BACKBONES
from jaxvpr.models.backbones.efficientnet import EfficientNet, MBConv
from jaxvpr.models.backbones.efficientnet_lite import EfficientNetLite
from jaxvpr.models.backbones.vgg import VGG
from jaxvpr.models.costs import parameter_count
from jaxvpr.models.layers import BatchNorm, DepthwiseConv

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)
FLOATS = (IMAGES / np.float32(127) - 1).astype(np.float32)
TINY = {
    "vgg16": {"widths": (4, 5, 6, 7, 8), "cut": 9},
    "efficientnet_b0": {"width": 0.25, "depth": 0.5, "cut": 2},
}


# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (VGG(), (3, 2, 3, 512)),
        (VGG(cut=22), (3, 4, 6, 512)),
        (VGG(cut=30), (3, 1, 1, 512)),
        (VGG(cut=0), (3, 32, 48, 64)),
        (EfficientNet(), (3, 1, 2, 1280)),
        (EfficientNet(cut=5), (3, 2, 3, 112)),
        (EfficientNet(cut=0, width=1.4), (3, 16, 24, 48)),
        (EfficientNet(cut=7, width=2.0, depth=0.1), (3, 1, 2, 640)),
        (EfficientNetLite(), (3, 1, 2, 1280)),
        (EfficientNetLite(cut=10), (3, 2, 3, 112)),
        (EfficientNetLite(cut=15), (3, 1, 2, 320)),
        (EfficientNetLite(cut=0, width=1.1), (3, 16, 24, 16)),
    ],
)
def test_shape_after_each_cut(model, shape):
    features = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], FLOATS)
    assert features.map.shape == shape and features.token is None


# Parameters that torchvision's documentation gives, the input width of its classifier, and the classifier's size.
DOCUMENTED = {
    "vgg16": 138_357_544 - (512 * 49 + 1) * 4096 - 4097 * 4096 - 4097 * 1000,
    "efficientnet_b1": 7_794_184 - 1281 * 1000,
    "efficientnet_b2": 9_109_994 - 1409 * 1000,
    "efficientnet_b3": 12_233_232 - 1537 * 1000,
    "efficientnet_b4": 19_341_616 - 1793 * 1000,
    "efficientnet_b5": 30_389_784 - 2049 * 1000,
    "efficientnet_b6": 43_040_704 - 2305 * 1000,
}


@pytest.mark.parametrize("backbone", DOCUMENTED)
def test_parameters_are_as_many_as_torchvision_documents(backbone):
    shapes = jax.eval_shape(BACKBONES[backbone]().init, jax.random.key(0), FLOATS)
    assert parameter_count(shapes) == DOCUMENTED[backbone]


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (5, 1)])
def test_depthwise_convolution_and_its_gradient_are_the_grouped_ones(size, stride):
    rng = np.random.default_rng(size)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 9, 6, 4), (size, size, 1, 4)))

    def ours(x, kernel):
        return DepthwiseConv(size, stride).apply({"params": {"kernel": kernel}}, x)

    def grouped(x, kernel):
        axes, sides = ("NHWC", "HWIO", "NHWC"), [(size // 2, size // 2)] * 2
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), sides, dimension_numbers=axes, feature_group_count=4
        )

    np.testing.assert_allclose(jit(ours)(x, kernel), jit(grouped)(x, kernel), atol=1e-5)
    same = DepthwiseConv(size, stride, same=True).apply({"params": {"kernel": kernel}}, x)
    axes = ("NHWC", "HWIO", "NHWC")
    lax = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=axes, feature_group_count=4
    )
    np.testing.assert_allclose(same, lax, atol=1e-5)
    got, expected = (jit(jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1)))(x, kernel) for f in (ours, grouped))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def gradients_and_statistics(model, variables):
    def loss(params):
        features, new = model.apply(
            {**variables, "params": params},
            FLOATS,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return jnp.sum(jnp.square(features.map)), new.get("batch_stats", {})

    return jit(jax.grad(loss, has_aux=True))(variables["params"])


@pytest.mark.parametrize(
    ("build", "choice"),
    [(EfficientNet, "update"), (EfficientNet, "fixed"), (EfficientNet, "all"), (EfficientNetLite, "fixed")],
)
def test_frozen_stages_of_efficientnet_update_or_keep_their_statistics(build, choice):
    model = build(**TINY["efficientnet_b0"], frozen_until=1, frozen_bn=choice)
    variables = random_variables(model, FLOATS)
    _, statistics = gradients_and_statistics(model, variables)
    before = flatten_dict(variables["batch_stats"])
    for path, leaf in flatten_dict(statistics).items():
        moves = choice == "update" or (choice == "fixed" and path[0].startswith(("features_2", "blocks_2")))
        assert np.any(leaf != before[path]) == moves, path


def test_a_skipped_block_leaves_whole_images_as_they_are():
    block = MBConv(6, 3, 1, 8, 0.25, False, lambda name: BatchNorm(True, name=name), jnp.float32)
    x = np.random.default_rng(0).normal(size=(400, 4, 4, 8)).astype(np.float32)
    variables = random_variables(block, x)
    trained = jit(block.apply)(variables, x, rngs={"dropout": jax.random.key(0)})
    added = jit(block.clone(deterministic=True).apply)(variables, x) - x
    skipped = np.abs(trained - x).max((1, 2, 3)) == 0
    assert 0.15 < skipped.mean() < 0.35
    # What remains is scaled so that the mean stays.
    np.testing.assert_allclose((trained - x)[~skipped], added[~skipped] / 0.75, atol=1e-4)


def test_blocks_are_skipped_more_often_the_deeper_they_lie():
    rates = {}

    def watch(call, arguments, options, context):
        if isinstance(context.module, nn.Dropout):
            rates["/".join(context.module.path[:-1])] = context.module.rate
        return call(*arguments, **options)

    with nn.intercept_methods(watch):
        jax.eval_shape(EfficientNet(cut=7).init, jax.random.key(0), FLOATS)
    # B0 has 16 blocks; nine of them have a shortcut.
    assert rates == {
        f"features_{stage}_{i}": pytest.approx(0.2 * number / 16)
        for stage, i, number in (
            (2, 1, 2),
            (3, 1, 4),
            (4, 1, 6),
            (4, 2, 7),
            (5, 1, 9),
            (5, 2, 10),
            (6, 1, 12),
            (6, 2, 13),
            (6, 3, 14),
        )
    }


def test_each_block_is_recomputed_and_the_parameters_are_the_same():
    options = {**TINY["efficientnet_b0"], "depth": 0.6}
    plain, remat = EfficientNet(**options), EfficientNet(**options, remat=True)
    variables = random_variables(plain, FLOATS)
    assert jax.tree.structure(random_variables(remat, FLOATS)) == jax.tree.structure(variables)
    programs = [str(jax.make_jaxpr(model.apply)(variables, FLOATS)) for model in (plain, remat)]
    assert [program.count("remat") + program.count("checkpoint[") for program in programs] == [0, 3]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (VGG(cut=31), r"cut=31\b.*VGG16.*\b0 to 30\b"),
        (VGG(frozen_until=29), r"frozen_until=29\b.*\b0 to 28\b"),
        (VGG(widths=(4, 5)), r"\b2 widths.*VGG16.*\b5 blocks"),
        (EfficientNet(cut=9), r"cut=9\b.*EfficientNet.*\b0 to 8\b"),
        (EfficientNet(cut=3, frozen_until=4), r"frozen_until=4\b.*\b0 to 3\b"),
        (EfficientNet(frozen_bn="off"), r"frozen_bn='off'.*\['update', 'fixed', 'all'\]"),
        (EfficientNetLite(cut=16), r"cut=16\b.*EfficientNet-Lite.*\b0 to 15\b"),
        (EfficientNetLite(cut=3, frozen_until=4), r"frozen_until=4\b.*\b0 to 3\b"),
        (EfficientNetLite(frozen_bn="off"), r"frozen_bn='off'.*\['update', 'fixed', 'all'\]"),
    ],
)
def test_unknown_choices_are_errors(model, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), FLOATS)
