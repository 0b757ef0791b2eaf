"""How far answers are off: hand-worked shares, quantiles and cells."""

import numpy as np
import pytest

from jaxvpr.errors import UserError
from jaxvpr.models.positions import Area, Cells, Direct, Hypersphere, Located
from jaxvpr.retrieval import positions, search

FIELD = Area(0.0, 0.0, 100.0, 100.0, metres=True)
NONE = np.full(4, np.nan)
DISTANCES = {"1m": 1.0, "5m": 5.0}


def answered(coding, bearing=NONE, said_bearing=NONE, missing=()):
    """Answers that are 0, 5, 1 and 50 m off; the last lies south of the area."""
    taken = positions.Taken(np.array([10.0, 20, 30, 10]), np.array([10.0, 20, 30, 40]), bearing)
    said = Located(np.array([10.0, 23, 30, -40]), np.array([10.0, 24, 31, 40]), said_bearing, NONE)
    return positions.errors(coding, taken, said, missing)


def test_shares_and_quantiles_of_metres():
    found = answered(Direct(FIELD))
    assert found.metres.tolist() == [0, 5, 1, 50] and found.outside.tolist() == [False, False, False, True]
    figures = positions.summary(found, DISTANCES)
    assert figures["within"] == {"1m": 50.0, "5m": 75.0} and figures["outside"] == 1
    assert figures["median_m"] == 3.0 and figures["quantiles_m"]["75"] == 16.25  # 5 + 0.25 (50 - 5)
    low, high = figures["interval95"]["1m"]
    assert 0 < low < 50 < high < 100
    assert "cells" not in figures and "median_degrees" not in figures


def test_a_query_that_cannot_be_read_fails_and_has_no_metres():
    figures = positions.summary(answered(Direct(FIELD), missing=[0, 3]), DISTANCES)
    assert figures["within"] == {"1m": 25.0, "5m": 50.0} and figures["median_m"] == 3.0 and figures["outside"] == 0
    nothing = positions.summary(answered(Direct(FIELD), missing=range(4)), DISTANCES)
    assert nothing["within"] == {"1m": 0.0, "5m": 0.0} and "median_m" not in nothing, "JSON has no infinity"


def test_bearings_turn_the_short_way():
    bearing, said = np.array([350.0, 90, np.nan, 0]), np.array([10.0, 80, 10, np.nan])
    found = answered(Direct(FIELD), bearing, said)
    np.testing.assert_array_equal(found.degrees, [20, 10, np.nan, np.nan])
    assert positions.summary(found, DISTANCES)["median_degrees"] == 15.0


def test_right_cells_and_the_metres_behind_wrong_ones():
    """Cells of 25 m: (10, 10) and (20, 20) lie in the first, (23, 24) too; (30, 31) with (30, 30); -40 counts as 0."""
    flat = answered(Cells(FIELD, bearing=False, cells=4))
    assert flat.right.tolist() == [True, True, True, True]
    looking = answered(Cells(FIELD, cells=4), np.array([15.0, 15, np.nan, 75]), np.array([15.0, 45, 15, 75]))
    assert looking.right.tolist() == [True, False, False, True], "of another sector, and of an unknown one"
    cells = positions.summary(looking, DISTANCES)["cells"]
    assert cells["right"] == 50.0 and cells["median_m_behind_wrong"] == 3.0
    unread = answered(Cells(FIELD, bearing=False, cells=4), missing=[1])
    assert unread.right.tolist() == [True, False, True, True]
    assert "median_m_behind_wrong" not in positions.summary(unread, DISTANCES)["cells"], "none is wrong and read"


def test_degrees_are_measured_along_great_circles():
    globe = Area(-90.0, -180.0, 90.0, 180.0)
    taken = positions.Taken(np.zeros(2), np.array([179.5, 0.0]), NONE[:2])
    found = positions.errors(Direct(globe), taken, Located(np.zeros(2), np.array([-179.5, 1.0]), NONE[:2], NONE[:2]))
    np.testing.assert_allclose(found.metres, 111_195.08, atol=0.01)  # a degree of 6,371,008.8 m x pi / 180


def test_distances_by_name_and_by_the_size_of_the_area():
    assert positions.distances(("25m", "1.5km"), FIELD) == {"25m": 25.0, "1.5km": 1500.0}
    assert tuple(positions.distances((), FIELD)) == positions.CITY
    assert positions.usual(Area(36.0, -10.0, 60.0, 30.0)) == positions.GLOBE
    assert positions.usual(Area(37.7, -122.5, 37.8, -122.4)) == positions.CITY
    for wrong in ("25", "m", "0m", "-1m", "1 m", 25):
        with pytest.raises(UserError, match=r"config\.eval\.distances: .* is no distance; expected such as 25m or 1km"):
            positions.distances((wrong,), FIELD)


def test_timed_runs_see_all_queries_and_single_ones():
    seen = []
    spent = positions.timed(lambda rows: seen.append(len(rows)), np.zeros((7, 3), np.float32))
    assert seen.count(7) == 1 + positions.REPEATS and seen.count(1) == 1 + 7
    assert spent.together >= 0 and spent.alone >= 0


def test_a_search_that_is_timed_finds_what_the_exact_one_finds():
    rng = np.random.default_rng(0)
    database, queries = (rng.normal(size=(n, 5)).astype(np.float32) for n in (40, 6))
    found, expected = search.at_once(database)(queries, 3), search.exact(database, queries, 3)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)


def test_what_a_coding_itself_loses():
    """A photo at (12, 30) of cells of 10 m lies 5.8 m from the middle of its own, (15, 35)."""
    taken = positions.Taken(np.array([12.0, 45.0]), np.array([30.0, 65.0]), np.array([10.0, np.nan]))
    lost = positions.lost(Cells(FIELD, cells=10), taken)
    np.testing.assert_allclose(lost, [np.hypot(3, 5), 0], atol=1e-4)
    assert positions.lost(Direct(FIELD), taken) is None
    city = Area(37.7, -122.5, 37.8, -122.4)
    there = positions.Taken(np.array([37.75, 37.71]), np.array([-122.45, -122.41]), np.array([30.0, 300.0]))
    assert positions.lost(Hypersphere(city), there).max() < 5.0  # float32's 6e-8 of the Earth
    assert positions.lost(Hypersphere(city, projection="spread"), there).max() < 0.05
