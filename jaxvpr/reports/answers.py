"""Items of the gallery and points of the map, from predictions."""

from __future__ import annotations

import numpy as np

from data_pipelines.clips import Clips
from data_pipelines.places import Places
from jaxvpr.reports.gallery import PREDICTIONS, GalleryItem, choose_queries
from jaxvpr.reports.map import MapData
from jaxvpr.retrieval.positives import Positives

Array = np.ndarray


def gallery_items(
    database: Places,
    queries: Places,
    predictions: Array,
    distances: Array,
    positives: Positives,
    clips: tuple[Clips | None, Clips | None] = (None, None),
) -> list[GalleryItem]:
    """A choice of queries with their first predictions, wrong ones first.

    Args:
      database, queries: the images.
      predictions: int [Q, k], database rows, best first; -1 pads.
      distances: float [Q, k], of the descriptors.
      positives: of the queries.
      clips: what the rows of database and queries stand for, where those are clips; they are shown as strips.
    """
    hits = positives.hits(predictions)
    return [
        _item(database, queries, row, predictions[row], distances[row], hits[row], positives[row], clips)
        for row in choose_queries(hits[:, 0])
    ]


def map_data(database: Places, queries: Places, predictions: Array, positives: Positives) -> MapData | None:
    """Where database, queries and first predictions lie; None where no query has coordinates.

    Args:
      predictions: int [Q, k], database rows, best first; -1 pads.
    """
    at, to = _positions(database), _positions(queries)
    if not np.isfinite(to).all(axis=1).any():
        return None
    first = np.asarray(predictions)[:, 0]
    predicted = np.where((first >= 0)[:, None], at[first], np.nan)
    notes = [", ".join(queries.conditions_of(row)) for row in range(len(queries))]
    return MapData(at, to, positives.hits(predictions)[:, 0], predicted, notes)


def _item(
    database: Places,
    queries: Places,
    row: int,
    ranked: Array,
    distances: Array,
    hits: Array,
    truth: Array,
    clips: tuple[Clips | None, Clips | None],
) -> GalleryItem:
    to = _positions(queries)[row]
    first = [int(number) for number in ranked[:PREDICTIONS] if number >= 0]
    nearest = None
    if len(truth):
        away = _metres(database, truth, to)
        nearest = _shown(database, clips[0], truth[0] if np.isnan(away).all() else truth[np.nanargmin(away)])
    return GalleryItem(
        query=_shown(queries, clips[1], row),
        predictions=[_shown(database, clips[0], number) for number in first],
        right=hits[: len(first)].tolist(),
        distances=distances[: len(first)].tolist(),
        metres=_metres(database, np.array(first, np.int64), to).tolist(),
        conditions=queries.conditions_of(row),
        truth=nearest,
        truth_rank=int(hits.argmax()) + 1 if hits.any() else None,
        name=queries.path.relative(row),
        number=row,
    )


def _shown(places: Places, clips: Clips | None, row: int) -> str | tuple[str, ...]:
    """The picture of a row, or the frames of its clip."""
    if clips is None or clips.length == 1:
        return places.path[row]
    return tuple(clips.images.path[frame] for frame in clips.rows[row])


def _positions(places: Places) -> Array:
    return np.stack([places.east, places.north], axis=1)


def _metres(database: Places, rows: Array, to: Array) -> Array:
    return np.hypot(database.east[rows] - to[0], database.north[rows] - to[1])
