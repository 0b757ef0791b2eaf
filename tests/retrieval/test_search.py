"""Exact search against a sort of all distances, on integers, where float32 is exact and ties are many."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval import mesh_search, search, shards
from jaxvpr.retrieval.cache import from_host
from jaxvpr.retrieval.extract import Described


def mesh(data, model):
    return make_mesh(model, jax.devices()[: data * model])


def on_mesh(database, queries, k, over, missing=(), **options):
    described = Described(np.asarray(database, np.float32), np.array(missing, np.int64))
    return mesh_search.exact_on_mesh(from_host(described, over), queries, k, **options)


def oracle(database, queries, k, missing=()):
    distances = ((queries[:, None, :].astype(np.float64) - database[None]) ** 2).sum(-1)
    distances[:, list(missing)] = np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(database)), distances.shape), distances), axis=-1)[:, :k]
    distances = np.take_along_axis(distances, order, 1)
    return distances, np.where(np.isinf(distances), -1, order)


def integers(rng, count, dimension=3, high=3):
    return rng.integers(0, high, (count, dimension)).astype(np.float32)


@pytest.mark.parametrize("queries", [1, 64])
@pytest.mark.parametrize("k", [1, 100, 150])
def test_ties_go_to_the_smaller_row(queries, k):
    rng = np.random.default_rng(k)
    database, asked = integers(rng, 700), integers(rng, queries)
    expected = oracle(database, asked, k)
    for distances, indices in (search.exact(database, asked, k), on_mesh(database, asked, k, mesh(4, 2))):
        assert (distances.dtype, indices.dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(distances, expected[0])
        np.testing.assert_array_equal(indices, expected[1])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 12), st.integers(1, 9))
def test_blocks_do_not_matter(seed, count, queries, block):
    rng = np.random.default_rng(seed)
    database, asked = integers(rng, count), integers(rng, queries)
    missing = rng.choice(count, rng.integers(0, count + 1), replace=False)
    k = 6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "DATABASE_BLOCK", block)
        distances, indices = search.exact(database, asked, k, missing=missing)
    expected = oracle(database, asked, k, missing)
    np.testing.assert_array_equal(indices[:, :count], expected[1])
    np.testing.assert_array_equal(distances[:, :count], expected[0])
    assert (indices[:, count:] == -1).all() and np.isinf(distances[:, count:]).all()


@pytest.mark.parametrize("shape", [(1, 1), (8, 1), (2, 4)])
def test_mesh_blocks_shards_and_padding(shape, monkeypatch):
    monkeypatch.setattr(mesh_search, "ROW_BLOCK", {"cpu": 5})
    monkeypatch.setattr(shards, "QUERY_BLOCK", 8)
    rng = np.random.default_rng(1)
    for count, queries, k, missing in ((83, 19, 9, [0, 82]), (3, 1, 5, []), (8, 8, 8, [3])):
        database, asked = integers(rng, count), integers(rng, queries)
        distances, indices = on_mesh(database, asked, k, mesh(*shape), missing)
        expected = search.exact(database, asked, k, missing=missing)
        np.testing.assert_array_equal(distances, expected[0])
        np.testing.assert_array_equal(indices, expected[1])


def test_the_mesh_never_holds_all_distances():
    rng = np.random.default_rng(2)
    database, asked = rng.normal(size=(8 * 4096, 8)).astype(np.float32), rng.normal(size=(1024, 8)).astype(np.float32)
    cache = from_host(Described(database, np.empty(0, np.int64)), mesh(1, 1))
    program = mesh_search._search_on(cache.mesh, 10, mesh_search.ROW_BLOCK["cpu"])
    nothing = np.full((2, 1), -1, np.int32)
    compiled = program.lower((cache.descriptors, cache.present), asked, nothing, np.int32(8)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * len(asked) * len(database)
    distances, _ = on_mesh(database, asked[:50], 10, mesh(4, 2))
    np.testing.assert_allclose(distances, search.exact(database, asked[:50], 10)[0], rtol=1e-4, atol=1e-5)


def test_long_descriptors_are_searched_within_the_memory_too(monkeypatch):
    """A block of 4096 rows of 2048 numbers would be 32 MiB, and two searches run at a time."""
    cache = from_host(Described(np.ones((8192, 2048), np.float32), np.empty(0, np.int64)), mesh(1, 1))
    make, taken = mesh_search._search_on, []

    def watched(*key):
        def run(*arguments):
            memory = make(*key).lower(*arguments).compile().memory_analysis()
            taken.append(2 * memory.temp_size_in_bytes / 2**20)
            return make(*key)(*arguments)

        return run

    monkeypatch.setattr(mesh_search, "_search_on", watched)
    for memory_mib in (16, 1024):
        found = mesh_search.exact_on_mesh(cache, np.ones((5, 2048), np.float32), 2, memory_mib=memory_mib)
        assert found[1].tolist() == [[0, 1]] * 5
    assert 2 < taken[0] < 16 < 32 < taken[1] < 1024


def test_unit_vectors_from_a_memory_map(tmp_path):
    rng = np.random.default_rng(3)
    database = rng.normal(size=(500, 16)).astype(np.float32)
    database /= np.linalg.norm(database, axis=1, keepdims=True)
    np.save(tmp_path / "database.npy", database)
    stored = np.load(tmp_path / "database.npy", mmap_mode="r")
    distances, indices = search.exact(stored, database[:30], 4)
    assert (indices[:, 0] == np.arange(30)).all()
    cosine = np.einsum("qkd,qd->qk", database[indices], database[:30])
    np.testing.assert_allclose(distances, 2 - 2 * cosine, atol=1e-5)


def test_nothing_to_search():
    found = search.exact(np.empty((0, 4)), np.ones((2, 4)), 3)
    assert (found[1] == -1).all() and found[0].shape == (2, 3)
    assert search.exact(np.ones((3, 4)), np.empty((0, 4)), 3)[1].shape == (0, 3)
    assert on_mesh(np.ones((3, 4)), np.empty((0, 4)), 3, mesh(8, 1))[1].shape == (0, 3)


def test_mistakes_are_named():
    ones = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match=r"database \(3, 4\).*queries \(2, 5\)"):
        search.exact(ones, np.ones((2, 5), np.float32), 1)
    with pytest.raises(ValueError, match=r"\bk\b.*\b1\b.*\b0\b"):
        search.exact(ones, ones, 0)
    with pytest.raises(ValueError, match="not finite"):
        search.exact(ones * np.nan, ones, 1)
