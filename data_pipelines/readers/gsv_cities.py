"""GSV-Cities: a table of images for each city, and the images under names that follow from the table's rows.

Ali-bey et al., "GSV-Cities: Toward Appropriate Supervised Visual Place Recognition", Neurocomputing 2022. Its bearing
(`northdeg`) is not a compass heading: the published examples hold 406, 411 and 584 for one place, and GSV-XS -10 to
728 for the same cities. It belongs to the name of the file and is not read as `heading`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines import geo
from data_pipelines.errors import DataError, short
from data_pipelines.places import ROLES, SPLITS, Paths, Places, index_of
from data_pipelines.readers import listing, notes, text

Array = np.ndarray
COLUMNS = ("place_id", "year", "month", "northdeg", "city_id", "lat", "lon", "panoid")
SUFFIXES = (".jpg", ".JPG")  # the published code reads the first, the published description shows the second
LONGEST = 255  # characters of a file's name
IN_NAME = 10**5  # a file's name holds the place's number modulo this


def read(
    root: str | os.PathLike[str],
    *,
    cities: Sequence[str] | None = None,
    min_images: int = 4,
    sample: float = 1.0,
    seed: int = 0,
    split: str | None = None,
    role: str | None = None,
    name: str | None = None,
) -> Places:
    """Reads `Dataframes/<City>.csv` and names the images `Images/<city_id>/<city_id>_<place>_..._<panoid>.jpg`.

    `place` is unique over cities and the same whichever cities are read (and as in GSV-XS, for the same place of the
    same city). Each city lies in one UTM zone, that of its middle, also where the city crosses a border of zones.
    Rows keep the order of their files; cities come sorted. One image of each city must exist; the others are not
    checked, since half a million would take minutes.

    Args:
      root: the data set.
      cities: names of files in `Dataframes` without `.csv`; None reads all.
      min_images: places of fewer images are left out; the published code takes 4.
      sample: the share of each city's places to keep, in (0, 1]; rounded, at least one place.
      seed: which places a `sample` keeps; a city's do not depend on which others are read.
      split, role: of all images (see `Places`); None leaves it unknown.
      name: of the data set, for reports; the folder's name by default.

    Raises:
      DataError: a missing file, city, column or image, a bad cell (names file and row), no place with `min_images`.
    """
    root = listing.folder(root)
    codes = index_of("split", split, SPLITS), index_of("role", role, ROLES)
    if min_images < 1 or not 0 < sample <= 1:
        raise DataError(f"min_images must be at least 1 and sample within (0, 1]: {min_images=} {sample=}")
    frames = [_read_city(file) for file in _files(root, cities)]
    _one_file_each(frames)
    largest = max(int(frame.images_of_place.max()) for frame in frames)
    if largest < min_images:
        raise DataError(f"no place in {root} has {min_images} images: the largest has {largest}. Lower min_images.")
    tables = [
        _places(root, frame, rows)
        for frame in frames
        if len(rows := _kept(frame, min_images=min_images, sample=sample, seed=seed))
    ]
    places = Places.concat(tables, name or Path(root).absolute().name)
    places.split[:], places.role[:] = codes
    return places


class _City(NamedTuple):
    """One city's table. `place` int64 (unique over cities), degrees float64, the file's names without suffix."""

    file: Path
    city_ids: list[str]
    place: Array
    images_of_place: Array
    month: Array
    latitude: Array
    longitude: Array
    stems: list[str]


def _files(root: Path, cities: Sequence[str] | None) -> list[Path]:
    folder = listing.folder(root / "Dataframes", "GSV-Cities' tables")
    tables = {file.stem: file for file in sorted(folder.glob("*.csv"))}
    if not tables:
        raise DataError(f"no table in {folder}; expected one <City>.csv for each city")
    unknown = sorted(set(cities or ()) - set(tables))
    if unknown:
        raise DataError(f"no table of {unknown} in {folder}; there are {sorted(tables)}")
    return [file for city, file in tables.items() if cities is None or city in cities]


def _read_city(file: Path) -> _City:
    table = _columns(file)
    integer: Callable[[str], int] = int
    place_id = _converted(file, table, "place_id", integer, np.int64, 0, 2**notes.PLACE_BITS - 1)
    year = _converted(file, table, "year", integer, np.int64, 1, 9999)
    month = _converted(file, table, "month", integer, np.int64, 1, 12)
    bearing = _converted(file, table, "northdeg", integer, np.int64, -9999, 9999)
    latitude = _converted(file, table, "lat", float, np.float64, -84, 84)
    longitude = _converted(file, table, "lon", float, np.float64, -180, 180)
    for column in ("city_id", "panoid"):
        for at, word in enumerate(table[column]):
            if not 0 < len(word) <= LONGEST:
                raise _error(file, table, column, at, "a word that a file's name can hold")
    city_ids, which = np.unique(table["city_id"], return_inverse=True)
    first = np.array([notes.first_place(os.fsencode(city)) for city in city_ids.tolist()], np.int64)
    place = first[which] + place_id
    _, of_row, count = np.unique(place, return_inverse=True, return_counts=True)
    # The published code writes the table's floats as Python prints them, not the text of the table.
    row = zip(
        table["city_id"], (place_id % IN_NAME).tolist(), year.tolist(), month.tolist(), bearing.tolist(),
        latitude.tolist(), longitude.tolist(), table["panoid"], strict=True,
    )  # fmt: skip
    stems = [f"{c}/{c}_{p:07d}_{y:04d}_{m:02d}_{b:03d}_{lat}_{lon}_{pano}" for c, p, y, m, b, lat, lon, pano in row]
    months = (year - 1970) * 12 + month - 1
    return _City(file, city_ids.tolist(), place, count[of_row], months, latitude, longitude, stems)


def _columns(file: Path) -> dict[str, Sequence[str]]:
    """The text of the known columns; the order of columns and others beside them do not matter."""
    expected = f"a table of the columns {','.join(COLUMNS)}"
    header, rows, _ = text.table(file, expected)
    where = {column: text.column(file, header, [column], f"Expected {expected}") for column in COLUMNS}
    missing = [column for column, k in where.items() if k is None]
    if missing:
        raise DataError(f"{file} has no column {missing}; its header is {short(header)}. Expected {expected}")
    columns = list(zip(*rows, strict=True))
    return {column: columns[k] for column, k in where.items() if k is not None}


def _converted(file: Path, table: dict, column: str, convert: Callable, dtype: type, low: float, high: float) -> Array:
    cells = table[column]
    kind = "an integer" if convert is int else "a number"
    try:
        values: Array = np.fromiter(map(convert, cells), dtype, len(cells))
    except (ValueError, OverflowError):
        row = next(row for row, cell in enumerate(cells) if not _converts(cell, convert, dtype))
        raise _error(file, table, column, row, f"{kind} from {low} to {high}") from None
    outside = ~((values >= low) & (values <= high))
    if outside.any():
        raise _error(file, table, column, int(np.argmax(outside)), f"{kind} from {low} to {high}")
    return values


def _converts(cell: str, convert: Callable, dtype: type) -> bool:
    try:
        dtype(convert(cell))
    except (ValueError, OverflowError):
        return False
    return True


def _error(file: Path, table: dict, column: str, row: int, expected: str) -> DataError:
    return DataError(f"{file}, row {row + 1}, column {column}: {short(table[column][row])} is not {expected}")


def _one_file_each(frames: Sequence[_City]) -> None:
    """Refuses two tables of one city: their places would become one by chance of their numbers."""
    seen: dict[str, Path] = {}
    for frame in frames:
        for city in frame.city_ids:
            if city in seen:
                raise DataError(f"{seen[city]} and {frame.file} both hold images of {city!r}; read one, by `cities`")
            seen[city] = frame.file


def _kept(frame: _City, *, min_images: int, sample: float, seed: int) -> Array:
    """Rows (int64) of the city's places that have enough images and belong to the sample."""
    rows = np.flatnonzero(frame.images_of_place >= min_images)
    if sample == 1 or not len(rows):
        return rows
    places, of_row = np.unique(frame.place[rows], return_inverse=True)
    rng = np.random.default_rng([seed, int(places[0]) >> notes.PLACE_BITS])
    kept = np.zeros(len(places), bool)
    kept[rng.permutation(len(places))[: max(1, round(sample * len(places)))]] = True
    return rows[kept[of_row]]


def _places(root: Path, frame: _City, rows: Array) -> Places:
    latitude, longitude = frame.latitude[rows], frame.longitude[rows]
    zone = geo.zone_of(np.median(latitude), np.median(longitude))
    east, north, zones = geo.to_utm(latitude, longitude, int(zone))
    suffix = _suffix(root, frame, int(rows[0]))
    paths = Paths.of([f"{frame.stems[row]}{suffix}" for row in rows.tolist()], root / "Images")
    time = frame.month[rows].astype("datetime64[M]").astype("datetime64[s]")
    return Places.create(frame.file.stem, paths, east=east, north=north, zone=zones, place=frame.place[rows], time=time)


def _suffix(root: Path, frame: _City, row: int) -> str:
    for suffix in SUFFIXES:
        if text.is_file(root / "Images" / f"{frame.stems[row]}{suffix}"):
            return suffix
    raise DataError(
        f"{frame.file}, row {row + 1}: there is no image {root / 'Images' / frame.stems[row]}{SUFFIXES[0]}. Unpack the "
        f"images to {root / 'Images'}/<city_id>/, or leave that city out by `cities`."
    )
