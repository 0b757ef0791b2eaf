"""Recall on numbers worked out by hand, against a plain loop, and its invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.retrieval.positives import from_lists
from jaxvpr.retrieval.recall import recall, wilson

# Five queries: right at rank 0, at rank 2, never, without a positive, at rank 1.
POSITIVES = from_lists([0, 1, 3, 4, 4, 5], [7, 1, 2, 3, 5])
PREDICTIONS = np.array([[7, 0, 1], [0, 7, 2], [0, 1, 2], [0, 1, 2], [0, 5, 1]])


def test_by_hand():
    result = recall(PREDICTIONS, POSITIVES, ns=(3, 1, 2))
    assert result.ns == (1, 2, 3)
    assert result.of_all == {1: 20.0, 2: 40.0, 3: 60.0}
    assert result.of_answerable == {1: 25.0, 2: 50.0, 3: 75.0}
    assert result.first_hit.tolist() == [0, 2, -1, -1, 1]
    assert (result.queries, result.without_positive, result.upper_bound) == (5, 1, 80.0)
    assert result.curve(3).tolist() == [20.0, 40.0, 60.0]
    assert result.right(1).tolist() == [True, False, False, False, False]


def test_some_queries_only():
    part = recall(PREDICTIONS, POSITIVES, ns=(1, 3)).take(np.array([True, False, False, True, True]))
    assert (part.of_all, part.queries, part.without_positive) == ({1: 100 / 3, 3: 200 / 3}, 3, 1)


def test_too_few_predictions_are_an_error():
    with pytest.raises(ValueError, match=r"recall@100\b.*\b100 predictions"):
        recall(PREDICTIONS, POSITIVES)
    with pytest.raises(ValueError, match=r"\b1\b.*\(0, 1\)"):
        recall(PREDICTIONS, POSITIVES, ns=(0, 1))


def test_nothing_asked_and_nothing_answerable():
    assert recall(np.empty((0, 1), int), from_lists([0], []), ns=(1,)).of_all == {1: 0.0}
    nothing = recall(np.array([[0, 1]]), from_lists([0, 0], []), ns=(1, 2))
    assert (nothing.of_all, nothing.of_answerable, nothing.upper_bound) == ({1: 0, 2: 0}, {1: 0, 2: 0}, 0)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9))
def test_equals_a_plain_loop(seed, queries, database):
    rng = np.random.default_rng(seed)
    lists = [np.flatnonzero(rng.random(database) < 0.2) for _ in range(queries)]
    predictions = np.stack([rng.permutation(database + 3)[: database + 1] for _ in range(queries)])
    predictions[predictions >= database] = -1
    positives = from_lists(np.cumsum([0] + [len(row) for row in lists]), np.concatenate(lists))
    ns = tuple(range(1, database + 2))
    result = recall(predictions, positives, ns)
    for n in ns:
        expected = sum(bool(set(p[:n]) & set(row)) for p, row in zip(predictions, lists, strict=True))
        assert result.of_all[n] == pytest.approx(100 * expected / queries)
        assert result.of_all[n] <= result.upper_bound + 1e-9
        low, high = result.interval(n)
        assert low <= result.of_all[n] + 1e-9 and result.of_all[n] <= high + 1e-9
    order = rng.permutation(queries)
    assert recall(predictions[order], positives.take(order), ns).of_all == result.of_all


def test_wilson_interval():
    # 10 of 20: share .5, z² / n = .19207; centre .5; reach sqrt(.19207 / 4 + .19207² / 4) / 1.19207 = .20071.
    low, high = wilson(10, 20)
    assert (low, high) == (pytest.approx(29.929, abs=2e-3), pytest.approx(70.071, abs=2e-3))
    assert wilson(0, 50)[0] == 0.0 and 0 < wilson(0, 50)[1] < 10
    assert wilson(50, 50)[1] == pytest.approx(100) and wilson(50, 50)[0] > 90
    assert wilson(0, 0) == (0.0, 100.0)
    with pytest.raises(ValueError, match=r"\b3 successes.*\b2 trials"):
        wilson(3, 2)
