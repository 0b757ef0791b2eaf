"""Clusters of local features: found again, the same every time, and what NetVLAD and its kin start from."""

from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from data_pipelines.images import decode, resize
from data_pipelines.places import Paths
from jaxvpr.builders import describing
from jaxvpr.errors import UserError
from jaxvpr.fitting.clusters import (
    biased_start,
    cluster_start,
    kmeans,
    local_features,
    netvlad_start,
    sampler,
)
from jaxvpr.models import Features, PlaceModel, join
from jaxvpr.models.aggregators.vlad import NetVLAD
from jaxvpr.models.place_model import normalise
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.describer import Describer

RNG = np.random.default_rng(0)
BACKBONE = {"sizes": [1], "widths": [6], "cut": "layer1", "stem": "small"}


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


CENTRES = unit(RNG.normal(size=(5, 6)))
POINTS = unit(np.repeat(CENTRES, 80, 0) + RNG.normal(0, 0.05, (400, 6)))


def make(aggregator, **options):
    model = join(backbone="resnet18", aggregator=aggregator, backbone_options=BACKBONE, aggregator_options=options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    return model, {**variables, "batch_stats": jax.tree.map(np.square, variables["batch_stats"])}


class Pixels(nn.Module):
    """Each pixel, as it was normalised, is a local feature."""

    @nn.compact
    def __call__(self, images, train=False):
        return Features(images)


PIXELS = PlaceModel(Pixels(), NetVLAD(2))


def features_of(image):
    return unit(np.asarray(normalise(image, PIXELS.mean, PIXELS.std)).reshape(-1, 3))


def test_clusters_that_are_there_are_found_and_the_same_twice():
    tries = [kmeans(POINTS, 5, seed=seed, iterations=10) for seed in range(6)]  # a start may miss a cluster
    found = min(tries, key=lambda centres: np.linalg.norm(POINTS[:, None] - centres[None], axis=-1).min(1).sum())
    means = POINTS.reshape(5, 80, 6).mean(1)
    nearest = np.linalg.norm(found[:, None] - means[None], axis=-1).argmin(1)
    assert sorted(nearest) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found, means[nearest], atol=1e-5)
    for seed, centres in enumerate(tries):
        np.testing.assert_array_equal(kmeans(POINTS, 5, seed=seed, iterations=10), centres)


def test_each_centre_is_the_mean_of_the_points_nearest_to_it():
    x = RNG.normal(size=(600, 4)).astype(np.float32)
    found = kmeans(x, 7)
    nearest = np.linalg.norm(x[:, None] - found[None], axis=-1).argmin(1)
    for k in range(7):
        np.testing.assert_allclose(found[k], x[nearest == k].mean(0), atol=1e-4)


def test_the_assignment_is_the_benchmarks():
    """Its definition, one feature at a time."""
    centroids = (CENTRES * np.array([0.3, 1, 0.9, 0.5, 2], np.float32)[:, None]).astype(np.float32)
    gaps = []
    for point in POINTS:
        cosines = sorted((float(point @ (c / np.linalg.norm(c))) for c in centroids), reverse=True)
        gaps.append(cosines[0] - cosines[1])
    alpha = -np.log(0.01) / np.mean(gaps)
    kernel, kept = netvlad_start(centroids, POINTS)
    assert kernel.shape == (1, 1, 6, 5) and kernel.dtype == kept.dtype == np.float32
    for k, c in enumerate(centroids):
        np.testing.assert_allclose(kernel[0, 0, :, k], alpha * c / np.linalg.norm(c), rtol=1e-5)
    np.testing.assert_array_equal(kept, centroids)


def test_with_a_bias_the_assignment_falls_with_the_squared_distance():
    kernel, bias = biased_start(CENTRES * np.float32(0.7), POINTS)
    logits = POINTS @ kernel[0, 0] + bias
    squares = np.sum((POINTS[:, None] - 0.7 * CENTRES[None]) ** 2, -1)
    alpha = -np.log(0.01) / np.mean(np.diff(np.sort(squares)[:, :2]))
    np.testing.assert_allclose(logits - logits[:, :1], -alpha * (squares - squares[:, :1]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("aggregator", "options"),
    [
        ("netvlad", {"clusters": 5}),
        ("netvlad", {"clusters": 5, "tokens": True}),
        ("netvlad", {"clusters": 5, "bias": True}),
        ("netvlad", {"clusters": 5, "d_major": True}),
        ("crn", {"clusters": 5}),
        ("vlad", {"clusters": 5}),
        ("supervlad", {"clusters": 4}),
        ("fc", {"dim": 3, "inner": {"aggregator": "netvlad", "aggregator_options": {"clusters": 5}}}),
    ],
)
def test_the_aggregator_starts_from_clusters_and_nothing_else_changes(aggregator, options):
    _, variables = make(aggregator, **options)
    started = cluster_start(variables, POINTS, seed=3, iterations=5)
    assert jax.tree.map(np.shape, started) == jax.tree.map(np.shape, variables)
    np.testing.assert_equal(started["params"]["backbone"], variables["params"]["backbone"])
    head, before = (
        tree["params"]["aggregator"].get("inner", tree["params"]["aggregator"]) for tree in (started, variables)
    )
    centroids = kmeans(POINTS, 5, seed=3, iterations=5)
    if "centroids" in head:
        np.testing.assert_array_equal(head["centroids"], centroids)
    if "centers" in head:
        np.testing.assert_array_equal(head["centers"], centroids.T)
    if options.get("bias"):
        np.testing.assert_array_equal(head["conv"]["bias"], biased_start(centroids, POINTS)[1])
    elif "conv" in head:
        np.testing.assert_array_equal(head["conv"]["kernel"].ravel(), netvlad_start(centroids, POINTS)[0].ravel())
    if "crn" in head:
        np.testing.assert_equal(head["crn"], before["crn"])


def test_features_are_those_of_the_images_whatever_the_batch_and_the_devices(photo_tree, tiny_config):
    files = sorted(Path(photo_tree).rglob("train/*.jpg"))[:20]
    paths, results = Paths.of(map(str, files)), []
    for batch, devices in ((16, 8), (5, 1)):
        with tiny_config.unlocked():
            tiny_config.image.size, tiny_config.eval.batch = (32, 40), batch
        describer = Describer(PIXELS.apply, make_mesh(devices=jax.devices()[:devices]), **describing(tiny_config))
        results.append(local_features(describer, {"params": {}}, paths, PIXELS, count=72, per_image=9, seed=4))
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)
    assert results[0].shape == (72, 3)
    rows, places = np.sort(np.random.default_rng(4).choice(20, 8, replace=False)), []
    for row, features in zip(rows, results[0].reshape(8, 9, 3), strict=True):
        image = resize(decode(files[row]), (32, 40), tiny_config.image.resize)[None]
        apart = np.linalg.norm(features[:, None] - features_of(image)[None], axis=-1)
        assert apart.min(1).max() < 1e-5, "all of them are cells of this image"
        places.append(tuple(apart.argmin(1)))
    assert len(set(places)) == 8, "other images are sampled elsewhere"


def test_no_cell_comes_twice_unless_the_map_has_too_few():
    image = RNG.integers(0, 256, (1, 4, 6, 3), np.uint8)
    for wanted, times in ((24, [1] * 24), (7, [1] * 7), (50, [2] * 22 + [3] * 2)):
        got = np.asarray(sampler(PIXELS, wanted)({"params": {}}, image)).reshape(wanted, 3)
        apart = np.linalg.norm(got[:, None] - features_of(image)[None], axis=-1)
        assert sorted(np.unique(apart.argmin(1), return_counts=True)[1]) == times and apart.min(1).max() < 1e-5


def test_what_cannot_be_clustered_is_refused():
    _, variables = make("netvlad")
    with pytest.raises(UserError, match=r"\(20, 6\).*\b64 clusters"):
        cluster_start(variables, POINTS[:20])
    with pytest.raises(UserError, match=r"\b5 numbers.*\b6\b"):
        cluster_start(variables, POINTS[:, :5])
    with pytest.raises(UserError, match="not finite"):
        kmeans(np.full((9, 2), np.nan, np.float32), 2)
    with pytest.raises(UserError, match="features are alike"):
        netvlad_start(CENTRES[[0, 0]], POINTS)
    with pytest.raises(UserError, match=r"\b2 clusters"):
        netvlad_start(CENTRES[:1], POINTS)
    with pytest.raises(UserError, match=r"\['p'\].*netvlad"):
        cluster_start(make("gem")[1], POINTS)
