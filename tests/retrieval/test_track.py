"""The path of a drive through its candidates."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxvpr.retrieval.track import SLACK, Candidates, Track, smooth


def cost_of(path, distances, positions, reach, jump):
    """What `smooth` makes small, as its docstring says it."""
    total = sum(float(distances[t, c]) for t, c in enumerate(path))
    for t, (one, other) in enumerate(pairwise(path)):
        step = np.hypot(*(positions[t + 1, other] - positions[t, one]))
        beyond = step - reach[t]
        total += 0 if beyond <= 0 else beyond / 50 * jump if beyond < 50 else jump
    return total


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.4, 3.0]))
def test_no_other_path_is_cheaper(seed, frames, k, jump):
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.uniform(0, 1, (frames, k)).astype(np.float32))
    positions = rng.uniform(0, 100, (frames, k, 2))
    positions[rng.random((frames, k)) < 0.1] = np.nan
    reach = rng.uniform(10, 80, frames - 1)
    found = smooth(distances, positions, reach, jump)
    best = min(cost_of(path, distances, positions, reach, jump) for path in product(range(k), repeat=frames))
    assert cost_of(found, distances, positions, reach, jump) == pytest.approx(best, abs=1e-5)


def candidates(seconds=(0.0, 1.0, 2.0, 3.0, 4.0)):
    """Five frames of a street of ten places 100 m apart; the third frame's nearest lies far away."""
    rows = np.array([[0, 5], [1, 5], [9, 2], [3, 5], [4, 5]])
    distances = np.array([[0.1, 0.5], [0.1, 0.5], [0.1, 0.3], [0.1, 0.5], [0.1, 0.5]], np.float32)
    return Candidates(np.arange(5), np.array(seconds), distances, rows)


STREET = np.stack([100.0 * np.arange(10), np.zeros(10)], 1)


def test_a_lone_wrong_answer_is_passed_over_and_a_fast_camera_may_be_there():
    track = Track(candidates(), STREET, speed=100.0)  # one place further in a second
    assert track.rows.tolist() == [0, 1, 2, 3, 4] and track.rank.tolist() == [0, 0, 1, 0, 0]
    assert track.nearest.tolist() == [0, 1, 9, 3, 4] and not track.jumps.any()
    assert track.metres.tolist() == [100.0] * 4
    np.testing.assert_allclose(track.distances, [0.1, 0.1, 0.3, 0.1, 0.1])
    assert Track(candidates(), STREET, speed=800.0).rows.tolist() == [0, 1, 9, 3, 4]
    # Without times a frame counts as a second; with more time between frames more is within reach.
    unknown = Track(candidates((np.nan,) * 5), STREET, speed=100.0)
    assert unknown.rows.tolist() == [0, 1, 2, 3, 4]
    assert Track(candidates((0.0, 20.0, 40.0, 60.0, 80.0)), STREET, speed=100.0).rows.tolist() == [0, 1, 9, 3, 4]


def test_a_step_that_is_a_little_too_long_costs_a_part_of_a_jump():
    """Two steps of 35 m where 10 are in reach cost 25 / 50 of a jump each, together one: as the other answer, more."""
    positions = np.array([[[0, 0], [0, 0]], [[35, 0], [0, 0]], [[0, 0], [0, 0]]], float)
    distances = np.array([[0.1, 9.0], [0.1, 0.4], [0.1, 9.0]])  # 0.3 more for the answer that stays
    for jump, middle in ((0.29, 0), (0.31, 1)):
        assert smooth(distances, positions, np.full(2, 10.0), jump).tolist() == [0, middle, 0]


def test_a_drive_that_is_elsewhere_is_followed():
    """After a break in the film all answers lie in another street: one jump, not five wrong answers."""
    frames = 8
    rows = np.array([[0, 9], [1, 9], [2, 9], [7, 3], [8, 3], [9, 3], [8, 3], [7, 3]])
    distances = np.tile(np.array([0.1, 0.4], np.float32), (frames, 1))
    track = Track(Candidates(np.arange(frames), np.arange(frames, dtype=float), distances, rows), STREET, 100.0)
    assert track.rank.tolist() == [0] * frames
    assert track.jumps.tolist() == [False, False, True, False, False, False, False]


def test_places_without_coordinates_leave_the_nearest():
    track = Track(candidates(), np.full((10, 2), np.nan), speed=100.0)
    assert track.rank.tolist() == [0] * 5 and track.jumps.all() and np.isnan(track.metres).all()


def test_a_single_frame_and_a_single_candidate():
    one = Candidates(*(column[:1] for column in candidates()))
    assert Track(one, STREET, 1.0).rows.tolist() == [0] and len(Track(one, STREET, 1.0).jumps) == 0
    alone = candidates()._replace(rows=candidates().rows[:, :1], distances=candidates().distances[:, :1])
    assert Track(alone, STREET, 1.0).rows.tolist() == [0, 1, 9, 3, 4]
    assert SLACK == 50.0  # two right answers, each within 25 m of its frame: the bound that docs/tracks.md states
