"""Positives against hand-worked cases, a brute-force oracle, and the real SF-XS list."""

import gzip
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.answers import Answers
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.retrieval import positives as module
from jaxvpr.retrieval.positives import from_lists, same_place, within_frames, within_metres
from jaxvpr.retrieval.thresholds import parse_threshold


def places(count, name="town", **columns):
    return Places.create(name, Paths.of(f"{name}/{i}.jpg" for i in range(count)), **columns)


def rows(positives):
    return [positives[q].tolist() for q in range(len(positives))]


def brute(at, to, metres):
    distance2 = ((to[:, None, :] - at[None, :, :]) ** 2).sum(-1)
    return [np.flatnonzero(row).tolist() for row in distance2 <= metres * metres]


def test_the_radius_is_inclusive_and_the_rows_ascend():
    database = places(5, east=[30.0, 0.0, 3.0, 25.0, 25.0], north=[0.0, 0.0, 4.0, 0.0, 0.001])
    queries = places(2, east=[0.0, 500.0], north=[0.0, 0.0])
    assert rows(within_metres(database, queries, 25)) == [[1, 2, 3], []]
    assert rows(within_metres(database, queries, 5)) == [[1, 2], []]
    assert rows(within_metres(database, queries, 0)) == [[1], []]


def test_headings_wrap_around_north():
    database = places(4, east=0.0, north=0.0, heading=[350.0, 5.0, 10.0, 180.0])
    queries = places(2, east=0.0, north=0.0, heading=[355.0, 180.0])
    assert rows(within_metres(database, queries, 1, degrees=10)) == [[0, 1], [3]]
    assert rows(within_metres(database, queries, 1, degrees=15)) == [[0, 1, 2], [3]]
    assert rows(within_metres(database, queries, 1, degrees=180)) == [[0, 1, 2, 3]] * 2


coordinate = st.integers(-60, 60).map(lambda value: value / 2)


@settings(deadline=None, max_examples=60)
@given(
    at=st.lists(st.tuples(coordinate, coordinate), max_size=40),
    to=st.lists(st.tuples(coordinate, coordinate), max_size=15),
    metres=st.sampled_from([0.0, 0.5, 2.5, 5.0, 13.0, 100.0]),
    far=st.sampled_from([0.0, 4_174_558.5, -1e6]),
    block=st.sampled_from([1, 7, 1 << 22]),
)
def test_equals_brute_force(at, to, metres, far, block):
    at, to = (np.array(points, np.float64).reshape(-1, 2) + far for points in (at, to))
    database, queries = (places(len(p), east=p[:, 0], north=p[:, 1]) for p in (at, to))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "QUERIES_AT_ONCE", block)
        patch.setattr(module, "PAIRS_AT_ONCE", block)
        assert rows(within_metres(database, queries, metres)) == brute(at, to, metres)


def test_a_huge_extent_and_a_tiny_radius_do_not_overflow():
    east = np.array([0.0, 1e7, 1e7 + 0.0005, -1e7])
    database = places(4, east=east, north=-east)
    assert rows(within_metres(database, database, 0.001)) == [[0], [1, 2], [1, 2], [3]]


def test_a_million_database_images_take_seconds():
    rng = np.random.default_rng(0)
    at, to = rng.uniform(0, 20_000, (1_000_000, 2)), rng.uniform(0, 20_000, (10_000, 2))
    database, queries = (
        Places.create(
            "big", Paths("", np.empty(0, np.uint8), np.zeros(len(p) + 1, np.int64)), east=p[:, 0], north=p[:, 1]
        )
        for p in (at, to)
    )
    start = time.perf_counter()
    found = within_metres(database, queries, 25)
    assert time.perf_counter() - start < 10
    expected = 10_000 * 1_000_000 * np.pi * 25**2 / 20_000**2
    assert abs(len(found.indices) / expected - 1) < 0.02
    query = int(found.counts.argmax())
    assert found[query].tolist() == brute(at, to[query : query + 1], 25)[0]


def test_coordinates_headings_and_zones_are_required():
    one = places(1, east=0.0, north=0.0)
    with pytest.raises(DataError, match=r"lost/1\.jpg has no coordinates.*\bwithout_position=drop\b.*--reader=csv\b"):
        within_metres(places(2, "lost", east=[0.0, np.nan], north=0.0), one, 25)
    with pytest.raises(DataError, match=r"\b1 images.*heading"):
        within_metres(one, one, 25, degrees=10)
    with pytest.raises(DataError, match=r"UTM zone 10 north.*UTM zone 11 north.*\bzone=10north\b"):
        within_metres(places(1, zone=10, east=0.0, north=0.0), places(1, zone=11, east=0.0, north=0.0), 25)
    with pytest.raises(DataError, match="2 UTM zones"):
        within_metres(places(2, zone=[10, 11], east=0.0, north=0.0), one, 25)
    with pytest.raises(ValueError, match=r"metres=-1\b"):
        within_metres(one, one, -1)


def test_cities_in_zones_that_do_not_touch_are_measured_together():
    """The same metres in zones 33 and 10, as in validation on MSLS: only those of a query's own zone are near."""
    database = places(4, east=[0.0, 0.0, 30.0, 10.0], north=0.0, zone=[33, 10, 10, 33])
    queries = places(3, east=[5.0, 5.0, 5.0], north=0.0, zone=[10, 33, 151])
    assert rows(within_metres(database, queries, 25)) == [[1, 2], [0, 3], []]
    assert rows(within_metres(database, queries, 5)) == [[1], [0, 3], []]
    for touching in ([10, 33, 34, 10], [10, 33, 133, 10], [1, 60, 10, 10], [10, 33, -1, 10]):
        with pytest.raises(DataError, match=r"UTM zones|a local frame"):
            within_metres(places(4, east=0.0, north=0.0, zone=touching), queries, 25)


def test_no_images_have_no_positives():
    none, one = places(0), places(1, east=0.0, north=0.0, zone=10)
    assert rows(within_metres(none, one, 25)) == [[]]
    assert rows(within_metres(one, none, 25)) == []


def test_frames():
    database, queries = places(5, frame=[4, 3, 2, 1, 0]), places(3, frame=[0, 2, 9])
    assert rows(within_frames(database, queries, 1)) == [[3, 4], [1, 2, 3], []]
    assert rows(within_frames(database, queries, 0)) == [[4], [2], []]
    with pytest.raises(DataError, match=r"\b1 images.*frame number"):
        within_frames(database, places(1), 1)


def test_equal_places_never_match_the_unknown():
    database, queries = places(5, place=[7, -1, 3, 7, 9]), places(4, place=[7, 3, -1, 8])
    assert rows(same_place(database, queries)) == [[0, 3], [2], [], []]
    with pytest.raises(DataError, match=r"no image.*place.*'label'"):
        same_place(database, places(2))


def test_published_lists_are_sorted_and_checked():
    assert rows(from_lists([0, 3, 3, 4], [5, 1, 5, 0])) == [[1, 5], [], [0]]
    for indptr, indices in (([0, 2], [1]), ([1, 2], [1, 2]), ([0, 2, 1], [1]), ([0, 1], [-1]), ([], [])):
        with pytest.raises(DataError, match="list of positives"):
            from_lists(indptr, indices)


def test_thresholds_parse():
    database = places(3, east=[0.0, 1.0, 30.0], north=0.0, heading=[0.0, 20.0, 0.0], frame=[0, 1, 2], place=[1, 1, 2])
    query = database.take(np.array([0]))
    assert rows(parse_threshold("25m")(database, query)) == [[0, 1]]
    assert rows(parse_threshold("0.5m")(database, query)) == [[0]]
    assert rows(parse_threshold("30m_5deg")(database, query)) == [[0, 2]]
    assert rows(parse_threshold("2frame")(database, query)) == [[0, 1, 2]]
    assert rows(parse_threshold("label")(database, query)) == [[0, 1]]
    assert rows(parse_threshold("list", Answers(np.array([0, 1]), np.array([2])))(database, query)) == [[2]]
    for text in ("25", "m", "25 m", "-1m", "5deg", "1.5frame", "", "labels", "25m_"):
        with pytest.raises(UserError, match="'1m_5deg'"):
            parse_threshold(text)
    with pytest.raises(UserError, match=r"'list'.*published.*'25m'"):
        parse_threshold("list")(database, query)
    with pytest.raises(DataError, match="2 queries"):
        parse_threshold("list", Answers(np.array([0, 1, 1]), np.array([2])))(database, query)
    with pytest.raises(DataError, match=r"\b1 queries.*\brows\b.*\b3\b"):
        parse_threshold("list", Answers(np.array([0, 1]), np.array([3])))(database, query)


def test_hits_and_take():
    positives = from_lists([0, 2, 2, 3], [1, 4, 0])
    predictions = np.array([[4, 0, -1], [0, 1, -1], [2, 0, 99]])
    assert positives.hits(predictions).tolist() == [[True, False, False], [False] * 3, [False, True, False]]
    assert rows(positives.take(np.array([2, 0]))) == [[0], [1, 4]]
    assert rows(positives.take(np.array([True, False, True]))) == [[1, 4], [0]]
    assert not from_lists([0, 0], []).hits(np.array([[0, -1]])).any()
    with pytest.raises(ValueError, match=r"\(2, 3\).*\b3 queries"):
        positives.hits(predictions[:2])


def test_equals_the_published_positives_of_sf_xs(real_data):
    def names(file):
        return gzip.open(real_data / "sf_xs_val" / file, "rt").read().splitlines()

    def table(file):
        fields = [name.split("@") for name in names(file)]
        columns = {"east": [float(f[1]) for f in fields], "north": [float(f[2]) for f in fields], "zone": 10}
        return Places.create("sf_xs", Paths.of("@".join(f) for f in fields), **columns)

    found = within_metres(table("database.txt.gz"), table("queries.txt.gz"), 25)
    oracle = [[int(index) for index in line.split()] for line in names("positives_25m.txt.gz")]
    assert len(oracle) == 7993
    assert rows(found) == oracle
