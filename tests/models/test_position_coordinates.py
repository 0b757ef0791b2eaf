"""Areas and distances, against numbers worked out by hand and formulas of another kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.models.positions import EARTH, Area, area, haversine, metres_apart, metres_between

CITY = area((37.70, -122.50, 37.79, -122.387))  # about 10 km x 10 km
LOCAL = area((4_170_000, 540_000, 4_180_000, 550_000), metres=True)
GLOBE = area((-90, -180, 90, 180))
PACIFIC = area((-20, 175, -15, 185))  # Fiji, across the 180th meridian


def around(latitude, longitude, latitude2, longitude2):
    """Metres by the angle between two vectors, from their cross and dot products (Vincenty's formula on a sphere)."""
    one, other = (
        np.stack([np.cos(a) * np.cos(o), np.cos(a) * np.sin(o), np.sin(a)], -1)
        for a, o in ((np.radians(latitude), np.radians(longitude)), (np.radians(latitude2), np.radians(longitude2)))
    )
    crossed = np.linalg.norm(np.cross(one, other), axis=-1)
    return EARTH * np.arctan2(crossed, np.sum(one * other, -1))


def beside(box, metres, count, seed=0):
    """Normalised pairs that far from one another, in any direction, in the middle of a box."""
    rng = np.random.default_rng(seed)
    at, turned = rng.uniform(0.3, 0.7, (count, 2)), rng.uniform(0, 2 * np.pi, count)
    height, width = box.sides
    north, east = metres * np.cos(turned), metres * np.sin(turned)
    if not box.metres:
        north = np.degrees(north / EARTH)
        east = np.degrees(east / EARTH) / np.cos(np.radians(box.south + at[:, 0] * height))
    return at, at + np.stack([north / height, east / width], 1)


def test_parts_of_a_box_by_hand():
    box = area((10, 20, 12, 24))
    u, v = box.normalised(np.array([10.5, 12.0, 9.0]), np.array([23.0, 24.0, 19.0]))
    np.testing.assert_array_equal(u, [0.25, 1.0, -0.5])
    np.testing.assert_array_equal(v, [0.75, 1.0, -0.25])
    north, east = box.placed(u, v)
    np.testing.assert_array_equal(north, [10.5, 12.0, 9.0])
    np.testing.assert_array_equal(east, [23.0, 24.0, 19.0])
    np.testing.assert_array_equal(box.holds(north, east), [True, True, False])
    assert not box.holds(np.nan, 22.0) and not box.holds(11.0, np.inf)


def test_a_box_across_the_180th_meridian():
    east = np.array([176.0, 180.0, -180.0, -176.0, 184.0, 170.0])
    u, v = PACIFIC.normalised(np.full(6, -17.5), east)
    np.testing.assert_allclose(v, [0.1, 0.5, 0.5, 0.9, 0.9, -0.5], atol=1e-12)
    np.testing.assert_allclose(PACIFIC.placed(u, v)[1], [176, 180, 180, -176, -176, 170], atol=1e-9)
    np.testing.assert_array_equal(PACIFIC.holds(np.full(6, -17.5), east), [True] * 5 + [False])


def test_metres_are_taken_as_they_are():
    u, v = LOCAL.normalised(np.array([4_172_500.0]), np.array([900_000.0]))
    np.testing.assert_array_equal([u[0], v[0]], [0.25, 36.0])
    assert metres_between(LOCAL, 3.0, 4.0, 0.0, 0.0) == 5.0
    assert metres_apart(LOCAL, np.array([0.5, 0.5]), np.array([0.5003, 0.5004])) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("numbers", "metres", "message"),
    [
        ((1, 2, 3), False, "south < north"),
        ((1, 2, 1, 4), False, "south < north"),
        ((1, 2, np.inf, 4), True, "south < north"),
        ((1, 2, np.nan, 4), True, "south < north"),
        ((0, 0, 91, 4), False, "metres=true"),
        ((0, -180, 1, 181), False, "metres=true"),
    ],
)
def test_numbers_that_are_no_box(numbers, metres, message):
    with pytest.raises(ValueError, match=message):
        area(numbers, metres)


def test_an_area_may_be_left_to_be_chosen():
    assert area((), metres=True) == Area(metres=True) and not area(()).chosen and CITY.chosen


def test_a_degree_of_the_equator_and_of_a_meridian():
    quarter = np.pi / 2 * EARTH
    assert haversine(0.0, 0.0, 0.0, 1.0) == pytest.approx(quarter / 90, rel=1e-12)
    assert haversine(89.0, 10.0, 89.0, -170.0) == pytest.approx(quarter / 45, rel=1e-12), "over the pole"
    assert haversine(-30.0, 10.0, 30.0, -170.0) == pytest.approx(2 * quarter, rel=1e-12), "the antipode"
    assert haversine(37.7, -122.4, 37.7, -122.4) == 0
    assert haversine(0.0, 179.5, 0.0, -179.5) == pytest.approx(quarter / 90, rel=1e-12)


def test_great_circles_are_those_of_another_formula():
    rng = np.random.default_rng(0)
    latitude, latitude2 = np.degrees(np.arcsin(rng.uniform(-1, 1, (2, 20_000))))
    longitude, longitude2 = rng.uniform(-180, 180, (2, 20_000))
    np.testing.assert_allclose(
        haversine(latitude, longitude, latitude2, longitude2),
        around(latitude, longitude, latitude2, longitude2),
        rtol=1e-9,
    )
    at, other = beside(CITY, 25.0, 20_000)
    (north, east), (north2, east2) = (CITY.placed(*where.T) for where in (at, other))
    found = metres_between(CITY, north, east, north2, east2)
    # Degrees of 122 in float64 are as coarse as 1e-9 m.
    np.testing.assert_allclose(found, around(north, east, north2, east2), atol=1e-8)
    np.testing.assert_allclose(found, metres_apart(CITY, at, other), atol=1e-8)
    np.testing.assert_allclose(found, 25, rtol=2e-5)


@pytest.mark.torch
def test_great_circles_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics.pairwise")
    rng = np.random.default_rng(1)
    one, other = (
        np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 300))), rng.uniform(-180, 180, 300)], 1) for _ in range(2)
    )
    theirs = metrics.haversine_distances(np.radians(one), np.radians(other)) * EARTH
    ours = haversine(one[:, None, 0], one[:, None, 1], other[None, :, 0], other[None, :, 1])
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(-90, 90), st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180), st.floats(-90, 90),
    st.floats(-180, 180),
)  # fmt: skip
def test_distances_are_a_metric(a, b, c, d, e, f):
    direct, back = haversine(a, b, c, d), haversine(c, d, a, b)
    assert direct == pytest.approx(back, rel=1e-12, abs=1e-9)
    assert 0 <= direct <= np.pi * EARTH * (1 + 1e-12)
    assert direct <= haversine(a, b, e, f) + haversine(e, f, c, d) + 1e-6


# (area, metres apart, float32's error on the same positions, on those that were rounded)
FLOAT32 = [
    (CITY, 0.1, 5e-8, 1e-3),
    (CITY, 25.0, 1e-5, 1e-3),
    (CITY, 1000.0, 4e-4, 1.5e-3),
    (LOCAL, 0.1, 5e-8, 1e-3),
    (LOCAL, 25.0, 1e-5, 1e-3),
    (GLOBE, 0.1, 5e-7, 3.0),
    (GLOBE, 25.0, 1e-5, 3.0),
]


@pytest.mark.parametrize(("box", "metres", "computed", "rounded"), FLOAT32)
def test_float32_keeps_small_distances(box, metres, computed, rounded):
    """As the docstring of `metres_apart` says, and no better: the error is what rounding the positions makes it."""
    exact = beside(box, metres, 20_000)
    single = [at.astype(np.float32) for at in exact]
    found = np.asarray(jax.jit(lambda a, b: metres_apart(box, a, b))(*single), np.float64)
    same = metres_apart(box, *(at.astype(np.float64) for at in single))
    assert np.abs(found - same).max() < computed
    off = np.abs(found - metres_apart(box, *exact)).max()
    assert rounded / 10 < off < rounded


def test_degrees_in_float32_lose_a_metre():
    """Which is why losses do not take them."""
    at, other = beside(CITY, 25.0, 20_000)
    degrees = [one.astype(np.float32) for where in (at, other) for one in CITY.placed(*where.T)]
    off = np.abs(np.asarray(jax.jit(haversine)(*degrees), np.float64) - metres_apart(CITY, at, other)).max()
    assert 0.1 < off < 1.5


@pytest.mark.parametrize("box", [CITY, LOCAL, GLOBE])
def test_gradients_of_distances_are_finite(box):
    points = jnp.asarray([[0.5, 0.5], [0.5, 0.5 + 1e-7], [0, 0], [1, 1], [0, 1], [0.25, 0.75], [-3, 9]], jnp.float32)
    ones, others = (points[i.reshape(-1)] for i in np.indices((7, 7)))
    slope = jax.jit(jax.grad(lambda at: jnp.sum(metres_apart(box, at, others))))(ones)
    assert np.isfinite(slope).all()
    assert not slope[::8].any(), "of equal positions"
    assert np.abs(slope[1]).max() > 0
