"""Line charts as inline SVG, without any library: linear or logarithmic abscissa, direct labels, native tooltips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxvpr.reports.render import render

TOP = 12
COLOURS = ("run", "untrained", "right", "other", "wrong")  # of the lines that `many_lines` emphasises


class Room(NamedTuple):
    """What a chart keeps free for its texts, in units of its SVG.

    Attributes:
      letter: width of a letter, on average.
      line: from one text to the next below it.
      left: for the label of the y axis; the ticks beside it come on top.
      foot: below the lines, for ticks and label of the x axis.
    """

    letter: float
    line: int
    left: int
    foot: int


# `static/page.css` writes the texts of a few lines the larger the narrower the page, up to 17.6 units, so that a phone
# shows the whole chart and all of it can be read; those of many lines always have 12 units, and a phone scrolls.
FEW, MANY = Room(9.6, 19, 30, 52), Room(7.6, 15, 23, 42)


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
      name: written at its end.
      x, y: the points, x ascending.
      colour: custom property of `static/page.css`, such as `run`.
      dash: SVG dash pattern; empty is solid.
      markers: draw and annotate each point.
      faint: background line without a name, such as raw values behind their mean.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dash: str = ""
    markers: bool = False
    faint: bool = False


class Axis(NamedTuple):
    """An axis: what it is called, from where to where it reaches, and which values are written beside it."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False


@dataclass(frozen=True)
class Frame:
    """Where the parts of a chart lie, in units of its SVG.

    Attributes:
      width, height: of the whole.
      end: right end of what the lines are drawn in; their names stand behind it.
      x_axis, y_axis: what they show.
      room: for the texts.
    """

    width: int
    height: int
    end: float
    x_axis: Axis
    y_axis: Axis
    room: Room
    top: int = TOP

    @cached_property
    def left(self) -> int:
        """Left end of what the lines are drawn in: behind the widest tick."""
        return self.room.left + round(self.room.letter * max(3, *(len(number(tick)) for tick in self.y_axis.ticks)))

    @property
    def bottom(self) -> int:
        """Lower end of what the lines are drawn in."""
        return self.height - self.room.foot

    def x(self, value: float) -> float:
        """Where a value lies from the left."""
        return self.left + _share(value, self.x_axis) * (self.end - self.left)

    def y(self, value: float) -> float:
        """Where a value lies from the top."""
        return self.bottom - _share(value, self.y_axis) * (self.bottom - self.top)

    def points(self, one: Series) -> list[tuple[float, float]]:
        """The places of a line's points, to a tenth."""
        return [(round(self.x(x), 1), round(self.y(y), 1)) for x, y in zip(one.x, one.y, strict=True)]


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    x_log: bool = False,
    y_range: tuple[float, float] | None = None,
    width: int = 560,
    height: int = 320,
) -> str:
    """An SVG element that shows all `series`; empty text where none has a finite point."""
    series = [finite for finite in map(_finite, series) if len(finite.x)]
    if not series:
        return ""
    (first, last), y_ends = _ends(series, y_range)
    x_ticks = ticks(first, last) if x_ticks is None else x_ticks
    x_axis = Axis(x_label, min(first, *x_ticks), max(last, *x_ticks), x_ticks, x_log)
    named = [one for one in series if not one.faint]
    end = width - 30 - FEW.letter * max((len(one.name) for one in named), default=0)
    frame = Frame(width, height, end, x_axis, Axis(y_label, *y_ends, ticks(*y_ends)), FEW)
    return render("line_chart.html", frame=frame, lines=series, names=_names(named, frame), number=number)


def many_lines(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    level: tuple[str, float] | None = None,
    width: int = 1080,
) -> str:
    """An SVG element for dozens of lines, the most important first: those in `COLOURS` stand out, the rest is grey.

    A line that says its own colour keeps it, with "place" for grey. Each line is named at the right, with its last
    value; the one under the pointer comes forward with its name. `level` is a height to mark, with what it means.
    """
    series = [finite for finite in map(_finite, series) if len(finite.x)]
    if not series:
        return ""
    (first, last), y_ends = _ends(series, y_range)
    names = [f"{one.name} {one.y[-1]:.1f}" for one in series]
    height = max(380, TOP + MANY.foot + MANY.line * len(series))
    end = width - 40 - MANY.letter * max(map(len, names))
    x_axis = Axis(x_label, first, last, [tick for tick in ticks(first, last, 10) if tick == round(tick)])
    frame = Frame(width, height, end, x_axis, Axis(y_label, *y_ends, ticks(*y_ends, 9)), MANY)
    label_y = _spread([frame.y(one.y[-1]) for one in series], TOP + 6, frame.bottom)
    colours = [one.colour or (COLOURS[i] if i < len(COLOURS) else "place") for i, one in enumerate(series)]
    lines = list(zip(names, colours, map(frame.points, series), label_y, strict=True))
    return render("many_lines.html", frame=frame, lines=lines, level=level, number=number)


def _ends(
    series: Sequence[Series], y_range: tuple[float, float] | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """From where to where the axes of x and of y reach."""
    xs = [x for one in series for x in one.x]
    ys = [y for one in series for y in one.y]
    return (min(xs), max(xs)), y_range or _padded(min(ys), max(ys))


def _spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights nearest to those wanted, in their order, at least a line of `MANY` apart and within the two ends."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places: list[float] = []
    for i in order:
        places.append(max(wanted[i], places[-1] + MANY.line if places else top))
    limit = bottom
    for at in range(len(places) - 1, -1, -1):
        places[at] = min(places[at], limit)
        limit = places[at] - MANY.line
    return [place for _, place in sorted(zip(order, places, strict=True))]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that cover [low, high] with about so many steps."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def smooth(values: Sequence[float], reach: int) -> list[float]:
    """Mean of each value and its neighbours, `reach` to either side, fewer (but equally many) near the ends."""
    sums, last = np.concatenate([[0.0], np.cumsum(values)]), len(values) - 1
    reaches = [min(reach, i, last - i) for i in range(len(values))]
    return [float(sums[i + r + 1] - sums[i - r]) / (2 * r + 1) for i, r in enumerate(reaches)]


def thin(x: Sequence[float], y: Sequence[float], most: int = 500) -> tuple[list[float], list[float]]:
    """At most `most` points: means of equal runs, so that a long log stays a short path."""
    if len(x) <= most:
        return list(x), list(y)
    runs = np.array_split(np.arange(len(x)), most)
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    return [float(xs[run].mean()) for run in runs], [float(ys[run].mean()) for run in runs]


def number(value: float) -> str:
    """A number for a tick or label: thousands separated, no trailing zeros."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _finite(one: Series) -> Series:
    keep = [i for i, (x, y) in enumerate(zip(one.x, one.y, strict=True)) if math.isfinite(x) and math.isfinite(y)]
    points = [one.x[i] for i in keep], [one.y[i] for i in keep]
    return Series(one.name, *points, one.colour, one.dash, one.markers, one.faint)


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < 3 * margin else low - margin), high + margin


def _share(value: float, axis: Axis) -> float:
    """Where a value lies on an axis, from 0 to 1."""
    convert = math.log10 if axis.log else float
    low, high = convert(axis.low), convert(axis.high)
    return (convert(value) - low) / ((high - low) or 1.0)


def _names(series: Sequence[Series], frame: Frame) -> list[tuple[float, float, Series]]:
    """(x, y, line) of the name of each line: beside its end, moved apart where two would overlap."""
    ends = sorted((frame.y(one.y[-1]), i) for i, one in enumerate(series))
    places, last = {}, -math.inf
    for wanted, i in ends:
        last = max(wanted, last + frame.room.line)
        places[i] = last
    excess = max(0.0, last - frame.bottom)
    return [(frame.x(one.x[-1]) + 10, places[i] - excess + 4, one) for i, one in enumerate(series)]
