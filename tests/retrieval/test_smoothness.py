"""Similarity against metres and degrees: hand-worked curves, streets drawn by hand, and slow loops over all pairs."""

import math

import numpy as np
import pytest

from jaxvpr.retrieval import smoothness, streets
from jaxvpr.retrieval.streets import Spots


def town(seed=0, years=2, corner=(415_000.0, 5_815_000.0)):
    """Two parallel streets of 90 m, 60 m apart, and one that crosses both; a camera every 5 m, two headings."""
    rng = np.random.default_rng(seed)
    at = [(x, y) for y in (0, 60) for x in range(-45, 50, 5)] + [(0, y) for y in range(-45, 110, 5)]
    rows = [(x, y, heading) for x, y in at for heading in (0.0, 90.0) for _ in range(years)]
    found = np.array(rows)
    return Spots(found[:, :2] + corner + rng.uniform(-0.4, 0.4, (len(found), 2)), np.mod(found[:, 2] + 355, 360))


def on_streets(spots, edges, most, seed):
    return streets.along_street(spots, streets.directions(spots, 30), 30, edges, most, seed)


def row_of(spots, most):
    return streets.straight_row(spots, streets.directions(spots, 30), 30, most)


def test_the_length_of_a_curve_worked_by_hand():
    # Excess 0.8, 0.4, 0.2 over the floor 0.1; 0.8 / e = 0.2943 lies between 12 and 22 m, counted from 2 m.
    x, mean = np.array([2.0, 12.0, 22.0]), np.array([0.9, 0.5, 0.3])
    share = (0.4 - 0.8 / math.e) / 0.2
    assert smoothness.length(x, mean, 0.1) == pytest.approx(10 + 10 * share)
    assert smoothness.length(x, mean, -1.0) == math.inf  # 1.9 to 1.3: never 0.7
    assert math.isnan(smoothness.length(x, mean, math.nan))
    assert math.isnan(smoothness.length(x, mean, 0.9)) and math.isnan(smoothness.length(x[:0], mean[:0], 0.0))


@pytest.mark.parametrize("metres", [4.0, 17.0])
def test_an_exponential_has_its_own_length(metres):
    x = np.linspace(1, 60, 200)
    assert smoothness.length(x, 0.3 + 0.5 * np.exp(-x / metres), 0.3) == pytest.approx(metres, rel=0.01)


def test_a_curve_worked_by_hand():
    pairs = streets.Pairs(
        np.zeros(5, int), np.ones(5, int), np.array([0.5, 3.0, 2.5, 9.0, 8.0]), np.array([1, 0, 7, 2])
    )
    found = smoothness.curve(pairs, np.array([1.0, 0.4, 0.8, 0.1, 0.3], np.float32), (0, 1, 2, 5, 10), 0.0)
    np.testing.assert_allclose([found.low, found.high, found.x], [[0, 2, 5], [1, 5, 10], [0.5, 2.75, 8.5]])
    np.testing.assert_allclose([found.mean, found.median], [[1, 0.6, 0.2]] * 2, rtol=1e-6)
    np.testing.assert_allclose([found.lower, found.upper], [[1, 0.5, 0.15], [1, 0.7, 0.25]], rtol=1e-6)
    assert found.compared.tolist() == [1, 2, 2] and found.found.tolist() == [1, 7, 2]
    # 1 / e = 0.3679 between 0.6 at 2.75 m and 0.2 at 8.5 m.
    assert found.length == pytest.approx(2.25 + (0.6 - 1 / math.e) / 0.4 * 5.75)
    as_json = smoothness.as_json(found._replace(length=math.inf, floor=math.nan))
    assert (as_json["correlation_length"], as_json["longer_than"], as_json["floor"]) == (None, 8.0, None)
    assert as_json["bins"][1] | {"mean": 0} == {
        "low": 2, "high": 5, "x": 2.75, "mean": 0, "lower": pytest.approx(0.5), "median": pytest.approx(0.6),
        "upper": pytest.approx(0.7), "compared": 2, "found": 7,
    }  # fmt: skip


def test_cosines_are_those_of_any_length_of_descriptors(monkeypatch):
    descriptors = np.array([[3, 0], [4, 4], [0, 2], [0, 0]], np.float32)
    pairs = streets.Pairs(np.array([0, 0, 1, 3]), np.array([1, 2, 2, 0]), np.zeros(4), np.array([4]))
    monkeypatch.setattr(smoothness, "AT_ONCE", 5)  # two pairs at a time
    np.testing.assert_allclose(smoothness.similarities(descriptors, pairs), [0.5**0.5, 0, 0.5**0.5, 0], rtol=1e-6)


def test_the_line_of_a_street():
    spots = town()
    lines, at = streets.directions(spots, 30), spots.at - (415_000, 5_815_000)
    east = (np.abs(at[:, 0]) > 18) & (np.abs(at[:, 1]) < 1)
    assert np.abs(lines[east, 0]).min() > 0.99
    north = (np.abs(at[:, 0]) < 1) & (at[:, 1] > 18) & (at[:, 1] < 42)
    assert np.abs(lines[north, 1]).min() > 0.99
    assert np.isnan(lines[np.hypot(*at.T) < 2]).all()  # the crossing
    together = Spots(np.full((4, 2), 7.0), np.zeros(4))
    assert np.isnan(streets.directions(together, 30)).all()


def loop(spots, wanted):
    """All pairs for which `wanted(i, j)` gives a value, one after the other."""
    found = {}
    for i in range(len(spots.at)):
        for j in range(i + 1, len(spots.at)):
            if (value := wanted(i, j)) is not None:
                found[i, j] = value
    return found


def turned(one, other):
    return min(abs(one - other) % 360, 360 - abs(one - other) % 360)


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_pairs_are_those_of_a_slow_loop(monkeypatch, block):
    monkeypatch.setattr(streets, "BLOCK", block)
    spots = town(years=1)
    lines, at, heading = streets.directions(spots, 30), spots.at, spots.heading

    def on_street(i, j):
        step, metres = at[j] - at[i], math.dist(at[i], at[j])
        beside = [abs(step[0] * lines[k][1] - step[1] * lines[k][0]) for k in (i, j)]
        near = all(one <= max(4.5, metres / 10) for one in beside)  # NaN is not
        return metres if near and turned(heading[i], heading[j]) <= 10 and metres < 102 else None

    edges = smoothness.STEPS
    cases = [
        (on_streets(spots, edges, 10**6, 0), on_street, edges),
        (
            streets.turned_at_spot(spots, 2, smoothness.DEGREES, 10**6, 0),
            lambda i, j: turned(heading[i], heading[j]) if math.dist(at[i], at[j]) <= 2 else None,
            smoothness.DEGREES,
        ),
        (
            streets.apart(spots, 102, True, 10**6, 0),
            lambda i, j: (
                math.dist(at[i], at[j]) if math.dist(at[i], at[j]) > 102 and heading[i] == heading[j] else None
            ),
            (0, np.inf),
        ),
    ]
    for pairs, wanted, edges in cases:
        expected = loop(spots, wanted)
        found = dict(zip(zip(pairs.one.tolist(), pairs.other.tolist(), strict=True), pairs.value, strict=True))
        assert found.keys() == expected.keys() and len(found) > 50
        np.testing.assert_allclose([found[key] for key in expected], list(expected.values()), atol=1e-6)
        np.testing.assert_array_equal(pairs.found, np.histogram(list(expected.values()), edges)[0])
    # No pair leads from one of the parallel streets to the other, but along the street that crosses them.
    pairs = cases[0][0]
    local = at - (415_000, 5_815_000)
    across = np.abs(local[pairs.one, 1] - local[pairs.other, 1]) > 30
    assert across.any() and np.abs(local[pairs.one[across], 0]).max() < 1


def test_a_sample_is_as_likely_to_have_any_pair(monkeypatch):
    """And does not depend on how many pairs are looked at together, but through the order of the random numbers."""
    spots = town()
    whole = on_streets(spots, smoothness.STEPS, 10**6, 0)
    some = on_streets(spots, smoothness.STEPS, 20, 0)
    assert np.array_equal(some.found, whole.found) and len(some.one) == np.minimum(whole.found, 20).sum()
    bin_of = np.searchsorted(smoothness.STEPS, some.value, "right") - 1
    assert np.bincount(bin_of).max() == 20
    keys = set(zip(whole.one.tolist(), whole.other.tolist(), strict=True))
    assert {*zip(some.one.tolist(), some.other.tolist(), strict=True)} < keys
    means = [on_streets(spots, (0, 102), 100, seed).value.mean() for seed in range(8)]
    deviation = whole.value.std() / math.sqrt(800)
    assert abs(np.mean(means) - whole.value.mean()) < 4 * deviation
    again = on_streets(spots, smoothness.STEPS, 20, 0)
    np.testing.assert_array_equal(again.one, some.one)


def test_the_row_of_a_street_is_ordered_and_looks_one_way():
    spots = town(years=3)
    rows, along = row_of(spots, 100)
    local = spots.at[rows] - (415_000, 5_815_000)
    assert len(rows) >= 18 and (np.diff(along) >= 0).all() and along[0] == 0 and along[-1] <= 30
    assert len(np.unique(spots.heading[rows])) == 1
    assert min(np.ptp(local, axis=0)) < 1.5 and max(np.ptp(local, axis=0)) == pytest.approx(along[-1], abs=0.3)
    few, metres = row_of(spots, 5)
    assert len(few) == 5 and set(few) < set(rows) and (few[0], few[-1]) == (rows[0], rows[-1])
    assert metres[-1] == along[-1]
    alone = Spots(np.array([[0.0, 0.0], [500.0, 0.0]]), np.zeros(2))
    assert not len(row_of(alone, 100)[0])
    nothing = smoothness.measure(np.eye(2, dtype=np.float32), alone)
    assert nothing.metres.floor == 0 and not len(nothing.metres.x) and nothing.matrix.shape == (0, 0)
    assert smoothness.as_json(nothing.metres)["bins"] == []


def test_without_headings_all_look_the_same_way():
    spots = Spots(np.stack([np.arange(0.0, 200, 10), np.zeros(20)], 1), np.full(20, np.nan))
    assert len(on_streets(spots, smoothness.STEPS, 100, 0).one) == sum(20 - k for k in range(1, 11))
    assert not len(streets.turned_at_spot(spots, 2, smoothness.DEGREES, 100, 0).one)
    spots.heading[:10] = 0.0  # those that alone lack one are left out
    assert on_streets(spots, smoothness.STEPS, 100, 0).other.max() == 9


def test_neighbourhoods_of_a_large_set():
    spots = Spots(np.random.default_rng(0).uniform(0, 5000, (4000, 2)), np.zeros(4000))
    rows = streets.around(spots, 400, 300, 7)
    assert len(rows) == 400 and (np.diff(rows) > 0).all()
    metres = np.hypot(*(spots.at[rows][:, None] - spots.at[rows][None]).transpose(2, 0, 1))
    assert ((metres <= 100).sum(1) > 1).mean() > 0.9  # neighbours, not images here and there
    assert metres.max() > 1000  # and several places
    np.testing.assert_array_equal(streets.around(spots, 4000, 300, 7), np.arange(4000))


def test_descriptors_that_fade_over_a_known_length():
    """Random features of a Gaussian process along one street, whose correlation is exp(-metres / 12)."""
    rng, count = np.random.default_rng(0), 120
    metres = np.sort(rng.uniform(0, 400, count))
    covariance = np.exp(-np.abs(metres[:, None] - metres[None]) / 12)
    descriptors = (np.linalg.cholesky(covariance) @ rng.normal(size=(count, 4096))).astype(np.float32)
    spots = Spots(np.stack([metres, np.zeros(count)], 1) + 1e6, np.full(count, 90.0))
    found = smoothness.measure(descriptors, spots)
    assert found.metres.length == pytest.approx(12, rel=0.1) and abs(found.metres.floor) < 0.02
    assert found.dimension == 4096 and np.isnan(found.degrees.length)
    row = descriptors[found.row] / np.linalg.norm(descriptors[found.row], axis=1, keepdims=True)
    np.testing.assert_allclose(found.matrix, row @ row.T, atol=1e-5)
    assert (np.diag(found.matrix) > 0.9999).all()
    wide = smoothness.measure(descriptors, spots._replace(at=spots.at * 10), span=300.0)  # all of it ten times as far
    assert wide.metres.length == pytest.approx(10 * found.metres.length, rel=1e-6)
    np.testing.assert_array_equal(wide.row, found.row)
