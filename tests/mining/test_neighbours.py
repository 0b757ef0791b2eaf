"""The geography of triplets against hand-worked streets and data sets that are shifted apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.clips import cut
from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.mining.neighbours import neighbours
from jaxvpr.retrieval.positives import Positives, without


def street(east, role="database", name="street", **columns):
    """Images along a street, at metres east."""
    roles = {"query": 1, "database": 0}
    return Places.create(
        name, Paths.of(f"{name}/{role}{i}.jpg" for i in range(len(east))), east=np.asarray(east, float), north=5e6,
        role=roles[role], **columns,
    )  # fmt: skip


def both(database, queries, name="street", **columns):
    return Places.concat([street(database, "database", name, **columns), street(queries, "query", name, **columns)])


def lists(positives):
    return [positives[query].tolist() for query in range(len(positives))]


def test_positives_are_near_and_negatives_far_and_lonely_queries_are_counted():
    found = neighbours([both([0, 8, 20, 30, 500], [0, 1000, 22])], "10m", "25m")
    assert found.skipped == 1 and found.queries.tolist() == [5, 7]
    assert found.database.tolist() == [0, 1, 2, 3, 4]
    assert lists(found.positives) == [[0, 1], [2, 3]]
    assert lists(found.near) == [[0, 1, 2], [0, 1, 2, 3]]
    np.testing.assert_allclose(found.weights, [0.5, 0.5])


def test_without_queries_every_image_is_one_and_no_positive_of_itself():
    found = neighbours([street([0, 5, 100, 104, 300])], "10m", "25m")
    assert found.queries.tolist() == [0, 1, 2, 3] and found.skipped == 1
    assert lists(found.positives) == [[1], [0], [3], [2]]
    assert lists(found.near) == [[0, 1], [0, 1], [2, 3], [2, 3]], "nor a negative of itself"


def test_sets_merged_are_sets_shifted_far_apart():
    rng = np.random.default_rng(0)
    sets = [both(rng.uniform(0, 300, 30), rng.uniform(0, 300, 12), name) for name in "abc"]
    moved = [
        Places.concat([street(one.east[one.role == r] + 1e5 * k, role) for r, role in enumerate(("database", "query"))])
        for k, one in enumerate(sets)
    ]
    apart, together = neighbours(sets, "10m", "25m"), neighbours([Places.concat(moved)], "10m", "25m")
    # Queries and database of all sets come in the order of the sets either way, but rows of one table interleave.
    np.testing.assert_array_equal(apart.queries, together.queries)
    for kind in ("positives", "near"):
        ours, theirs = getattr(apart, kind), getattr(together, kind)
        assert [apart.database[row].tolist() for row in map(ours.__getitem__, range(len(ours)))] == [
            together.database[row].tolist() for row in map(theirs.__getitem__, range(len(theirs)))
        ]


def test_zones_of_one_data_set_never_meet():
    one = Places.concat([street([0, 4], zone=32), street([1, 5], zone=33)])
    found = neighbours([one], "10m", "25m")
    assert [found.database[row].tolist() for row in lists(found.positives)] == [[1], [0], [3], [2]]


def test_degrees_part_what_looks_away():
    found = neighbours([street([0, 3, 6], heading=np.array([0, 10, 180], np.float32))], "10m_30deg", "25m")
    assert found.queries.tolist() == [0, 1] and lists(found.positives) == [[1], [0]]
    assert lists(found.near) == [[0, 1, 2], [0, 1, 2]], "what looks away is neither positive nor negative"


def test_rows_begin_where_they_are_told_to():
    here, there = (neighbours([both([0, 8], [3])], "10m", "25m", first=first) for first in (0, 100))
    assert there.queries.tolist() == [102] and there.database.tolist() == [100, 101]
    assert lists(here.positives) == lists(there.positives)


def test_a_clip_that_shares_a_frame_with_the_query_is_never_its_positive():
    """By hand: frames 8 m apart, clip i has frames i and i + 1. Clips 1 apart share one, those 2 apart lie 8 m apart,
    those 4 apart 24 m."""
    names = Paths.of(f"{i}.jpg" for i in range(9))
    drive = Places.create("street", names, east=8.0 * np.arange(9), north=0.0, sequence=0, frame=np.arange(9))
    found = neighbours([cut(drive, 2)], "10m", "25m")
    clips = range(8)
    assert found.queries.tolist() == found.database.tolist() == list(clips)
    assert lists(found.positives) == [[j for j in clips if abs(i - j) == 2] for i in clips]
    assert lists(found.near) == [[j for j in clips if abs(i - j) <= 4] for i in clips]


@settings(max_examples=30, deadline=None)
@given(
    stops=st.lists(st.integers(0, 12), min_size=12, max_size=12),
    length=st.integers(1, 4),
    match=st.sampled_from(["any", "last"]),
)
def test_clips_are_neighbours_as_their_frames_are(stops, length, match):
    """Against loops over all pairs of frames: two drives of a database, one of queries, stops 6 m apart, twice."""
    role = np.repeat([0, 0, 1], 4)
    images = Places.create(
        "drives", Paths.of(f"{i}.jpg" for i in range(12)), east=6.0 * np.array(stops), north=0.0, role=role,
        sequence=np.repeat([0, 1, 2], 4), frame=np.tile(np.arange(4), 3),
    )  # fmt: skip
    one = cut(images, length, match=match)
    frames = one.rows if match == "any" else one.rows[:, -1:]
    east, asked = images.east[frames], images.role[one.rows[:, 0]] == 1
    away = np.abs(east[asked][:, None, :, None] - east[~asked][None, :, None]).min((-2, -1))
    if not (away <= 10).any():
        return
    found = neighbours([one, one], "10m", "25m")
    kept = (away <= 10).any(1)
    first = [np.flatnonzero(asked)[kept] + start for start in (0, len(one))]
    assert found.queries.tolist() == np.concatenate(first).tolist()
    for positives, metres in ((found.positives, 10), (found.near, 25)):
        wanted = [np.flatnonzero(row <= metres) + start for start in (0, (~asked).sum()) for row in away[kept]]
        assert lists(positives) == [row.tolist() for row in wanted]


def test_night_and_sideways_weigh_as_msls_has_it():
    """By hand: 8 queries, 2 at night, 1 sideways; weights 1, +8/2 and +8/1."""
    columns = {"conditions": ("day", "night"), "condition": [1, 2, 3, 1, 1, 1, 1, 1], "view": [0, 0, 2, 1, 0, 0, 0, -1]}
    images = Places.concat([street([0.0]), street(range(8), "query", **columns)])
    found = neighbours([images], "10m", "25m", weighted=True)
    np.testing.assert_allclose(found.weights, np.array([1, 5, 13, 1, 1, 1, 1, 1]) / 24)
    both = images.having("day") & images.having("night")
    assert both.tolist() == [False] * 3 + [True] + [False] * 5, "the one by day and night weighs as the other at night"
    with pytest.raises(UserError, match=r"weighted.*sideways.*MSLS"):
        neighbours(
            [Places.concat([street([0.0]), street([1], "query", conditions=("night",), condition=1)])],
            "10m",
            "25m",
            weighted=True,
        )


@pytest.mark.parametrize(
    ("positive", "soft", "said"),
    [
        ("10m", "5m", r"objective\.soft='5m'.*\bbelow\b.*objective\.positive='10m'"),
        ("10m", "25m_40deg", r"objective\.soft='25m_40deg'.*\bstricter\b.*objective\.positive='10m'"),
        ("1m", "2m", r"\b2 queries.*objective\.positive='1m'.*objective\.soft='2m'"),
    ],
)
def test_thresholds_that_make_no_sense(positive, soft, said):
    images = both([0, 50], [5, 58], heading=np.float32(0))
    turned = Places.concat([images, street([6], "query", heading=np.float32(90))]) if "deg" in soft else images
    with pytest.raises(UserError, match=said):
        neighbours([turned], positive, soft)


def test_queries_alone_have_no_database():
    with pytest.raises(UserError, match=r"street.*\b2 images.*queries.*database"):
        neighbours([street([0, 1], "query")], "10m", "25m")


def test_without_takes_away_query_by_query():
    left = Positives(np.array([0, 3, 3, 5]), np.array([1, 4, 9, 0, 4]))
    right = Positives(np.array([0, 1, 2, 3]), np.array([4, 1, 4]))
    assert lists(without(left, right)) == [[1, 9], [], [0]]
    assert lists(without(left, left)) == [[], [], []]
    with pytest.raises(ValueError, match=r"\blists\b.*\b3\b.*\b1 queries"):
        without(left, Positives(np.array([0, 0]), np.array([], np.int64)))
