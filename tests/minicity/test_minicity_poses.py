"""Cameras and file names: what the reader of '@' names finds is where the picture was taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.minicity import CityConfig
from data_pipelines.minicity.layout import plan
from data_pipelines.minicity.poses import (
    EAST,
    NORTH,
    TEST_DATABASE,
    TEST_QUERIES,
    TRAIN,
    VAL_QUERIES,
    cameras,
    file_name,
    headings,
)  # fmt: skip


@pytest.fixture(scope="module")
def shots():
    config = CityConfig()
    layout = plan(config)
    return config, layout, cameras(config, layout)


def of(shots, part):
    return {name: getattr(shots, name)[shots.part == part] for name in ("xy", "year", "condition", "heading", "key")}


def test_default_city_has_the_size_that_was_promised(shots):
    table = shots[2]
    images = table.images()
    assert 9_000 <= sum(images.values()) <= 12_000
    assert images["test/queries"] == 600 and images["val/queries"] == 200
    assert images["train"] == 4 * images["test/database"]
    assert len(np.unique(table.key)) == len(table)


def test_queries_stand_beside_the_database_and_are_turned_as_configured(shots):
    config, _, table = shots
    database, queries = of(table, TEST_DATABASE), of(table, TEST_QUERIES)
    nearest = np.linalg.norm(queries["xy"][:, None] - database["xy"], axis=2).min(1)
    assert nearest.max() <= np.hypot(config.database_spacing, config.query_shift) and nearest.std() > 0.3
    turn = (queries["heading"] + 15) % 30 - 15
    assert abs(turn).max() <= config.query_turn and abs(turn).std() > 2
    assert set(queries["year"]) == {2018, 2019} and set(database["year"]) == {2016}
    assert np.bincount(queries["condition"]).tolist() == [100] * 6
    assert set(database["condition"]) == {config.conditions.index("day")}


def test_database_stands_every_five_metres(shots):
    xy = of(shots[2], TEST_DATABASE)["xy"]
    step = np.linalg.norm(np.diff(xy, axis=0), axis=1)
    assert np.isclose(step, 5.0).mean() > 0.9


def test_validation_queries_stand_elsewhere(shots):
    test, val = (of(shots[2], part)["xy"] for part in (TEST_QUERIES, VAL_QUERIES))
    assert np.linalg.norm(test[:, None] - val, axis=2).min() > 0.001


def test_every_position_is_surveyed_by_day_and_in_other_conditions(shots):
    config, _, table = shots
    condition = of(table, TRAIN)["condition"].reshape(-1, len(config.train_years))
    assert (condition[:, 0] == config.conditions.index("day")).all()
    assert set(condition[:, 1:].ravel()) == set(range(6))


def test_more_test_queries_leave_the_first_ones_where_they_are(shots):
    _, layout, table = shots
    more = cameras(CityConfig(test_queries=700), layout)
    np.testing.assert_array_equal(of(more, TEST_QUERIES)["xy"][:600], of(table, TEST_QUERIES)["xy"])


@settings(deadline=None)
@given(
    st.floats(0, 5000), st.floats(0, 5000), st.floats(0, 359.99), st.integers(2000, 2030), st.integers(0, 5),
    st.integers(-(2**63), 2**63 - 1),
)  # fmt: skip
def test_names_give_back_the_pose(x, y, heading, year, condition, key):
    config = CityConfig()
    fields = file_name(config, np.array([x, y]), heading, year, condition, key).split("@")
    assert len(fields) == 16 and fields[0] == "" and fields[15] == ".jpg"
    assert abs(float(fields[1]) - EAST - x) <= 0.0051 and abs(float(fields[2]) - NORTH - y) <= 0.0051
    assert fields[3:5] == ["33", "U"] and abs(float(fields[9]) - heading) <= 0.0051
    assert fields[13][:4] == str(year) and np.datetime64(f"{year}-{fields[13][4:6]}-{fields[13][6:8]}")
    hour, minute, second = (int(fields[13][k : k + 2]) for k in (9, 11, 13))
    assert hour < 24 and minute < 60 and second < 60
    assert fields[14] == f"{config.conditions[condition]}_minicity"
    assert int(fields[7], 16) == key % 2**64


def test_headings_by_hand():
    assert headings(0.0, 4).tolist() == [0, 90, 180, 270]
    assert headings(350.0, 3).tolist() == [350, 110, 230]
    assert headings(359.999, 1).tolist() == [0]
