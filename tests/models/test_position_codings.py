"""What the numbers of heads mean: there and back, classes and soft labels by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.models.positions import (
    Cells,
    Direct,
    Hypersphere,
    Mixture,
    answers,
    area,
    head_bytes,
    located,
    metres_apart,
)
from jaxvpr.models.positions.cells import NEAREST

SAN_FRANCISCO = area((37.70, -122.50, 37.79, -122.387))
NOWHERE = area((0, 0, 10, 10), metres=True)
# Quadrants of the globe, with cos lon of either sign, and the 180th meridian within one.
QUADRANTS = [
    SAN_FRANCISCO,
    area((-90, -90, 0, 0)),
    area((0, 0, 90, 90)),
    area((-90, 90, 0, 180)),
    area((0, -180, 90, -90)),
    area((-90, 100, 90, 260)),
]


def normalised(box, north, east, bearing):
    return np.stack([*box.normalised(np.asarray(north), np.asarray(east)), np.asarray(bearing) / 360], -1)


def apart(a, b):
    """Degrees between bearings in turns."""
    return np.abs((a - b + 0.5) % 1 - 0.5) * 360


def test_the_point_of_the_hypersphere_by_hand():
    """San Francisco's quadrant: cos lon is negative, so that x looks away from the bearing."""
    box = area((0, -180, 90, -90))
    at = normalised(box, [30.0, 30.0], [-120.0, -120.0], [0.0, 30.0])
    a, b = 3**0.5 / 2 * -0.5, 3**0.5 / 2 * -(3**0.5) / 2
    expected = [[0.5, a, 0, b], [0.5, a * 3**0.5 / 2, a * 0.5, b]]
    point = Hypersphere(box).encode(at)
    np.testing.assert_allclose(point, expected, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(point, axis=1), 1)
    np.testing.assert_allclose(Hypersphere(box, bearing=False).encode(at), np.array(expected)[[0, 0]][:, [0, 1, 3]])


def test_the_spread_point_by_hand():
    """The middle of any box is at 30 degrees of both."""
    point = Hypersphere(NOWHERE, projection="spread").encode(np.array([[0.5, 0.5, 0.25]]))
    np.testing.assert_allclose(point, [[0.5, 0, 0.75, 3**0.5 / 4]], atol=1e-15)


@pytest.mark.parametrize("projection", ["degrees", "spread"])
@pytest.mark.parametrize("box", QUADRANTS)
def test_the_hypersphere_comes_back(box, projection):
    """To 1 cm and 1e-6 degrees, whatever the length of the answer, up to a hair from poles and ±90 degrees."""
    rng = np.random.default_rng(0)
    at = rng.uniform(size=(4000, 3))
    close = rng.choice([0, 1e-13, 1e-9, 1e-5], (2, 1000))
    at[:1000, 0], at[:1000, 1] = close
    at[1000:2000, 0], at[1000:2000, 1] = 1 - close
    coding = Hypersphere(box, projection=projection)
    point = coding.encode(at)
    back, confidence = coding.decode(point * rng.uniform(0.1, 7, (4000, 1)))
    assert metres_apart(box, at, back).max() < 0.01
    known = np.isfinite(back[:, 2])
    assert apart(at[known, 2], back[known, 2]).max() < 1e-6
    np.testing.assert_array_equal(known, np.hypot(point[:, 1], point[:, 2]) > 8 * np.finfo(float).eps)
    if box is SAN_FRANCISCO or projection == "spread":
        assert known.all()
    assert np.isnan(confidence).all()


def test_at_a_pole_and_at_90_degrees_only_the_position_comes_back():
    for box in (area((0, 0, 90, 90)), area((0, 90, 90, 180))):
        at = normalised(box, [90.0, 0.0, 45.0], [box.west + 30, 90.0, 90.0], [77.0, 77.0, 77.0])
        back, _ = Hypersphere(box).decode(Hypersphere(box).encode(at))
        assert metres_apart(box, at, back).max() < 0.01
        assert np.isnan(back[:, 2]).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.booleans())
def test_any_position_comes_back_from_the_hypersphere(quadrant, u, v, turns, spread):
    box, at = QUADRANTS[quadrant], np.array([u, v, turns])
    coding = Hypersphere(box, projection="spread" if spread else "degrees")
    point = coding.encode(at)
    back, _ = coding.decode(point)
    assert metres_apart(box, at, back) < 0.01
    if np.hypot(point[1], point[2]) > 1e-14:
        assert apart(turns, back[2]) < 1e-6


@pytest.mark.parametrize(("projection", "worst"), [("degrees", 4.0), ("spread", 0.01)])
def test_float32_comes_back_as_the_docstring_says(projection, worst):
    coding = Hypersphere(SAN_FRANCISCO, projection=projection)
    at = np.random.default_rng(1).uniform(size=(20_000, 3)).astype(np.float32)
    back = np.asarray(jax.jit(lambda at: coding.decode(coding.encode(at))[0])(at), np.float64)
    off = metres_apart(SAN_FRANCISCO, at.astype(np.float64), back)
    assert worst / 10 < off.max() < worst
    assert apart(at[:, 2].astype(np.float64), back[:, 2]).max() < 1e-4


def test_without_a_bearing_the_sphere_has_three_dimensions_and_no_quadrants():
    everywhere = area((-90, -180, 90, 180))
    coding = Hypersphere(everywhere, bearing=False)
    at = np.random.default_rng(2).uniform(size=(1000, 3))
    back, _ = coding.decode(coding.encode(at))
    assert coding.numbers == 3 and metres_apart(everywhere, at, back).max() < 0.01
    assert np.isnan(back[:, 2]).all()
    with pytest.raises(ValueError, match="both sides of a longitude of ±90"):
        Hypersphere(everywhere)
    with pytest.raises(ValueError, match="both sides"):
        Hypersphere(area((0, 89, 1, 90.5)))
    with pytest.raises(ValueError, match="metres"):
        Hypersphere(NOWHERE)


@pytest.mark.parametrize("bearing", [True, False])
def test_endings_by_hand(bearing):
    raw = np.log([[1.0, 2.0, 5.0]])[:, : 2 + bearing]
    expected = {
        "softmax": np.array([[1 / 8, 2 / 8, 5 / 8]]) if bearing else np.array([[1 / 3, 2 / 3]]),
        "sigmoid": np.array([[1 / 2, 2 / 3, 5 / 6]])[:, : 2 + bearing],
        "none": raw,
        "tanh": np.array([[1 / 2, 4 / 5, 25 / 26]])[:, : 2 + bearing],
    }
    for ending, wanted in expected.items():
        coding = Direct(NOWHERE, bearing, ending)
        assert coding.numbers == 2 + bearing
        at, _ = coding.decode(raw)
        np.testing.assert_allclose(at[:, : 2 + bearing], wanted, rtol=1e-12)
        assert bearing or np.isnan(at[:, 2]).all()
        np.testing.assert_allclose(jax.jit(coding.outputs)(raw.astype(np.float32)), wanted, rtol=1e-6)
        assert np.isfinite(coding.outputs(raw * 1e4)).all()


def test_class_numbers_by_hand():
    """M = 4: 0.6 and 0.3 are in the third row and second column; 95 degrees in the fourth sector of 30."""
    coding = Cells(NOWHERE, cells=4)
    at = np.array(
        [
            [0.6, 0.3, 95 / 360],
            [0, 0, 0],
            [1, 1, 359.9 / 360],
            [0.25, 0.75, 30 / 360],
            [-0.2, 1.7, 0.5],
            [0.6, 0.3, np.nan],
        ]
    )
    expected = [2 * 4 * 12 + 1 * 12 + 3, 0, 4 * 4 * 12 - 1, 1 * 48 + 3 * 12 + 1, 3 * 12 + 6, -1]
    np.testing.assert_array_equal(coding.classes(at), expected)
    np.testing.assert_array_equal(jax.jit(coding.classes)(at.astype(np.float32)), expected)
    assert coding.numbers == 4 * 4 * 12
    flat = Cells(NOWHERE, bearing=False, cells=4)
    np.testing.assert_array_equal(flat.classes(at), [2 * 4 + 1, 0, 15, 7, 3, 9])
    np.testing.assert_allclose(flat.middles(np.array([9])), [[0.625, 0.375, np.nan]])
    np.testing.assert_allclose(coding.middles(np.array([111])), [[0.625, 0.375, 105 / 360]])


def test_multiples_of_a_sector_begin_it_in_every_type():
    """Which is what the bearings of the document's data are."""
    turns = np.arange(12) * 30 / 360
    at = np.stack([np.full(12, 0.5), np.full(12, 0.5), turns], -1)
    coding = Cells(NOWHERE, cells=1)
    for found in (
        coding.classes(at),
        coding.classes(at.astype(np.float32)),
        jax.jit(coding.classes)(at.astype(np.float32)),
    ):
        np.testing.assert_array_equal(found, range(12))


def test_every_class_holds_its_middle():
    coding = Cells(NOWHERE, cells=5, sectors=8)
    classes = np.arange(coding.numbers)
    np.testing.assert_array_equal(coding.classes(coding.middles(classes)), classes)
    raw = np.where(classes == 77, 3.0, 0.0)[None]
    at, confidence = coding.decode(raw)
    np.testing.assert_array_equal(coding.classes(at), [77])
    assert confidence[0] == pytest.approx(np.exp(3) / (np.exp(3) + coding.numbers - 1))


SOFT = Cells(NOWHERE, cells=4, soft=True)


@pytest.mark.parametrize(
    ("row", "column", "neighbours"), [(1, 2, 8), (0, 2, 5), (2, 3, 5), (3, 1, 5), (0, 0, 3), (3, 0, 3), (3, 3, 3)]
)
def test_soft_labels_of_a_photo_in_the_middle_of_its_cell(row, column, neighbours):
    """Beside it at a distance of one side are 4, 3 or 2 cells, across a corner (sqrt 2) 4, 2 or 1."""
    at = np.array([[(row + 0.5) / 4, (column + 0.5) / 4, 0.5]])
    target = SOFT.encode(at)
    weights = dict(zip(target.cells[0], target.weights[0], strict=True)) if neighbours == 8 else None
    beside = {8: 4, 5: 3, 3: 2}[neighbours]
    total = 1 / NEAREST + beside + (neighbours - beside) / 2**0.5
    assert (target.weights > 0).sum() == 1 + neighbours
    assert target.weights.sum() == pytest.approx(1)
    assert target.weights[0, 0] == pytest.approx(1 / NEAREST / total)
    assert target.cells[0, 0] == row * 4 + column and target.sector[0] == 6
    ordered = np.sort(target.weights[0])[::-1]
    np.testing.assert_allclose(ordered[1 : 1 + beside], 1 / total)
    if weights:
        assert weights[(row + 1) * 4 + column - 1] == pytest.approx(1 / 2**0.5 / total)
        assert sorted(weights) == sorted((row + i) * 4 + column + j for i in (-1, 0, 1) for j in (-1, 0, 1))


def test_soft_labels_by_hand():
    """At the corner of four cells each has the same distance; the five others lie sqrt(10) / 2 or sqrt(18) / 2 away."""
    target = SOFT.encode(np.array([[0.5, 0.5, np.nan]]))
    inverse = np.array([4 * 2**0.5, 4 * 2 / 10**0.5, 2 / 18**0.5])
    weights = dict(zip(target.cells[0], target.weights[0], strict=True))
    assert target.sector[0] == -1
    for cell in (5, 6, 9, 10):
        assert weights[cell] == pytest.approx(2**0.5 / inverse.sum())
    assert weights[15] == pytest.approx(2 / 18**0.5 / inverse.sum())


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 6))
def test_soft_labels_are_shares_of_cells_around(u, v, cells):
    coding = Cells(NOWHERE, cells=cells, soft=True)
    at = np.array([[u, v, 0.1]])
    target = coding.encode(at)
    row, column = coding.classes(at)[0] // 12 // cells, coding.classes(at)[0] // 12 % cells
    sides = [1 + (i > 0) + (i < cells - 1) for i in (row, column)]
    assert (target.weights > 0).sum() == sides[0] * sides[1]
    assert target.weights.sum() == pytest.approx(1)
    assert target.weights[0, 0] == pytest.approx(target.weights.max())


@pytest.mark.parametrize("soft", [False, True])
def test_classes_on_the_device_are_those_on_the_host(soft):
    coding = Cells(NOWHERE, cells=7, soft=soft)
    at = np.random.default_rng(3).uniform(0.001, 0.999, (500, 3)).astype(np.float32)
    at[::9, 2] = np.nan
    device, host = jax.jit(coding.encode)(at), coding.encode(at.astype(np.float64))
    same = (np.asarray(device.cells) == host.cells).all(-1)
    assert same.mean() > 0.99
    np.testing.assert_allclose(np.asarray(device.weights)[same], host.weights[same], rtol=0.01)
    np.testing.assert_array_equal(device.sector, host.sector)
    assert device.cells.dtype == device.sector.dtype == host.cells.dtype == np.int32


def test_a_mixture_answers_its_heaviest_hypothesis():
    coding = Mixture(NOWHERE, components=2)
    raw = np.array([[0.0, 9, 9, 9, 9, 9, 9, np.log(3), 0.0, np.log(3), 0.0, 0.0, 0.0, -2.0]])
    at, confidence = coding.decode(raw)
    np.testing.assert_allclose(at, [[0.5, 0.75, 0.75]])
    np.testing.assert_allclose(confidence, [0.75])
    found = coding.hypotheses(raw)
    np.testing.assert_allclose(found.log_sigmas[0, 1], np.log(1e-3) / 2)
    answer = located(coding, raw)
    np.testing.assert_allclose([answer.north[0], answer.east[0], answer.bearing[0]], [5, 7.5, 270])
    single, _ = jax.jit(coding.decode)(jnp.asarray(raw, jnp.float32))
    np.testing.assert_allclose(single, at, rtol=1e-6)
    assert Mixture(NOWHERE, bearing=False, components=3).numbers == 15


def test_a_mixture_begins_with_hypotheses_that_differ_and_are_wide():
    coding = Mixture(NOWHERE, components=6)
    found = coding.hypotheses(coding.start[None])
    means = found.means[0]
    assert min(np.linalg.norm(means[i] - means[j]) for i in range(6) for j in range(i)) > 0.2
    assert np.exp(found.log_sigmas).min() > 0.3


def test_answers_are_places_on_earth():
    raw = np.array([[0.5, 2.0, 1.25], [1.0, 0.0, -0.25]])
    found = located(Direct(SAN_FRANCISCO, ending="none"), raw)
    np.testing.assert_allclose(found.north, [37.745, 37.79])
    np.testing.assert_allclose(found.east, [-122.387 + 0.113, -122.5])
    np.testing.assert_allclose(found.bearing, [90, 270])
    np.testing.assert_array_equal(SAN_FRANCISCO.holds(found.north, found.east), [False, True])
    assert np.isnan(found.confidence).all() and found.north.dtype == np.float64


@pytest.mark.parametrize(
    ("coding", "raw", "message"),
    [
        (Direct(), np.zeros((2, 3)), "area is not chosen"),
        (Direct(NOWHERE), np.zeros((2, 4)), r"\(2, 4\).*3 numbers"),
        (Direct(NOWHERE), np.array([[0, 0, 0], [0, np.nan, 0], [np.inf, 0, 0]]), "2 of 3 answers, row 1"),
    ],
)
def test_answers_that_are_none(coding, raw, message):
    with pytest.raises(ValueError, match=message):
        located(coding, raw)


@pytest.mark.parametrize(
    "coding", [Direct(NOWHERE), Cells(NOWHERE, cells=2), Mixture(NOWHERE), Hypersphere(SAN_FRANCISCO)]
)
def test_answers_decoded_on_the_device_are_those_of_the_host(coding):
    raw = np.random.default_rng(4).normal(size=(50, coding.numbers)).astype(np.float32)
    decode = jax.jit(coding.decode)
    device, host = answers(coding.area, *decode(raw)), located(coding, raw)
    for one, other in zip(device, host, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
    raw[7, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 50 answers, row 7"):
        answers(coding.area, *decode(raw))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Direct(ending="relu"), "ending='relu'"),
        (lambda: Hypersphere(projection="mercator"), "projection='mercator'"),
        (lambda: Hypersphere(spread=(45.0, 15.0)), "ascending"),
        (lambda: Cells(cells=0), "cells=0"),
        (lambda: Mixture(components=0), "components=0"),
        (lambda: Mixture(sigmas=(0.0, 1.0)), "sigmas"),
    ],
)
def test_codings_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bytes_of_many_cells_by_hand():
    """100 x 100 cells of 12 sectors behind 2,048 numbers: 0.98 GB, and 0.12 GB of outputs for 256 photos."""
    found = head_bytes(Cells(NOWHERE, cells=100).numbers, 2048, 256)
    assert found == (4 * 2049 * 120_000, 4 * 256 * 120_000)
    assert found.training == 4 * found.layer + 3 * found.outputs
