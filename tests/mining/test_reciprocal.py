"""k-reciprocal re-ranking against an implementation that keeps the matrix of all pairs."""

import jax
import numpy as np
import pytest

from jaxvpr.mining.hard_examples import hard_examples
from jaxvpr.mining.reciprocal import reciprocal, reciprocal_distances
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.cache import first, from_host, vectors
from jaxvpr.retrieval.extract import Described
from jaxvpr.retrieval.positives import Positives

COUNT, QUERIES = 120, 30


def clustered(seed=0):
    """Unit vectors around 10 centres."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(10, 12))[rng.integers(0, 10, COUNT)] + 0.6 * rng.normal(size=(COUNT, 12))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def on_mesh(x, devices=8, lost=()):
    return from_host(Described(x, np.array(lost, np.int64)), make_mesh(devices=jax.devices()[:devices]), 16)


def dense(x, k, own):
    """Re-ranked distances of all pairs [N, N], set by set (Zhong et al., 2017, section 3), in float64."""
    squares = ((x[:, None].astype(float) - x[None]) ** 2).sum(2)
    order = np.argsort(squares, axis=1, kind="stable")
    relative = (squares / squares.max(1, keepdims=True)) ** 2

    def mutual(i, count):
        return {j for j in order[i, : count + 1] if i in order[j, : count + 1]}

    shares = np.zeros_like(squares)
    for i in range(len(x)):
        near, members = mutual(i, k), mutual(i, k)
        for j in near:
            theirs = mutual(j, k // 2)
            if len(theirs & near) > 2 / 3 * len(theirs):
                members = members | theirs
        members = sorted(members)
        shares[i, members] = np.exp(-relative[i, members])
        shares[i] /= shares[i].sum()
    smaller = np.minimum(shares[:, None], shares[None]).sum(2)
    larger = np.maximum(shares[:, None], shares[None]).sum(2)
    return (1 - own) * (1 - smaller / larger) + own * relative


@pytest.fixture(scope="module")
def asked():
    rng = np.random.default_rng(1)
    queries = rng.permutation(COUNT)[:QUERIES]
    candidates = np.stack([rng.permutation(COUNT)[:9] for _ in queries])
    candidates[::4, 5:] = -1
    candidates[3] = -1
    return queries, candidates


@pytest.mark.parametrize(("k", "own"), [(20, 0.1), (6, 0.5)])
def test_equals_the_dense_matrix(asked, k, own):
    queries, candidates = asked
    x = clustered()
    got = reciprocal_distances(on_mesh(x), queries, candidates, k=k, plain_weight=own, memory_mib=1)
    wanted = dense(x, k, own)[queries[:, None], candidates]
    known = candidates >= 0
    np.testing.assert_allclose(got[known], wanted[known], atol=2e-6)
    assert np.isinf(got[~known]).all()


def test_devices_do_not_matter_and_the_lost_are_never_found(asked):
    queries, candidates = asked
    x, lost = clustered(2), np.unique(candidates[0, :2])
    queries, candidates = queries[~np.isin(queries, lost)], candidates[~np.isin(queries, lost)]
    one, eight = (reciprocal_distances(on_mesh(x, devices, lost), queries, candidates, k=8) for devices in (1, 8))
    np.testing.assert_allclose(one, eight, atol=1e-6)
    np.testing.assert_array_equal(np.isinf(one), (candidates < 0) | np.isin(candidates, lost))
    rest = np.setdiff1d(np.arange(COUNT), lost)
    within = np.searchsorted(rest, candidates)
    known = np.isfinite(one)
    wanted = dense(x[rest], 8, 0.1)[np.searchsorted(rest, queries)[:, None], np.where(known, within, 0)]
    np.testing.assert_allclose(one[known], wanted[known], atol=2e-6)


def test_reciprocal_neighbours_by_hand():
    # On a line at 0, 1, 3 and 7: the nearest of 3 is 1, whose nearest is 0; the nearest of 7 is 3.
    nearest = np.array([[0, 1], [1, 0], [2, 1], [3, -1]])
    np.testing.assert_array_equal(reciprocal(nearest, 1), [[0, 1], [1, 0], [2, -1], [3, -1]])
    np.testing.assert_array_equal(reciprocal(nearest, 0), [[0], [1], [2], [3]])


def test_a_cache_of_the_first_and_rows_of_it():
    x = clustered(3)
    cache = on_mesh(x, lost=[2])
    rows = np.array([7, 119, 0, 7, 2])
    held = x.copy()
    np.testing.assert_array_equal(vectors(cache, rows)[:4], held[rows[:4]])
    none = Positives(np.zeros(4, np.int64), np.empty(0, np.int64))
    found = hard_examples(first(cache, 50), x[100:103], none, k=60, excluded=none)
    assert sorted(found.negatives[0][found.negatives[0] >= 0]) == [i for i in range(50) if i != 2]
