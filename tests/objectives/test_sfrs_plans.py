"""Difficult positives, query by query."""

import numpy as np
import pytest

from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.mining.neighbours import neighbours
from jaxvpr.mining.reciprocal import reciprocal_distances
from jaxvpr.objectives.objective import Embed
from jaxvpr.objectives.sfrs_plans import Difficult, risen, sfrs_plan
from jaxvpr.objectives.triplet_plans import Mining, mined_plan
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.cache import from_host
from jaxvpr.retrieval.extract import Described

QUERIES, DATABASE, NUMBER, POOL = 24, 100, 4, 6
MINING = Mining("full", negatives=4, pool=30, refresh=QUERIES, batch=8)


def town(queries=True):
    """Images strewn over 120 m, the queries first; without queries every image is one."""
    rng = np.random.default_rng(0)
    count = QUERIES + DATABASE
    east, north = rng.uniform(0, 120, (2, count))
    role = np.repeat([1, 0] if queries else [0, 0], [QUERIES, DATABASE])
    return Places.create("town", Paths.of(f"{i}.jpg" for i in range(count)), east=east, north=5e6 + north, role=role)


def looks(seed=1):
    """Unit vectors around few centres, so that images have neighbours."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(8, 6))[rng.integers(0, 8, QUERIES + DATABASE)] + 0.5 * rng.normal(size=(QUERIES + DATABASE, 6))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def embedding(table, asked):
    def on_mesh(rows):
        asked.append(rows)
        return from_host(Described(table[rows], np.empty(0, np.int64)), make_mesh(), 16)

    return Embed(lambda rows: table[rows], on_mesh)


def brute(ground, table, queries, reciprocal):
    """The difficult positives of each query: those that re-ranking moves forwards most, then those that it leaves."""
    near = np.full((len(queries), POOL), -1)
    for line, query in zip(near, queries, strict=True):
        own = ground.database[ground.positives[int(np.flatnonzero(ground.queries == query)[0])]]
        own = own[np.argsort(((table[own] - table[query]) ** 2).sum(1), kind="stable")][:POOL]
        line[: len(own)] = own
    every, found = from_host(Described(table, np.empty(0, np.int64)), make_mesh(), 16), []
    after = reciprocal_distances(every, queries, near, k=reciprocal) if reciprocal else np.where(near < 0, np.inf, 0)
    for before, distances in zip(near, after, strict=True):
        ranks = np.argsort(np.argsort(distances, kind="stable"))
        gain = [(old - rank, rank, row) for old, (rank, row) in enumerate(zip(ranks, before, strict=True)) if row >= 0]
        found.append(
            [row for gained, _, row in sorted(gain, key=lambda one: (-one[0], one[1])) if gained >= 0][:NUMBER]
        )
    return found


@pytest.mark.parametrize("queries", [True, False])
@pytest.mark.parametrize("reciprocal", [6, 0])
def test_difficult_positives_are_those_of_brute_force(queries, reciprocal):
    ground, table, asked = neighbours([town(queries)], "25m", "40m"), looks(), []
    difficult = Difficult(NUMBER, POOL, 6, begins=0 if reciprocal else 1)
    plan, _ = sfrs_plan(ground, MINING, difficult)(0, np.random.default_rng(3), {}, embedding(table, asked))
    draw = plan.draws["source"]
    rows, number = draw.rows.reshape(QUERIES, -1), draw.label.ravel()
    assert draw.rows.shape == (3, 8, 2 + 4 + NUMBER)
    assert number.dtype == np.int32 and (number == NUMBER).any()
    assert not reciprocal or (number < NUMBER).any()
    for line, count, wanted in zip(rows, number, brute(ground, table, rows[:, 0], reciprocal), strict=True):
        np.testing.assert_array_equal(line[6 : 6 + count], wanted)
        np.testing.assert_array_equal(line[6 + count :], np.resize(wanted, NUMBER)[count:])
    assert len(asked) == 1 and len(asked[0]) == QUERIES + DATABASE, "every image is described once"


def test_triplets_are_those_of_full_mining():
    ground, table = neighbours([town()], "25m", "40m"), looks()
    plan, memory = sfrs_plan(ground, MINING, Difficult(NUMBER, POOL, 6))(
        0, np.random.default_rng(3), {}, embedding(table, [])
    )
    alone, remembered = mined_plan([ground], MINING)(0, np.random.default_rng(3), {}, embedding(table, []))
    np.testing.assert_array_equal(plan.draws["source"].rows[..., :6], alone.draws["source"].rows)
    np.testing.assert_array_equal(memory["negatives"], remembered["negatives"])


def test_what_rises_comes_first():
    # Re-ranking orders 0 1 2 3 4 as 1 3 2 0 4: 3 gains two ranks, 1 gains one, 2 and 4 stay, 0 falls.
    np.testing.assert_array_equal(risen(np.array([0.5, 0.1, 0.4, 0.3, 0.9])), [3, 1, 2, 4])
    np.testing.assert_array_equal(risen(np.array([0.1, 0.2, 0.3])), [0, 1, 2])
    np.testing.assert_array_equal(risen(np.array([7.0])), [0])


@pytest.mark.parametrize(
    ("mining", "difficult", "message"),
    [
        (MINING._replace(mode="partial"), Difficult(), r"objective\.mining='partial'.*objective\.mining='full'"),
        (MINING, Difficult(0), r"objective\.difficult=0\b.*\b1\b"),
        (MINING, Difficult(10, 5), r"objective\.difficult=10\b.*objective\.difficult_pool=5\b"),
        (MINING, Difficult(reciprocal=-1), r"objective\.reciprocal=-1\b"),
    ],
)
def test_mistakes_are_named(mining, difficult, message):
    with pytest.raises(UserError, match=message):
        sfrs_plan(neighbours([town()], "25m", "40m"), mining, difficult)


def test_unreadable_images_are_no_difficult_positives():
    ground, table = neighbours([town()], "25m", "40m"), looks()
    lost = ground.database[::3]

    def on_mesh(rows):
        return from_host(Described(table[rows], np.flatnonzero(np.isin(rows, lost))), make_mesh(), 16)

    plan, _ = sfrs_plan(ground, MINING, Difficult(NUMBER, POOL, 6))(
        0, np.random.default_rng(3), {}, Embed(lambda rows: table[rows], on_mesh)
    )
    draw = plan.draws["source"]
    rows, number = draw.rows.reshape(QUERIES, -1), draw.label.ravel()
    assert not np.isin(rows[:, 1:], lost).any()
    np.testing.assert_array_equal(number == 0, rows[:, 0] < 0)
    assert (rows[rows[:, 0] < 0] == -1).all()
