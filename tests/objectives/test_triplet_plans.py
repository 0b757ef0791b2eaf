"""Mining against a brute-force search in NumPy: index for index on whole numbers, whose ties are real."""

import jax
import numpy as np
import pytest

from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.mining.neighbours import neighbours
from jaxvpr.objectives.objective import Embed
from jaxvpr.objectives.triplet_plans import Mining, draw_queries, drawn_negatives, mined, mined_plan
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.cache import from_host
from jaxvpr.retrieval.extract import Described

QUERIES, DATABASE = 40, 160


def city(seed=0, queries=QUERIES, database=DATABASE):
    """Images strewn over 300 m, the database first."""
    rng = np.random.default_rng(seed)
    count = queries + database
    east, north = rng.uniform(0, 300, (2, count))
    role = np.repeat([0, 1], [database, queries])
    return Places.create("town", Paths.of(f"{i}.jpg" for i in range(count)), east=east, north=5e6 + north, role=role)


def numbers(count, seed=1, high=4, dim=3):
    """Descriptors of few whole numbers: many images are equally far from a query."""
    return np.random.default_rng(seed).integers(0, high, (count, dim)).astype(np.float32)


def embedding(table, devices=8, lost=()):
    """An `Embed` that looks descriptors up and spreads them over devices, and what it was asked for."""
    mesh, asked = make_mesh(devices=jax.devices()[:devices]), []

    def on_mesh(rows):
        asked.append(rows)
        return from_host(Described(table[rows], np.flatnonzero(np.isin(rows, lost))), mesh, 16)

    return Embed(lambda rows: table[rows], on_mesh), asked


def brute(ground, asked, table, among, count):
    """Best positives and hardest negatives of queries, each by sorting all candidates by (distance, position)."""
    positives, negatives = [], []
    for query, candidates in zip(asked, among, strict=True):
        distance = ((table[ground.database] - table[ground.queries[query]]) ** 2).sum(1)
        far = np.setdiff1d(candidates, ground.near[query])
        negatives.append(far[np.lexsort((far, distance[far]))[:count]])
        near = ground.positives[query]
        positives.append(near[np.lexsort((near, distance[near]))[0]])
    return np.array(positives), np.array(negatives)


@pytest.fixture(scope="module")
def ground():
    return neighbours([city()], "20m", "40m")


@pytest.mark.parametrize("devices", [1, 8])
def test_full_mining_of_the_whole_database_is_brute_force(ground, devices):
    table, asked = numbers(200), np.arange(len(ground.queries))
    found = mined(
        ground, asked, Mining("full", 5, pool=0), np.random.default_rng(0), embedding(table, devices)[0], None
    )
    positives, negatives = brute(ground, asked, table, [np.arange(DATABASE)] * len(asked), 5)
    np.testing.assert_array_equal(found.positive, positives)
    np.testing.assert_array_equal(found.negatives, negatives)


@pytest.mark.parametrize("devices", [1, 8])
def test_full_mining_looks_at_each_querys_pool_and_at_what_it_had_before(ground, devices):
    table, asked = numbers(200), np.array([3, 0, 11, 7])
    previous = brute(ground, asked, table, [np.arange(DATABASE)] * len(asked), 5)[1].astype(np.int32)
    previous[1] = -1  # not seen before
    embed, described = embedding(table, devices)
    found = mined(ground, asked, Mining("full", 5, pool=30), np.random.default_rng(5), embed, previous)
    same = np.random.default_rng(5)
    pools = [same.choice(DATABASE, 30, replace=False, shuffle=False) for _ in asked]
    among = [np.union1d(pool, before[before >= 0]) for pool, before in zip(pools, previous, strict=True)]
    positives, negatives = brute(ground, asked, table, among, 5)
    np.testing.assert_array_equal(found.positive, positives)
    np.testing.assert_array_equal(found.negatives, negatives)
    assert np.isin(negatives, previous).any(), "what was hard before is found again"
    assert [len(rows) for rows in described] == [DATABASE]


@pytest.mark.parametrize("devices", [1, 8])
def test_partial_mining_describes_one_pool_and_the_positives(ground, devices):
    table, asked = numbers(200), np.arange(0, len(ground.queries), 2)
    embed, described = embedding(table, devices)
    found = mined(ground, asked, Mining("partial", 5, pool=40), np.random.default_rng(7), embed, None)
    pool = np.random.default_rng(7).choice(DATABASE, 40, replace=False)
    positives, negatives = brute(ground, asked, table, [pool] * len(asked), 5)
    np.testing.assert_array_equal(found.positive, positives)
    np.testing.assert_array_equal(found.negatives, negatives)
    wanted = np.union1d(pool, ground.positives.take(asked).indices)
    np.testing.assert_array_equal(described[0], ground.database[wanted])
    assert np.setdiff1d(wanted, pool).size, "positives beyond the pool are described, and are nobody's negatives"


def test_random_mining_describes_positives_alone(ground):
    table, asked = numbers(200), np.arange(len(ground.queries))
    embed, described = embedding(table)
    found = mined(ground, asked, Mining("random", 5), np.random.default_rng(7), embed, None)
    np.testing.assert_array_equal(found.positive, brute(ground, asked, table, [np.arange(0)] * len(asked), 5)[0])
    assert len(described[0]) == len(np.unique(ground.positives.indices))
    for query, negatives in zip(asked, found.negatives, strict=True):
        assert len(set(negatives)) == 5 and not np.isin(negatives, ground.near[query]).any()


def test_random_negatives_are_drawn_evenly():
    """The far half of the database, each as often as any other within 5 standard deviations."""
    near = neighbours([city()], "20m", "40m").near.take(np.zeros(4000, np.int64))
    drawn = drawn_negatives(near, DATABASE, 5, np.random.default_rng(0))
    far = np.setdiff1d(np.arange(DATABASE), near[0])
    share = 5 / len(far)
    counts = np.bincount(drawn.ravel(), minlength=DATABASE)[far]
    assert np.abs(counts - 4000 * share).max() < 5 * np.sqrt(4000 * share * (1 - share))


def test_floats_are_found_but_for_scores_that_hardly_differ(ground):
    table = np.random.default_rng(0).normal(size=(200, 32)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    asked = np.arange(len(ground.queries))
    found = mined(ground, asked, Mining("full", 5, pool=0), np.random.default_rng(0), embedding(table)[0], None)
    _, negatives = brute(ground, asked, table.astype(np.float64), [np.arange(DATABASE)] * len(asked), 5)
    for query, ours, theirs in zip(asked, found.negatives, negatives, strict=True):
        far = ((table[ground.database] - table[ground.queries[query]]).astype(np.float64) ** 2).sum(1)
        np.testing.assert_allclose(far[ours], far[theirs], atol=1e-5)


def planned(plan, index, table, memory=None, **options):
    """Rows of a plan, and what it remembers."""
    made, memory = plan(index, np.random.default_rng([3, index]), memory or {}, embedding(table, **options)[0])
    return made.draws["source"].rows, memory


def test_a_plan_holds_rows_of_the_table_and_remembers_negatives(ground):
    table = numbers(200)
    plan = mined_plan([ground], Mining("full", 4, pool=12, refresh=30, batch=8))
    drawn, memory = planned(plan, 0, table)
    assert drawn.shape == (3, 8, 6), "30 queries make 3 batches of 8"
    queries = drawn[..., 0].ravel()
    assert len(set(queries)) == 24 and np.isin(queries, ground.queries).all()
    asked = np.array([np.flatnonzero(ground.queries == row)[0] for row in queries])
    np.testing.assert_array_equal(ground.database[memory["negatives"][asked]], drawn[..., 2:].reshape(24, 4))
    others = np.setdiff1d(np.arange(len(ground.queries)), asked)
    assert (memory["negatives"][others] == -1).all()
    again, _ = planned(plan, 1, table, memory)
    before = dict(zip(asked.tolist(), memory["negatives"][asked], strict=True))
    for row in again.reshape(-1, 6):
        query = int(np.flatnonzero(ground.queries == row[0])[0])
        if query in before:
            old, new = (
                ((table[ground.database[n]] - table[row[0]]) ** 2).sum(1)
                for n in (before[query], np.flatnonzero(np.isin(ground.database, row[2:])))
            )
            assert np.sort(new).sum() <= np.sort(old).sum(), "the hardest so far stay until harder ones come"


def test_a_plan_does_not_touch_the_memory_it_was_given(ground):
    plan, table = mined_plan([ground], Mining("full", 4, pool=12, refresh=8, batch=8)), numbers(200)
    _, memory = planned(plan, 0, table)
    copy = memory["negatives"].copy()
    planned(plan, 1, table, memory)
    np.testing.assert_array_equal(memory["negatives"], copy)


def test_grounds_take_their_turn_and_keep_negatives_of_their_own(ground):
    other = neighbours([city(5)], "20m", "40m", first=200)
    table = numbers(400)
    plan = mined_plan([ground, other], Mining("full", 4, pool=12, refresh=8, batch=8), turn=2)
    memory, rows = {}, []
    for index in range(5):
        drawn, memory = planned(plan, index, table, memory)
        rows.append(drawn)
    assert [bool((row >= 200).all()) for row in rows] == [False, False, True, True, False]
    assert all(bool((row >= 200).all() | (row < 200).all()) for row in rows), "no negative crosses"
    assert len(memory["negatives"]) == len(ground.queries) + len(other.queries)


def test_a_query_whose_positives_cannot_be_read_is_left_out(ground):
    lost = ground.database[ground.positives[0]]
    plan = mined_plan([ground], Mining("partial", 3, pool=60, refresh=len(ground.queries), batch=1))
    rows = planned(plan, 0, numbers(200), lost=lost)[0][:, 0]
    out = (rows < 0).all(axis=1)
    assert 1 <= out.sum() < len(rows) and ground.queries[0] not in rows[~out, 0]
    assert (rows[~out] >= 0).all() and not np.isin(rows[~out, 1:], lost).any()


def test_queries_come_once_before_any_comes_twice():
    drawn = draw_queries(np.full(7, 1 / 7), 17, np.random.default_rng(0))
    assert (np.bincount(drawn[:14], minlength=7) == 2).all() and len(set(drawn[14:])) == 3
    heavy = np.array([0.9, 0.02, 0.02, 0.02, 0.02, 0.02])
    first = [draw_queries(heavy, 1, np.random.default_rng(seed))[0] for seed in range(300)]
    assert 240 < first.count(0) < 295


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "hardest"}, r"mining='hardest'.*full.*partial.*random"),
        ({"negatives": 0}, r"negatives=0\b.*\b1\b"),
        ({"negatives": 20, "pool": 10}, r"negatives=20\b.*\bfound\b.*objective\.pool=10\b"),
        ({"refresh": 3}, r"refresh=3\b.*\b8\b"),
        ({"negatives": 150, "pool": 0}, r"\.jpg.*objective\.negatives=150\b.*\b\d+ of 160\b"),
    ],
)
def test_settings_that_make_no_sense(ground, changes, said):
    mining = Mining(**{"mode": "full", "negatives": 5, "pool": 0, "refresh": 80, "batch": 8, **changes})
    with pytest.raises(UserError, match=said):
        mined_plan([ground], mining, name_of=city().path.__getitem__)


def test_a_pool_too_small_for_a_query_is_an_error_that_names_it(ground):
    plan = mined_plan([ground], Mining("partial", 10, pool=10, refresh=40, batch=8), name_of=city().path.__getitem__)
    with pytest.raises(
        UserError, match=r"\d+\.jpg.*objective\.negatives=10\b.*objective\.pool=10\b.*\b\d\b.*objective\.soft"
    ):
        planned(plan, 0, numbers(200))
