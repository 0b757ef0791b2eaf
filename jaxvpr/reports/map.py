"""A map of database, right and wrong queries as inline SVG: a few compact paths, however many the points."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

Array = np.ndarray
WIDTH, MOST_HEIGHT, LEAST_HEIGHT, EDGE = 1000, 760, 320, 24
MOST_POINTS = 20_000  # of the database; more would be drawn on top of each other
MOST_TIPS = 6_000
ROUND, DIAMOND = "h0", "l.01 .01m-.01-.01"  # a diamond is a square end that looks along the diagonal


@dataclass(frozen=True)
class MapData:
    """Where everything lies, in metres.

    Attributes:
      database: float [N, 2], east and north.
      queries: float [Q, 2].
      right: bool [Q], whether the first prediction is right.
      predicted: float [Q, 2], where the first prediction lies; drawn as a line from a wrong query. May be None.
      notes: what to show beside each query under the pointer, such as its condition; may be empty.
    """

    database: Array
    queries: Array
    right: Array
    predicted: Array | None = None
    notes: Sequence[str] = field(default=())


def draw(data: MapData) -> str:
    """The figure with its controls; empty text where no query has coordinates. Points without are left out."""
    known = np.isfinite(data.queries).all(axis=1)
    database = data.database[np.isfinite(data.database).all(axis=1)]
    if not known.any():
        return ""
    to_map, metres_a_unit, height = _projection(np.concatenate([database, data.queries[known]]))
    right = np.asarray(data.right, bool)
    queries = np.full(data.queries.shape, np.nan)
    queries[known] = to_map(data.queries[known])
    layers = [
        _layer("database", _dots(_coarse(to_map(database))), "place", 4.0),
        _layer("lines", _lines(queries, data, ~right & known, to_map), "wrong", 1.0, "opacity:.35"),
        _layer("right", _dots(queries[right & known]), "right", 6.5),
        _layer("wrong", _dots(queries[~right & known], DIAMOND), "wrong", 6.5, cap="square"),
        _scale_bar(metres_a_unit, height),
    ]
    tips = _tips(queries, data, known)
    lost = int((~known).sum()) + len(data.database) - len(database)
    controls = _controls(len(database), int((right & known).sum()), int((~right & known).sum()), data)
    return (
        f'<div class="map panel">{controls}'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Map of database and queries">'
        f"{''.join(layers)}</svg>"
        f'<div class="tip"></div><script type="application/json">{tips}</script>'
        f'<p class="protocol">North is up. Zoom with the buttons or with Ctrl and the wheel, drag to move; point at a '
        f"query for its answer.{f' {lost:,} images without coordinates are not shown.' if lost else ''}</p></div>"
    )


def _projection(points: Array):
    """(metres -> map units, metres of one unit, height): same scale in both directions, centred, north up."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.maximum(high - low, 1e-6)
    # One place only, or one straight street: still show some surroundings.
    span = np.maximum(span, max(span.max() * 0.05, 10.0))
    metres_a_unit = max(span[0] / (WIDTH - 2 * EDGE), span[1] / (MOST_HEIGHT - 2 * EDGE))
    height = max(LEAST_HEIGHT, math.ceil(span[1] / metres_a_unit) + 2 * EDGE)
    centre = (low + high) / 2

    def to_map(metres: Array) -> Array:
        units = (metres - centre) / metres_a_unit
        return np.stack([WIDTH / 2 + units[:, 0], height / 2 - units[:, 1]], axis=1)

    return to_map, metres_a_unit, height


def _coarse(points: Array) -> Array:
    """One point of each small square, with squares growing until few enough remain."""
    step = 0.5
    while len(points := _distinct(points, step)) > MOST_POINTS:
        step *= 1.5
    return points


def _distinct(points: Array, step: float) -> Array:
    """`points` rounded to multiples of `step`, each once, from left to right."""
    squares = np.round(points / step).astype(np.int64)
    keys = np.sort(squares[:, 0] * (1 << 20) + squares[:, 1])
    keys = keys[np.diff(keys, prepend=-1) != 0]
    return np.stack([keys >> 20, keys & ((1 << 20) - 1)], axis=1) * step


def _dots(points: Array, mark: str = ROUND) -> str:
    """Marks that keep their size when zoomed: strokes of no length whose ends are the mark, some 8 bytes a point."""
    steps = np.diff(_distinct(points, 0.5), axis=0, prepend=np.zeros((1, 2)))
    return "".join(f"m{x:g} {y:g}{mark}" for x, y in steps)


def _lines(queries: Array, data: MapData, wrong: Array, to_map) -> str:
    if data.predicted is None:
        return ""
    drawn = wrong & np.isfinite(data.predicted).all(axis=1)
    ends = to_map(data.predicted[drawn])
    return "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in zip(queries[drawn], ends, strict=True))


def _layer(name: str, path: str, colour: str, stroke: float, style: str = "", cap: str = "round") -> str:
    hidden = ";display:none" if name == "lines" else ""
    return (
        f'<path data-layer="{name}" d="{path}" fill="none" stroke="var(--{colour})" stroke-width="{stroke}" '
        f'stroke-linecap="{cap}" vector-effect="non-scaling-stroke" style="{style}{hidden}"/>'
    )


def _scale_bar(metres_a_unit: float, height: int) -> str:
    """A bar of a round number of metres, some 1/8 of the width."""
    wanted = metres_a_unit * WIDTH / 8
    power = 10.0 ** math.floor(math.log10(wanted))
    metres = max(m * power for m in (1, 2, 5) if m * power <= wanted)
    length = metres / metres_a_unit
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    y = height - 14
    return (
        f'<path d="M{EDGE} {y - 5}v5h{length:.1f}v-5" fill="none" stroke="var(--muted)" stroke-width="1.5"/>'
        f'<text x="{EDGE + length + 8:.1f}" y="{y + 1}">{text}</text>'
    )


def _tips(queries: Array, data: MapData, known: Array) -> str:
    """JSON [[x, y, text], ...] for the script; at most `MOST_TIPS` queries."""
    tips = []
    for i in np.flatnonzero(known)[:MOST_TIPS]:
        words = ["right" if data.right[i] else "wrong"]
        if data.predicted is not None and np.isfinite(data.predicted[i]).all():
            words.append(f"first answer {math.dist(data.predicted[i], data.queries[i]):,.0f} m away")
        words += [data.notes[i]] if len(data.notes) and data.notes[i] else []
        tips.append([round(float(queries[i, 0]), 1), round(float(queries[i, 1]), 1), f"query {i}: {', '.join(words)}"])
    # A script element ends at "</", whatever it holds.
    return json.dumps(tips, separators=(",", ":")).replace("<", "\\u003c")


def _controls(database: int, right: int, wrong: int, data: MapData) -> str:
    layers = [
        ("database", f"database ({database:,})", "place", True),
        ("right", f"right queries ({right:,})", "right", True),
        ("wrong", f"wrong queries ({wrong:,})", "wrong diamond", True),
    ]
    if data.predicted is not None:
        layers.append(("lines", "lines to wrong answers", "wrong line", False))
    boxes = "".join(
        f'<label><input type="checkbox" value="{value}"{" checked" if on else ""}>'
        f'<span class="mark {mark}"></span>{escape(text)}</label>'
        for value, text, mark, on in layers
    )
    zoom = "".join(
        f'<button type="button" value="{by}" aria-label="{name}">{sign}</button>'
        for by, name, sign in (("0.5", "zoom in", "+"), ("2", "zoom out", "\u2212"), ("1e9", "whole map", "all"))
    )
    return f'<div class="controls">{boxes}<span>{zoom}</span></div>'
