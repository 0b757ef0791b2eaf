"""From what a run measured to what a person looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvpr.reports.gallery import GalleryItem
from jaxvpr.reports.html import write_report
from jaxvpr.reports.map import MapData
from jaxvpr.retrieval.evaluator import Evaluated

SHOWN = 5  # predictions beside a query


def write_run_report(
    path: Path,
    config: ConfigDict,
    found: Sequence[Evaluated],
    results: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
) -> Path:
    """Writes `report.html`: tables for all benchmarks, map and gallery for the first."""
    first = found[0]
    notes = [f"Recipe {config.name}, seed {config.seed}."]
    return write_report(
        path,
        title=f"{config.name}: {first.bench.name}",
        config_text=str(config),
        results=results,
        costs=costs,
        loss_log=log,
        gallery=_gallery(first),
        map=_map(first),
        notes=notes,
    )


def _right(one: Evaluated) -> np.ndarray:
    """bool [Q, k] at the first threshold."""
    return next(iter(one.bench.positives.values())).hits(one.method.predictions)


def _positions(places: Any) -> np.ndarray:
    return np.stack([places.east, places.north], axis=1)


def _gallery(one: Evaluated) -> list[GalleryItem]:
    bench, right = one.bench, _right(one)
    truth = next(iter(bench.positives.values()))
    here, there = _positions(bench.queries), _positions(bench.database)
    items = []
    for query, predictions in enumerate(one.method.predictions):
        shown = predictions[:SHOWN][predictions[:SHOWN] >= 0]
        hits = np.flatnonzero(right[query])
        items.append(
            GalleryItem(
                query=bench.queries.path[query],
                predictions=[bench.database.path[row] for row in shown],
                right=right[query, : len(shown)].tolist(),
                distances=one.method.distances[query, : len(shown)].tolist(),
                metres=np.linalg.norm(there[shown] - here[query], axis=1).tolist(),
                condition=_condition(bench.queries, query),
                truth=_nearest(truth[query], here[query], there, bench.database),
                truth_rank=int(hits[0]) + 1 if len(hits) else None,
            )
        )
    return items


def _condition(queries: Any, row: int) -> str:
    code = queries.condition[row]
    return queries.conditions[code] if code >= 0 else ""


def _nearest(positives: np.ndarray, here: np.ndarray, there: np.ndarray, database: Any) -> str | None:
    """Path of the positive that lies nearest; the first one where there are no metres."""
    if not len(positives):
        return None
    metres = np.nan_to_num(np.linalg.norm(there[positives] - here, axis=1), nan=np.inf)
    return database.path[int(positives[int(metres.argmin())])]


def _map(one: Evaluated) -> MapData | None:
    database, queries = _positions(one.bench.database), _positions(one.bench.queries)
    if not (np.isfinite(database).all() and np.isfinite(queries).all()):
        return None
    first = one.method.predictions[:, 0]
    return MapData(
        database=database,
        queries=queries,
        right=_right(one)[:, 0],
        predicted=np.where(first[:, None] >= 0, database[first], queries),
        notes=[_condition(one.bench.queries, row) for row in range(len(queries))],
    )
