"""Drives through a city: cameras that look ahead while they move along its streets, as frames of sequences.

A pass follows one of four routes (all streets to the north and south, or to the east and west, one after the other, and
the same backwards). The database of a split is a pass along each route by day, in one year. Its queries are second
passes in other years, in every condition in turn, beside the line that the database drove on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from data_pipelines.minicity.city import Shot
from data_pipelines.minicity.config import CityConfig, DriveConfig
from data_pipelines.minicity.layout import Layout
from data_pipelines.minicity.poses import EAST, NORTH, Cameras, beside, by_day, moment
from data_pipelines.minicity.randomness import Array, between, bits, unit

SPLITS = ("train", "val", "test")
ROUTES = 4
GRID, CORNER, EASING = 0.25, 6.0, 14.0  # metres: of the way's points, half a rounded corner, where a car slows down


@dataclass(frozen=True)
class Drives(Cameras):
    """Frames to render: cameras of one view each.

    Attributes:
      part: index into `folders`.
      frame: number of a frame within its drive, from 0.
      time: datetime64[s].
      folders: of each drive, below the folder of images.
    """

    frame: Array
    time: Array
    folders: tuple[str, ...]

    def images(self) -> dict[str, int]:
        """Number of frames in each drive's folder."""
        return dict(zip(self.folders, np.bincount(self.part, minlength=len(self.folders)).tolist(), strict=True))

    def shot(self, config: CityConfig, row: int) -> Shot:
        """Where and when a frame is taken: one light and sky in all frames of a drive, noise of its own in each."""
        return super().shot(config, row)._replace(frame=int(self.frame[row]))

    def files(self, config: CityConfig, row: int) -> list[str]:
        """The one file of a frame: `@east@north@sequence@frame@pano@city@timestamp@.jpg` in the drive's folder.

        The city is a note, `night_forward_minicity`, which holds the condition and where the camera looks.
        """
        folder = self.folders[self.part[row]]
        frame, (x, y) = int(self.frame[row]), self.xy[row]
        pano = f"{int(bits(self.key[row], 61, frame)):016x}"
        note = f"{config.conditions[self.condition[row]]}_forward_{config.name}"
        time = str(self.time[row]).replace("-", "").replace(":", "").replace("T", "_")
        sequence = PurePosixPath(folder).name
        return [f"{folder}/@{EAST + x:010.2f}@{NORTH + y:010.2f}@{sequence}@{frame:04d}@{pano}@{note}@{time}@.jpg"]


def drives(settings: DriveConfig, config: CityConfig, layout: Layout) -> Drives:
    """All drives through a city; the route of a pass is that of its number, so that all streets are passed again."""
    routes = _routes(layout)
    folders: list[str] = []
    parts: list[tuple] = []
    for split, role, k, year, condition in _passes(settings, config):
        aside = role == "queries"
        key = int(bits(config.seed, 62, SPLITS.index(split), aside, k).view(np.int64))
        track = _track(settings, config, routes[k % len(routes)], key, aside=aside)
        parts.append(_columns(settings, config, track, (len(folders), year, condition, key)))
        folders.append(f"drives/{split}/{role}/{year}-{config.conditions[condition]}-{key & 0xFFFFFFFF:08x}")
    columns: list[Any] = [*(np.concatenate(column) for column in zip(*parts, strict=True)), tuple(folders)]
    return Drives(*columns)


def _passes(settings: DriveConfig, config: CityConfig) -> Iterator[tuple[str, str, int, int, int]]:
    """Split, folder, number, year and condition of each drive."""
    years = (
        (config.train_years[0], config.train_years[1:] or config.train_years),
        (config.val_database_year, config.val_query_years),
        (config.database_year, config.query_years),
    )
    conditions = len(config.conditions)
    for split, passes, (database_year, query_years) in zip(SPLITS, settings.passes, years, strict=True):
        for k in range(ROUTES):
            yield split, "database", k, database_year, by_day(config)
        step = max(1, conditions // passes)  # few passes take conditions that lie apart
        for k in range(passes):
            yield split, "queries", k, query_years[k % len(query_years)], k * step % conditions


def _routes(layout: Layout) -> list[Array]:
    """Crossings [k, 2] of four ways: through all streets in the one direction, then the other; both also backwards."""
    inner = layout.nodes[1:-1, 1:-1]
    snakes = [
        np.concatenate([line[:: (-1) ** k] for k, line in enumerate(lines)]) for lines in (inner, inner.swapaxes(0, 1))
    ]
    return [way for snake in snakes for way in (snake, snake[::-1])]


def _track(settings: DriveConfig, config: CityConfig, route: Array, key: int, *, aside: bool) -> tuple[Array, Array]:
    """Positions [n, 2] and headings [n] of a drive; with `aside` it keeps beside the middle of the street, and its
    camera is turned."""
    crossings = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(route, axis=0), axis=1))])
    metres = _metres(settings, crossings, key)
    xy, way = _on_route(route, crossings, metres)
    heading = np.degrees(np.arctan2(way[:, 0], way[:, 1]))
    if aside:
        xy = beside(xy, way, _waves(metres, 40.0, key, 1) * config.query_shift)
        heading += between(-1, 1, key, 2) * config.query_turn
    return xy, np.round(heading % 360, 2) % 360


def _columns(
    settings: DriveConfig, config: CityConfig, track: tuple[Array, Array], about: tuple[int, int, int, int]
) -> tuple:
    """The columns of `Drives` of one drive, which is about (part, year, condition, key)."""
    (xy, heading), (_, year, condition, key) = track, about
    n = np.arange(len(xy))
    month, day, hour, minute, _ = moment(config.conditions[condition], key)
    start = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:00", "s")
    time = start + n * np.timedelta64(settings.seconds, "s")
    of_drive, of_year, of_condition, of_key, views = (np.full(len(n), value) for value in (*about, 1))
    return of_drive, xy, of_year, of_condition, heading, views, of_key, n, time


def _metres(settings: DriveConfig, crossings: Array, key: int) -> Array:
    """How far along its route a car is at each frame; several frames are equal where it stands."""
    s = np.arange(0, crossings[-1], GRID)
    inner = crossings[1:-1]
    place = np.arange(len(inner))
    waits = between(settings.wait[0], settings.wait[1] + 1, key, 3, place).astype(int)
    stop = unit(key, 4, place) < settings.stops
    before = np.searchsorted(s, inner[stop] - 8)  # the line before a crossing
    places = np.sort(np.concatenate([[-np.inf], inner, s[before], [np.inf]]))
    after = np.searchsorted(places, s)
    ahead = np.minimum(np.minimum(s - places[after - 1], places[after] - s), EASING)
    slow, fast = settings.speed
    speed = (slow + (fast - slow) * (_waves(s, 25.0, key, 5) + 1) / 2) * (1 + 2 * ahead / EASING) / 3
    stands = np.zeros(len(s))
    stands[before] = waits[stop]
    leaves = np.cumsum(GRID / speed) - GRID / speed[0] + np.cumsum(stands)
    arrives = leaves - stands
    return np.interp(np.arange(0, leaves[-1], settings.seconds), np.stack([arrives, leaves], 1).ravel(), s.repeat(2))


def _waves(metres: Array, length: float, key: int, purpose: int) -> Array:
    """A curve in [-1, 1] along a way, with a random value every `length` metres and smooth between them."""
    at = metres / length
    first = np.floor(at).astype(int)
    share = (1 - np.cos(np.pi * (at - first))) / 2
    left, right = (between(-1, 1, key, 6, purpose, first + k) for k in (0, 1))
    return left + (right - left) * share


def _on_route(route: Array, crossings: Array, metres: Array) -> tuple[Array, Array]:
    """Positions and unit vectors of the way [n, 2] at some metres along a route, its corners rounded."""

    def at(s: Array) -> Array:
        return np.stack([np.interp(s, crossings, route[:, axis]) for axis in (0, 1)], -1)

    around = metres[:, None] + np.linspace(-CORNER, CORNER, 25)
    chord = at(metres + CORNER) - at(metres - CORNER)
    return at(around).mean(1), chord / np.linalg.norm(chord, axis=1, keepdims=True)
