"""Tables of coordinates without images: galleries that answers are chosen from."""

from __future__ import annotations

import os

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.readers import text

NAMES = (("lat", "latitude"), ("lon", "lng", "longitude"))
EXPECTED = "a CSV file with columns LAT and LON, degrees"


def coordinates(file: str | os.PathLike[str]) -> np.ndarray:
    """Latitudes and longitudes, float64 [N, 2] degrees, of a CSV file; other columns are passed by.

    Raises:
      DataError: for a file without such columns or rows, or a row that is no place on Earth; names it.
    """
    header, rows, lines = text.table(file, EXPECTED)
    columns = [_column(file, header, names) for names in NAMES]
    found = np.empty((len(rows), 2))
    for number, row in enumerate(rows):
        try:
            found[number] = [float(row[column]) for column in columns]
        except ValueError as error:
            raise DataError(f"{file}, line {lines[number]}: {error}. Expected {EXPECTED}") from error
    wrong = np.flatnonzero(~((np.abs(found[:, 0]) <= 90) & (np.abs(found[:, 1]) <= 180)))
    if len(wrong):
        north, east = found[wrong[0]]
        raise DataError(
            f"{file}, line {lines[wrong[0]]}: ({north}, {east}) is no latitude within 90 and longitude within 180"
        )
    return found


def _column(file: str | os.PathLike[str], header: list[str], names: tuple[str, ...]) -> int:
    for number, name in enumerate(header):
        if name.lower() in names:
            return number
    raise DataError(f"{file}: no column {names[0].upper()} among {header}. Expected {EXPECTED}")
