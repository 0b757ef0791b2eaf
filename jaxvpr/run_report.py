"""From what a run measured to what a person looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvpr.reports.answers import gallery_items, map_data
from jaxvpr.reports.html import write_report
from jaxvpr.retrieval.evaluator import Evaluated


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
    bench, positives = first.bench, next(iter(first.bench.positives.values()))
    notes = [f"Recipe {config.name}, seed {config.seed}."]
    return write_report(
        path,
        title=f"{config.name}: {first.bench.name}",
        config_text=str(config),
        results=results,
        costs=costs,
        loss_log=log,
        gallery=gallery_items(
            bench.database, bench.queries, first.method.predictions, first.method.distances, positives
        ),
        queries=len(bench.queries),
        map=map_data(bench.database, bench.queries, first.method.predictions, positives),
        notes=notes,
    )
