"""The report of a run: one self-contained HTML file that needs no network and can be mailed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jaxvpr.reports import gallery as gallery_part
from jaxvpr.reports import map as map_part
from jaxvpr.reports import tables
from jaxvpr.reports.charts import Series, line_chart, smooth, thin
from jaxvpr.reports.gallery import GalleryItem
from jaxvpr.reports.map import MapData
from jaxvpr.reports.style import CSS, SCRIPT

RECALL_KEY = re.compile(r"(?:^|/|_)(?:R|recall)@?(\d+)$", re.IGNORECASE)
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
      loss_log: rows of the log, each with `step` and any of `loss` and `...R@1`; other keys are ignored.
      gallery: queries with their predictions; a choice of them is shown, wrong ones first.
      map: where database and queries lie.
      notes: sentences for under the title, such as how long the run took.
    """
    body = [
        _head(title, notes, results),
        *(_result(entry) for entry in results),
        _section("Training", _training(loss_log)),
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
    return _section(f"Recall on {entry['dataset']}", "".join(parts))


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{content}</section>" if content else ""


def _training(log: Sequence[Mapping[str, Any]]) -> str:
    """Loss and validation recall against the step."""
    charts = [("Loss", _loss_chart(log)), ("Validation recall", _validation_chart(log))]
    panels = "".join(f'<div class="panel"><h3>{name}</h3>{chart}</div>' for name, chart in charts if chart)
    return f'<div class="two">{panels}</div>' if panels else ""


def _loss_chart(log: Sequence[Mapping[str, Any]]) -> str:
    steps, losses = _column(log, "loss")
    x, y = thin(steps, losses)
    lines = [Series("mean", x, smooth(y, len(y) // 40), "run")]
    if len(y) >= 40:
        lines.insert(0, Series("loss", x, y, "run", faint=True))
    return line_chart(lines, x_label="step", y_label="loss")


def _validation_chart(log: Sequence[Mapping[str, Any]]) -> str:
    names = sorted({key for row in log for key in row if RECALL_KEY.search(key)}, key=_rank)
    colours = ("run", "other", "right", "thumbnail", "untrained")
    plain = len({_rank(name) for name in names}) == len(names)
    series = [
        Series(f"R@{_rank(name)}" if plain else name, *_column(log, name), colours[i], markers=True)
        for i, name in enumerate(names[: len(colours)])
    ]
    return line_chart(series, x_label="step", y_label="recall, %", y_range=(0.0, 100.0))


def _rank(key: str) -> int:
    match = RECALL_KEY.search(key)
    return int(match[1]) if match else 0


def _column(log: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and finite values of one key, by step; of a step that was repeated after a restart the last row counts."""
    rows = {row["step"]: float(row[key]) for row in log if _known(row.get("step")) and _known(row.get(key))}
    steps = sorted(rows)
    return steps, [rows[step] for step in steps]


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _config(text: str) -> str:
    if not text:
        return ""
    return f'<details class="panel"><summary>All settings</summary><pre>{escape(text)}</pre></details>'
