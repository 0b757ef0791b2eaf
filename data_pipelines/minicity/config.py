"""What a city and its drives are made from: every field that decides a pixel or a file, and the digests of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from data_pipelines.errors import DataError

STYLES = ("old_town", "modern")
CONDITIONS = ("day", "dusk", "night", "rain", "fog", "snow")
# Raised when the renderer changes, so that a folder written by another version is not taken for this one's.
VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class CityConfig:
    """Settings of one synthetic city. The defaults are the embedded city: 2x2 blocks, some 11,000 views of 64 px.

    Attributes:
      seed: decides streets, houses, traffic, weather.
      name: city name in the note of every file name.
      style: one of `STYLES`; decides façades, palette, heights, street widths.
      blocks: blocks along each side of the part that the cameras visit (a ring of blocks lies around it).
      size: height and width of a view, pixels.
      fov: horizontal field of view, degrees.
      conditions: light and weather that occur in training and in queries; some of `CONDITIONS`.
      train_years: one survey of every training position a year; the first is by day, the others in any condition.
      database_year, query_years: when the test database (by day) and its queries were taken.
      val_database_year, val_query_years: the same for validation.
      train_spacing, database_spacing, val_spacing: metres between cameras along a street.
      headings: views cut from each panorama, evenly spread from north.
      test_queries, val_queries: number of query views.
      query_shift: a query stands up to this many metres beside the line that the database cameras drive along.
      query_turn: and is turned by up to this many degrees from the nearest database heading.
      quality: JPEG quality, 1 to 100.
      panoramas: also write each training panorama as one 360° strip under `images/panoramas`.
    """

    seed: int = 0
    name: str = "minicity"
    style: str = "old_town"
    blocks: int = 2
    size: int = 64
    fov: float = 90.0
    conditions: tuple[str, ...] = CONDITIONS
    train_years: tuple[int, ...] = (2013, 2014, 2015, 2016)
    database_year: int = 2016
    query_years: tuple[int, ...] = (2018, 2019)
    val_database_year: int = 2015
    val_query_years: tuple[int, ...] = (2017,)
    train_spacing: float = 5.0
    database_spacing: float = 5.0
    val_spacing: float = 10.0
    headings: int = 12
    test_queries: int = 600
    val_queries: int = 200
    query_shift: float = 2.0
    query_turn: float = 10.0
    quality: int = 88
    panoramas: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> CityConfig:
        """The city of some settings, with the defaults for the others; DataError for names and types that are none."""
        return _of(cls, "mini city", settings)

    def __post_init__(self):
        """Raises DataError for a setting that no city can be built from."""
        for field in ("conditions", "train_years", "query_years", "val_query_years"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        checks = {
            f"style must be one of {list(STYLES)}": self.style in STYLES,
            "seed must not be negative": self.seed >= 0,
            "blocks must lie in 1..200": 1 <= self.blocks <= 200,
            "size must lie in 16..1024 pixels": 16 <= self.size <= 1024,
            "fov must lie in 20..120 degrees": 20 <= self.fov <= 120,
            f"conditions must be some of {list(CONDITIONS)}": bool(self.conditions)
            and set(self.conditions) <= set(CONDITIONS),
            "each list of years needs at least one year": bool(
                self.train_years and self.query_years and self.val_query_years
            ),
            "every spacing must be at least 0.5 m": min(self.train_spacing, self.database_spacing, self.val_spacing)
            >= 0.5,
            "headings must lie in 1..72": 1 <= self.headings <= 72,
            "numbers of queries must not be negative": min(self.test_queries, self.val_queries) >= 0,
            "query_shift must lie in 0..5 m": 0 <= self.query_shift <= 5,
            "query_turn must lie in 0..180 degrees": 0 <= self.query_turn <= 180,
            "quality must lie in 1..100": 1 <= self.quality <= 100,
            "name must be letters, digits or '-'": bool(self.name) and self.name.replace("-", "").isalnum(),
        }
        wrong = [message for message, right in checks.items() if not right]
        if wrong:
            raise DataError(f"mini city: {'; '.join(wrong)}; got {asdict(self)}")

    def digest(self) -> str:
        """16 hexadecimal digits that name every setting, and the renderer's version."""
        return _hash(asdict(self))

    def test_digest(self) -> str:
        """16 hexadecimal digits that name what decides the difficulty of the test: its database and its queries."""
        return _hash({key: value for key, value in asdict(self).items() if key not in _NOT_IN_TEST})


@dataclass(frozen=True)
class DriveConfig:
    """Settings of the drives through a city, beside its own.

    The database of a split and its queries are of the years of the city's split: those of train are the first and the
    others of `train_years`. A query drives up to the city's `query_shift` metres beside the middle of the street, with
    its camera turned by up to `query_turn` degrees.

    Attributes:
      seconds: whole seconds from frame to frame.
      speed: the slowest and the fastest of a free street, metres a second. Before corners and stops it is a third.
      stops: at which part of the crossings a drive stops; wait: for how many seconds, at least and at most.
      train_passes, val_passes, test_passes: drives of queries in each split.
    """

    seconds: int = 1
    speed: tuple[float, float] = (2.0, 6.0)
    stops: float = 0.3
    wait: tuple[int, int] = (3, 9)
    train_passes: int = 6
    val_passes: int = 3
    test_passes: int = 6

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> DriveConfig:
        """The drives of some settings, with the defaults for the others; DataError as `CityConfig.of`."""
        return _of(cls, "drives of the mini city", settings)

    def __post_init__(self):
        """Raises DataError for a setting that no car can drive by."""
        for field in ("speed", "wait"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        checks = {
            "seconds must lie in 1..60": 1 <= self.seconds <= 60,
            "speed must be two numbers, 0.5 <= slowest <= fastest <= 50 m/s": len(self.speed) == 2
            and 0.5 <= self.speed[0] <= self.speed[1] <= 50,
            "stops must lie in 0..1": 0 <= self.stops <= 1,
            "wait must be two whole numbers of seconds, 0 <= least <= most <= 600": len(self.wait) == 2
            and 0 <= self.wait[0] <= self.wait[1] <= 600,
            "passes must lie in 1..1000": min(self.passes) >= 1 and max(self.passes) <= 1000,
        }
        wrong = [message for message, right in checks.items() if not right]
        if wrong:
            raise DataError(f"drives of the mini city: {'; '.join(wrong)}; got {asdict(self)}")

    @property
    def passes(self) -> tuple[int, int, int]:
        """Drives of queries in each of `SPLITS`."""
        return self.train_passes, self.val_passes, self.test_passes

    def digest(self, config: CityConfig) -> str:
        """16 hexadecimal digits that name every setting of drives through a city, and of the city."""
        return _hash({"city": replace(config, panoramas=False).digest(), **asdict(self)})


_NOT_IN_TEST = frozenset(
    ["train_years", "train_spacing", "val_database_year", "val_query_years", "val_spacing", "val_queries", "panoramas"]
)


def _hash(settings: dict) -> str:
    text = json.dumps({"version": VERSION, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _of(kind: type[T], what: str, settings: Mapping[str, Any]) -> T:
    """A configuration of some settings, with the defaults for the others."""
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(settings) - set(defaults)):
        raise DataError(f"the {what} has no setting {unknown}; it has {list(defaults)}")
    for name, value in settings.items():
        kinds = {float: (float, int), tuple: (tuple, list)}.get(type(defaults[name]), (type(defaults[name]),))
        if type(value) not in kinds:
            raise DataError(f"{what}: {name}={value!r} must be of type {kinds[0].__name__}, as {defaults[name]!r}")
    return kind(**settings)
