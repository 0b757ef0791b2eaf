"""How far answered positions are off: those of a head, and those of the nearest images of a map."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.geo import turn
from jaxvpr.errors import UserError
from jaxvpr.models.positions import Area, Cells, Coding, Hypersphere, Located, metres_between
from jaxvpr.retrieval.recall import wilson

Array = np.ndarray
# Within which an answer is right: a model of the city, and of the globe (the five of GeoCLIP and its forerunners).
CITY = ("1m", "5m", "10m", "25m")
GLOBE = ("25m", "1km", "25km", "200km", "750km", "2500km")
WIDE = 1e6  # metres of an area's diagonal from which it is a part of the globe
QUANTILES = (25, 75, 90, 95)  # per cent, beside the median
REPEATS, ALONE = 5, 50  # of what is timed, and how many queries one at a time


class Taken(NamedTuple):
    """Where Q images were taken, each float64 [Q]: north and east in degrees or metres, bearing in degrees, NaN where
    unknown."""

    north: Array
    east: Array
    bearing: Array


class Errors(NamedTuple):
    """Answers beside the truth, of Q images; each [Q].

    true: where they were taken. said: the answers.
    metres: float64, between both; infinite where the image could not be read.
    degrees: float64, between both bearings; NaN where either is unknown.
    outside: bool, whether the answer lies outside the area.
    right: bool, whether the answer lies in the true cell and sector; None for codings without cells.
    """

    true: Taken
    said: Located
    metres: Array
    degrees: Array
    outside: Array
    right: Array | None


class Spent(NamedTuple):
    """What answering takes: milliseconds a query of all together, and of one at a time."""

    together: float
    alone: float


class Placed(NamedTuple):
    """What answers where the queries of a benchmark were taken: the head of a model, and beside it the nearest images
    of a map by the same descriptors.

    figures: the entry of `metrics.json`.
    spent: what answering takes, by "head" and "retrieval".
    head: its answers. retrieval: those of the map; None without one.
    area: that the head answers in.
    map: float64 [N, 2], north and east of the map's images, which the head learned; none without one.
    """

    figures: Mapping[str, Any]
    spent: Mapping[str, Spent]
    head: Errors
    retrieval: Errors | None
    area: Area
    map: Array


def errors(coding: Coding, true: Taken, said: Located, missing: Sequence[int] | Array = ()) -> Errors:
    """How far answers are off.

    Args:
      coding: of the head; its cells tell `right`, of the answers of retrieval too.
      missing: rows of images that could not be read, whatever stands there.
    """
    unread = np.isin(np.arange(len(true.north)), missing)
    area = coding.area
    metres = np.where(unread, np.inf, metres_between(area, true.north, true.east, said.north, said.east))
    right = None
    if isinstance(coding, Cells):
        classes = [coding.classes(as_learned(area, *at)) for at in (true, said[:3])]
        right = (classes[0] == classes[1]) & (classes[0] >= 0) & ~unread
    degrees = np.where(unread, np.nan, turn(true.bearing, said.bearing))
    return Errors(true, said, metres, degrees, ~area.holds(said.north, said.east) & ~unread, right)


def as_learned(area: Area, north: Array, east: Array, bearing: Array) -> Array:
    """float32 [N, 3]: north and east in [0, 1] within the area, the bearing in turns."""
    return np.stack([*area.normalised(north, east), bearing / 360.0], -1).astype(np.float32)


def lost(coding: Coding, true: Taken) -> Array | None:
    """Metres [Q] between positions and what a head that is never wrong would answer: half a cell, or the rounding of
    the hypersphere's numbers in float32. None for codings that say any position of the area as it is."""
    at = as_learned(coding.area, *true)
    if isinstance(coding, Cells):
        said = coding.middles(np.maximum(coding.classes(np.nan_to_num(at)), 0))
    elif isinstance(coding, Hypersphere):
        said, _ = coding.decode(coding.encode(np.nan_to_num(at)).astype(np.float32).astype(np.float64))
    else:
        return None
    return metres_between(coding.area, true.north, true.east, *coding.area.placed(said[:, 0], said[:, 1]))


def summary(found: Errors, distances: Mapping[str, float]) -> dict[str, Any]:
    """The figures of `metrics.json` (docs/metrics.md): shares in per cent over all images, so that one that cannot be
    read counts as a failure; metres and degrees of those that can.

    Args:
      distances: {name: metres}, inclusive.
    """
    read = np.isfinite(found.metres)
    metres, degrees = found.metres[read], found.degrees[np.isfinite(found.degrees)]
    hits = {name: found.metres <= limit for name, limit in distances.items()}
    figures: dict[str, Any] = {
        "within": {name: _percent(hit) for name, hit in hits.items()},
        "interval95": {name: _interval(hit) for name, hit in hits.items()},
        "outside": int(found.outside.sum()),
    }
    if len(metres):
        figures["median_m"] = _rounded(np.median(metres))
        figures["quantiles_m"] = {str(q): _rounded(np.percentile(metres, q)) for q in QUANTILES}
    if len(degrees):
        figures["median_degrees"] = _rounded(np.median(degrees))
    if found.right is not None:
        behind = found.metres[read & ~found.right]
        figures["cells"] = {"right": _percent(found.right), "interval95": _interval(found.right)}
        figures["cells"] |= {"median_m_behind_wrong": _rounded(np.median(behind))} if len(behind) else {}
    return figures


def _percent(hits: Array) -> float:
    return round(100.0 * float(np.mean(hits)), 4) if len(hits) else 0.0


def _interval(hits: Array) -> list[float]:
    return [round(end, 4) for end in wilson(int(hits.sum()), len(hits))]


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def timed(answer: Callable[[Array], Any], queries: Array) -> Spent:
    """What `answer` takes for queries float32 [Q, D], each the median of several runs after one that compiles."""

    def milliseconds(rows: Array) -> float:
        began = time.perf_counter()
        answer(rows)
        return 1000.0 * (time.perf_counter() - began) / len(rows)

    singles = [queries[row : row + 1] for row in range(min(ALONE, len(queries)))]
    milliseconds(queries), milliseconds(singles[0])
    return Spent(
        float(np.median([milliseconds(queries) for _ in range(REPEATS)])),
        float(np.median([milliseconds(one) for one in singles])),
    )


def distances(texts: Sequence[str], area: Area, key: str = "eval.distances") -> dict[str, float]:
    """{name: metres} of distances such as "25m" and "1km"; without any those that are usual for the area's size.

    Raises:
      UserError: for a text that is no distance; names `key`.
    """
    return {text: metres_of(text, key) for text in texts or usual(area)}


def usual(area: Area) -> tuple[str, ...]:
    """`CITY`, or `GLOBE` where the area is wide."""
    south, west, north, east = (np.array([side]) for side in area[:4])
    return GLOBE if float(metres_between(area, south, west, north, east)[0]) >= WIDE else CITY


def metres_of(text: str, key: str) -> float:
    """Metres of "25m" or "1km"; UserError for another text, under the name of its key."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(k?)m", text) if isinstance(text, str) else None
    if not found or not float(found[1]) > 0:
        raise UserError(f"config.{key}: {text!r} is no distance; expected such as 25m or 1km")
    return float(found[1]) * (1000.0 if found[2] else 1.0)
