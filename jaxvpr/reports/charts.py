"""Line charts as inline SVG, without any library: linear or logarithmic abscissa, direct labels, native tooltips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxvpr.reports.render import render

SIZE, WIDE, TOP = (560, 320), 1080, 12
COLOURS = ("run", "untrained", "right", "other", "wrong")  # of the lines that `many_lines` emphasises


class Room(NamedTuple):
    """The space of a chart for its texts, in units of its SVG.

    Attributes:
      letter: width of a letter, on average.
      line: from one line of text to the next.
      left: for the label of the y axis; the ticks beside it come on top.
      foot: below the lines, for ticks and label of the x axis.
    """

    letter: float
    line: int
    left: int
    foot: int


# `static/page.css` writes the texts of a few lines larger on narrow pages, up to 17.6 units, so that a phone shows
# the full chart with readable texts; those of many lines always have 12 units, and a phone scrolls.
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
      faint: background line without a name, such as raw values below their mean.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dash: str = ""
    markers: bool = False
    faint: bool = False


class Axis(NamedTuple):
    """An axis: its label, its range, and the values written beside it."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False


@dataclass(frozen=True)
class Frame:
    """Where the parts of a chart lie, in units of its SVG.

    Attributes:
      width, height: of the chart.
      end: right end of the area of the lines; their names are to the right of it.
      x_axis, y_axis: the axes.
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
        """Left end of the area of the lines: to the right of the widest tick."""
        return self.room.left + round(self.room.letter * max(3, *(len(number(tick)) for tick in self.y_axis.ticks)))

    @property
    def bottom(self) -> int:
        """Lower end of the area of the lines."""
        return self.height - self.room.foot

    def x(self, value: float) -> float:
        """Units from the left of a value."""
        return self.left + _share(value, self.x_axis) * (self.end - self.left)

    def y(self, value: float) -> float:
        """Units from the top of a value."""
        return self.bottom - _share(value, self.y_axis) * (self.bottom - self.top)

    def points(self, line: Series) -> list[tuple[float, float]]:
        """The coordinates of a line's points, to a tenth."""
        return [(round(self.x(x), 1), round(self.y(y), 1)) for x, y in zip(line.x, line.y, strict=True)]


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    x_log: bool = False,
    y_range: tuple[float, float] | None = None,
) -> str:
    """An SVG element that shows all `series`; empty text where none has a finite point."""
    series = [finite for finite in map(_finite, series) if len(finite.x)]
    if not series:
        return ""
    (first, last), y_ends = _ends(series, y_range)
    x_ticks = ticks(first, last) if x_ticks is None else x_ticks
    x_axis = Axis(x_label, min(first, *x_ticks), max(last, *x_ticks), x_ticks, x_log)
    named = [line for line in series if not line.faint]
    end = SIZE[0] - 30 - FEW.letter * max((len(line.name) for line in named), default=0)
    frame = Frame(*SIZE, end, x_axis, Axis(y_label, *y_ends, ticks(*y_ends)), FEW)
    return render("line_chart.html", frame=frame, lines=series, names=_names(named, frame), number=number)


def many_lines(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    level: tuple[str, float] | None = None,
) -> str:
    """An SVG element for dozens of lines, the most important first: those in `COLOURS` stand out, the rest is grey.

    A line that has a colour keeps it, with "place" for grey. Each line is named at the right, with its last value; the
    one under the pointer comes forward with its name. `level` is a label and the height to mark with it.
    """
    series = [finite for finite in map(_finite, series) if len(finite.x)]
    if not series:
        return ""
    (first, last), y_ends = _ends(series, y_range)
    names = [f"{line.name} {line.y[-1]:.1f}" for line in series]
    height = max(380, TOP + MANY.foot + MANY.line * len(series))
    end = WIDE - 40 - MANY.letter * max(map(len, names))
    x_axis = Axis(x_label, first, last, [tick for tick in ticks(first, last, 10) if tick == round(tick)])
    frame = Frame(WIDE, height, end, x_axis, Axis(y_label, *y_ends, ticks(*y_ends, 9)), MANY)
    label_y = _spread([frame.y(line.y[-1]) for line in series], TOP + 6, frame.bottom)
    colours = [line.colour or (COLOURS[i] if i < len(COLOURS) else "place") for i, line in enumerate(series)]
    lines = list(zip(names, colours, map(frame.points, series), label_y, strict=True))
    return render("many_lines.html", frame=frame, lines=lines, level=level, number=number)


def _ends(
    series: Sequence[Series], y_range: tuple[float, float] | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of the axes of x and of y."""
    xs = [x for line in series for x in line.x]
    ys = [y for line in series for y in line.y]
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
    """At most `most` points, each the mean of as many values, so that a long log stays a short path."""
    if len(x) <= most:
        return list(x), list(y)
    runs = np.array_split(np.arange(len(x)), most)
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    return [float(xs[run].mean()) for run in runs], [float(ys[run].mean()) for run in runs]


def number(value: float) -> str:
    """A number for a tick or label: thousands separated, no trailing zeros."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _finite(line: Series) -> Series:
    keep = [i for i, (x, y) in enumerate(zip(line.x, line.y, strict=True)) if math.isfinite(x) and math.isfinite(y)]
    points = [line.x[i] for i in keep], [line.y[i] for i in keep]
    return Series(line.name, *points, line.colour, line.dash, line.markers, line.faint)


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < 3 * margin else low - margin), high + margin


def _share(value: float, axis: Axis) -> float:
    """The position of a value on an axis, from 0 to 1."""
    convert = math.log10 if axis.log else float
    low, high = convert(axis.low), convert(axis.high)
    return (convert(value) - low) / ((high - low) or 1.0)


def _names(series: Sequence[Series], frame: Frame) -> list[tuple[float, float, Series]]:
    """(x, y, line) of the name of each line: beside its end, moved apart where two would overlap."""
    ends = sorted((frame.y(line.y[-1]), i) for i, line in enumerate(series))
    places, last = {}, -math.inf
    for wanted, i in ends:
        last = max(wanted, last + frame.room.line)
        places[i] = last
    excess = max(0.0, last - frame.bottom)
    return [(frame.x(line.x[-1]) + 10, places[i] - excess + 4, line) for i, line in enumerate(series)]
