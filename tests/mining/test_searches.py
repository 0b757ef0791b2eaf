"""Mining's search against a sort of all distances, on integers, where float32 is exact and ties are many."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.mining import search_lists
from jaxvpr.mining.hard_examples import hard_examples
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval import mesh_search
from jaxvpr.retrieval.cache import from_host
from jaxvpr.retrieval.extract import Described
from jaxvpr.retrieval.positives import Positives, without


def mesh(devices, model=1):
    return make_mesh(model, jax.devices()[:devices])


def integers(rng, count, dimension=3, high=3):
    return rng.integers(0, high, (count, dimension)).astype(np.float32)


def drawn_lists(rng, queries, count, most):
    """Rows of each query: none for the first, `most` for the last, any number up to that for the others."""
    counts = rng.integers(0, min(most, count) + 1, queries)
    counts[0], counts[-1] = 0, min(most, count)
    rows = [np.sort(rng.choice(count, size, replace=False)) for size in counts]
    return Positives(np.concatenate([[0], np.cumsum(counts)]), np.concatenate(rows).astype(np.int64))


def no_lists(queries):
    return Positives(np.zeros(queries + 1, np.int64), np.empty(0, np.int64))


def every_row(queries, count):
    return Positives(np.arange(queries + 1) * count, np.tile(np.arange(count), queries))


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def oracle(database, queries, missing, positives, k, allowed=None, excluded=None):
    """Every distance in float64 and a sort by (distance, row), one query after the other."""
    best, negatives = np.full(len(queries), -1), np.full((len(queries), k), -1)
    gone = np.isin(np.arange(len(database)), missing)
    for query, asked in enumerate(queries.astype(np.float64)):
        distance = ((database.astype(np.float64) - asked) ** 2).sum(axis=1)
        order = np.lexsort((np.arange(len(database)), distance))
        order = order[~gone[order]]
        mine = order[np.isin(order, positives[query])]
        may = np.isin(order, allowed[query]) if allowed is not None else ~np.isin(order, excluded[query])
        best[query : query + 1] = mine[:1] if len(mine) else -1
        found = order[may][:k]
        negatives[query, : len(found)] = found
    return best, negatives


def check_distances(database, queries, found, tolerance=0.0):
    rows = np.column_stack([found.positive, found.negatives])
    distances = np.column_stack([found.positive_distances, found.negative_distances])
    assert rows.dtype == np.int64 and distances.dtype == np.float32
    expected = ((database[rows].astype(np.float64) - queries[:, None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances, np.where(rows >= 0, expected, np.inf), rtol=0, atol=tolerance)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("way", ["excluded", "allowed"])
def test_equals_a_sort_of_all_distances(devices, way):
    rng = np.random.default_rng(devices)
    database, queries = integers(rng, 700, 4, 4), integers(rng, 65, 4, 4)
    missing = np.array([0, 13, 300, 699])
    positives = drawn_lists(rng, 65, 700, 9)
    others = {way: drawn_lists(rng, 65, 700, 40 if way == "excluded" else 120)}
    cache = from_host(Described(database, missing), mesh(devices), 16)
    found = hard_examples(cache, queries, positives, k=10, **others)
    best, negatives = oracle(database, queries, missing, positives, 10, **others)
    np.testing.assert_array_equal(found.positive, best)
    np.testing.assert_array_equal(found.negatives, negatives)
    check_distances(database, queries, found)
    assert (best == -1).any() and len(np.unique(found.negative_distances)) < 30, "ties, and queries without positives"


def agrees(seed, count, queries, devices, model, batch, memory_mib):
    """Both ways find what the sort finds, in a cache of this layout."""
    rng = np.random.default_rng(seed)
    database, asked = integers(rng, count), integers(rng, queries)
    missing = np.flatnonzero(rng.random(count) < 0.2)
    positives, excluded = drawn_lists(rng, queries, count, 4), drawn_lists(rng, queries, count, 16)
    allowed = without(every_row(queries, count), excluded)
    best, negatives = oracle(database, asked, missing, positives, 4, excluded=excluded)
    cache = from_host(Described(database, missing), mesh(devices, model), batch)
    struck = hard_examples(cache, asked, positives, k=4, excluded=excluded, memory_mib=memory_mib)
    np.testing.assert_array_equal(struck.positive, best)
    np.testing.assert_array_equal(struck.negatives, negatives)
    check_distances(database, asked, struck)
    same(hard_examples(cache, asked, positives, k=4, allowed=allowed, memory_mib=memory_mib), struck)


@pytest.mark.parametrize("layout", [(8, 2, 16), (8, 8, 64), (1, 1, 5), (2, 1, 6)])
def test_neither_layout_nor_memory_matters(layout):
    agrees(0, 150, 9, *layout, memory_mib=1e-3)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_any_lists(seed):
    agrees(seed, 35, 4, 4, 2, 8, memory_mib=1)


@pytest.mark.parametrize("devices", [1, 8])
def test_unit_vectors_differ_only_where_distances_nearly_do(devices):
    rng = np.random.default_rng(5)
    database, queries = rng.normal(size=(3000, 24)).astype(np.float32), rng.normal(size=(40, 24)).astype(np.float32)
    database, queries = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (database, queries))
    database[1000:1100] = database[:100] + np.float32(1e-6) * rng.normal(size=(100, 24)).astype(np.float32)
    positives, excluded = drawn_lists(rng, 40, 3000, 20), drawn_lists(rng, 40, 3000, 60)
    best, negatives = oracle(database, queries, [], positives, 20, excluded=excluded)
    cache = from_host(Described(database, np.empty(0, np.int64)), mesh(devices), 64)
    for others in ({"excluded": excluded}, {"allowed": without(every_row(40, 3000), excluded)}):
        found = hard_examples(cache, queries, positives, k=20, **others)
        check_distances(database, queries, found, tolerance=1e-6)
        for got, right in ((found.negatives, negatives), (found.positive[:, None], best[:, None])):
            assert (got != right).mean() < 0.02
            query, column = np.nonzero(got != right)
            apart = [
                ((database[rows[query, column]].astype(np.float64) - queries[query]) ** 2).sum(axis=1)
                for rows in (got, right)
            ]
            assert (abs(apart[0] - apart[1]) < 1e-5).all()


def test_best_positives_alone():
    """Distances by hand: row 2 is at 1 and row 0 at 4 of the first query; the second has two at 1, the third none."""
    database = np.array([[2.0, 0], [9, 9], [0, 1], [0, -1]], np.float32)
    cache = from_host(Described(database, np.array([1])), mesh(8), 8)
    positives = Positives(np.array([0, 2, 5, 5, 6]), np.array([0, 2, 1, 2, 3, 1]))
    found = hard_examples(cache, np.zeros((4, 2), np.float32), positives, k=0)
    assert found.positive.tolist() == [2, 2, -1, -1], "row 1 could not be read"
    assert found.positive_distances.tolist() == [1, 1, np.inf, np.inf]
    assert found.negatives.shape == found.negative_distances.shape == (4, 0)


def test_fewer_candidates_than_asked():
    database = np.array([[3.0], [1], [2], [1]], np.float32)
    cache = from_host(Described(database, np.array([], np.int64)), mesh(2), 2)
    lists = Positives(np.array([0, 2, 2]), np.array([0, 3]))
    zero = np.zeros((2, 1), np.float32)
    assert hard_examples(cache, zero, no_lists(2), k=5, excluded=lists).negatives.tolist() == [
        [1, 2, -1, -1, -1],
        [1, 3, 2, 0, -1],
    ]
    found = hard_examples(cache, zero, no_lists(2), k=5, allowed=lists)
    assert found.negatives.tolist() == [[3, 0, -1, -1, -1], [-1] * 5]
    assert found.negative_distances[0].tolist() == [1, 9, np.inf, np.inf, np.inf]
    assert hard_examples(cache, zero[:0], no_lists(0), k=5, excluded=no_lists(0)).negatives.shape == (0, 5)


def test_memory_is_bounded_by_the_setting():
    """What XLA wants besides its arguments for two searches. All distances would take 39 MiB, all listed vectors 62."""
    rng = np.random.default_rng(2)
    database, queries = rng.normal(size=(20_000, 32)).astype(np.float32), rng.normal(size=(512, 32)).astype(np.float32)
    cache = from_host(Described(database, np.empty(0, np.int64)), mesh(1), 100)
    counts = np.full(512, 999)
    allowed = Positives(np.arange(513) * 999, (np.arange(999) * 20 + np.arange(512)[:, None] % 20).ravel())
    assert (allowed.counts == counts).all()
    taken = {}

    def watched(make):
        def remade(*key):
            program = make(*key)

            def run(*arguments):
                found = program.lower(*arguments).compile().memory_analysis()
                taken[memory_mib] = max(taken.get(memory_mib, 0), 2 * found.temp_size_in_bytes / 2**20)
                return program(*arguments)

            return run

        return remade

    results = []
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((mesh_search, "_search_on"), (search_lists, "_search_on")):
            patch.setattr(module, name, watched(getattr(module, name)))
        for memory_mib in (2, 16):
            for others in ({"excluded": no_lists(512)}, {"allowed": allowed}):
                results.append(hard_examples(cache, queries, no_lists(512), k=10, memory_mib=memory_mib, **others))
    assert taken[2] < 2 and 2 < taken[16] < 16
    for small, large in zip(results[:2], results[2:], strict=True):
        np.testing.assert_allclose(small.negative_distances, large.negative_distances, rtol=1e-5)


def test_lists_of_another_length_compile_nothing():
    rng = np.random.default_rng(3)
    database = integers(rng, 500)
    cache = from_host(Described(database, np.empty(0, np.int64)), mesh(8), 16)
    sizes = []
    for queries in (33, 40):  # blocks of 64
        most = queries // 2
        asked, lists = integers(rng, queries), drawn_lists(rng, queries, 500, most)
        hard_examples(cache, asked, lists, k=3, excluded=drawn_lists(rng, queries, 500, 20))
        rows = -(-500 // 16) * 2  # all that a device holds
        sizes.append(mesh_search._search_on(cache.mesh, 3, rows)._cache_size())
    assert sizes == [1, 1]


def test_mistakes_are_named():
    cache = from_host(Described(np.ones((5, 3), np.float32), np.empty(0, np.int64)), mesh(1), 4)
    queries, none = np.ones((2, 3), np.float32), no_lists(2)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\[Q, 3\]"):
        hard_examples(cache, queries[:, :2], none, k=1, excluded=none)
    with pytest.raises(ValueError, match=r"\ballowed\b.*\bexcluded\b"):
        hard_examples(cache, queries, none, k=1, excluded=none, allowed=none)
    with pytest.raises(ValueError, match=r"\ballowed\b.*\bexcluded\b"):
        hard_examples(cache, queries, none, k=1)
    with pytest.raises(ValueError, match="k=-1"):
        hard_examples(cache, queries, none, k=-1)
    with pytest.raises(ValueError, match=r"\bexcluded\b.*\b3 queries.*\b2\b"):
        hard_examples(cache, queries, none, k=1, excluded=no_lists(3))
    with pytest.raises(ValueError, match=r"positives.*\b0 to 5\b.*\b5\b"):
        hard_examples(cache, queries, Positives(np.array([0, 1, 1]), np.array([5])), k=0)
