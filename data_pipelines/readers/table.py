"""Data sets described by a CSV file: a row per image, in any order of columns, under any names."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines import geo
from data_pipelines.conditions import check_conditions, condition_bits
from data_pipelines.errors import DataError, option_of, short
from data_pipelines.places import ROLES, SPLITS, VIEWS, Paths, Places, index_of
from data_pipelines.readers import listing, text
from data_pipelines.readers.frame_names import sequence_of

Array = np.ndarray
COLUMNS = (
    "path", "lat", "lon", "east", "north", "zone", "heading", "place",
    "time", "split", "role", "condition", "view", "sequence", "frame",
)  # fmt: skip
ALIASES = {  # other names of columns, in any case
    "lat": ("latitude",),
    "lon": ("longitude", "lng", "long"),
    "east": ("easting", "utm_east"),
    "north": ("northing", "utm_north"),
}
MOST_FRAME = 1 << 62
ROLE_ALIASES = {"db": "database", "gallery": "database", "ref": "database", "reference": "database", "queries": "query"}
SPLIT_ALIASES = {"training": "train", "validation": "val", "testing": "test"}


def read(
    root: str | os.PathLike[str],
    *,
    file: str | None = None,
    columns: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
    split: str | None = None,
    without_position: str = "error",
    name: str | None = None,
) -> Places:
    """Reads `path[,lat,lon|east,north][,zone,heading,place,time,split,role,condition,view,sequence,frame]`.

    The header comes first. Paths are relative to the folder `root` (or absolute). Degrees are projected to UTM, each
    row to its own zone or the one it names; metres are taken as they are, in that zone or in a local frame. Places and
    sequences are integers or any text (places numbered in sorted order, sequences each by a hash of its name); -1 is
    unknown, as a frame too. Times are ISO 8601. A condition is one name, or several with `;` between them, such as
    `night;rain`. An empty cell means unknown, except for path and coordinates. Blanks around names and cells do not
    count, `ALIASES` has other names of the columns of coordinates, and other columns are ignored.

    Args:
      root: folder of the images, or the CSV file in it.
      file: the CSV file, relative to `root`; by default the only .csv there.
      columns: our name → the file's name of a column, e.g. `{"path": "image_path", "place": "label", "role": "split"}`.
        A column of the file that is given to one of ours is not read as another.
      roles: the file's word → database, query or target, beside `ROLE_ALIASES`.
      only: the file's name of a column → the cells (or the one cell) whose rows are read, such as
        `{"label": ("floor3", "floor4")}`; the others are left out.
      split: the split of all rows, where the file has no such column.
      without_position: what an empty cell of coordinates does: "error" refuses the file, "drop" leaves its row out,
        "keep" leaves its position unknown.
      name: of the data set, for reports; the folder's name by default.

    Raises:
      DataError: a missing file or column, or a bad row; names file and line.
    """
    listing.check_choice("without_position", without_position, listing.WITHOUT_POSITION)
    root = Path(root)
    if file is None and root.suffix.lower() == ".csv" and not root.is_dir():
        root, file = root.parent, root.name
    root = listing.folder(root)
    table = _Table(_file(root, file), {ours: str(theirs) for ours, theirs in (columns or {}).items()})
    for column, values in (only or {}).items():
        table.keep(column, [values] if isinstance(values, str) else [str(value) for value in values])
    east, north, zones = table.positions(required=without_position == "error")
    condition, conditions = table.conditions()
    place, place_names = table.labels("place")
    known = {
        "east": east,
        "north": north,
        "heading": table.headings(),
        "place": place,
        "sequence": table.sequences(),
        "frame": table.converted("frame", _frame, -1, "an integer from 0 (-1 or an empty cell where unknown)"),
        "time": table.converted(
            "time", _time, np.datetime64("NaT", "s"), "a time in ISO 8601 such as 2019-11-03T08:30:00"
        ),
        "role": table.choices("role", ROLES, {**ROLE_ALIASES, **(roles or {})}),
        "split": table.choices("split", SPLITS, SPLIT_ALIASES),
        "view": table.choices("view", VIEWS, {}),
    }
    if known["split"] is None and split is not None:
        known["split"] = np.full(len(table.rows), index_of("split", split, SPLITS))
    places = Places.create(
        name or Path(root).absolute().name,
        Paths.of(table.paths(), root),
        zone=zones,
        condition=condition,
        conditions=conditions,
        place_names=place_names,
        **{column: values for column, values in known.items() if values is not None},
    )
    return places.take(places.located) if without_position == "drop" else places


class _Table:
    """The cells of a CSV file, and errors that name their line."""

    def __init__(self, file: Path, columns: Mapping[str, str]):
        self.file = file
        unknown = sorted(set(columns) - set(COLUMNS))
        if unknown:
            raise DataError(f"no such column {unknown} to read {file} into; there are {list(COLUMNS)}")
        self.header, self.rows, self.lines = text.table(file, "a table in CSV")
        missing = sorted(set(columns.values()) - set(self.header))
        if missing:
            raise DataError(f"{file} has no column {missing}; its header is {short(self.header)}")
        free = ["" if name in columns.values() else name.lower() for name in self.header]
        self.index: dict[str, int] = {}
        for ours in COLUMNS:
            header, names = (
                (self.header, [columns[ours]]) if ours in columns else (free, [ours, *ALIASES.get(ours, ())])
            )
            advice = f"Keep one of them, or say which with {option_of('csv', f'columns.{ours}=NAME')}"
            k = text.column(file, header, names, advice)
            if k is not None:
                self.index[ours] = k
        if "path" not in self.index:
            raise DataError(
                f"{file} has no column path; its header is {short(self.header)}. Say which column names the images, "
                f"with {option_of('csv', f'columns.path={self.header[0]}')}"
            )

    def keep(self, name: str, values: Sequence[str]) -> None:
        """Drops all rows but those whose cell of the file's column `name` is one of `values`."""
        if name not in self.header:
            raise DataError(
                f"{self.file} has no column {name!r} to read only some rows by; it has {short(self.header)}"
            )
        cells = [row[self.header.index(name)].strip() for row in self.rows]
        if never := sorted(set(values) - set(cells)) or [""] * (not values):
            raise DataError(
                f"{self.file}: no row has {never[0]!r} in its column {name}, as only={{{name!r}: ...}} asks; there are "
                f"{short(sorted(set(cells)))}"
            )
        kept = [row for row, cell in enumerate(cells) if cell in values]
        self.rows, self.lines = [self.rows[row] for row in kept], [self.lines[row] for row in kept]

    def cells(self, column: str) -> list[str] | None:
        """The column's text, stripped; None where the file has no such column."""
        if column not in self.index:
            return None
        k = self.index[column]
        return [row[k].strip() for row in self.rows]

    def error(self, row: int, column: str, expected: str) -> DataError:
        cell = self.rows[row][self.index[column]]
        name = self.header[self.index[column]]
        return DataError(f"{self.file}, line {self.lines[row]}, column {name}: {short(cell)} is not {expected}")

    def check(self, column: str, good: Array, expected: str) -> None:
        if not good.all():
            raise self.error(int(np.argmin(good)), column, expected)

    def converted(self, column: str, convert: Callable, missing: object, expected: str) -> Array | None:
        """The column's values by `convert`, `missing` for empty cells; None where there is no such column."""
        cells = self.cells(column)
        if cells is None:
            return None
        values = []
        for row, cell in enumerate(cells):
            try:
                values.append(convert(cell) if cell else missing)
            except (ValueError, OverflowError) as error:
                raise self.error(row, column, expected) from error
        return np.array(values)

    def numbers(self, column: str, required: bool = False) -> Array | None:
        values = self.converted(column, _number, np.nan, "a number")
        if values is not None:
            self.check(column, ~np.isinf(values), "a number")
            if required:
                self.check(column, ~np.isnan(values), f"a number; see {option_of('csv', 'without_position=drop')}")
        return values

    def positions(self, *, required: bool) -> tuple[Array | None, Array | None, Array | int]:
        """East, north and UTM zone of the rows, from degrees where the file has them; see `read`."""
        latitude, east = self.numbers("lat", required), self.numbers("east", required)
        longitude, north = self.numbers("lon", required), self.numbers("north", required)
        if (latitude is None) != (longitude is None) or (east is None) != (north is None):
            raise DataError(
                f"{self.file}: needs both of lat and lon, or of east and north; its header is {short(self.header)}"
            )
        named = self.converted("zone", _zone, -1, "a UTM zone such as 33north")
        if latitude is None or longitude is None:
            return east, north, -1 if named is None else named
        self.check("lat", ~(np.abs(latitude) > 84), "degrees within ±84")
        self.check("lon", ~(np.abs(longitude) > 180), "degrees within ±180")
        known = ~np.isnan(latitude + longitude)
        east, north, zones = np.full(len(known), np.nan), np.full(len(known), np.nan), np.full(len(known), -1, np.int16)
        own = geo.zone_of(latitude[known], longitude[known])
        wanted = own if named is None else np.where(named[known] > 0, named[known], own)
        east[known], north[known], zones[known] = geo.to_utm(latitude[known], longitude[known], wanted)
        return east, north, zones

    def headings(self) -> Array | None:
        values = self.numbers("heading")
        return None if values is None else geo.wrapped(values)

    def conditions(self) -> tuple[Array | int, list[str]]:
        """`Places.condition` of the rows, 0 for empty cells, and the sorted names that occur."""
        cells = self.cells("condition")
        if cells is None:
            return 0, []
        names = [[name.strip() for name in cell.split(";")] if cell else [] for cell in cells]
        for row, several in enumerate(names):
            if "" in several:
                raise self.error(row, "condition", "a name, or names with ';' between them, such as night;rain")
        vocabulary = sorted({name for several in names for name in several})
        check_conditions(f"{self.file}, column {self.header[self.index['condition']]}", vocabulary)
        number = {name: k for k, name in enumerate(vocabulary)}
        bits = [condition_bits(np.array([number[name] for name in several], np.int64)) for several in names]
        return np.array([np.bitwise_or.reduce(row) for row in bits], np.int64), vocabulary

    def labels(self, column: str) -> tuple[Array | None, list[str]]:
        """Integers as they are; where any cell is another text, indices into the sorted texts, and these; -1 for -1 and
        empty cells."""
        cells = self.cells(column)
        if cells is None:
            return None, []
        cells = ["" if cell == "-1" else cell for cell in cells]
        if all(cell.isdecimal() and cell.isascii() and len(cell) < 19 for cell in cells if cell):
            return np.array([int(cell) if cell else -1 for cell in cells]), []
        vocabulary = sorted(set(cells) - {""})
        number = {"": -1, **{word: k for k, word in enumerate(vocabulary)}}
        return np.array([number[cell] for cell in cells]), vocabulary

    def sequences(self) -> Array | None:
        """Integers as they are; words as trees of sequences have them, so that those of two tables differ where their
        names do."""
        numbers, words = self.labels("sequence")
        if numbers is None or not words:
            return numbers
        return np.array([*(sequence_of(os.fsencode(word)) for word in words), -1])[numbers]

    def choices(self, column: str, names: Sequence[str], aliases: Mapping[str, str]) -> Array | None:
        def convert(cell: str) -> int:
            return names.index(aliases.get(cell, aliases.get(cell.lower(), cell.lower())))

        others = f" or of their other names {sorted(aliases)}" if aliases else ""
        return self.converted(column, convert, -1, f"one of {list(names)}{others}")

    def paths(self) -> list[str]:
        cells = self.cells("path") or []
        for row, cell in enumerate(cells):
            if not 0 < len(cell) <= listing.LONGEST:
                raise self.error(row, "path", "a path")
        return cells


def _file(root: Path, file: str | None) -> Path:
    if file is not None:
        return root / file
    files = sorted(path.name for path in root.glob("*.csv"))
    if len(files) != 1:
        option = option_of("csv", "file=NAME.csv")
        raise DataError(f"{root} holds {len(files)} .csv files ({files}); say which lists the images with {option}")
    return root / files[0]


def _number(cell: str) -> float:
    if "_" in cell:  # Python takes 1_000 for a number; a table that holds it means something else
        raise ValueError(cell)
    return float(cell)


def _zone(cell: str) -> int:
    return -1 if cell == "-1" else geo.zone_number(cell)


def _frame(cell: str) -> int:
    frame = int(cell) if "_" not in cell else -2
    if not -1 <= frame < MOST_FRAME:
        raise ValueError(cell)
    return frame


def _time(cell: str) -> np.datetime64:
    moment = datetime.datetime.fromisoformat(cell)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(moment, "s")
