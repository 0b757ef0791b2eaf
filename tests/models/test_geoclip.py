"""Galleries of coordinates and the heads that choose among them: by hand, by brute force, by properties."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxvpr import weights
from jaxvpr.models import POSITIONS, join
from jaxvpr.models.positions import Filled, Gallery, area, coding_with, equal_earth, located, with_gallery

GLOBE = area((-90, -180, 90, 180))
TOWN = area((0, 0, 2000, 1000), metres=True)
OPTIONS = {"area": (0, 0, 2000, 1000), "metres": True, "projection": "area", "dim": 6, "features": 4, "width": 7}
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def test_equal_earth_by_hand():
    """On the equator x = 2 sqrt(3) lon / (3 A1); at a pole y = A1 t + A2 t^3 + A3 t^7 + A4 t^9 with t = 60 degrees."""
    factor, t = 66.50336 / 180, np.pi / 3
    pole = factor * (1.340264 * t - 0.081106 * t**3 + 0.000893 * t**7 + 0.003796 * t**9)
    east = factor * 2 * 3**0.5 * (np.pi / 2) / (3 * 1.340264)
    found = equal_earth(np.array([0.0, 0.0, 90.0, -90.0]), np.array([90.0, -180.0, 0.0, 0.0]))
    np.testing.assert_allclose(found, [[east, 0], [-1, 0], [0, pole], [0, -pole]], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(pole, 0.48672, atol=1e-5)


def test_equal_earth_keeps_areas():
    """The area of a small box of degrees on the map is that on the sphere, everywhere by the same factor."""
    latitude, longitude = np.meshgrid(np.linspace(-80, 80, 9), [-170.0, -31.0, 5.0, 120.0], indexing="ij")
    step = 1e-4
    north = (equal_earth(latitude + step, longitude) - equal_earth(latitude - step, longitude)) / (2 * step)
    east = (equal_earth(latitude, longitude + step) - equal_earth(latitude, longitude - step)) / (2 * step)
    ratio = (east[..., 0] * north[..., 1] - east[..., 1] * north[..., 0]) / np.cos(np.radians(latitude))
    np.testing.assert_allclose(ratio, ratio[4, 2], rtol=1e-4)


def test_a_city_is_projected_with_its_proportions():
    at = np.array([[0, 0, 0], [0.5, 0.5, 0], [1, 1, 0], [0.5, 1, 0.3]])
    wanted = [[-0.5, -1], [0, 0], [0.5, 1], [0.5, 0]]
    np.testing.assert_allclose(Gallery(TOWN, projection="area").encode(at), wanted, atol=1e-12)
    degrees = Gallery(area((59, 10, 61, 14)), projection="area")  # 2 by 4 degrees, which at 60 north are squares
    np.testing.assert_allclose(degrees.encode(at)[2], [1, 1], atol=1e-9)


def test_coordinates_move_by_metres():
    at = np.array([[0.5, 0.5], [1 - 1e-9, 0.2]])
    moved = Gallery(TOWN, projection="area").moved(at, np.array([20.0, 0.0]), np.array([0.0, -50.0]))
    np.testing.assert_allclose(moved, [[0.51, 0.5], [1, 0.15]], atol=1e-8)
    north, _ = GLOBE.placed(*Gallery(GLOBE).moved(at, np.array([1e3, 1e6]), np.zeros(2)).T)
    np.testing.assert_allclose(north, [1e3 / 111_195.08, 90], atol=1e-6)


def filled(seed, size=50, dim=8):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(size, dim)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Filled(Gallery(TOWN, size=size, dim=dim, projection="area"), rng.uniform(size=(size, 2)), embeddings), rng


@pytest.mark.parametrize("count", [1, 7, 50])
def test_the_best_are_those_of_a_full_search(count, monkeypatch):
    monkeypatch.setattr("jaxvpr.models.positions.gallery.LOGITS", 150)  # three images at a time
    coding, rng = filled(0)
    raw = 9 * rng.normal(size=(10, 8)).astype(np.float32)
    at, probability = coding.best(raw, count)
    for n in range(10):
        shares = [float(np.exp(raw[n].astype(float) @ e)) for e in coding.embeddings]
        order = sorted(range(50), key=lambda i: -shares[i])[:count]
        np.testing.assert_array_equal(at[n], coding.at[order])
        np.testing.assert_allclose(probability[n], [shares[i] / sum(shares) for i in order], rtol=1e-5)
    answers = located(coding, raw)
    np.testing.assert_allclose(answers.north, 2000 * at[:, 0, 0])
    np.testing.assert_allclose(answers.confidence, probability[:, 0])
    assert np.isnan(answers.bearing).all()
    on_device, shares = jit(coding.decode)(raw)
    np.testing.assert_allclose(on_device[:, :2], at[:, 0], rtol=1e-6)
    np.testing.assert_allclose(shares, probability[:, 0], rtol=1e-5)
    assert np.isnan(on_device[:, 2]).all()


def test_of_equal_ones_the_first_and_large_numbers_overflow_nothing():
    coding, _ = filled(1, size=4)
    coding.embeddings[:] = coding.embeddings[0]
    at, probability = coding.best(1e4 * coding.embeddings[:1], 3)
    np.testing.assert_array_equal(at[0], coding.at[:3])
    np.testing.assert_allclose(probability, 0.25)
    assert coding.best(np.zeros((0, 8)), 2)[0].shape == (0, 2, 2)
    with pytest.raises(ValueError, match="count=5: the gallery has 4"):
        coding.best(np.zeros((1, 8)), 5)


@pytest.fixture(scope="module")
def model():
    made = join(backbone="squeezenet", aggregator="gem", position="geoclip", position_options={**OPTIONS, "size": 5})
    shapes = jax.eval_shape(made.position.init, jax.random.key(0), np.zeros((1, 3), np.float32))
    rng = np.random.default_rng(0)
    head = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
    head["params"]["logit_scale"], head["batch_stats"]["gallery"] = -np.log(np.float32(0.07)), np.zeros((5, 2))
    return made, {collection: {"position": head[collection]} for collection in head}


def test_a_gallery_answers_with_the_embeddings_of_its_weights(model, monkeypatch):
    monkeypatch.setattr("jaxvpr.models.positions.geoclip.PART", 2)  # the last part has one
    made, variables = model
    at = np.random.default_rng(0).uniform(size=(5, 2)).astype(np.float32)
    coding = coding_with(made.position, with_gallery(variables, at))
    own = {collection: variables[collection]["position"] for collection in variables}
    embedded = jit(lambda at: made.position.apply(own, at, method="locations"))(at)
    np.testing.assert_allclose(coding.embeddings, embedded, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(coding.embeddings, axis=1), 1, atol=1e-6)
    raw = np.asarray(jit(made.position.apply)(own, np.float32([[1, -2, 3]])))
    np.testing.assert_allclose(np.linalg.norm(raw), 1 / 0.07, rtol=1e-5)
    assert located(coding, raw).north[0] in (2000 * at[:, 0].astype(float)).tolist()


def test_a_file_of_weights_holds_the_gallery(model, tmp_path):
    made, variables = model
    at = np.random.default_rng(1).uniform(size=(5, 2))
    full = with_gallery(variables, at)
    assert weights.family_for(full) == "jaxvpr"
    weights.write(tmp_path / "model.safetensors", weights.to_torch("jaxvpr", full))
    back = weights.init_from(variables, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, back, full)
    np.testing.assert_array_equal(coding_with(made.position, back).at, at.astype(np.float32))
    heads = weights.to_torch("geoclip_heads", full)
    assert heads["location_encoder.LocEnc1.capsule.3.weight"].shape == (7, 7) and "gallery" not in "".join(heads)
    jax.tree.map(np.testing.assert_array_equal, weights.from_torch("geoclip_heads", heads, full), full)


def test_what_cannot_answer_says_so(model):
    made, variables = model
    with pytest.raises(ValueError, match=r"gallery of coordinates is empty.*position_options\.source"):
        coding_with(made.position, variables)
    with pytest.raises(ValueError, match="answers by its embeddings"):
        located(made.position.coding, np.zeros((1, 6)))
    plain = POSITIONS["direct"](area=(0, 0, 1, 1))
    assert coding_with(plain, {}) is plain.coding
    with pytest.raises(ValueError, match="the area has metres: take 'area'"):
        POSITIONS["geoclip"](area=(0, 0, 5, 5), metres=True)
    with pytest.raises(ValueError, match=r"projection='mercator'.*equal_earth"):
        POSITIONS["geoclip"](projection="mercator")
    with pytest.raises(ValueError, match="size=-1"):
        POSITIONS["geoclip"](size=-1)
