"""Which pictures a city has: cameras of every split, and the '@' names of their files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data_pipelines.minicity.city import Shot
from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.layout import Layout
from data_pipelines.minicity.randomness import Array, between, bits, unit

# The city's origin in UTM zone 33 U, some fields east of Berlin.
ZONE, LETTER, EAST, NORTH = 33, "U", 415_000.0, 5_815_000.0
TRAIN, VAL_DATABASE, VAL_QUERIES, TEST_DATABASE, TEST_QUERIES = range(5)
FOLDERS = ("train", "val/database", "val/queries", "test/database", "test/queries")
_HOURS = {"day": (9, 17), "dusk": (20, 21), "night": (22, 24), "rain": (9, 17), "fog": (8, 11), "snow": (9, 15)}
_MONTHS = {"day": (4, 10), "dusk": (6, 9), "night": (3, 11), "rain": (3, 12), "fog": (10, 12), "snow": (1, 3)}


@dataclass(frozen=True)
class Cameras:
    """Panoramas to render; rows of [P]. A query is a panorama of which one view is cut.

    Attributes:
      part: index into `FOLDERS`.
      xy: float64 [P, 2], metres in the city's own frame.
      year: int; condition: index into the configuration's conditions.
      heading: degrees of the first view; views: how many follow it, evenly spread over the circle.
      key: int64, identity for random choices of light and traffic.
    """

    part: Array
    xy: Array
    year: Array
    condition: Array
    heading: Array
    views: Array
    key: Array

    def __len__(self) -> int:
        return len(self.part)

    def images(self) -> dict[str, int]:
        """Number of views in each folder."""
        counts = np.bincount(self.part, self.views, len(FOLDERS)).astype(int)
        return dict(zip(FOLDERS, counts.tolist(), strict=True))

    def shot(self, config: CityConfig, row: int) -> Shot:
        """Where and when one panorama is taken."""
        return Shot(self.xy[row], int(self.year[row]), config.conditions[int(self.condition[row])], int(self.key[row]))

    def files(self, config: CityConfig, row: int) -> list[str]:
        """The files of one panorama's views, relative to the folder of images."""
        about = int(self.year[row]), int(self.condition[row]), int(self.key[row])
        around = headings(float(self.heading[row]), int(self.views[row]))
        folder = FOLDERS[self.part[row]]
        return [f"{folder}/{file_name(config, self.xy[row], heading, *about)}" for heading in around]


def cameras(config: CityConfig, layout: Layout) -> Cameras:
    """All cameras of a city: training surveys, databases by day, queries years later in every condition."""
    parts = [_train(config, layout)]
    parts.append(_database(config, layout, VAL_DATABASE, config.val_spacing, config.val_database_year))
    parts.append(_queries(config, layout, VAL_QUERIES))
    parts.append(_database(config, layout, TEST_DATABASE, config.database_spacing, config.database_year))
    parts.append(_queries(config, layout, TEST_QUERIES))
    return Cameras(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _along(layout: Layout, spacing: float) -> tuple[Array, Array]:
    """Points [P, 2] every `spacing` metres along the streets, and the unit vectors [P, 2] of the way there."""
    points, ways = [], []
    for line in layout.camera_lines():
        for a, b in pairwise(line):
            length = float(np.linalg.norm(b - a))
            s = (np.arange(int(length / spacing)) + 0.5) * spacing
            points.append(a + s[:, None] * (b - a) / length)
            ways.append(np.broadcast_to((b - a) / length, points[-1].shape))
    return np.concatenate(points), np.concatenate(ways)


def beside(xy: Array, way: Array, metres: Array) -> Array:
    """Points moved so many metres [P] to the right of their way (unit vectors [P, 2])."""
    return xy + np.stack([way[:, 1], -way[:, 0]], 1) * metres[:, None]


def by_day(config: CityConfig) -> int:
    """The condition of databases: day, where the city has it."""
    return config.conditions.index("day") if "day" in config.conditions else 0


def _conditions(config: CityConfig, index: Array, survey: Array) -> Array:
    """Condition of each survey of a position: day first, then the others in an order of the position's own."""
    order = np.argsort([unit(config.seed, 51, index, k) for k in range(len(config.conditions))], axis=0)
    drawn = order[(survey + index) % len(config.conditions), np.arange(len(index))]
    return np.where(survey == 0, by_day(config), drawn)


def _train(config: CityConfig, layout: Layout) -> tuple:
    points, ways = _along(layout, config.train_spacing)
    surveys = len(config.train_years)
    index, survey = np.repeat(np.arange(len(points)), surveys), np.tile(np.arange(surveys), len(points))
    key = bits(config.seed, 52, index, survey).view(np.int64)
    xy = beside(points[index], ways[index], between(-1.0, 1.0, key, 1))
    return (
        np.full(len(index), TRAIN), xy, np.array(config.train_years)[survey], _conditions(config, index, survey),
        np.zeros(len(index)), np.full(len(index), config.headings), key,
    )  # fmt: skip


def _database(config: CityConfig, layout: Layout, part: int, spacing: float, year: int) -> tuple:
    points, _ = _along(layout, spacing)
    n = len(points)
    key = bits(config.seed, 53, part, np.arange(n)).view(np.int64)
    day = np.full(n, by_day(config))
    return np.full(n, part), points, np.full(n, year), day, np.zeros(n), np.full(n, config.headings), key


def _queries(config: CityConfig, layout: Layout, part: int) -> tuple:
    """Queries stand where no other split's query stands: odd half metres for the test, even ones for validation."""
    test = part == TEST_QUERIES
    count, years = (config.test_queries, config.query_years) if test else (config.val_queries, config.val_query_years)
    points, ways = _along(layout, 0.5)
    points, ways = points[int(test) :: 2], ways[int(test) :: 2]
    order = np.argsort(unit(config.seed, 54, part, np.arange(len(points))))
    rows, k = order[np.arange(count) % len(order)], np.arange(count)
    key = bits(config.seed, 55, part, k).view(np.int64)
    xy = beside(points[rows], ways[rows], between(-1, 1, key, 1) * config.query_shift)
    base = np.floor(unit(key, 2) * config.headings) * 360 / config.headings
    heading = (base + between(-1, 1, key, 3) * config.query_turn) % 360
    return (
        np.full(count, part), xy, np.array(years)[(unit(key, 4) * len(years)).astype(int)],
        k % len(config.conditions), heading, np.ones(count, int), key,
    )  # fmt: skip


def headings(heading: float, views: int) -> Array:
    """Headings [views] of a panorama's views, degrees in [0, 360) rounded to 0.01 as the file names say them."""
    return np.round((heading + np.arange(views) * 360 / views) % 360, 2) % 360


def moment(weather: str, key: int) -> list[int]:
    """Month, day, hour, minute and second at which it has that weather or light."""
    bounds = [_MONTHS[weather], (1, 29), _HOURS[weather], (0, 60), (0, 60)]
    return [int(between(*bound, key, 60, k)) for k, bound in enumerate(bounds)]


def file_name(config: CityConfig, xy: Array, heading: float, year: int, condition: int, key: int) -> str:
    """The '@' name of one view (or of a panorama, whose heading is its yaw)."""
    weather = config.conditions[condition]
    month, day, hour, minute, second = moment(weather, key)
    time = f"{year:04d}{month:02d}{day:02d}_{hour:02d}{minute:02d}{second:02d}"
    east, north = EAST + xy[0], NORTH + xy[1]
    pano = f"{int(key) & (2**64 - 1):016x}"
    note = f"{weather}_{config.name}"
    return f"@{east:010.2f}@{north:010.2f}@{ZONE}@{LETTER}@@@{pano}@@{heading:06.2f}@@@@{time}@{note}@.jpg"
