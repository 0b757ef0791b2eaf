"""Line charts as inline SVG, without any library: linear or logarithmic abscissa, direct labels, native tooltips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

LEFT, TOP, BOTTOM = 46, 12, 42
LETTER = 7.6  # pixels of a letter of a line's name, to keep room for the longest at the right


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
      name: written at its end.
      x, y: the points, x ascending.
      colour: custom property of `style.CSS`, such as `run`.
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
    xs, ys = (np.concatenate([np.asarray(getattr(one, axis), float) for one in series]) for axis in ("x", "y"))
    low, high = y_range or _padded(ys.min(), ys.max())
    x_ticks = list(x_ticks) if x_ticks is not None else ticks(xs.min(), xs.max())
    x_ends = min(xs.min(), *x_ticks), max(xs.max(), *x_ticks)
    end = width - 20 - LETTER * max(0 if one.faint else len(one.name) for one in series)
    x_of = _scale(*x_ends, LEFT, end, log=x_log)
    y_of = _scale(low, high, height - BOTTOM, TOP)
    parts = [_axes(x_of, y_of, x_ticks, ticks(low, high), x_label, y_label, end, height)]
    parts += [_line(one, x_of, y_of, y_label) for one in series]
    parts.append(_names([one for one in series if not one.faint], x_of, y_of, height))
    label = escape(f"{y_label} against {x_label}", quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


COLOURS = ("run", "untrained", "right", "other", "wrong")  # of the lines that `many_lines` emphasises
LABEL = 15  # pixels from a label to the next


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
    xs, ys = (np.concatenate([np.asarray(getattr(one, axis), float) for one in series]) for axis in ("x", "y"))
    low, high = y_range or _padded(ys.min(), ys.max())
    names = [f"{one.name} {one.y[-1]:.1f}" for one in series]
    height = max(380, TOP + BOTTOM + LABEL * len(series))
    end = width - 40 - LETTER * max(map(len, names))
    x_ticks = [tick for tick in ticks(xs.min(), xs.max(), 10) if tick == round(tick)]
    x_of, y_of = _scale(xs.min(), xs.max(), LEFT, end), _scale(low, high, height - BOTTOM, TOP)
    label_y = _spread([y_of(one.y[-1]) for one in series], TOP + 6, height - BOTTOM)
    drawn = []
    for i, (one, name) in enumerate(zip(series, names, strict=True)):
        colour = one.colour or (COLOURS[i] if i < len(COLOURS) else "place")
        kind = "one" if colour == "place" else "one first"
        points = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in zip(one.x, one.y, strict=True))
        last = x_of(one.x[-1]), y_of(one.y[-1])
        drawn.append(
            f'<g class="{kind}" style="--colour:var(--{colour})"><title>{escape(name)}</title>'
            f'<polyline class="seen" points="{points}"/><polyline class="reach" points="{points}"/>'
            f'<circle cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="3"/>'
            f'<path d="M{last[0] + 4:.1f} {last[1]:.1f}L{end + 18:.1f} {label_y[i]:.1f}"/>'
            f'<text x="{end + 22:.1f}" y="{label_y[i] + 4:.1f}">{escape(name)}</text></g>'
        )
    axes = _axes(x_of, y_of, x_ticks, ticks(low, high, 9), x_label, y_label, end, height)
    axes += _level(*level, y_of, end) if level else ""
    label = escape(f"{y_label} against {x_label}, {len(series)} lines", quote=True)
    return (
        f'<svg class="many" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f"{axes}{''.join(reversed(drawn))}</svg>"
    )


def _level(name: str, value: float, y_of, end: float) -> str:
    y = f"{y_of(value):.1f}"
    return (
        f'<line x1="{LEFT}" x2="{end:.1f}" y1="{y}" y2="{y}" stroke="var(--muted)" stroke-dasharray="5 5"/>'
        f'<text x="{LEFT + 6}" y="{y_of(value) - 6:.1f}">{escape(name)}</text>'
    )


def _spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights nearest to those wanted, in their order, at least `LABEL` apart and within the two ends."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places: list[float] = []
    for i in order:
        places.append(max(wanted[i], places[-1] + LABEL if places else top))
    limit = bottom
    for at in range(len(places) - 1, -1, -1):
        places[at] = min(places[at], limit)
        limit = places[at] - LABEL
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


def _scale(low: float, high: float, start: float, stop: float, log: bool = False):
    convert = math.log10 if log else float
    a, b = convert(low), convert(high)
    span = (b - a) or 1.0
    return lambda value: start + (convert(value) - a) / span * (stop - start)


def _axes(x_of, y_of, x_ticks, y_ticks, x_label, y_label, end, height) -> str:
    grid = "".join(
        f'<line x1="{LEFT}" x2="{end:.1f}" y1="{y_of(t):.1f}" y2="{y_of(t):.1f}" stroke="var(--line)"/>'
        f'<text x="{LEFT - 8}" y="{y_of(t) + 4:.1f}" text-anchor="end">{number(t)}</text>'
        for t in y_ticks
    )
    marks = "".join(
        f'<text x="{x_of(t):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{number(t)}</text>' for t in x_ticks
    )
    middle = (LEFT + end) / 2
    names = (
        f'<text x="{middle:.0f}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text transform="translate(11 {(TOP + height - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return grid + marks + names


def _line(one: Series, x_of, y_of, y_label: str) -> str:
    points = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in zip(one.x, one.y, strict=True))
    look = 'stroke-width="1" opacity=".35"' if one.faint else 'stroke-width="2.4"'
    dash = f' stroke-dasharray="{one.dash}"' if one.dash else ""
    line = (
        f'<polyline points="{points}" fill="none" stroke="var(--{one.colour})" {look}{dash} '
        'stroke-linejoin="round" stroke-linecap="round"/>'
    )
    return line + (_markers(one, x_of, y_of, y_label) if one.markers or len(one.x) == 1 else "")


def _markers(one: Series, x_of, y_of, y_label: str) -> str:
    return "".join(
        f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4" fill="var(--{one.colour})" stroke="var(--panel)" '
        f'stroke-width="1.5"><title>{escape(one.name)}: {escape(y_label)} {y:.1f} at {number(x)}</title></circle>'
        for x, y in zip(one.x, one.y, strict=True)
    )


def _names(series: Sequence[Series], x_of, y_of, height: int) -> str:
    """The name of each line beside its end, moved apart where two would overlap."""
    ends = sorted((y_of(one.y[-1]), i) for i, one in enumerate(series))
    places, last = {}, -math.inf
    for wanted, i in ends:
        last = max(wanted, last + 15)
        places[i] = last
    excess = max(0.0, last - (height - BOTTOM))
    return "".join(
        f'<text class="name" x="{x_of(one.x[-1]) + 10:.1f}" y="{places[i] - excess + 4:.1f}" '
        f'style="fill:var(--{one.colour})">{escape(one.name)}</text>'
        for i, one in enumerate(series)
    )
