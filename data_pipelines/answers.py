"""Published answers: the database images that a data set lists as right for each of its queries."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import DataError

Array = np.ndarray
AT_ONCE = 1 << 18  # values that are gathered together: their numbers then fit the processor's cache


class Answers(NamedTuple):
    """A list of answers in compressed rows.

    Attributes:
      indptr: int64 [Q + 1]; the answers of query q are `indices[indptr[q]:indptr[q + 1]]`.
      indices: int64 [A], positions among the N database images.
    """

    indptr: Array
    indices: Array

    def check(self, where: str, queries: int, database: int) -> None:
        """Raises DataError, which begins with `where`, unless the list fits `queries` queries and `database` images."""
        self.check_rows()
        last = int(self.indices.max(initial=-1))
        if len(self.indptr) - 1 != queries or last >= database:
            raise DataError(
                f"{where}: the list of positives has {len(self.indptr) - 1} queries and rows up to {last}, but there "
                f"are {queries} queries and {database} database images. Read the images that the list was made for, "
                "or leave the list out"
            )

    def check_rows(self) -> None:
        """Raises DataError unless the offsets ascend from 0 to the number of indices, none of which is negative."""
        indptr, indices = self
        if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
            raise DataError(f"list of positives: the row offsets do not ascend from 0 to the {len(indices)} indices")
        if (indices < 0).any():
            raise DataError(f"list of positives: {int(indices.min())} is not a row of a database")

    def of_rows(self, rows: Array, queries: Array, database: Array) -> Answers | None:
        """The answers within a sub-table of the table that they belong to.

        An answer outside the sub-table is left out. None where it has no query or no database image, or one
        database image twice: a position cannot say which of the two is meant.

        Args:
          rows: int [M], rows of the table, in the order of the sub-table.
          queries, database: bool [N], which rows of the table are queries (Q) and which are database images.
        """
        rows = np.arange(len(queries))[rows]  # negative rows count from the end
        kept_queries, kept = ((np.cumsum(role) - 1)[rows[role[rows]]] for role in (queries, database))
        if not len(kept_queries) or not len(kept) or np.bincount(kept).max() > 1:
            return None
        position = np.full(np.count_nonzero(database), -1, np.int64)
        position[kept] = np.arange(len(kept))
        counts = np.diff(self.indptr)[kept_queries]
        answer = position[taken(self.indices, self.indptr[kept_queries], counts)[0]]
        query = np.repeat(np.arange(len(kept_queries)), counts)[answer >= 0]
        return Answers(offsets(np.bincount(query, minlength=len(kept_queries))), answer[answer >= 0])


def offsets(counts: Array) -> Array:
    """Where each of some lists begins, one after the other, and where the last ends: int64 [len(counts) + 1]."""
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends


def taken(values: Array, starts: Array, counts: Array) -> tuple[Array, Array]:
    """The values of the ranges [start, start + count), one after the other, and their offsets (int64 [len + 1]).

    One `arange` over the ranges, shifted range by range, instead of a Python loop over them; a number of eight bytes
    for each value, so some ranges at a time.
    """
    begins = offsets(counts)
    found = np.empty(begins[-1], values.dtype)
    cuts = np.unique(np.append(np.searchsorted(begins, np.arange(0, begins[-1], AT_ONCE)), len(counts)))
    for first, last in pairwise(cuts):
        shift = np.repeat(starts[first:last] - begins[first:last], counts[first:last])
        found[begins[first] : begins[last]] = values[shift + np.arange(begins[first], begins[last])]
    return found, begins
