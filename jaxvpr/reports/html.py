"""The report of a run: one self-contained HTML file that needs no network and can be mailed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.atomic import write_bytes
from jaxvpr.reports import gallery as gallery_part
from jaxvpr.reports import map as map_part
from jaxvpr.reports import tables, training
from jaxvpr.reports.gallery import GalleryItem
from jaxvpr.reports.map import MapData
from jaxvpr.reports.render import encoded, render
from jaxvpr.retrieval.protocol import line, line_of_classes


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    config_text: str = "",
    results: Sequence[Mapping[str, Any]] = (),
    costs: Mapping[str, Any] | None = None,
    loss_log: Sequence[Mapping[str, Any]] = (),
    gallery: Sequence[GalleryItem] = (),
    queries: int | None = None,
    map: MapData | None = None,
    notes: Sequence[str] = (),
    positions: str = "",
) -> Path:
    """Writes the report of a run and returns its path; parts without data are left out.

    Args:
      path: of the HTML file; its folder is made.
      title: heading; all texts are escaped.
      config_text: the recipe as text.
      results, costs: as in `metrics.json` (docs/metrics.md).
      loss_log: rows of the log, each with `step` and any of `loss`, its parts (`..._loss`), `...R@1`, `domain_accuracy`
        and `reversal`; other keys are ignored.
      gallery: queries with their predictions, in the order to show them.
      queries: how many there are, of which the gallery has a sample; None where it has all.
      map: where database and queries lie.
      notes: sentences for under the title, such as how long the run took.
      positions: how far the answers of a head are off, as `reports.positions.draw` draws it.
    """
    listed = [] if map is None else map_part.placed(map, (item.number for item in gallery if item.number is not None))
    page = render(
        "report.html",
        title=title,
        notes=notes,
        headline=tables.headline(results),
        results=results,
        lines=tables.lines,
        curve=tables.curve,
        answered=tables.answered,
        conditions=tables.conditions,
        threshold_text=tables.threshold_text,
        protocol_line=line,
        line_of_classes=line_of_classes,
        training=training.charts(loss_log),
        costs=tables.costs_tiles(costs or {}),
        config_text=config_text,
        positions=positions,
        map=map_part.draw(map, listed) if map is not None else "",
        gallery=gallery_part.draw(gallery, queries=queries, mapped=listed),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encoded(page))
    return path
