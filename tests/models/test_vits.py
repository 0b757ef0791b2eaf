"""What is read, cut and recomputed in vision transformers, and what they refuse."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from random_variables import random_variables

from jaxvpr.models import Features
from jaxvpr.models.aggregators.cls import CLS
from jaxvpr.models.backbones.adapters import ConvAdapter
from jaxvpr.models.backbones.dinov2 import DINOv2
from jaxvpr.models.backbones.vit import ViT
from jaxvpr.models.weighted import summed_in_float32
from jaxvpr.parallel.mesh import make_mesh

TINY = {"width": 16, "heads": 2, "depth": 2, "side": 2}
# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


IMAGES = {DINOv2: noise(2, 28, 42, 3), ViT: noise(2, 32, 48, 3)}


def gradients(model, images):
    """Of a loss that every feature takes part in, by parameter path."""
    variables = random_variables(model, images)

    def loss(params):
        features, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        # After LayerNorm the sum of squares would be the same whatever the features are.
        return sum(jnp.sum(jnp.sin(part.astype(jnp.float32))) for part in features)

    return flatten_dict(jit(jax.grad(loss))(variables["params"]), sep="/")


@pytest.mark.parametrize(
    "model",
    [
        DINOv2(**TINY, registers=1),
        DINOv2(**TINY, norm=False, remat=True),
        DINOv2(**TINY, layer=1, facet="key"),
        ViT(**TINY, cut=1, pooler=True),
    ],
)
def test_what_nothing_reads_rests_and_all_else_gets_a_gradient(model):
    for path, gradient in gradients(model, IMAGES[type(model)]).items():
        assert np.any(gradient) != any(re.match(pattern, path) for pattern in model.frozen_paths()), path


@pytest.mark.parametrize("kind", [DINOv2, ViT])
def test_each_block_is_recomputed_under_the_same_names(kind):
    plain, remat = kind(**TINY), kind(**TINY, remat=True)
    shapes = [jax.eval_shape(model.init, jax.random.key(0), IMAGES[kind]) for model in (plain, remat)]
    assert shapes[0] == shapes[1]

    def loss(variables, model):
        return jnp.sum(model.apply(variables, IMAGES[kind]).map)

    programs = [str(jax.make_jaxpr(jax.grad(partial(loss, model=model)))(shapes[0])) for model in (plain, remat)]
    assert [program.count("remat") for program in programs] == [0, TINY["depth"]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_keep_what_their_policy_names(dtype):
    """Of products: none, those with weights, or also attention's. Those of bfloat16 have a gradient of their own."""
    shapes = jax.eval_shape(DINOv2(**TINY).init, jax.random.key(0), IMAGES[DINOv2])

    def products(remat):
        model = DINOv2(**TINY, remat=remat, dtype=jnp.dtype(dtype))
        with summed_in_float32(make_mesh(devices=jax.devices()[:2])):
            program = jax.make_jaxpr(jax.grad(lambda v: jnp.sum(model.apply(v, IMAGES[DINOv2]).map)))(shapes)
        return str(program).count("dot_general[")

    policies = (False, "dots_saveable", "dots_with_no_batch_dims_saveable", True)
    plain, all_kept, weights_kept, none_kept = map(products, policies)
    assert plain == all_kept < weights_kept < none_kept
    with pytest.raises(ValueError, match=r"remat='dots'.*True, dots_saveable"):
        products("dots")


def test_a_new_adapter_adds_nothing():
    x = noise(2, 7, 32)
    found, variables = ConvAdapter((2, 3), average=False).init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(found, np.zeros_like(x))
    np.testing.assert_array_equal(variables["params"]["branch2_1"]["conv"]["kernel"], np.float32(1e-5))


@pytest.mark.parametrize("model", [partial(DINOv2, registers=2, swiglu=True), ViT])
def test_bfloat16_stays_near_float32(model):
    images = IMAGES[ViT] if model is ViT else IMAGES[DINOv2]
    variables = random_variables(model(**TINY), images)
    full, half = (jit(model(**TINY, dtype=dtype).apply)(variables, images).map for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and half.shape == (2, 2, 3, 16)
    error = np.linalg.norm(half.astype(jnp.float32) - full) / np.linalg.norm(full)
    assert 0 < error < 0.05


def test_parameters_that_nothing_reads_are_there_for_the_files():
    shapes = jax.eval_shape(DINOv2(**TINY, norm=False).init, jax.random.key(0), IMAGES[DINOv2])["params"]
    assert {"mask_token", "norm"} <= set(shapes)
    shapes = jax.eval_shape(DINOv2(**TINY, mask_token=False, layer=0).init, jax.random.key(0), IMAGES[DINOv2])["params"]
    assert not {"mask_token", "norm", "blocks_1"} & set(shapes) and "blocks_0" in shapes
    shapes = jax.eval_shape(ViT(**TINY, pooler=True).init, jax.random.key(0), IMAGES[ViT])["params"]
    assert shapes["pooler_dense"]["kernel"].shape == (16, 16)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (DINOv2(**TINY, facet="keys", layer=0), r"facet='keys'.*\['token', 'query', 'key', 'value'\]"),
        (DINOv2(**TINY, facet="key"), r"facet='key'.*\blayer\b.*\b0 to 1\b"),
        (DINOv2(**TINY, layer=2), r"layer=2\b.*\b0 to 1\b"),
        (DINOv2(**TINY, layer=0, train_blocks=2), r"train_blocks=2\b.*\b0 to 1\b.*\bNone\b"),
        (DINOv2(**TINY, adapters_only=True), "adapters_only=True.*adapters=True"),
        (DINOv2(**TINY, adapters=True, adapters_only=True, train_blocks=1), "adapters_only=True.*train_blocks=None"),
        (ViT(**TINY, cut=3), r"cut=3\b.*\b1 to 2\b.*\bNone\b"),
        (ViT(**TINY, cut=1, frozen_blocks=2), r"frozen_blocks=2\b.*\b0 to 1\b.*\bNone\b"),
    ],
)
def test_unknown_choices_are_errors(model, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES[type(model)])


def test_sizes_between_patches_are_errors_with_the_nearest_that_work():
    with pytest.raises(ValueError, match=r"\b30x42\b.*\b14\b.*\b28x42\b.*\b42x42\b"):
        jax.eval_shape(DINOv2(**TINY).init, jax.random.key(0), noise(1, 30, 42, 3))
    with pytest.raises(ValueError, match=r"\b16\b.*\b16x32\b.*\b32x32\b"):
        jax.eval_shape(ViT(**TINY).init, jax.random.key(0), noise(1, 30, 32, 3))


def test_the_class_token_needs_a_backbone_that_has_one():
    with pytest.raises(ValueError, match=r"'cls'.*dinov2_vitb14.*vit_b16"):
        CLS().apply({}, Features(jnp.ones((1, 2, 2, 3))))
