"""Clique batches against a slow literal reading of the method, and what every batch of them keeps."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.cliques import Occupied, clique_batches, representatives
from data_pipelines.errors import DataError
from data_pipelines.place_table import place_table
from data_pipelines.places import Paths, Places
from data_pipelines.readers import read


def town(places, *, cities=1, seed=0, extent=200.0, images=4):
    """Random places of up to twice `images` images within some metres; a table, its city column and descriptors."""
    draw = np.random.default_rng(seed)
    count = draw.integers(1, 2 * images + 1, places)
    place = np.repeat(np.arange(places), count)
    centre = draw.uniform(0, extent, (places, 2))
    position = centre[place] + draw.normal(0, 6, (len(place), 2))
    paths = Paths.of([f"{k}.jpg" for k in range(len(place))])
    table = place_table(
        Places.create("town", paths, place=place, east=position[:, 0], north=position[:, 1]), K=1, city=place % cities
    )
    return table, draw.normal(size=(places, 5))


def literal(table, descriptors, *, P, K, steps, rng, distance, similar):
    """The method word for word: every subset of K images is tried, in the order in which they were shuffled."""
    cities = [[p for p in range(len(table)) if table.city[p] == c] for c in range(table.city.max() + 1)]
    where = dict(zip(table.rows.tolist(), table.positions.tolist(), strict=True))

    def near(a, b):
        return np.hypot(where[a][0] - where[b][0], where[a][1] - where[b][1]) < distance

    batches = []
    for _ in range(steps):
        batch, turns, tries = [], [], 0
        while len(batch) < P and tries < max(len(cities), 4 * P):
            tries += 1
            if not turns:
                turns = list(
                    rng.choice(len(cities), len(cities), replace=False, p=[len(c) / len(table) for c in cities])
                )
            members = cities[turns.pop(0)]
            drawn = int(rng.integers(len(members)))
            apart = np.array([np.linalg.norm(descriptors[m] - descriptors[members[drawn]]) for m in members])
            chance = [0 if k == drawn else apart.max() - apart[k] for k in range(len(members))]
            if not any(chance):
                chance = [float(k != drawn) for k in range(len(members))]
            group = [members[drawn]]
            some = min(similar, sum(c > 0 for c in chance))
            if some:
                group += [members[k] for k in rng.choice(len(members), some, replace=False, p=chance / np.sum(chance))]
            of_group = [row for p in group for row in table.rows[table.indptr[p] : table.indptr[p + 1]].tolist()]
            images = [of_group[k] for k in rng.permutation(len(of_group))]
            while len(batch) < P:
                used = [row for clique in batch for row in clique]
                images = [row for row in images if not any(near(row, other) for other in used)]
                for subset in itertools.combinations(images, K):
                    if all(near(a, b) for a, b in itertools.combinations(subset, 2)):
                        batch.append(list(subset))
                        break
                else:
                    break
        batches.append(batch)
    return batches


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 14), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.integers(0, 99)
)
def test_batches_equal_the_literal_method(places, cities, P, K, similar, seed):
    table, descriptors = town(places, cities=min(cities, places), seed=seed, extent=90, images=2)
    options = {"P": P, "K": K, "steps": 3, "distance": 20.0, "similar": similar}
    wanted = literal(table, descriptors, rng=np.random.default_rng(seed), **options)
    if not any(wanted):
        with pytest.raises(DataError, match=rf"\b{K} images.*\b20 m\b.*town"):
            clique_batches(table, descriptors, rng=np.random.default_rng(seed), **options)
        return
    batches = clique_batches(table, descriptors, rng=np.random.default_rng(seed), **options)
    rows = [[clique for clique in step if clique[0] >= 0] for step in batches.rows.reshape(3, P, K).tolist()]
    assert rows == wanted


@settings(deadline=None, max_examples=25)
@given(st.integers(5, 60), st.integers(1, 3), st.integers(2, 8), st.integers(2, 4), st.integers(0, 99))
def test_places_of_a_batch_are_near_within_and_apart_between(places, cities, P, K, seed):
    table, descriptors = town(places, cities=cities, seed=seed, extent=300)
    city = table.city[np.repeat(np.arange(places), np.diff(table.indptr))][np.argsort(table.rows)]
    position = table.positions[np.argsort(table.rows)]
    try:
        batches = clique_batches(table, descriptors, P=P, K=K, steps=5, rng=np.random.default_rng(seed))
    except DataError:
        assert np.diff(table.indptr).max() < K or K > 2
        return
    assert batches.rows.shape == (5, P * K) and batches.rows.dtype == np.int64 and batches.labels.dtype == np.int32
    assert (batches.mask == (batches.rows >= 0)).all() and (batches.labels[~batches.mask] == -1).all()
    for rows, labels, mask in zip(*batches, strict=True):
        rows, labels = rows[mask], labels[mask]
        assert len(set(rows)) == len(rows) and (np.bincount(np.unique(labels, return_inverse=True)[1]) == K).all()
        assert all(label == rows[labels == label].min() for label in set(labels))
        apart = np.hypot(*(position[rows][:, None] - position[rows]).transpose(2, 0, 1))
        same_city = city[rows][:, None] == city[rows]
        same = labels[:, None] == labels
        assert (apart[same] < 25).all() and same_city[same].all() and (apart[~same] >= 25).all()


def test_similar_places_stand_together():
    # Ten looks, each of six places all over town: beside a place stand those of its look, whose distance is small.
    draw = np.random.default_rng(0)
    number = np.arange(60)
    place = np.repeat(number, 2)
    paths = Paths.of([f"{k}.jpg" for k in range(120)])
    table = place_table(Places.create("town", paths, place=place, east=100.0 * place, north=0.0), K=2)
    looks = np.eye(10)[number % 10] + draw.normal(0, 0.001, (60, 10))
    batches = clique_batches(table, looks, P=6, K=2, steps=200, rng=draw, similar=5)
    look = place[batches.rows[:, ::2]] % 10
    twins = (look[:, :, None] == look[:, None]).sum(axis=(1, 2)) - 6
    # Unlike looks are about as far as the farthest: their chance is nearly none.
    assert twins.mean() > 25
    level = clique_batches(table, np.ones((60, 3)), P=6, K=2, steps=200, rng=draw, similar=5)
    look = place[level.rows[:, ::2]] % 10
    assert ((look[:, :, None] == look[:, None]).sum(axis=(1, 2)) - 6).mean() < 5  # 2.5 by chance


def test_a_full_batch_from_one_city_and_padding_where_it_ends():
    table, descriptors = town(40, extent=2000)
    whole = clique_batches(table, descriptors, P=8, K=2, steps=4, rng=np.random.default_rng(0), similar=1)
    assert whole.mask.all()  # one city gives several groups to a batch
    more = clique_batches(table, descriptors, P=50, K=2, steps=1, rng=np.random.default_rng(0))
    assert 0 < more.mask.sum() < 100 and more.mask[0, : more.mask.sum()].all()


def test_images_of_two_frames_are_not_near():
    paths = Paths.of([f"{k}.jpg" for k in range(4)])
    places = Places.create("world", paths, place=[0, 1, 2, 3], east=[0, 0, 1, 1], north=0, zone=[10, 40, 10, 40])
    batches = clique_batches(place_table(places, K=1), np.eye(4), P=2, K=2, steps=5, rng=np.random.default_rng(0))
    assert {frozenset(pair) for pair in batches.rows.reshape(10, 2).tolist()} == {frozenset((0, 2)), frozenset((1, 3))}


def test_images_of_a_clique_look_the_same_way_where_an_angle_is_asked_for():
    """Six views from one spot, 60 degrees apart with some noise; a clique has the views of one side alone."""
    turn = np.tile([350.0, 50, 110, 170, 230, 290], 4) + np.random.default_rng(2).uniform(0, 20, 24)
    paths = Paths.of([f"{k}.jpg" for k in range(24)])
    table = place_table(
        Places.create("spot", paths, place=np.arange(24), east=0.0, north=np.arange(24) // 6, heading=turn % 360), K=1
    )
    options = {"P": 3, "K": 4, "steps": 30, "similar": 23}
    for angle in (20.0, 80.0, 180.0):
        batches = clique_batches(table, np.eye(24), rng=np.random.default_rng(0), angle=angle, **options)
        assert (batches.mask.sum(1) == 4).all()  # the first clique takes all others with it
        sides = (batches.rows[:, :4] % 6).tolist()
        widest = max(min((a - b) % 6, (b - a) % 6) for side in sides for a, b in itertools.combinations(side, 2))
        assert widest == {20: 0, 80: 1, 180: 3}[angle]
        assert {side for one in sides for side in one} == set(range(6))
    blind = place_table(Places.create("blind", paths, place=np.arange(24), east=0.0, north=0.0), K=1)
    with pytest.raises(DataError, match=r"24 of 24.*blind.*heading.*row 0.*angle=20"):
        clique_batches(blind, np.eye(24), rng=np.random.default_rng(0), angle=20.0, **options)


def test_cliques_keep_their_distance_from_what_stands_beside_them():
    table, descriptors = town(40, extent=500)
    beside = [Occupied(np.array([[0.0, 0.0], [250.0, 250.0]]), np.array([-1, frame])) for frame in (-1, -2, -1)]
    batches = clique_batches(
        table, descriptors, P=10, K=2, steps=3, rng=np.random.default_rng(0), distance=120.0, occupied=beside
    )
    position = table.positions[np.argsort(table.rows)]
    for rows, middle in zip(batches.rows, (True, False, True), strict=True):
        apart = [np.hypot(*(position[rows[rows >= 0]] - point).T).min() for point in ((0, 0), (250, 250))]
        assert len(rows) and apart[0] >= 120 and (apart[1] >= 120) == middle
    everywhere = [Occupied(position, np.full(len(position), -1))] * 3
    with pytest.raises(DataError, match=r"\b2 images.*\baway\b.*town"):
        clique_batches(table, descriptors, P=2, K=2, steps=3, rng=np.random.default_rng(0), occupied=everywhere)


def test_equal_seeds_and_descriptors_give_equal_batches():
    table, descriptors = town(30, cities=3, extent=500)
    draws = [
        clique_batches(table, model, P=5, K=3, steps=4, rng=np.random.default_rng(seed)).rows.tolist()
        for seed, model in ((1, descriptors), (1, descriptors), (2, descriptors), (1, -descriptors[::-1]))
    ]
    assert draws[0] == draws[1] and draws[0] != draws[2] and draws[0] != draws[3]


def test_representatives_are_one_image_of_each_place():
    table, _ = town(20)
    drawn = np.stack([representatives(table, np.random.default_rng(seed)) for seed in range(60)])
    for p in range(20):
        assert set(drawn[:, p]) == set(table.rows[table.indptr[p] : table.indptr[p + 1]])


def test_real_places(real_data):
    root = real_data / "gsv_xs_names"
    sets = [read("at_names", root, paths_file=root / f"{city}.txt.gz", name=city) for city in ("osl", "prg")]
    table = place_table(sets, K=1)
    descriptors = np.random.default_rng(0).normal(size=(len(table), 32)).astype(np.float32)
    batches = clique_batches(table, descriptors, P=30, K=4, steps=5, rng=np.random.default_rng(0))
    assert batches.mask.all()
    position = np.full((table.rows.max() + 1, 3), np.nan)
    position[table.rows] = np.column_stack([table.positions, np.repeat(table.source * 1e9, np.diff(table.indptr))])
    for rows, labels in zip(batches.rows, batches.labels, strict=True):
        apart = np.linalg.norm(position[rows][:, None] - position[rows], axis=-1)
        assert ((apart < 25) == (labels[:, None] == labels)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"P": 0}, "P=0"),
        ({"K": 0}, "K=0"),
        ({"steps": -1}, "steps=-1"),
        ({"distance": 0}, "distance=0"),
        ({"similar": -1}, "similar=-1"),
        ({"angle": 0}, "angle=0"),
        ({"K": 50}, r"\b50 images.*\b25 m\b.*town.*\b9 places"),
        ({"descriptors": np.zeros((8, 2))}, r"\b9 places.*\[9, D\].*\(8, 2\)"),
        ({"descriptors": np.full((9, 2), np.nan)}, "NaN"),
    ],
)
def test_options_that_make_no_sense(options, message):
    table, descriptors = town(9)
    with pytest.raises(DataError, match=message):
        clique_batches(
            table,
            **{"descriptors": descriptors, "P": 2, "K": 2, "steps": 1, "rng": np.random.default_rng(0), **options},
        )


def test_images_without_position():
    paths = Paths.of(["a.jpg", "b.jpg"])
    table = place_table(Places.create("lost", paths, place=[0, 1], east=[0, np.nan], north=0), K=1)
    with pytest.raises(DataError, match=r"1 of 2.*lost.*position.*row 1"):
        clique_batches(table, np.zeros((2, 2)), P=1, K=1, steps=1, rng=np.random.default_rng(0))
