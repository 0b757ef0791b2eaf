"""The whole model: what goes in, what comes out, and how it is built."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables

from benchmarks.device.program import flops
from jaxvpr.models import BACKBONES, computed_in, join
from jaxvpr.models.place_model import normalise

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 3), np.uint8)
TINY = {"sizes": [1], "widths": [6], "cut": "layer1", "stem": "small"}


def make(aggregator="cosplace", dtype="float32", backbone="resnet18", **options):
    model = join(
        backbone=backbone,
        aggregator=aggregator,
        dtype=dtype,
        backbone_options=TINY,
        aggregator_options={"dim": 9} if aggregator == "cosplace" else {},
        **options,
    )
    return model, random_variables(model, IMAGES)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("aggregator", ["gem", "cosplace"])
def test_descriptors_are_float32_of_unit_length_whatever_the_batch(dtype, aggregator):
    model, variables = make(aggregator, dtype)
    describe = jax.jit(model.apply)
    got = describe(variables, IMAGES)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(describe(variables, IMAGES[2:3])[0], got[2], atol=tolerance)
    np.testing.assert_allclose(describe(variables, IMAGES.astype(np.float32)), got, atol=1e-6)


def test_without_l2_after_descriptors_are_as_the_aggregator_makes_them():
    plain, variables = make("spoc", l2_after=False)
    at_length = jax.jit(make("spoc")[0].apply)(variables, IMAGES)
    got = np.asarray(jax.jit(plain.apply)(variables, IMAGES))
    mean_of_map = jax.jit(lambda v, x: plain.apply(v, x, method="pooled"))(variables, IMAGES)
    np.testing.assert_allclose(got, mean_of_map, rtol=1e-5)
    lengths = np.linalg.norm(got, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.01
    np.testing.assert_allclose(got / lengths, at_length, atol=1e-5)


def test_normalisation_by_hand():
    black_and_white = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1).repeat(3, -1)
    got = normalise(black_and_white, (0.5, 0.4, 0.2), (0.5, 0.2, 0.1))
    np.testing.assert_allclose(got.reshape(2, 3), [[-1, -2, -2], [1, 3, 8]], rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "aggregator"), [("float32", "gem"), ("float32", "cosplace"), ("bfloat16", "cosplace")]
)
def test_gradients_of_constant_images_are_finite(dtype, aggregator):
    """Equal images give batch variances of zero, and dead channels zero features."""
    model, variables = make(aggregator, dtype)

    def loss(params, images):
        out, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.sum(out * jnp.arange(out.size, dtype=out.dtype).reshape(out.shape))

    gradient = jax.jit(jax.grad(loss))
    for value in (0, 124, 255):
        leaves = jax.tree.leaves(gradient(variables["params"], np.full((4, 32, 32, 3), value, np.uint8)))
        assert all(np.isfinite(leaf).all() for leaf in leaves)


# (options, what describing computes in, of the backbone, of the head, of the head in training)
COMPUTED = [
    ({}, "float32", "float32 HIGHEST", "float32 HIGHEST", "float32 HIGHEST"),
    ({"precision": "high"}, "float32 at high, head at highest", "float32 HIGH", "float32 HIGHEST", "float32 HIGHEST"),
    ({"train_precision": "default"}, "float32", "float32 HIGHEST", "float32 HIGHEST", "float32 DEFAULT"),
    ({"dtype": "bfloat16"}, "bfloat16, head at default", "bfloat16 HIGHEST", "float32 DEFAULT", "float32 DEFAULT"),
    (
        {"dtype": "float16", "head_precision": "BF16_BF16_F32", "train_precision": "high"},
        "float16, head at BF16_BF16_F32",
        "float16 HIGHEST",
        "float32 BF16_BF16_F32",
        "float32 HIGH",
    ),
]


@pytest.mark.parametrize(("options", "words", "backbone", "head", "head_in_training"), COMPUTED)
def test_what_products_are_computed_in(options, words, backbone, head, head_in_training):
    model = join(backbone="resnet18", aggregator="netvlad", backbone_options=TINY, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)

    def kinds(train=False, **method):
        def run(variables, images):
            return model.apply(variables, images, train, mutable=["batch_stats"] if train else False, **method)

        return set(flops(jax.make_jaxpr(run)(variables, IMAGES)))

    assert computed_in(model) == words
    assert kinds(method="pooled") == {backbone}
    assert kinds() == kinds(method="regions") == {backbone, head}
    assert {kind for kind in kinds(train=True) if "float32" in kind} >= {head_in_training}
    assert backbone not in kinds(train=True) or model.train_precision == ""


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_every_backbone_builds_and_feeds_the_head(backbone):
    model = join(backbone=backbone, aggregator="cosplace", aggregator_options={"dim": 7})
    images = jax.ShapeDtypeStruct((2, 112, 224, 3), jnp.uint8)
    out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert out.shape == (2, 7) and out.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"backbone": "resnet19", "aggregator": "gem"},
            r"backbone.*'resnet19'.*\[.*'resnet101', 'resnet152'",
        ),
        (
            {"backbone": "resnet18", "aggregator": "max"},
            r"aggregator.*'max'.*\[.*'cosplace', .*'flatten', .*'gem'",
        ),
        (
            {"backbone": "squeezenet", "aggregator": "gem", "backbone_options": {"width": 2}},
            r"backbone.*'squeezenet'.*option.*\['width'\].*\['cut', 'dtype'\]",
        ),
        (
            {"backbone": "resnet18", "aggregator": "gem", "aggregator_options": {"dim": 3}},
            r"aggregator.*'gem'.*option.*\['dim'\].*\['p', 'eps', 'per_channel', 'l2_before'\]",
        ),
    ],
)
def test_unknown_names_and_options_list_what_exists(arguments, message):
    with pytest.raises(ValueError, match=message):
        join(**arguments)


def test_images_of_a_wrong_shape_or_too_small_are_errors():
    model, variables = make()
    with pytest.raises(ValueError, match=r"\(4, 32, 40\).*\[B, H, W, 3\]"):
        jax.eval_shape(model.apply, variables, IMAGES[..., 0])
    small = join(backbone="squeezenet", aggregator="gem")
    with pytest.raises(ValueError, match=r"\b8x8 pixels"):
        jax.eval_shape(small.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8))


def test_colours_are_normalised_inside():
    model, variables = make(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    other, _ = make()
    assert np.abs(jax.jit(model.apply)(variables, IMAGES) - jax.jit(other.apply)(variables, IMAGES)).max() > 1e-3
