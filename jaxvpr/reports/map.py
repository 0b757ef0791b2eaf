"""A map of database, right and wrong queries as inline SVG: a few compact paths, however many the points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxvpr.reports.render import render

Array = np.ndarray
WIDTH, MOST_HEIGHT, LEAST_HEIGHT, EDGE = 1000, 760, 320, 24
MOST_POINTS = 20_000  # of the database; more would be drawn on top of each other
MOST_TIPS = 6_000
ROUND, DIAMOND = "h0", "l.01 .01m-.01-.01"  # a diamond is a square end turned to the diagonal


@dataclass(frozen=True)
class MapData:
    """The positions to draw, in metres.

    Attributes:
      database: float [N, 2], east and north.
      queries: float [Q, 2].
      right: bool [Q], whether the first prediction is right.
      predicted: float [Q, 2], the position of the first prediction; drawn as a line from a wrong query. May be None.
      notes: shown beside each query under the pointer, such as its conditions; may be empty.
    """

    database: Array
    queries: Array
    right: Array
    predicted: Array | None = None
    notes: Sequence[str] = field(default=())


def placed(data: MapData, numbers: Iterable[int]) -> list[int]:
    """Those queries of `numbers` that have coordinates, and so a place on the map."""
    return [number for number in numbers if np.isfinite(data.queries[number]).all()]


def draw(data: MapData, listed: Iterable[int] = ()) -> str:
    """The figure with its controls; empty text where no query has coordinates. Points without are left out.

    Args:
      data: the positions.
      listed: queries that the gallery shows; each has its number on the map, and leads there.
    """
    known = np.isfinite(data.queries).all(axis=1)
    database = data.database[np.isfinite(data.database).all(axis=1)]
    if not known.any():
        return ""
    to_map, metres_a_unit, height = projection(np.concatenate([database, data.queries[known]]))
    queries = np.full(data.queries.shape, np.nan)
    queries[known] = to_map(data.queries[known])
    right = np.asarray(data.right, bool) & known
    wrong = ~right & known
    lost = int((~known).sum()) + len(data.database) - len(database)
    return render(
        "map.html",
        width=WIDTH,
        height=height,
        edge=EDGE,
        counts={"database": len(database), "right": int(right.sum()), "wrong": int(wrong.sum())},
        lines=None if data.predicted is None else _lines(queries, data.predicted, wrong, to_map),
        database=dots(coarse(to_map(database))),
        right=dots(queries[right]),
        wrong=dots(queries[wrong], DIAMOND),
        scale=scale_bar(metres_a_unit),
        tips=[(*_place(queries, i), _tip(data, i)) for i in np.flatnonzero(known)[:MOST_TIPS]],
        listed=[(i, *_place(queries, i), _tip(data, i)) for i in placed(data, listed)],
        verdicts=["right" if hit else "wrong" for hit in right],
        lost=lost,
    )


def projection(points: Array):
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


def coarse(points: Array) -> Array:
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


def dots(points: Array, mark: str = ROUND) -> str:
    """Marks that keep their size when zoomed: strokes of no length whose ends are the mark, some 8 bytes a point."""
    steps = np.diff(_distinct(points, 0.5), axis=0, prepend=np.zeros((1, 2)))
    return "".join(f"m{x:g} {y:g}{mark}" for x, y in steps)


def _lines(queries: Array, predicted: Array, wrong: Array, to_map) -> str:
    drawn = wrong & np.isfinite(predicted).all(axis=1)
    ends = to_map(predicted[drawn])
    return "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in zip(queries[drawn], ends, strict=True))


def scale_bar(metres_a_unit: float) -> tuple[float, str]:
    """Length and label of a bar of a round number of metres, some 1/8 of the width."""
    wanted = metres_a_unit * WIDTH / 8
    power = 10.0 ** math.floor(math.log10(wanted))
    metres = max(m * power for m in (1, 2, 5) if m * power <= wanted)
    return metres / metres_a_unit, f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


def _place(queries: Array, i: int) -> tuple[float, float]:
    return round(float(queries[i, 0]), 1), round(float(queries[i, 1]), 1)


def _tip(data: MapData, i: int) -> str:
    """What is shown beside a query under the pointer."""
    words = ["right" if data.right[i] else "wrong"]
    if data.predicted is not None and np.isfinite(data.predicted[i]).all():
        words.append(f"first answer {math.dist(data.predicted[i], data.queries[i]):,.0f} m away")
    words += [data.notes[i]] if len(data.notes) and data.notes[i] else []
    return f"query {i}: {', '.join(words)}"
