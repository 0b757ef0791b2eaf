"""What a model is seen to make of images: descriptors and maps, of whatever embeds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr import models
from jaxvpr.models.intermediates import intermediates
from jaxvpr.objectives.objective import embed_elements, embed_images

SMALL = {"backbone": "resnet_small", "backbone_options": {"widths": (8, 8, 8, 8), "cut": "layer1"}}
MODEL = models.join(**SMALL, aggregator="cosplace", aggregator_options={"dim": 6})
IMAGES = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), dtype=np.uint8)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def variables():
    return MODEL.init(KEY, IMAGES)


def embedding(variables, embed, image):
    return lambda: embed(variables["params"], variables["batch_stats"], {}, {"image": image}, KEY)


def test_descriptors_and_maps_are_the_models_own(variables):
    plain = embed_images(MODEL)
    (descriptors, stats), found = intermediates(embedding(variables, plain, IMAGES), "descriptor")
    alone, alone_stats = embedding(variables, plain, IMAGES)()
    np.testing.assert_array_equal(found, descriptors)
    jax.tree.map(np.testing.assert_array_equal, (descriptors, stats), (alone, alone_stats))
    _, maps = intermediates(embedding(variables, plain, IMAGES), "map")
    np.testing.assert_array_equal(maps, embedding(variables, embed_images(MODEL, "pooled"), IMAGES)()[0])
    assert maps.shape == (6, 8) and found.shape == (6, 6)


def test_triplets_come_image_by_image(variables):
    elements = IMAGES.reshape(2, 3, 16, 16, 3)
    (described, _), found = intermediates(
        embedding(variables, embed_elements(embed_images(MODEL)), elements), "descriptor"
    )
    np.testing.assert_array_equal(found, described.reshape(6, 6))


def test_of_an_image_in_regions_the_first_is_the_whole():
    model = models.join(**SMALL, aggregator="netvlad", aggregator_options={"clusters": 2})
    variables = {"batch_stats": {}, **model.init(KEY, IMAGES)}
    (regions, _), found = intermediates(embedding(variables, embed_images(model, "regions"), IMAGES), "descriptor")
    np.testing.assert_array_equal(found, regions[:, 0])


def test_a_teacher_is_not_watched(variables):
    def run():
        taught = MODEL.apply(variables, IMAGES[:2])
        return embedding(variables, embed_images(MODEL), IMAGES)()[0], taught

    (descriptors, _), found = intermediates(run, "descriptor")
    np.testing.assert_array_equal(found, descriptors)
    with pytest.raises(ValueError, match=r"no model.*descriptor"):
        intermediates(lambda: MODEL.apply(variables, IMAGES), "descriptor")
    with pytest.raises(ValueError, match=r"'token'.*\('descriptor', 'map'\)"):
        intermediates(run, "token")


def test_gradients_go_through_what_is_seen(variables):
    def length(params, at):
        _, found = intermediates(embedding({**variables, "params": params}, embed_images(MODEL), IMAGES), at)
        return jnp.sum(found[:, 0])

    of = {at: jax.jit(jax.grad(length), static_argnums=1)(variables["params"], at) for at in ("map", "descriptor")}
    assert np.any(of["descriptor"]["aggregator"]["fc"]["kernel"]) and np.any(of["map"]["backbone"]["conv1"]["kernel"])
    assert not np.any(of["map"]["aggregator"]["fc"]["kernel"]), "the map comes before the aggregator"
