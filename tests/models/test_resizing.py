"""Resizing on the device against torch and Pillow, and by what must hold for any filter."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_pipelines.images import DEVICE_RULES
from jaxvpr.models.place_model import IMAGENET_MEAN, IMAGENET_STD, normalise
from jaxvpr.models.resizing import RULES, resize, weights

TORCH = {
    "tensor_linear": {"mode": "bilinear", "antialias": False},
    "tensor_linear_antialias": {"mode": "bilinear", "antialias": True},
    "tensor_bicubic_antialias": {"mode": "bicubic", "antialias": True},
}
SIZES = [(17, 90), (60, 40), (90, 23), (7, 200), (1, 1), (31, 41)]


def noise(height=61, width=83):
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)


def test_the_host_knows_the_rules_of_the_device():
    assert tuple(RULES) == tuple(DEVICE_RULES) == tuple(TORCH)


@pytest.mark.torch
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", SIZES)
def test_equals_interpolate_of_torch(rule, size):
    """On noise, up and down, to 4e-6 of the range of colours; nothing is rounded or clipped."""
    import torch

    images = noise()
    stacked = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    wanted = torch.nn.functional.interpolate(stacked, size, align_corners=False, **TORCH[rule]).permute(0, 2, 3, 1)
    found = resize(jnp.asarray(images), size, rule)
    assert found.shape == (2, *size, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-3)


@pytest.mark.parametrize(("rule", "filters"), [("tensor_linear_antialias", "BILINEAR"),
                                               ("tensor_bicubic_antialias", "BICUBIC")])  # fmt: skip
@pytest.mark.parametrize("size", SIZES)
def test_equals_pillow_on_real_numbers(rule, filters, size):
    grey = noise()[0, ..., 0].astype(np.float32)
    wanted = np.asarray(Image.fromarray(grey).resize(size[::-1], Image.Resampling[filters]))
    np.testing.assert_allclose(resize(grey[None, ..., None], size, rule)[0, ..., 0], wanted, atol=1e-3)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("source", "target"), [(1, 9), (9, 1), (640, 322), (100, 101), (4000, 224), (30, 90)])
def test_weights_sum_to_one_and_are_symmetric(rule, source, target):
    matrix = weights(source, target, rule)
    assert matrix.shape == (target, source) and matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=5e-4)  # positions in float32


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_resizing_and_normalising_changes_only_rounding(rule):
    images = jnp.asarray(noise())
    after = normalise(resize(images, (28, 42), rule), IMAGENET_MEAN, IMAGENET_STD)
    before = resize(normalise(images, IMAGENET_MEAN, IMAGENET_STD), (28, 42), rule)
    np.testing.assert_allclose(after, before, atol=3e-6)


@pytest.mark.parametrize("rule", RULES)
def test_an_image_of_the_size_asked_for_stays_as_it_is(rule):
    images = noise(20, 30)
    assert np.array_equal(resize(jnp.asarray(images), (20, 30), rule), images)
    # One side alone: each row is resized by itself.
    across = resize(jnp.asarray(images), (20, 15), rule)
    np.testing.assert_allclose(across[:, 7:8], resize(jnp.asarray(images[:, 7:8]), (1, 15), rule), atol=1e-3)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(31, 41), (61, 41), (61, 83)])
def test_a_part_of_the_result_is_that_part(rule, size):
    images, part = jnp.asarray(noise()), (slice(3, 29), slice(2, 30))
    found = resize(images, size, rule, part)
    assert found.shape == (2, 26, 28, 3)
    np.testing.assert_allclose(found, resize(images, size, rule)[:, 3:29, 2:30], atol=1e-4)


def test_an_unknown_rule_is_answered_with_the_choices():
    with pytest.raises(ValueError, match=r"'tensor_cubic'.*tensor_linear, tensor_linear_antialias"):
        resize(jnp.zeros((1, 4, 4, 3)), (2, 2), "tensor_cubic")
