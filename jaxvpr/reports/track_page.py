"""The page of a track: its path on a map, how near its answers are, and some frames beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from data_pipelines.atomic import write_bytes
from jaxvpr.reports.charts import Series, line_chart, thin
from jaxvpr.reports.map import DIAMOND, EDGE, MOST_TIPS, WIDTH, coarse, dots, projection, scale_bar
from jaxvpr.reports.render import encoded, render
from jaxvpr.retrieval.track import Track

Array = np.ndarray


class Tile(NamedTuple):
    """A picture: its kind ("query", "right" or "wrong"), its `data:` address or None, what stands below and a hint."""

    kind: str
    picture: str | None
    caption: str
    hint: str


class Shown(NamedTuple):
    """A frame of the page: its row of the track, its number, what stands above it, and its pictures."""

    row: int
    number: int
    words: Sequence[str]
    tiles: Sequence[Tile]


def write(file: str | os.PathLike[str], title: str, track: Track, shown: Sequence[Shown], notes: Sequence[str]) -> None:
    """Writes the page; it has no map where no frame has coordinates."""
    known = np.isfinite(track.places[track.rows]).all(axis=1)
    page = render(
        "track.html",
        title=title,
        notes=notes,
        map=_map(track, known, shown) if known.any() else "",
        chart=_chart(track),
        shown=shown,
        frames=len(track),
        mapped={one.number for one in shown if known[one.row]},
    )
    write_bytes(file, encoded(page))


def when(seconds: float) -> str:
    """64.25 -> `1:04.2`; empty where it is unknown."""
    return f"{seconds // 60:.0f}:{seconds % 60:04.1f}" if np.isfinite(seconds) else ""


def _map(track: Track, known: Array, shown: Sequence[Shown]) -> str:
    path, nearest = track.places[track.rows], track.places[track.nearest]
    database = track.places[np.isfinite(track.places).all(axis=1)]
    to_map, metres_a_unit, height = projection(database)
    at = np.full(path.shape, np.nan)
    at[known] = to_map(path[known])
    changed = np.flatnonzero((track.rank > 0) & np.isfinite(nearest).all(axis=1))
    rows = np.flatnonzero(known)
    steps = list(pairwise(rows.tolist()))
    jumps = [(one, other) for one, other in steps if other > one + 1 or track.jumps[one]]
    spots = {
        row: (*at[row].round(1).tolist(), f"frame {track.candidates.number[row]} {when(track.candidates.seconds[row])}")
        for row in rows.tolist()
    }
    return render(
        "track_map.html",
        width=WIDTH,
        height=height,
        edge=EDGE,
        counts={"database": len(database), "path": len(rows), "changed": len(changed)},
        database=dots(coarse(to_map(database))),
        nearest=dots(to_map(nearest[changed]), DIAMOND),
        line=_lines(at, [step for step in steps if step not in set(jumps)]),
        jumps=_lines(at, jumps),
        dots=dots(at[known]),
        scale=scale_bar(metres_a_unit),
        tips=list(spots.values())[:MOST_TIPS],
        listed=[(one.number, *spots[one.row]) for one in shown if one.row in spots],
    )


def _lines(at: Array, steps: Iterable[tuple[int, int]]) -> str:
    """SVG path of straight steps; those that follow each other are one line."""
    text, last = [], -1
    for one, other in steps:
        text += [] if one == last else [f"M{at[one][0]:.1f} {at[one][1]:.1f}"]
        text.append(f"L{at[other][0]:.1f} {at[other][1]:.1f}")
        last = other
    return "".join(text)


def _chart(track: Track) -> str:
    frames = track.candidates
    timed = np.isfinite(frames.seconds).all()
    x = (frames.seconds if timed else frames.number).tolist()
    lines = (("path", track.distances, "right"), ("nearest", frames.distances[:, 0], "run"))
    drawn = [Series(name, *thin(x, values.tolist()), colour) for name, values, colour in lines]
    return line_chart(drawn, x_label="seconds" if timed else "frame", y_label="squared distance")
