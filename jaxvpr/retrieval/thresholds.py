"""Thresholds as text: which database images, or clips, show the place of a query.

Clips show one place where any pair of their frames does, or their last frames do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from data_pipelines.answers import Answers, offsets, taken
from data_pipelines.clips import Clips, table_of
from data_pipelines.places import Places
from jaxvpr.errors import UserError
from jaxvpr.retrieval.positives import (
    PAIRS_AT_ONCE,
    Maker,
    Positives,
    from_lists,
    same_place,
    within_frames,
    within_metres,
)

Array = np.ndarray
Elements: TypeAlias = Places | Clips

UNLISTED = (
    "'25m' (metres), '1m_5deg' (metres and degrees of heading), '1frame' (frames either side), 'label' (equal place)"
)
GRAMMAR = f"{UNLISTED} or 'list' (the data set's published list)"


def parse_threshold(text: str, answers: Answers | None = None) -> Callable[[Elements, Elements], Positives]:
    """Turns '25m', '1m_5deg', '1frame', 'label' or 'list' into a function `(database, queries) -> Positives`.

    Both are images, or both are clips.

    Args:
      text: the threshold, as in a config and as a key of `metrics.json`.
      answers: the published list of the data set (`Places.answers`), for 'list'.

    Raises:
      UserError: for other text, with the grammar.
    """
    make = _of_images(text, answers)

    def between(database: Elements, queries: Elements) -> Positives:
        if isinstance(database, Clips) and isinstance(queries, Clips):
            if text == "list":
                raise UserError(
                    f"threshold 'list' of {queries.images.name} names images, not clips; use one of {UNLISTED}"
                )
            return of_clips(make, database, queries)
        return make(table_of(database), table_of(queries))

    return between


def _of_images(text: str, answers: Answers | None) -> Maker:
    number = r"(\d+(?:\.\d+)?)"
    if match := re.fullmatch(rf"{number}m(?:_{number}deg)?", text):
        metres, degrees = float(match[1]), float(match[2]) if match[2] else None
        return lambda database, queries: within_metres(database, queries, metres, degrees)
    if match := re.fullmatch(r"(\d+)frame", text):
        frames = int(match[1])
        return lambda database, queries: within_frames(database, queries, frames)
    if text == "label":
        return same_place
    if text == "list":
        return lambda database, queries: _published(answers, database, queries)
    raise UserError(f"unknown threshold {text!r}; expected {GRAMMAR}")


def _published(answers: Answers | None, database: Places, queries: Places) -> Positives:
    if answers is None:
        raise UserError(
            f"threshold 'list': {queries.name} has no published list of positives, which the reader 'pairs' "
            f"takes from ground_truth.csv or .npy; use one of {UNLISTED}"
        )
    answers.check(queries.name, len(queries), len(database))
    return from_lists(*answers)


def of_clips(make: Maker, database: Clips, queries: Clips) -> Positives:
    """The clips of a database that show the place of each clip, as `make` says it of their frames."""
    if "last" in (database.match, queries.match):
        return make(database.places, queries.places)
    there, held = np.unique(database.rows, return_inverse=True)
    asked, asks = np.unique(queries.rows, return_inverse=True)
    frames = make(database.images.take(there), queries.images.take(asked))
    # Each frame is looked for once, however many clips share it; and the clips that hold a frame are one range.
    order = np.argsort(held.ravel(), kind="stable")
    starts, holding = offsets(np.bincount(held.ravel(), minlength=len(there))), order // database.length
    asks = asks.reshape(queries.rows.shape)
    counts, found = [], []
    for start, stop in _blocks(frames.counts[asks].sum(axis=1) * database.length):
        of_query = frames.take(asks[start:stop].ravel())
        query = np.repeat(np.arange(stop - start).repeat(queries.length), of_query.counts)
        query, row = _pairs(query, of_query.indices, len(there))
        clip, _ = taken(holding, starts[row], np.diff(starts)[row])
        query, clip = _pairs(np.repeat(query, np.diff(starts)[row]), clip, len(database))
        counts.append(np.bincount(query, minlength=stop - start))
        found.append(clip)
    none = np.zeros(0, np.int64)
    return Positives(offsets(np.concatenate([none, *counts])), np.concatenate([none, *found]))


def _blocks(pairs: Array) -> list[tuple[int, int]]:
    """Ranges of queries that have no more pairs together than fit in memory; at least one query each."""
    ends = np.cumsum(pairs)
    cuts = np.searchsorted(ends, np.arange(0, ends[-1] if len(ends) else 0, PAIRS_AT_ONCE), side="right")
    cuts = np.unique(np.concatenate([[0], cuts, [len(pairs)]]))
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


def _pairs(query: Array, row: Array, rows: int) -> tuple[Array, Array]:
    """Pairs in ascending order, each once."""
    query, row = np.divmod(np.unique(query * rows + row), max(rows, 1))
    return query, row
