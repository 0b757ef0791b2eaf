"""`Places`, a frozen table of columns about images, which every reader returns and everything else takes.

Columns are NumPy arrays, and the paths are one UTF-8 blob with offsets, so that 5.9 million rows (SF-XL) take some
1.2 GB instead of many more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from data_pipelines import digests, geo
from data_pipelines.answers import Answers
from data_pipelines.conditions import check_bits, check_conditions, moved_bits
from data_pipelines.errors import DataError
from data_pipelines.paths import Paths as Paths

SPLITS = ("train", "val", "test")
ROLES = ("database", "query", "target")
VIEWS = ("forward", "backward", "sideways")
FARTHEST = 1e9  # metres, more than twice to the Moon: what lies beyond is no position
Array = np.ndarray


# column -> (dtype, value where it is unknown)
COLUMNS: dict[str, tuple[Any, Any]] = {
    "east": (np.float64, np.nan),
    "north": (np.float64, np.nan),
    "zone": (np.int16, -1),
    "heading": (np.float32, np.nan),
    "place": (np.int64, -1),
    "time": (np.dtype("datetime64[s]"), np.datetime64("NaT", "s")),
    "sequence": (np.int64, -1),
    "frame": (np.int64, -1),
    "condition": (np.int64, 0),
    "view": (np.int8, -1),
    "split": (np.int8, -1),
    "role": (np.int8, -1),
}


def index_of(kind: str, name: str | None, names: Sequence[str]) -> int:
    """The index of a split, role or view in `names`; -1 for None. Raises DataError for any other name."""
    if name is not None and name not in names:
        raise DataError(f"no {kind} {name!r}; there are {list(names)}")
    return -1 if name is None else names.index(name)


@dataclass(frozen=True)
class Places:
    """A table of images; all columns have one row per image.

    Attributes:
      name: of the data set, for reports.
      path: where the images are.
      east, north: metres, float64, NaN where unknown. In UTM zone `zone`, or in the data set's own frame.
      zone: UTM zone, 1..60 north of the equator and 101..160 south of it; -1 is the data set's own local frame.
      heading: degrees in [0, 360) clockwise from north, NaN where unknown.
      place: identity of the place, -1 where unknown.
      time: when the image was taken, NaT where unknown.
      sequence, frame: which drive and where in it, -1 where unknown.
      condition: set of `conditions` (day, night, snow, ...) as bits, 0 where unknown: bit k is set where conditions[k]
        holds. Use `having` and `conditions_of` instead of reading bits.
      view: where the camera looks relative to its vehicle, index into `VIEWS`, -1 where unknown.
      split, role: index into `SPLITS` and `ROLES`, -1 where neither is meant.
      conditions: names of the bits of `condition`, at most 63.
      place_names: what the data set calls place 0, 1, ...; empty where places are numbers of its own.
      answers: the answers that the data set publishes, of its rows with role query in their order, as positions among
        its rows with role database; None where it publishes none.
    """

    name: str
    path: Paths
    east: Array
    north: Array
    zone: Array
    heading: Array
    place: Array
    time: Array
    sequence: Array
    frame: Array
    condition: Array
    view: Array
    split: Array
    role: Array
    conditions: tuple[str, ...] = ()
    place_names: tuple[str, ...] = ()
    answers: Answers | None = None

    @classmethod
    def create(
        cls, name: str, path: Paths, *, conditions: Sequence[str] = (), place_names: Sequence[str] = (), **columns
    ) -> Places:
        """Builds a table from the columns that are known; a scalar fills its column.

        Raises:
          DataError: for an unknown column or one of another length, too many conditions, bits without a name, or a
            position that is farther away than the Earth is round.
        """
        check_conditions(name, conditions)
        unknown = sorted(set(columns) - set(COLUMNS))
        if unknown:
            raise DataError(f"{name}: no such column {unknown}; there are {sorted(COLUMNS)}")
        table: dict[str, Any] = {}
        for column, (dtype, missing) in COLUMNS.items():
            values = np.asarray(columns.get(column, missing), dtype)
            if values.ndim == 0:
                values = np.full(len(path), values, dtype)
            if values.shape != (len(path),):
                raise DataError(f"{name}: column {column} has shape {values.shape}, but there are {len(path)} paths")
            table[column] = values
        check_bits(name, table["condition"], conditions)
        far = np.flatnonzero((np.abs(table["east"]) > FARTHEST) | (np.abs(table["north"]) > FARTHEST))
        if len(far):
            east, north = table["east"][far[0]], table["north"][far[0]]
            raise DataError(
                f"{path[far[0]]}: east {east:g}, north {north:g} is no position: expected metres within ±{FARTHEST:g}"
            )
        return cls(name=name, path=path, conditions=tuple(conditions), place_names=tuple(place_names), **table)

    def __len__(self) -> int:
        return len(self.path)

    def take(self, rows: Array) -> Places:
        """The sub-table of `rows` (int [M] or bool [N]), in that order.

        It keeps the published answers of its queries within its database. It has none without queries, without a
        database, or with one database image twice.
        """
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns = {column: getattr(self, column)[rows] for column in COLUMNS}
        answers = self.answers.of_rows(rows, self._of("query"), self._of("database")) if self.answers else None
        return replace(self, path=self.path.take(rows), answers=answers, **columns)

    def _of(self, role: str) -> Array:
        return self.role == ROLES.index(role)

    def with_answers(self, answers: Answers, where: str = "") -> Places:
        """The same table with published answers.

        Args:
          answers: of the rows with role query, as positions among the rows with role database.
          where: the file that they come from, for errors; the data set's name by default.

        Raises:
          DataError: where the table has other numbers of queries or of database images.
        """
        answers.check(where or self.name, int(self._of("query").sum()), int(self._of("database").sum()))
        return replace(self, answers=answers)

    def having(self, *names: str) -> Array:
        """bool [N], the images that any of these conditions holds for.

        Raises:
          DataError: for a condition that the data set does not have; lists those it has.
        """
        unknown = [name for name in names if name not in self.conditions]
        if unknown:
            known = f"there are {list(self.conditions)}" if self.conditions else "it has no conditions"
            raise DataError(f"{self.name}: no condition {unknown[0]!r}; {known}")
        wanted = sum(1 << self.conditions.index(name) for name in set(names))
        return (self.condition & wanted) != 0

    def conditions_of(self, row: int) -> tuple[str, ...]:
        """The conditions of one image, in the order of `conditions`."""
        return tuple(name for k, name in enumerate(self.conditions) if int(self.condition[row]) >> k & 1)

    def select(self, *, split: str | None = None, role: str | None = None, condition: str | None = None) -> Places:
        """The rows of one split and role that a condition holds for; None leaves that column free."""
        keep = np.ones(len(self), bool) if condition is None else self.having(condition)
        for column, value, names in (("split", split, SPLITS), ("role", role, ROLES)):
            if value is not None:
                keep &= getattr(self, column) == index_of(f"{column} of {self.name}", value, names)
        return self.take(keep)

    def only(self, *, conditions: Sequence[str] = (), role: str | None = None) -> Places:
        """The rows of one role for which any of some conditions holds; an empty argument selects all.

        Raises:
          DataError: for a condition or role that does not exist, or where no row is left.
        """
        of_role = self.select(role=role or None)
        kept = of_role.take(of_role.having(*conditions)) if conditions else of_role
        if not len(kept):
            counts = {name: int(of_role.having(name).sum()) for name in self.conditions}
            raise DataError(
                f"{self.name}: none of {len(self)} images is left of role {role or 'any'!r} and conditions "
                f"{list(conditions) or 'any'}; that role has {len(of_role)}: {counts}"
            )
        return kept

    def place_of(self, row: int) -> str:
        """What the data set calls the place of one image; empty where it is unknown."""
        place = int(self.place[row])
        return "" if place < 0 else self.place_names[place] if self.place_names else str(place)

    @staticmethod
    def concat(parts: Sequence[Places], name: str | None = None) -> Places:
        """One table of several, with all their conditions. Places of one name are one place, if any part names its own.

        It keeps published answers where one part alone has queries or a database. Of several such parts it is unknown
        which images of one answer a query of another: then it has none.

        Raises:
          DataError: where the parts have more than 63 conditions together.
        """
        name = name or parts[0].name
        vocabulary = tuple(dict.fromkeys(c for part in parts for c in part.conditions))
        check_conditions(name, vocabulary)
        columns = {c: np.concatenate([getattr(part, c) for part in parts]) for c in COLUMNS if c != "condition"}
        bits = [moved_bits(part.condition, part.conditions, vocabulary) for part in parts]
        columns["condition"] = np.concatenate(bits)
        columns["place"], place_names = _places_by_name(parts)
        path = Paths.concat([part.path for part in parts])
        with_roles = [part for part in parts if (part._of("query") | part._of("database")).any()]
        answers = with_roles[0].answers if len(with_roles) == 1 else None
        return Places(name=name, path=path, conditions=vocabulary, place_names=place_names, answers=answers, **columns)

    @property
    def located(self) -> Array:
        """bool [N], the images whose position is known."""
        return np.isfinite(self.east) & np.isfinite(self.north)

    def unlocated(self) -> str:
        """The first image without a position and how many more there are, as a sentence; empty where there is none."""
        rows = np.flatnonzero(~self.located)
        more = f" and {len(rows) - 1:,} more of {len(self):,} images have" if len(rows) > 1 else " has"
        return f"{self.path[rows[0]]}{more} no coordinates" if len(rows) else ""

    def digest(self) -> str:
        """A name of the rows and what is known of them, wherever the folder of the images lies."""
        columns = (getattr(self, column) for column in COLUMNS)
        return digests.of_arrays((self.path.blob, self.path.offsets, *columns))

    def single_zone(self) -> int:
        """The one UTM zone (or -1) of all images whose position is known.

        Raises:
          DataError: where metres of several zones would be mixed; names one file of each.
        """
        known = np.flatnonzero(self.located)
        zones, first = np.unique(self.zone[known], return_index=True)
        if len(zones) > 1:
            examples = "; ".join(
                f"{geo.zone_name(z)}: {self.path[known[i]]}" for z, i in zip(zones[:3], first, strict=False)
            )
            raise DataError(
                f"{self.name}: images lie in {len(zones)} UTM zones, whose metres cannot be compared ({examples}). "
                f"{geo.into_one_zone(zones)}"
            )
        return int(zones[0]) if len(zones) else -1

    def in_zone(self, zone: int | str) -> Places:
        """The same table with all metres in one UTM zone; metres of a local frame are taken as those of that zone.

        Raises:
          DataError: for a zone that does not exist, or one more than 30 degrees from an image (named).
        """
        number = geo.zone_number(zone)
        east, north = self.east.copy(), self.north.copy()
        moved = np.flatnonzero(self.located & (self.zone > 0) & (self.zone != number))
        degrees = geo.from_utm(east[moved], north[moved], self.zone[moved])
        east[moved], north[moved], _ = geo.to_utm(*degrees, number, self.path.take(moved))
        zones = np.where(self.located, number, -1).astype(np.int16)
        return replace(self, east=east, north=north, zone=zones)

    def within(self, box: Sequence[float]) -> Places:
        """The images with west <= east < east of `box` (west, south, east, north; metres) and likewise their north.

        Raises:
          DataError: for something else than four numbers that span an area, or where no image lies in it.
        """
        numbers = [value for value in box if isinstance(value, int | float) and np.isfinite(value)]
        if len(numbers) != 4 or len(box) != 4 or numbers[0] >= numbers[2] or numbers[1] >= numbers[3]:
            raise DataError(f"{self.name}: within={tuple(box)} must be (west, south, east, north) in metres")
        west, south, east, north = numbers
        kept = self.take((self.east >= west) & (self.east < east) & (self.north >= south) & (self.north < north))
        if not len(kept):
            known = [values[self.located] for values in (self.east, self.north)]
            spans = " and ".join(f"{min(values):.0f} to {max(values):.0f}" for values in known if len(values))
            raise DataError(
                f"{self.name}: none of {len(self):,} images lies within={tuple(box)}; their metres east and north are "
                f"{spans or 'unknown'}"
            )
        return kept


def _places_by_name(parts: Sequence[Places]) -> tuple[Array, tuple[str, ...]]:
    """The places of several tables, one after the other, and their names; numbers as they are where none has names."""
    if len({part.place_names for part in parts}) == 1:
        return np.concatenate([part.place for part in parts]), parts[0].place_names
    number: dict[str, int] = {}
    columns = []
    for part in parts:
        values, of_row = np.unique(part.place, return_inverse=True)
        names = [part.place_names[k] if part.place_names else str(k) for k in values.tolist() if k >= 0]
        codes = [number.setdefault(name, len(number)) for name in names]
        columns.append(np.array([-1] * (len(values) - len(codes)) + codes, np.int64)[of_row.reshape(-1)])
    return np.concatenate(columns), tuple(number)


assert [f.name for f in fields(Places)][2:-3] == list(COLUMNS)
