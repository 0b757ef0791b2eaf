"""Batches of places: K images each, no image twice, distances, coverage, cities, weights, determinism, and errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from place_sets import grid, make, rng

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.place_batches import place_batches
from data_pipelines.place_table import near_pairs, place_table
from data_pipelines.places import Places
from data_pipelines.readers import read


def check_images(table, batches, P):
    """K different images of each place that is there, all of that place; the rest is -1 and masked."""
    steps = len(batches.rows)
    assert batches.rows.dtype == np.int64 and batches.labels.dtype == np.int32 and batches.mask.dtype == bool
    assert batches.rows.shape == batches.labels.shape == batches.mask.shape == (steps, P * table.K)
    place_of = np.full(table.rows.max() + 1, -1)
    for p in range(len(table)):
        place_of[table.rows[table.indptr[p] : table.indptr[p + 1]]] = p
    assert (batches.mask == (batches.rows >= 0)).all() and (batches.mask == (batches.labels >= 0)).all()
    assert (place_of[batches.rows[batches.mask]] == batches.labels[batches.mask]).all()
    by_place = batches.labels.reshape(steps, P, table.K)
    assert (by_place == by_place[..., :1]).all()
    drawn = [[int(p) for p in step if p >= 0] for step in by_place[..., 0]]
    for step, rows in zip(drawn, batches.rows, strict=True):
        assert len(set(step)) == len(step) and len(set(rows[rows >= 0])) == len(step) * table.K
    return drawn


def check_distances(table, drawn, distance):
    for step in drawn:
        east, north, frame = table.east[step], table.north[step], table.frame[step]
        apart = np.hypot(east[:, None] - east, north[:, None] - north)
        apart[(frame[:, None] != frame) | np.eye(len(step), dtype=bool)] = np.inf
        assert (apart >= distance).all()


images = st.lists(st.integers(1, 7), min_size=2, max_size=30).filter(lambda n: sum(k >= 2 for k in n) >= 2)


@settings(deadline=None, max_examples=60)
@given(
    images, st.integers(2, 6), st.integers(1, 3), st.sampled_from([0.0, 15.0]), st.integers(1, 3), st.integers(0, 99)
)
def test_a_pass_uses_every_place_once(images, P, cities, distance, K, seed):
    K = min(K, 2)
    table = place_table(grid(images, cities=cities), K=K)
    assert len(table) == sum(n >= K for n in images)
    assert table.left_out == (sum(n < K for n in images), sum(n for n in images if n < K))
    try:
        batches = place_batches(table, P=P, rng=rng(seed), min_distance=distance, by_city=cities > 1)
    except DataError as error:
        assert "2 places" in str(error)
        apart = np.abs(table.east[:, None] - table.east) >= max(distance, 1)
        assert not (apart & (table.city[:, None] == table.city)).any()
        return
    drawn = check_images(table, batches, P)
    check_distances(table, drawn, distance)
    assert sorted(p for step in drawn for p in step) == list(range(len(table)))
    if cities > 1:
        assert all(len(set(table.city[step])) == 1 for step in drawn)
    if not distance:
        groups = np.bincount(table.city) if cities > 1 else [len(table)]
        assert len(drawn) == sum(-(-size // P) for size in groups)
    # Equal states, equal batches.
    again = place_batches(table, P=P, rng=rng(seed), min_distance=distance, by_city=cities > 1)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


@settings(deadline=None, max_examples=40)
@given(images, st.integers(2, 5), st.integers(0, 25), st.integers(0, 99))
def test_places_take_turns_over_passes(images, P, steps, seed):
    table = place_table(grid(images), K=2)
    drawn = check_images(table, place_batches(table, P=P, steps=steps, rng=rng(seed)), P)
    assert len(drawn) == steps
    uses = np.bincount(np.array([p for step in drawn for p in step], int), minlength=len(table))
    assert np.ptp(uses) <= 1


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 20), st.integers(3, 20), st.integers(2, 8), st.floats(0.1, 10), st.integers(0, 99))
def test_data_sets_share_batches_by_weight(n, m, P, weight, seed):
    sets = [grid([3] * n, name="a"), grid([2] * m, name="b")]
    table = place_table(sets, K=2)
    assert np.bincount(table.source).tolist() == [n, m]
    steps = 30
    drawn = check_images(table, place_batches(table, P=P, steps=steps, rng=rng(seed), weights=(weight, 1)), P)
    of_first = np.array([sum(p < n for p in step) for step in drawn])
    share = weight / (weight + 1)
    if n >= P and m >= P:
        assert all(len(step) == P for step in drawn)
        assert (np.abs(np.cumsum(of_first) - share * P * np.arange(1, steps + 1)) <= 1).all()
    for members in (range(n), range(n, n + m)):
        order = [p for step in drawn for p in step if p in members]
        uses = np.bincount(np.array(order, int), minlength=n + m)[members]
        assert np.ptp(uses) <= 1  # each data set goes through passes of its own


def test_data_sets_of_one_city_keep_the_distance_to_each_other():
    # Two data sets of the same street: a place is 10 m from its neighbours and 0 m from its twin.
    table = place_table([grid([2] * 60, name="a"), grid([2] * 40, name="b")], K=2)
    drawn = check_images(table, place_batches(table, P=8, steps=400, rng=rng(), weights=(1, 1), min_distance=25.0), 8)
    check_distances(table, drawn, 25.0)
    assert np.mean([len(step) for step in drawn]) > 7.9
    for members in (range(60), range(60, 100)):
        uses = np.bincount([p for step in drawn for p in step], minlength=100)[members]
        assert uses.min() > 20 and np.ptp(uses) <= 2  # who had to wait comes before the next pass


def test_local_frames_of_two_data_sets_are_not_compared():
    local = [make([0, 1], east=[0.0, 100.0], zone=-1, name=name) for name in "ab"]
    table = place_table(local, K=1)
    assert len(place_batches(table, P=4, rng=rng(), min_distance=50.0).rows) == 1
    assert (
        len(
            place_batches(place_table([make([0, 1], east=[0.0, 100.0])] * 2, K=1), P=4, rng=rng(), min_distance=50).rows
        )
        == 2
    )


def test_rows_are_those_of_the_joined_data_sets():
    a, b = grid([3] * 4, name="a"), grid([3] * 5, name="b")
    joined = Places.concat([a, b])
    table = place_table([a, b], K=3)
    batches = place_batches(table, P=9, rng=rng())
    of_b = batches.rows >= len(a)
    assert (of_b == (batches.labels >= 4)).all()
    assert (joined.east[batches.rows] == 10.0 * (batches.labels - 4 * of_b)).all()


def test_data_sets_alternate_by_weight_city_by_city():
    sets = [grid([2] * 12, cities=2, name="a"), grid([2] * 9, cities=3, name="b")]
    table = place_table(sets, K=2)
    assert table.city.max() == 4
    batches = place_batches(table, P=3, steps=80, rng=rng(), by_city=True, weights=(3, 1))
    drawn = check_images(table, batches, 3)
    assert all(len(set(table.city[step])) == 1 for step in drawn)
    assert np.bincount([table.source[step[0]] for step in drawn]).tolist() == [60, 20]
    for first in range(0, 80, 4):
        assert sum(table.source[step[0]] == 0 for step in drawn[first : first + 4]) == 3


def test_the_last_batch_of_a_city_is_padded_or_dropped():
    table = place_table(grid([2] * 11, cities=2), K=2)  # 6 and 5 places
    padded = check_images(table, place_batches(table, P=4, rng=rng(), by_city=True), 4)
    assert sorted(map(len, padded)) == [1, 2, 4, 4]
    dropped = check_images(table, place_batches(table, P=4, rng=rng(), by_city=True, last="drop"), 4)
    assert list(map(len, dropped)) == [4, 4]
    with pytest.raises(DataError, match=r"\b7 places.*\b6\b.*\b6 places"):
        place_batches(table, P=7, rng=rng(), by_city=True, last="drop")


def test_the_next_pass_fills_the_last_batch_of_one():
    table = place_table(grid([2] * 11, cities=2), K=2)
    drawn = check_images(table, place_batches(table, P=4, rng=rng(), steps=11, last="fill"), 4)
    assert list(map(len, drawn)) == [4] * 11
    places = [place for step in drawn for place in step]
    for start in range(0, 44, 11):  # four passes, each with every place once
        assert len(set(places[start : start + 11])) >= 9  # what a batch holds already waits for the next one
    assert np.bincount(places).tolist() == [4] * 11


def test_batches_of_cities_are_shuffled():
    table = place_table(grid([2] * 40, cities=2), K=2)
    drawn = check_images(table, place_batches(table, P=2, rng=rng(), by_city=True), 2)
    order = [int(table.city[step[0]]) for step in drawn]
    assert sorted(order) == [0] * 10 + [1] * 10 and order not in (sorted(order), sorted(order)[::-1])


def test_all_images_of_a_place_are_drawn_as_often():
    table = place_table(grid([5, 4]), K=3)
    batches = place_batches(table, P=2, steps=3000, rng=rng())
    counts = np.bincount(batches.rows.reshape(-1))[table.rows]
    expected = np.repeat([1800, 2250], [5, 4])
    assert (np.abs(counts - expected) < 6 * np.sqrt(3000 * 0.25)).all()  # six standard deviations
    slots = batches.rows.reshape(3000, 2, 3)
    row = table.rows[0]
    assert (np.abs((slots == row).sum(axis=(0, 1)) - 600) < 6 * np.sqrt(3000 * 0.16)).all()  # in every position, too


def test_other_seeds_give_other_batches():
    table = place_table(grid([4] * 30), K=2)
    draws = [place_batches(table, P=5, steps=6, rng=rng(3, epoch)).rows.tolist() for epoch in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_city_on_the_border_of_two_zones_is_one():
    lat, lon = np.array([51.5, 51.5, 51.5, 51.5]), np.array([-0.0003, -0.0001, 0.0001, 0.0101])
    east, north, zone = geo.to_utm(lat, lon)
    assert zone.tolist() == [30, 30, 31, 31]
    wanted = geo.to_utm(lat, lon, 30)
    table = place_table(make([5, 5, 6, 7], east, north, zone=zone), K=1)
    assert table.frame.tolist() == [30, 30, 30] and np.allclose(table.east[1:], wanted[0][2:], rtol=0, atol=1e-3)
    drawn = check_images(table, place_batches(table, P=3, rng=rng(), min_distance=25), 3)
    assert sorted(map(sorted, drawn)) in ([[0], [1, 2]], [[0, 2], [1]])  # 5 and 6 are 21 m apart
    with pytest.raises(DataError, match=r"\bplace 5\b.*\bset\b.*\[30, 40\]"):
        place_table(make([5, 5], 0, 0, zone=[30, 40]), K=1)


def test_real_places_of_two_cities(real_data):
    root = real_data / "gsv_xs_names"
    sets = [read("at_names", root, paths_file=root / f"{city}.txt.gz", name=city) for city in ("osl", "prg")]
    table = place_table(sets, K=4)
    counts = [np.unique(one.place, return_counts=True)[1] for one in sets]
    assert np.bincount(table.source).tolist() == [(n >= 4).sum() for n in counts]
    assert table.left_out == (sum((n < 4).sum() for n in counts), sum(n[n < 4].sum() for n in counts))
    assert (
        sorted(set(table.frame)) == [32, 33] and np.bincount(table.city).tolist() == np.bincount(table.source).tolist()
    )
    for options in ({"by_city": True}, {"weights": (1, 1), "steps": 60}):
        batches = place_batches(table, P=60, rng=rng(1), min_distance=100.0, **options)
        drawn = check_images(table, batches, 60)
        check_distances(table, drawn, 100.0)
        if "by_city" in options:
            assert sorted(p for step in drawn for p in step) == list(range(len(table)))
            assert np.mean([len(step) == 60 for step in drawn]) > 0.95
        else:
            assert all(np.bincount(table.source[step]).tolist() == [30, 30] for step in drawn)
    near = np.stack(near_pairs(table, 100.0))
    assert len(near[0]) > 1000  # Oslo's places are not 100 m apart, whatever the data set's description says


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"P": 0}, "P=0"),
        ({"last": "fold"}, "last='fold'"),
        (
            {"min_distance": 1e4, "last": "fill", "steps": 2},
            r"\b2 places.*\b1\b.*\b9 places",
        ),
        ({"steps": -1}, "steps=-1"),
        ({"min_distance": -1}, "min_distance=-1"),
        ({"min_distance": float("nan")}, "min_distance=nan"),
        ({"min_distance": 1e4}, r"\b2 places.*\b1\b.*\b9 places"),
        ({"weights": (1,)}, "weights.*steps"),
        ({"weights": (1, 1), "steps": 1}, r"weights.*\['set'\].*\(1, 1\)"),
        ({"weights": (0,), "steps": 1}, r"weights.*\['set'\].*\(0,\)"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(DataError, match=message):
        place_batches(place_table(grid([2] * 9), K=2), **{"P": 3, "rng": rng(), **options})


def test_data_that_cannot_be_drawn_from():
    with pytest.raises(DataError, match=r"\bset\b.*\b4 images.*\b3 places.*\b6 images.*\b3\b.*K=4"):
        place_table(grid([1, 3, 2]), K=4)
    with pytest.raises(DataError, match=r"\b0 places.*\b2 images.*\b0\b"):
        place_table(make([-1, -1]), K=1)
    with pytest.raises(DataError, match="K=0"):
        place_table(make([0]), K=0)
    with pytest.raises(DataError, match=r"city.*\(3,\).*\b2 images"):
        place_table(make([0, 1]), K=1, city=np.zeros(3))
    lost = place_table(make([0, 1, 2], east=[0, np.nan, 50]), K=1)
    assert len(check_images(lost, place_batches(lost, P=3, rng=rng()), 3)) == 1
    with pytest.raises(DataError, match=r"1 of 3 places.*position.*\bset\b"):
        place_batches(lost, P=2, rng=rng(), min_distance=1)
    with pytest.raises(DataError, match=r"\['small'\].*\b3 images.*weight"):
        table = place_table([grid([3, 3], name="a"), grid([1, 2], name="small")], K=3)
        place_batches(table, P=2, rng=rng(), steps=1, weights=(1, 1))
    crowd = place_table(make(np.arange(7000)), K=1)
    with pytest.raises(DataError, match=r"\b1 m\b.*\bset\b.*\b7000 places"):
        place_batches(crowd, P=2, rng=rng(), min_distance=1)
