"""How descriptors change along a street and with a turn: cosine similarity by metres and by degrees between images.

A model whose descriptors change slowly lets a plain network learn positions from them (F. Gaza, "Implicit Neural
Representation in Visual Place Recognition", 2025, section 4.4: the similarities of 27 images of 30 m of a street).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvpr.retrieval import streets
from jaxvpr.retrieval.streets import Pairs, Spots

Array = np.ndarray
SPAN = 30.0  # metres of the row of images; all distances follow it
# Ends of bins, in metres for a span of `SPAN`, and in degrees; none is a round number, so that cameras 5 or 10 m apart,
# or views cut every 30 degrees, are not parted by their last digit.
STEPS = (0, 1, 2, 3.5, 6, 9, 12.5, 17.5, 22.5, 27.5, 35, 45, 60, 80, 102)
DEGREES = (0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 37.5, 52.5, 67.5, 82.5, 97.5, 112.5, 127.5, 142.5, 165, 180.001)
SPOT = 2.0  # metres for a span of `SPAN` within which images are of one spot
PAIRS = 20_000  # of a bin
ROW = 48  # images of the matrix
AT_ONCE = 1 << 24  # numbers of descriptors compared together


class Curve(NamedTuple):
    """Similarity against metres or degrees; each column has a number for every bin that has pairs.

    Attributes:
      low, high: the bin's ends.
      x: mean of its pairs' metres or degrees.
      mean, lower, median, upper: of their similarities; lower and upper are the quartiles.
      compared, found: pairs that were compared, and that there are.
      floor: mean similarity of different places; NaN where the images have none.
      length: how far behind the first bin the mean's excess over the floor has fallen to 1/e of what it is there,
        linear between bins; infinite where it never falls so far, NaN where that has no meaning: without a floor,
        a second bin, or an excess to begin with.
    """

    low: Array
    high: Array
    x: Array
    mean: Array
    lower: Array
    median: Array
    upper: Array
    compared: Array
    found: Array
    floor: float
    length: float


class Smoothness(NamedTuple):
    """What is measured of some images.

    Attributes:
      metres, degrees: the two curves; `degrees` is empty where the headings are unknown.
      row, along: the images of the matrix, int64 [M], and their metres along the street.
      matrix: float32 [M, M], their similarities.
      dimension: numbers of a descriptor.
    """

    metres: Curve
    degrees: Curve
    row: Array
    along: Array
    matrix: Array
    dimension: int


def measure(descriptors: Array, spots: Spots, span: float = SPAN, seed: int = 0) -> Smoothness:
    """Measures the smoothness of descriptors.

    Args:
      descriptors: float32 [N, D], of any length; zeros are similar to nothing.
      spots: where the images were taken.
      span: metres of the row of images. Bins, spots and how far different places are apart follow it.
      seed: of the samples, `PAIRS` pairs of a bin.
    """
    scale = span / SPAN
    edges = tuple(step * scale for step in STEPS)
    lines = streets.directions(spots, span)
    by_metres = streets.along_street(spots, lines, span, edges, PAIRS, seed)
    by_degrees = streets.turned_at_spot(spots, SPOT * scale, DEGREES, PAIRS, seed)
    floors = [streets.apart(spots, edges[-1], same, PAIRS, seed) for same in (True, False)]
    row, along = streets.straight_row(spots, lines, span, ROW)
    unit = _unit(descriptors[row])
    return Smoothness(
        curve(by_metres, similarities(descriptors, by_metres), edges, _mean(descriptors, floors[0])),
        curve(by_degrees, similarities(descriptors, by_degrees), DEGREES, _mean(descriptors, floors[1])),
        row,
        along,
        unit @ unit.T,
        descriptors.shape[1],
    )


def similarities(descriptors: Array, pairs: Pairs) -> Array:
    """float32 [P], the cosine similarity of each pair."""
    size, found = max(1, AT_ONCE // max(descriptors.shape[1], 1)), [np.zeros(0, np.float32)]
    for start in range(0, len(pairs.one), size):
        some = slice(start, start + size)
        found.append((_unit(descriptors[pairs.one[some]]) * _unit(descriptors[pairs.other[some]])).sum(1))
    return np.concatenate(found)


def curve(pairs: Pairs, similarity: Array, edges: Sequence[float], floor: float) -> Curve:
    """The statistics of each bin that has pairs, edges[k] <= value < edges[k + 1]."""
    bin_of = np.searchsorted(edges, pairs.value, "right") - 1
    bins = np.unique(bin_of)
    parts = [similarity[bin_of == k].astype(np.float64) for k in bins]
    lower, median, upper = np.array([np.quantile(part, (0.25, 0.5, 0.75)) for part in parts]).reshape(-1, 3).T
    x = np.array([pairs.value[bin_of == k].mean() for k in bins])
    mean = np.array([part.mean() for part in parts])
    compared = np.array([len(part) for part in parts], np.int64)
    ends = np.array(edges, np.float64)
    return Curve(
        ends[bins], ends[bins + 1], x, mean, lower, median, upper, compared, pairs.found[bins], floor,
        length(x, mean, floor),
    )  # fmt: skip


def length(x: Array, mean: Array, floor: float) -> float:
    """`Curve.length` of means at ascending x."""
    excess = mean - floor
    if len(x) < 2 or not excess[0] > 0:
        return math.nan
    wanted = excess[0] / math.e
    below = np.flatnonzero(excess <= wanted)
    if not len(below):
        return math.inf
    k = int(below[0])
    share = (excess[k - 1] - wanted) / (excess[k - 1] - excess[k])
    return float(x[k - 1] + share * (x[k] - x[k - 1]) - x[0])


def as_json(found: Curve) -> dict[str, Any]:
    """A curve as an object of `smoothness.json` (docs/metrics.md)."""
    columns = ("low", "high", "x", "mean", "lower", "median", "upper", "compared", "found")
    last = float(found.x[-1] - found.x[0]) if len(found.x) else None
    return {
        "correlation_length": found.length if math.isfinite(found.length) else None,
        "longer_than": last if found.length == math.inf else None,
        "floor": found.floor if math.isfinite(found.floor) else None,
        "bins": [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in found[:9]), strict=True)],
    }


def _mean(descriptors: Array, pairs: Pairs) -> float:
    found = similarities(descriptors, pairs)
    return float(found.mean(dtype=np.float64)) if len(found) else math.nan


def _unit(descriptors: Array) -> Array:
    norms = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return np.asarray(descriptors / np.maximum(norms, 1e-12), np.float32)
