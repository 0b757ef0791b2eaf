"""The report of a run: one self-contained HTML file that needs no network and can be mailed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jaxvpr.reports import gallery as gallery_part
from jaxvpr.reports import map as map_part
from jaxvpr.reports import tables, training
from jaxvpr.reports.gallery import GalleryItem
from jaxvpr.reports.map import MapData
from jaxvpr.reports.style import CSS, SCRIPT

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    config_text: str = "",
    results: Sequence[Mapping[str, Any]] = (),
    costs: Mapping[str, Any] | None = None,
    loss_log: Sequence[Mapping[str, Any]] = (),
    gallery: Sequence[GalleryItem] = (),
    map: MapData | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Writes the report of a run and returns its path; a part whose data is not given is left out.

    Args:
      path: of the HTML file; its folder is made.
      title: heading; all texts are escaped.
      config_text: the recipe as text.
      results, costs: as in `metrics.json` (docs/metrics.md).
      loss_log: rows of the log, each with `step` and any of `loss`, its parts (`..._loss`), `...R@1`, `domain_accuracy`
        and `reversal`; other keys are ignored.
      gallery: queries with their predictions; a choice of them is shown, wrong ones first.
      map: where database and queries lie.
      notes: sentences for under the title, such as how long the run took.
    """
    body = [
        _head(title, notes, results),
        *(_result(entry) for entry in results),
        _section("Training", training.charts(loss_log)),
        _section("Costs", tables.costs_tiles(costs or {})),
        _section("Recipe", _config(config_text)),
        _section("Where it is right and wrong", map_part.draw(map) if map is not None else ""),
        _section("Queries and their first predictions", gallery_part.draw(gallery)),
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(title, body), encoding="utf-8")
    return path


def page(title: str, body: Sequence[str]) -> str:
    """A page in the look of all reports, of parts that are HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(body)}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _head(title: str, notes: Sequence[str], results: Sequence[Mapping[str, Any]]) -> str:
    lines = "".join(f'<p class="muted">{escape(note)}</p>' for note in notes)
    first = tables.headline(results[0], next(iter(results[0]["recall"]))) if results else ""
    return f"<h1>{escape(title)}</h1>{lines}{first}"


def _result(entry: Mapping[str, Any]) -> str:
    parts = [tables.recall_section(entry, t) + tables.conditions_table(entry, t) for t in entry["recall"]]
    parts.append(tables.localization_table(entry))
    return _section(f"Recall on {entry['dataset']}", "".join(parts))


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{content}</section>" if content else ""


def _config(text: str) -> str:
    if not text:
        return ""
    return f'<details class="panel"><summary>All settings</summary><pre>{escape(text)}</pre></details>'
