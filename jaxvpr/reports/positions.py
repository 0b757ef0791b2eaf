"""How far the answers of a position head are off: their distribution, and a map from true to answered positions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxvpr.reports.charts import Series, line_chart, number
from jaxvpr.reports.map import DIAMOND, EDGE, MOST_TIPS, WIDTH, coarse, dots, projection, scale_bar
from jaxvpr.reports.render import render

Array = np.ndarray
COLOURS = ("run", "untrained", "other", "right")
BANDS = (25.0, 100.0)  # metres: arrows up to the first are green, up to the second amber, beyond it red
BAND_COLOURS = ("right", "untrained", "wrong")
NEAREST = 0.1  # metres: the chart begins there at the earliest
POINTS = 200  # of a line of the distribution


class Answered(NamedTuple):
    """Answers to Q images whose positions are known.

    Attributes:
      true, answered: float64 [Q, 2], metres east and north in one frame; NaN where there is no answer.
      training: float64 [N, 2], where the head was trained, in the same frame.
      metres: float64 [Q], how far each is off; not finite where there is no answer. It may be along a great circle, and
        then is not quite the distance in the frame.
      confidence: float64 [Q], NaN where unknown.
    """

    true: Array
    answered: Array
    training: Array
    metres: Array
    confidence: Array


def draw(answers: Answered, compared: Mapping[str, Array], thresholds: Sequence[float], name: str = "this head") -> str:
    """The distribution of the errors with the shares at the thresholds, and the map, as one section.

    Args:
      compared: metres of other answers to the same images by their names, such as those of retrieval; three are drawn.
      thresholds: metres.
    """
    lines = {name: answers.metres, **compared}
    return render(
        "positions.html",
        chart=distribution(lines, thresholds),
        thresholds=[number(metres) for metres in thresholds],
        rows=[
            (label, colour, _shares(metres, thresholds), _quantiles(metres))
            for (label, metres), colour in zip(lines.items(), COLOURS, strict=False)
        ],
        images=len(answers.metres),
        map=error_map(answers),
    )


def distribution(lines: Mapping[str, Array], thresholds: Sequence[float] = ()) -> str:
    """The share of answers within so many metres, on a logarithmic axis, as an SVG element; empty text without any.

    Images without an answer count as never within. Dashed lines mark the thresholds.
    """
    known = [metres[np.isfinite(metres)] for metres in lines.values()]
    ends = np.concatenate([*known, np.asarray(thresholds, float)])
    if not sum(map(len, known)):
        return ""
    low, high = max(NEAREST, ends.min()), max(ends.max(), 10 * NEAREST)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**power for power in powers]
    series = [Series("", [metres, metres], [0.0, 100.0], "thumbnail", dash="3 5", faint=True) for metres in thresholds]
    for (name, metres), some, colour in zip(lines.items(), known, COLOURS, strict=False):
        if len(some):
            x = np.geomspace(ticks[0], ticks[-1], POINTS)
            share = 100 * np.searchsorted(np.sort(some), x, "right") / len(metres)
            series.append(Series(name, x.tolist(), share.tolist(), colour))
    return line_chart(
        series, x_label="metres", y_label="answers within, %", x_ticks=ticks, x_log=True, y_range=(0.0, 100.0)
    )


def error_map(answers: Answered) -> str:
    """Lines from true to answered positions, coloured by metres, among the training images; empty text without any.

    An answer beyond the map ends its line at the border.
    """
    known = np.isfinite(answers.true).all(1) & np.isfinite(answers.answered).all(1)
    training = answers.training[np.isfinite(answers.training).all(1)]
    if not known.any():
        return ""
    to_map, metres_a_unit, height = projection(np.concatenate([training, answers.true[known]]))
    rows = np.flatnonzero(known)
    begin = to_map(answers.true[rows])
    end, cut = _within(begin, to_map(answers.answered[rows]), height)
    band = np.searchsorted(BANDS, answers.metres[rows])
    layers = [
        (
            f"band{k}",
            words,
            colour,
            int((band == k).sum()),
            _lines(begin[band == k], end[band == k]),
            dots(begin[band == k]),
            dots(end[(band == k) & ~cut], DIAMOND),
        )
        for k, (words, colour) in enumerate(zip(_band_words(), BAND_COLOURS, strict=True))
    ]
    return render(
        "position_map.html",
        width=WIDTH,
        height=height,
        edge=EDGE,
        training=dots(coarse(to_map(training))) if len(training) else "",
        trained=len(training),
        layers=layers,
        cut=int(cut.sum()),
        lost=int((~known).sum()),
        scale=scale_bar(metres_a_unit),
        tips=[(*begin[k].round(1).tolist(), _tip(answers, row)) for k, row in enumerate(rows[:MOST_TIPS])],
    )


def _within(begin: Array, end: Array, height: int) -> tuple[Array, Array]:
    """Ends [R, 2] that lie on the map, and which were cut, bool [R]; a line keeps its direction."""
    step = end - begin
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > 0, (np.array([WIDTH, height]) - begin) / step, np.where(step < 0, -begin / step, np.inf))
    share = np.clip(room.min(1), 0, 1)
    return begin + step * share[:, None], share < 1


def _lines(begin: Array, end: Array) -> str:
    return "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in zip(begin, end, strict=True))


def _band_words() -> tuple[str, str, str]:
    near, far = map(number, BANDS)
    return f"within {near} m", f"{near} to {far} m", f"beyond {far} m"


def _tip(answers: Answered, row: int) -> str:
    sure = answers.confidence[row]
    return f"image {row}: {answers.metres[row]:,.1f} m off" + (f", confidence {sure:.2f}" if np.isfinite(sure) else "")


def _shares(metres: Array, thresholds: Sequence[float]) -> list[str]:
    return [f"{100 * np.mean(metres <= limit):.1f}" for limit in thresholds]


def _quantiles(metres: Array) -> list[str]:
    """Median and ninth decile; those of images without an answer lie beyond all others."""
    ordered = np.sort(np.where(np.isfinite(metres), metres, np.inf))
    picked = [ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in (0.5, 0.9)] if len(ordered) else []
    return [f"{value:,.1f} m" if np.isfinite(value) else "–" for value in picked]
