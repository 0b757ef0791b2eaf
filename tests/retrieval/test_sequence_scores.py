"""Scores of sequences against literal loops, FAISS and NumPy; order, batches and devices must not matter."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval import search as flat
from jaxvpr.retrieval import sequence_scores as scores

ONE = make_mesh(devices=jax.devices()[:1])


def drives_of(lengths, at, seed, dimension=4, missing=()):
    """Unit vectors of drives of some lengths, one after the other; frames in `missing` could not be read."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(sum(lengths), dimension)).astype(np.float32)
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    ends = np.cumsum(lengths)
    first, stop = np.repeat(ends - lengths, lengths), np.repeat(ends, lengths)
    for lost in missing:
        frames[lost] = 0
        stop[first[lost] : lost] = lost
        first[lost + 1 : stop[lost]] = lost + 1
        first[lost] = stop[lost] = lost
    return scores.Drives(frames, first.astype(np.int32), stop.astype(np.int32), np.asarray(at, np.int32))


def literal(drives, frames, rows, velocities, steps, window):
    """The score of every clip for every query, [Q, C], loop by loop in float64."""
    apart = np.array([[np.linalg.norm(d - q) for d in drives.frames.astype(float)] for q in frames.astype(float)])
    contrast = apart.copy()
    for query in range(len(frames)):
        for n in range(len(drives.frames)):
            near = [
                apart[query, m]
                for m in range(n - window // 2, n + window // 2 + 1)
                if drives.first[n] <= m < drives.stop[n]
            ]
            if window:
                deviation = np.std(near, ddof=1) if len(near) > 1 else 0
                contrast[query, n] = (apart[query, n] - np.mean(near)) / deviation if deviation > 0 else 0
    found = np.full((len(rows), len(drives.at)), np.inf)
    for query, clip in np.ndindex(found.shape):
        key = drives.at[clip]
        for velocity in velocities:
            way = [key + round(float(velocity * step)) for step in steps]
            if all(drives.first[key] <= m < drives.stop[key] for m in way):
                score = np.mean([contrast[row, m] for row, m in zip(rows[query], way, strict=True)])
                found[query, clip] = min(found[query, clip], score)
    return found


def compare_with_the_loop(lengths, frames, clips, length, key, range_, count, window, seed):
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    drives = drives_of(lengths, rng.choice(total, min(clips, total), replace=False), seed, missing=[total // 2])
    asked = rng.normal(size=(frames, 4)).astype(np.float32)
    rows = rng.integers(0, frames, (5, length))
    steps, velocities = np.arange(length) - min(key, length - 1), np.linspace(*range_, count)
    table = scores.trajectories(steps, velocities)
    expected = literal(drives, asked, rows, velocities, steps, window)
    k = len(drives.at) + 2
    values, found = scores.search(drives, asked, rows, table, window, k, ONE)
    assert (values.dtype, found.dtype, values.shape) == (np.float32, np.int64, (5, k))
    assert np.isinf(values[:, -2:]).all() and (found[:, -2:] == -1).all()
    np.testing.assert_allclose(values[:, :-2], np.sort(expected, axis=1), atol=2e-4)
    for query, clip in np.ndindex(found.shape):
        row = found[query, clip]
        assert (row < 0) == np.isinf(values[query, clip])
        assert row < 0 or abs(expected[query, row] - values[query, clip]) < 2e-4
    return expected


CASES = st.tuples(
    st.lists(st.integers(1, 12), min_size=1, max_size=3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(0, 5),
    st.sampled_from([(1.0, 1.0), (0.8, 1.2), (0.5, 2.0), (-1.5, -0.5), (-1.0, 1.0), (0.0, 3.0)]),
    st.integers(1, 5),
    st.sampled_from([0, 1, 2, 5, 10]),
    st.integers(0, 1000),
)


def test_seqslam_is_a_literal_loop():
    for lengths, key, window in (([20, 7, 1], 2, 6), ([28], 4, 0)):
        expected = compare_with_the_loop(lengths, 12, 28, 5, key, (0.5, 1.5), 5, window, 0)
        assert np.isinf(expected).any() and np.isfinite(expected).any()


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(CASES)
def test_seqslam_is_a_literal_loop_whatever_the_sizes(case):
    compare_with_the_loop(*case)


def test_contrast_by_hand():
    """Of 1, 3, 8 the middle one lies -1 from the mean 4, over the deviation sqrt(13); at the ends there are two."""
    apart = np.array([[1, 3, 8, 5, 5]], np.float32)
    first, stop = np.array([0, 0, 0, 3, 3], np.int32), np.array([3, 3, 3, 5, 5], np.int32)
    expected = [[-(0.5**0.5), -1 / 13**0.5, 0.5**0.5, 0, 0]]
    found = jax.jit(scores.enhanced, static_argnums=3)(apart, first, stop, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_trajectories_are_rounded_and_each_is_there_once():
    assert scores.trajectories(np.arange(3), np.array([0.8, 1.0, 1.2])).tolist() == [[0, 1, 2]]
    wide = scores.trajectories(np.array([-5, 0, 5]), np.array([0.5, 1.0, 1.1]))
    assert wide.tolist() == [[-6, 0, 6], [-5, 0, 5], [-2, 0, 2]]


def clips_of(drives, steps):
    """The frames of every clip that lies in its drive, and which clips these are."""
    ways = drives.at[:, None] + steps
    whole = (ways.min(1) >= drives.first[drives.at]) & (ways.max(1) < drives.stop[drives.at])
    return np.where(whole[:, None], ways, 0), whole


def averages(drives, rows, frames, steps, k, mesh=ONE, **options):
    return scores.search(drives, frames, rows, scores.trajectories(steps, np.ones(1)), 0, k, mesh, **options)


def test_averages_are_those_of_numpy_and_of_one_frame_those_of_faiss():
    drives, rng, steps = drives_of([30, 10], range(40), 1, dimension=16), np.random.default_rng(2), np.arange(-3, 2)
    asked = rng.normal(size=(25, 16)).astype(np.float32)
    rows = np.arange(20)[:, None] + np.arange(5)
    ways, whole = clips_of(drives, steps)
    apart = np.linalg.norm(drives.frames[ways][None] - asked[rows][:, None], axis=-1).mean(-1)
    apart[:, ~whole] = np.inf
    values, found = averages(drives, rows, asked, steps, 9)
    np.testing.assert_array_equal(found, np.argsort(apart, axis=1)[:, :9])
    np.testing.assert_allclose(values, np.sort(apart, axis=1)[:, :9], atol=1e-5)
    values, found = averages(drives, np.arange(25)[:, None], asked, np.zeros(1, int), 40)
    squares, expected = flat.exact(drives.frames, asked, 40)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(values**2, squares, atol=1e-5)


def test_devices_blocks_and_the_order_of_clips_do_not_matter():
    drives, rng, steps = drives_of([30, 20], range(50), 3, missing=[7]), np.random.default_rng(4), np.arange(-4, 1)
    asked = rng.normal(size=(41, 4)).astype(np.float32)
    rows = np.arange(37)[:, None] + np.arange(5)
    table = scores.trajectories(steps, np.linspace(0.5, 1.5, 5))
    values, found = scores.search(drives, asked, rows, table, 6, 30, ONE)
    assert (found >= 0).all()
    for mesh, memory_mib in ((make_mesh(2, jax.devices()[:8]), 1024), (ONE, 0.04)):
        other = scores.search(drives, asked, rows, table, 6, 30, mesh, memory_mib)
        np.testing.assert_allclose(other[0], values, atol=1e-6)
        np.testing.assert_array_equal(other[1], found)
    order = rng.permutation(50)
    other = scores.search(drives._replace(at=drives.at[order]), asked, rows, table, 6, 30, ONE)
    np.testing.assert_allclose(other[0], values, atol=1e-6)
    np.testing.assert_array_equal(order[other[1]], found)


def test_blocks_keep_within_their_memory():
    rows = np.arange(1000)[:, None] + np.arange(20)
    assert scores._block_size(rows, 10_000, 1, 10**9) == (1024, 1019)
    size, held = scores._block_size(rows, 100_000, 1, 10**8)
    assert (size, held) == (64, 83) and 4 * (size + held) * 100_000 <= 10**8
    assert scores._block_size(rows, 100_000, 8, 10**9) == (128, 147)
    assert scores._block_size(rows, 10**9, 1, 10**6) == (1, 20)


def test_two_stages_over_the_whole_database_are_the_score_alone():
    drives, rng, steps = drives_of([25, 15], range(40), 5, missing=[3]), np.random.default_rng(6), np.arange(-2, 3)
    ways, whole = clips_of(drives, steps)
    asked = rng.normal(size=(14, 4)).astype(np.float32)
    rows = np.arange(10)[:, None] + np.arange(5)
    kept = np.flatnonzero(whole | (np.arange(40) == 3))  # clip 3 has the frame that could not be read
    clips = np.where(whole[kept, None], ways[kept], 3)
    candidates = np.stack([rng.permutation(len(kept)) for _ in rows])
    distances, found = scores.reranked(drives.frames, clips, asked, rows, candidates, kept == 3)
    values, expected = averages(drives._replace(at=drives.at[kept]), rows, asked, steps, len(kept))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(distances, values, atol=1e-5)
    assert (found[:, -1] == -1).all() and (found[:, :-1] >= 0).all()
    few = candidates[:, :6]
    again = scores.reranked(
        drives.frames, clips, asked, rows, np.pad(few, ((0, 0), (0, 1)), constant_values=-1), kept == 3
    )
    for query in range(10):
        ranked = [clip for clip in expected[query] if clip in few[query] and clip >= 0]
        assert again[1][query].tolist() == ranked + [-1] * (7 - len(ranked))


def test_a_search_holds_no_array_of_queries_by_frames_by_velocities():
    drives = drives_of([2000], range(2000), 0)
    rows = (np.arange(128)[:, None] + np.arange(5)).astype(np.int32)
    table = scores.trajectories(np.arange(-2, 3), np.linspace(-9, 9, 64))
    lowered = scores._search_on(ONE, 5, 10, 18).lower(drives, np.zeros((1, 132, 4), np.float32), rows[None], table)
    taken = lowered.compile().memory_analysis().temp_size_in_bytes
    assert len(table) > 30 and taken < 4 * 4 * (128 + 132) * 2100 < 4 * 128 * 2000 * len(table)
