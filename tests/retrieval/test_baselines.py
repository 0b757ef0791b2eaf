"""Thumbnails against OpenCV, by their invariants, and on real pictures."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxvpr.retrieval.baselines import thumbnail
from jaxvpr.retrieval.extract import describe
from jaxvpr.retrieval.positives import from_lists
from jaxvpr.retrieval.recall import recall
from jaxvpr.retrieval.search import exact


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (64, 64), (100, 75), (120, 160)])
def test_equals_the_resampling_of_opencv(size):
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    grey = images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    small = np.stack([cv2.resize(g, (32, 24), interpolation=cv2.INTER_NEAREST).ravel() for g in grey])
    small -= small.mean(axis=1, keepdims=True)
    expected = small / np.linalg.norm(small, axis=1, keepdims=True)
    found = np.asarray(thumbnail({}, jnp.asarray(images)))
    assert found.shape == (3, 768) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_brightness_and_contrast_do_not_matter():
    images = np.random.default_rng(1).uniform(0, 100, (2, 40, 50, 3)).astype(np.float32)
    np.testing.assert_allclose(thumbnail({}, images), thumbnail({}, images * 1.5 + 20), atol=1e-4)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_an_image_of_one_colour_is_a_stranger_to_all(value):
    images = np.random.default_rng(2).integers(0, 256, (2, 37, 41, 3), np.uint8)
    images[0] = value
    found = np.asarray(thumbnail({}, images))
    assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-5)
    assert found[0] @ found[1] == pytest.approx(0, abs=1e-5)


def test_nordland_is_as_hard_as_measured_elsewhere(real_data):
    """Winter queries against summer, places 2,401 on, +-1 frame: thumbnails reach R@1 11.8, R@5 27.4, R@10 36.0."""
    folder = real_data / "nordland_64x32"
    seasons = sorted(path for path in folder.iterdir() if path.is_dir())
    summer, winter = (next(path for path in seasons if name in path.name) for name in ("summer", "winter"))
    names = sorted(path.name for path in summer.iterdir())[2400:]
    one = jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2
    )

    def descriptors(season):
        images = np.stack([cv2.imread(str(season / name))[..., ::-1] for name in names])
        batch = {"image": images, "mask": np.ones(len(names), bool), "row": np.arange(len(names))}
        return describe(thumbnail, {}, [batch], len(names), one).descriptors

    near = [np.arange(max(0, i - 1), min(len(names), i + 2)) for i in range(len(names))]
    positives = from_lists(np.cumsum([0] + [len(row) for row in near]), np.concatenate(near))
    _, predictions = exact(descriptors(summer), descriptors(winter), 10)
    found = recall(predictions, positives, (1, 5, 10)).of_all
    assert found == {n: pytest.approx(value, abs=0.05) for n, value in ((1, 11.8), (5, 27.4), (10, 36.0))}
