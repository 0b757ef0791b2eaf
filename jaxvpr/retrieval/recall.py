"""Recall@N: the share of queries with a positive among their first N predictions, in per cent.

Two averages are in use. "Of all" divides by all queries, so that queries without any positive count as failures (as the
published benchmark code does); "of answerable" divides by the queries that have a positive. Both are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxvpr.retrieval.positives import Positives

Array = np.ndarray
NS = (1, 5, 10, 20, 100)


@dataclass(frozen=True)
class Recall:
    """The outcome of a set of predictions, query by query.

    Attributes:
      ns: the N of recall@N, ascending.
      first_hit: int64 [Q], rank (from 0) of the first positive among the predictions, -1 where there is none.
      answerable: bool [Q], whether the query has any positive.
    """

    ns: tuple[int, ...]
    first_hit: Array
    answerable: Array

    @property
    def queries(self) -> int:
        return len(self.first_hit)

    @property
    def without_positive(self) -> int:
        """How many queries have no positive."""
        return int((~self.answerable).sum())

    @property
    def upper_bound(self) -> float:
        """The highest recall over all queries that a search could reach, in per cent."""
        return _percent(int(self.answerable.sum()), self.queries)

    @property
    def of_all(self) -> dict[int, float]:
        """N -> recall@N over all queries, in per cent."""
        return {n: _percent(self.right(n).sum(), self.queries) for n in self.ns}

    @property
    def of_answerable(self) -> dict[int, float]:
        """N -> recall@N over the queries that have a positive, in per cent."""
        return {n: _percent(self.right(n).sum(), self.queries - self.without_positive) for n in self.ns}

    def right(self, n: int = 1) -> Array:
        """bool [Q]: has the query a positive among its first n predictions?"""
        return (self.first_hit >= 0) & (self.first_hit < n)

    def interval(self, n: int) -> tuple[float, float]:
        """95 % confidence interval of `of_all[n]`, in per cent."""
        return wilson(int(self.right(n).sum()), self.queries)

    def curve(self, most: int) -> Array:
        """float64 [most], recall@1..most over all queries, in per cent; exact up to the number of predictions."""
        ranks = np.bincount(self.first_hit[self.right(most)], minlength=most)
        return 100.0 * np.cumsum(ranks) / max(self.queries, 1)

    def take(self, queries: Array) -> Recall:
        """The recall of some queries only (int [M] or bool [Q]), such as those of one condition."""
        return Recall(self.ns, self.first_hit[queries], self.answerable[queries])


def recall(predictions: Array, positives: Positives, ns: Sequence[int] = NS) -> Recall:
    """Compares ranked predictions with the positives.

    Args:
      predictions: int [Q, k], rows of the database, best first; -1 pads where the database has fewer than k images.
      positives: of the same queries.
      ns: which recall@N to report, each from 1 to k.

    Raises:
      ValueError: where k is smaller than the largest N: recall@N of fewer than N predictions is another number.
    """
    ns = tuple(sorted(set(ns)))
    predictions = np.asarray(predictions)
    if not ns or ns[0] < 1:
        raise ValueError(f"recall@N needs N >= 1, not {ns}")
    if predictions.ndim != 2 or predictions.shape[1] < ns[-1]:
        raise ValueError(f"recall@{ns[-1]} needs {ns[-1]} predictions a query, not the shape {predictions.shape}")
    hits = positives.hits(predictions)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1), -1)
    return Recall(ns, first.astype(np.int64), positives.counts > 0)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion at 95 %, in per cent (Wilson 1927).

    Unlike the normal approximation it stays within [0, 100] and is meaningful at 0 and at 100 %.
    """
    from scipy.stats import binomtest  # a second to import, which only measuring needs

    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    if trials == 0:
        return 0.0, 100.0
    low, high = binomtest(successes, trials).proportion_ci(method="wilson")
    return 100 * float(low), 100 * float(high)


def _percent(part: int, total: int) -> float:
    return 100.0 * int(part) / total if total else 0.0
