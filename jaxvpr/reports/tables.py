"""Tables and tiles of a report, from the entries of `metrics.json` (docs/metrics.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from jaxvpr.reports.charts import Series, line_chart

Tile: TypeAlias = tuple[str, str, str]  # value, label, kind ("first" is emphasised)

# name in `baselines` -> (label, colour, dash)
BASELINES = {"untrained": ("before training", "untrained", "7 5"), "thumbnail": ("raw thumbnail", "thumbnail", "2 5")}


class Line(NamedTuple):
    """The recall of the run or of a baseline at one threshold.

    Attributes:
      name: its label in a report.
      colour: custom property of `static/page.css`.
      dash: SVG dash pattern; empty is solid.
      recall: {N: per cent}.
      interval: {N: (low, high)}, 95 %; empty where it is not known.
    """

    name: str
    colour: str
    dash: str
    recall: Mapping[str, float]
    interval: Mapping[str, Sequence[float]]

    @property
    def stroke(self) -> str:
        """The CSS border of the same style as the dash."""
        return "solid" if not self.dash else "dotted" if self.dash.startswith("2") else "dashed"


# key in `costs` -> (label, how to write it)
COSTS = {
    "parameters": ("parameters", lambda v: scaled(v).strip()),
    "model_bytes": ("model in memory", lambda v: in_bytes(v)),
    "flops_per_image": ("per image", lambda v: f"{scaled(v)}FLOPs"),
    "descriptor_bytes": ("per descriptor", lambda v: in_bytes(v)),
    "database_bytes": ("database in memory", lambda v: in_bytes(v)),
    "extraction_ms_per_image": ("extraction per image", lambda v: milliseconds(v)),
    "matching_ms_per_query": ("matching per query", lambda v: milliseconds(v)),
    "head_ms_per_query": ("its head per query", lambda v: milliseconds(v)),
    "head_ms_alone": ("its head, one query", lambda v: milliseconds(v)),
    "retrieval_ms_per_query": ("retrieval beside it", lambda v: milliseconds(v)),
    "retrieval_ms_alone": ("retrieval, one query", lambda v: milliseconds(v)),
    "training_seconds": ("training", lambda v: duration(v)),
    "planning_seconds": ("of it mining and planning", lambda v: duration(v)),
}


def headline(results: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """The recall of the first result at its first threshold, beside its baselines; none without results."""
    if not results:
        return []
    threshold, values = next(iter(results[0]["recall"].items()))
    tiles = [(f"{values[n]:.1f} %", f"R@{n}, {threshold_text(threshold)}", "") for n in list(values)[:3]]
    tiles[0] = (*tiles[0][:2], "first")
    first = next(iter(values))
    for line in lines(results[0], threshold)[1:]:
        if first in line.recall:
            tiles.append((f"{line.recall[first]:.1f} %", f"R@{first}, {line.name}", ""))
    return tiles


def lines(entry: Mapping[str, Any], threshold: str) -> list[Line]:
    """The run and its baselines, as lines of a table and of a chart."""
    lines = [Line("this model", "run", "", entry["recall"][threshold], entry.get("interval95", {}).get(threshold, {}))]
    for name, recall in entry["baselines"].items():
        if threshold in recall:
            label, colour, dash = BASELINES.get(name, (name, "other", "4 3"))
            lines.append(Line(label, colour, dash, recall[threshold], {}))
    return lines


def curve(entry: Mapping[str, Any], threshold: str) -> str:
    """Recall against N, of the run and its baselines."""
    series, ns = [], sorted(int(n) for n in entry["recall"][threshold])
    for line in lines(entry, threshold):
        points = sorted((int(n), value) for n, value in line.recall.items())
        x, y = [n for n, _ in points], [value for _, value in points]
        series.append(Series(line.name, x, y, line.colour, line.dash, markers=True))
    return line_chart(
        series, x_label="N (predictions)", y_label="recall@N, %", x_ticks=ns, x_log=True, y_range=(0.0, 100.0)
    )


def conditions(entry: Mapping[str, Any], threshold: str) -> list[tuple[str, int, Mapping[str, float]]]:
    """(condition, queries, {N: per cent}), the best at the lowest N first."""
    rows = [(name, part["queries"], part["recall"][threshold]) for name, part in entry["conditions"].items()]
    return sorted(rows, key=lambda part: -next(iter(part[2].values())))


def answered(figures: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, Sequence[float]]], list[str]]]:
    """Rows of what answers positions: (label, colour, (share, interval) within each distance, further cells): the head,
    retrieval by the same descriptors, and the head's answers to what it learned."""
    parts = [("its head", "run", figures)]
    for key, label, colour in (
        ("retrieval", "retrieval", "untrained"),
        ("training", "on what it learned", "thumbnail"),
    ):
        if key in figures:
            parts.append((f"{label} ({figures[key]['images']:,})", colour, figures[key]))
    return [(label, colour, _shares(of), _beside(of)) for label, colour, of in parts]


def _shares(of: Mapping[str, Any]) -> list[tuple[str, Sequence[float]]]:
    return [(f"{share:.1f}", of["interval95"][name]) for name, share in of["within"].items()]


def _beside(of: Mapping[str, Any]) -> list[str]:
    """Median, right cells, metres behind a wrong one, answers outside, and bytes; dashes for what is not known."""
    cells = of.get("cells", {})
    return [
        f"{of['median_m']:,.1f}" if "median_m" in of else "–",
        f"{cells['right']:.1f}" if cells else "–",
        f"{cells['median_m_behind_wrong']:,.1f}" if "median_m_behind_wrong" in cells else "–",
        f"{of['outside']:,}",
        in_bytes(of["bytes"]) if "bytes" in of else "–",
    ]


def costs_tiles(costs: Mapping[str, Any]) -> list[Tile]:
    """The costs that are known; other keys are shown unchanged."""
    tiles = [(write(costs[key]), label, "") for key, (label, write) in COSTS.items() if key in costs]
    others = [key for key in costs if key not in COSTS and key != "descriptor_dimension"]
    return tiles + [(str(costs[key]), key.replace("_", " "), "") for key in others]


def threshold_text(threshold: str) -> str:
    """'1m_5deg' -> 'within 1 m and 5\u00b0'."""
    if match := re.fullmatch(r"([\d.]+)m(?:_([\d.]+)deg)?", threshold):
        return f"within {match[1]} m" + (f" and {match[2]}\u00b0" if match[2] else "")
    if match := re.fullmatch(r"(\d+)frame", threshold):
        return f"within {match[1]} frame{'s' * (match[1] != '1')}"
    return {"label": "same place", "list": "by the published list"}.get(threshold, threshold)


def scaled(value: float) -> str:
    """1234567 -> '1.23 M'."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g} "


def in_bytes(value: float) -> str:
    """2048 -> '2 KiB'."""
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g} B"


def milliseconds(value: float) -> str:
    """0.0123 -> '12.3 µs'."""
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms" if value >= 0.1 else f"{1000 * value:.3g} µs"


def duration(seconds: float) -> str:
    """3725 -> '1 h 2 min'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
