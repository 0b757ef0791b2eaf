"""Descriptors of an image's parts: sums of residuals by hand, cell by cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables

from jaxvpr.models import join
from jaxvpr.models.aggregators.vlad import REGIONS, NetVLAD, quarter_shares
from jaxvpr.models.features import Features

RNG = np.random.default_rng(3)
TINY = {"sizes": [1], "widths": [6], "cut": "layer1", "stem": "small"}


def head(side, **options):
    """A NetVLAD of 3 clusters, its variables, and a map of 5 channels."""
    module, features = NetVLAD(clusters=3, **options), Features(RNG.normal(size=(2, *side, 5)).astype(np.float32))
    return module, module.init(jax.random.key(1), features), features


def residuals(variables, features):
    """Weighted residuals [B, h, w, K, D] of every cell, one after the other."""
    kernel = np.asarray(variables["params"]["conv"]["kernel"]).reshape(5, 3)
    centroids = np.asarray(variables["params"]["centroids"])
    out = np.zeros((*features.map.shape[:3], 3, 5))
    for at in np.ndindex(*features.map.shape[:3]):
        x = features.map[at] / np.linalg.norm(features.map[at])
        weights = np.exp(x @ kernel)
        weights /= weights.sum()
        out[at] = weights[:, None] * (x - centroids)
    return out


def normalised(vlad):
    """[B, K, D] to unit rows, block by block and then together."""
    vlad = vlad / np.linalg.norm(vlad, axis=2, keepdims=True)
    return vlad.reshape(len(vlad), -1) / np.sqrt(3)


def test_regions_are_sums_of_their_cells():
    module, variables, features = head((4, 6))
    every = residuals(variables, features)
    cut = {
        "whole": (slice(None), slice(None)),
        "top": (slice(0, 2), slice(None)),
        "bottom": (slice(2, 4), slice(None)),
        "left": (slice(None), slice(0, 3)),
        "right": (slice(None), slice(3, 6)),
        "top_left": (slice(0, 2), slice(0, 3)),
        "top_right": (slice(0, 2), slice(3, 6)),
        "bottom_left": (slice(2, 4), slice(0, 3)),
        "bottom_right": (slice(2, 4), slice(3, 6)),
    }
    got = module.apply(variables, features, method="regions")
    assert got.shape == (2, 9, 15) and list(cut) == list(REGIONS)
    for number, (rows, columns) in enumerate(cut.values()):
        np.testing.assert_allclose(got[:, number], normalised(every[:, rows, columns].sum((1, 2))), atol=1e-5)


def test_the_middle_of_an_odd_side_counts_half():
    module, variables, features = head((3, 5))
    every = residuals(variables, features)
    top = every[:, 0] + every[:, 1] / 2
    quarter = top[:, :2].sum(1) + top[:, 2] / 2
    got = module.apply(variables, features, method="regions")
    np.testing.assert_allclose(got[:, 1], normalised(top.sum(1)), atol=1e-5)
    np.testing.assert_allclose(got[:, 5], normalised(quarter), atol=1e-5)


@pytest.mark.parametrize("side", [(4, 6), (3, 5), (1, 1), (2, 7)])
def test_shares_of_a_cell_sum_to_one_and_halves_are_equal(side):
    shares = quarter_shares(*side).reshape(*side, 4)
    np.testing.assert_array_equal(shares.sum(-1), 1)
    np.testing.assert_allclose(shares.sum((0, 1)), side[0] * side[1] / 4)
    np.testing.assert_array_equal(shares[::-1, :, :2], shares[..., 2:])
    np.testing.assert_array_equal(shares[:, ::-1, ::2], shares[..., 1::2])


@pytest.mark.parametrize("options", [{}, {"d_major": True}, {"tokens": True, "bias": True, "l2_before": False}])
@pytest.mark.parametrize("side", [(4, 4), (3, 5), (1, 2)])
def test_the_first_region_is_the_descriptor(options, side):
    module, variables, features = head(side, **options)
    got = module.apply(variables, features, method="regions")
    np.testing.assert_allclose(got[:, 0], module.apply(variables, features), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1, atol=1e-5)


def test_a_mirrored_image_has_mirrored_regions():
    module, variables, features = head((3, 4))
    got = module.apply(variables, features, method="regions")
    mirrored = module.apply(variables, Features(features.map[:, :, ::-1]), method="regions")
    np.testing.assert_allclose(mirrored, got[:, np.array([0, 1, 2, 4, 3, 6, 5, 8, 7])], atol=2e-6)


def test_regions_of_images_and_a_head_without_them():
    images = RNG.integers(0, 256, (2, 32, 40, 3), np.uint8)
    options = {"backbone": "resnet18", "backbone_options": TINY}
    model = join(aggregator="netvlad", aggregator_options={"clusters": 4}, **options)
    variables = random_variables(model, images)
    got = jax.jit(lambda v, x: model.apply(v, x, method="regions"))(variables, images)
    assert got.shape == (2, 9, 24) and got.dtype == jnp.float32
    np.testing.assert_allclose(got[:, 0], model.apply(variables, images), atol=2e-6)
    gem = join(aggregator="gem", **options)
    with pytest.raises(ValueError, match=r"GeM.*regions.*netvlad"):
        gem.apply(random_variables(gem, images), images, method="regions")
