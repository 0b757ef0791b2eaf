"""Tables and tiles of a report, from the entries of `metrics.json` (docs/metrics.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jaxvpr.reports.charts import Series, line_chart
from jaxvpr.retrieval.protocol import line, line_of_classes

# name in `baselines` -> (how a report calls it, colour, dash)
BASELINES = {"untrained": ("before training", "untrained", "7 5"), "thumbnail": ("raw thumbnail", "thumbnail", "2 5")}
RUN = ("this model", "run", "")

# key in `costs` -> (label, how to write it)
COSTS = {
    "parameters": ("parameters", lambda v: scaled(v)),
    "model_bytes": ("model in memory", lambda v: in_bytes(v)),
    "flops_per_image": ("per image", lambda v: f"{scaled(v)}FLOPs"),
    "descriptor_bytes": ("per descriptor", lambda v: in_bytes(v)),
    "database_bytes": ("database in memory", lambda v: in_bytes(v)),
    "extraction_ms_per_image": ("extraction per image", lambda v: milliseconds(v)),
    "matching_ms_per_query": ("matching per query", lambda v: milliseconds(v)),
    "training_seconds": ("training", lambda v: duration(v)),
    "planning_seconds": ("of it mining and planning", lambda v: duration(v)),
}


def headline(entry: Mapping[str, Any], threshold: str) -> str:
    """Tiles with the recall of a result beside its baselines."""
    values = entry["recall"][threshold]
    tiles = [
        _tile(f"{values[n]:.1f} %", f"R@{n}, {escape(words(threshold))}", "first" if i == 0 else "")
        for i, n in enumerate(list(values)[:3])
    ]
    first = next(iter(values))
    for name, recall in entry["baselines"].items():
        if first in recall.get(threshold, {}):
            tiles.append(_tile(f"{recall[threshold][first]:.1f} %", f"R@{first}, {escape(_look(name)[0])}"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def recall_section(entry: Mapping[str, Any], threshold: str) -> str:
    """Table and curve of one result at one threshold, with the protocol line."""
    protocol = f'<p class="protocol">{escape(line(entry["protocol"], threshold))}</p>'
    return (
        f'<div class="two"><div class="panel"><h3>Recall@N, {escape(words(threshold))}</h3>'
        f'<div class="scroll">{_recall_table(entry, threshold)}</div>{_notes(entry, threshold)}{protocol}</div>'
        f'<div class="panel"><h3>Recall against N</h3>{_recall_curve(entry, threshold)}</div></div>'
    )


def conditions_table(entry: Mapping[str, Any], threshold: str) -> str:
    """Recall by condition with a bar for R@1; empty text where the result has none."""
    found = entry.get("conditions") or {}
    if not found:
        return ""
    ns = list(entry["recall"][threshold])
    rows = ""
    for name, part in sorted(found.items(), key=lambda item: -item[1]["recall"][threshold][ns[0]]):
        values = part["recall"][threshold]
        cells = "".join(f"<td>{values[n]:.1f}</td>" for n in ns)
        bar = f'<td class="bar"><div><i style="width:{values[ns[0]]:.1f}%"></i></div></td>'
        rows += f"<tr><td>{escape(name)}</td><td>{part['queries']:,}</td>{cells}{bar}</tr>"
    heads = "".join(f"<th>R@{n}</th>" for n in ns)
    return (
        '<div class="panel"><h3>By condition of the query</h3><div class="scroll"><table><thead><tr><th>condition</th>'
        f'<th>queries</th>{heads}<th class="bar">R@{ns[0]}, 0 to 100 %</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div>"
    )


def localization_table(entry: Mapping[str, Any]) -> str:
    """LR@N, a row each threshold, with the protocol; empty text where nothing was localised by classification."""
    found = entry.get("localization")
    if not found:
        return ""
    ns = list(next(iter(found["recall"].values())))
    rows, lines = "", []
    for threshold, values in found["recall"].items():
        ends = found.get("interval95", {}).get(threshold, {})
        cells = "".join(f"<td>{values[n]:.1f}{_interval(ends.get(n))}</td>" for n in ns)
        rows += f"<tr><td>{escape(words(threshold))}</td>{cells}</tr>"
        without = found["without_class"][threshold]
        lines.append(line_of_classes(entry["protocol"], found["classes"], without, threshold))
    heads = "".join(f"<th>LR@{n}</th>" for n in ns)
    return (
        '<div class="panel"><h3>By classification: one of the first N classes lies near the query</h3>'
        f'<div class="scroll"><table><thead><tr><th>per cent</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + "".join(f'<p class="protocol">{escape(text)}</p>' for text in lines)
        + "</div>"
    )


def costs_tiles(costs: Mapping[str, Any]) -> str:
    """Tiles of the costs that are known; keys that this table does not name are shown as they are."""
    tiles = [_tile(write(costs[key]), label) for key, (label, write) in COSTS.items() if key in costs]
    others = [key for key in costs if key not in COSTS and key != "descriptor_dimension"]
    tiles += [_tile(escape(str(costs[key])), escape(key.replace("_", " "))) for key in others]
    return f'<div class="tiles small">{"".join(tiles)}</div>' if tiles else ""


def words(threshold: str) -> str:
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


def _look(name: str) -> tuple[str, str, str]:
    return BASELINES.get(name, (name, "other", "4 3"))


def _interval(ends: Sequence[float] | None) -> str:
    return f"<small>{ends[0]:.0f}\u2013{ends[1]:.0f}</small>" if ends else ""


def _tile(value: str, label: str, kind: str = "") -> str:
    return f'<div class="tile {kind}"><b>{value.strip()}</b><span>{label}</span></div>'


def _lines(entry: Mapping[str, Any], threshold: str):
    """(look, {N: per cent}) of the run and then of its baselines."""
    yield RUN, entry["recall"][threshold]
    for name, recall in entry["baselines"].items():
        if threshold in recall:
            yield _look(name), recall[threshold]


def _recall_table(entry: Mapping[str, Any], threshold: str) -> str:
    ns = list(entry["recall"][threshold])
    intervals = entry.get("interval95", {}).get(threshold, {})
    rows = ""
    for (name, colour, dash), values in _lines(entry, threshold):
        cells = ""
        for n in ns:
            ends = intervals.get(n) if colour == "run" else None
            cells += f"<td>{values[n]:.1f}{_interval(ends)}</td>" if n in values else "<td>\u2013</td>"
        stroke = "solid" if not dash else "dotted" if dash.startswith("2") else "dashed"
        key = f'<span class="key" style="border-top-color:var(--{colour});border-top-style:{stroke}"></span>'
        rows += f'<tr class="{colour}"><td>{key}{escape(name)}</td>{cells}</tr>'
    heads = "".join(f"<th>R@{n}</th>" for n in ns)
    return f"<table><thead><tr><th>per cent</th>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _notes(entry: Mapping[str, Any], threshold: str) -> str:
    """What the averages mean, where the two differ."""
    small = " Small figures: 95 % confidence interval." if entry.get("interval95", {}).get(threshold) else ""
    without = entry["protocol"]["without_positive"][threshold]
    text = "Every query counts." + small
    if without:
        values = entry.get("recall_answerable", {}).get(threshold, {})
        listed = ", ".join(f"R@{n} {value:.1f}" for n, value in values.items())
        queries = entry["protocol"]["queries"]
        text = (
            f"All queries count, also the {without:,} without any positive, which no search can answer: the upper "
            f"bound is {100 * (queries - without) / queries:.1f}."
            + (f" Over the others: {listed}." if listed else "")
            + small
        )
    return f'<p class="protocol">{text}</p>'


def _recall_curve(entry: Mapping[str, Any], threshold: str) -> str:
    series, ns = [], sorted(int(n) for n in entry["recall"][threshold])
    for (name, colour, dash), values in _lines(entry, threshold):
        points = sorted((int(n), value) for n, value in values.items())
        series.append(Series(name, [n for n, _ in points], [v for _, v in points], colour, dash, markers=True))
    return line_chart(
        series, x_label="N (predictions looked at)", y_label="recall@N, %", x_ticks=ns, x_log=True, y_range=(0.0, 100.0)
    )
