"""Parses '@' file names to columns, many at once: the bytes of all names are read by NumPy, column of characters by
column.

`name.split("@")` holds: 1 UTM east, 2 UTM north, 3 zone number, 4 zone letter, 5 latitude, 6 longitude, 7 panorama, 8
tile, 9 heading, 10 pitch, 11 roll, 12 height, 13 time `YYYYMMDD_hhmmss` or a prefix of it, 14 note, 15 file suffix.
Only 1 and 2 are required. Names of another number of fields, and numbers written in an unusual way, go through a plain
Python parse one by one, which also words the errors.

Names of frames (`frame_names`) may stand among them.
"""

from __future__ import annotations

import numpy as np

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.places import Paths
from data_pipelines.readers import frame_names, notes
from data_pipelines.readers.name_fields import EXPECTED, PADDING, first_bytes, number, numbers, spans, time_of, times

Array = np.ndarray
SEPARATORS = 15
CHUNK = 1 << 15  # rows at a time: the working arrays stay in the processor's cache
LETTERS = "CDEFGHJKLMNPQRSTUVWX"
IS_LETTER = np.isin(np.arange(256), np.frombuffer(LETTERS.encode(), np.uint8))


def parse(paths: Paths) -> dict[str, Array]:
    """Columns of `Places` from the file names of `paths`; folders in front are ignored.

    East and north are metres; zone is -1 where the name has none, else 1..60 north (letters N..X, or no letter) and
    101..160 south of the equator (C..M). Heading is reduced to [0, 360), NaN where empty. A note `placeid_CITY` gives
    `place` (unique over cities, the same in every run), and then field 9 is not a compass heading: it is read as NaN. A
    note whose first part before `_` is one of `notes.CONDITIONS` gives `condition`, and its second part `view` where
    that is one of `VIEWS`, as in `night_sideways_lund`. A time that is not a prefix of a date is NaT.

    A name of a frame gives `sequence` (a number made from its text, the same in every run and whatever is read along)
    and `frame`, no zone and no heading; its city is read as a note.

    Returns:
      {"east", "north", "zone", "heading", "place", "sequence", "frame", "time", "condition", "view"}, each of
      [len(paths)].

    Raises:
      DataError: a name without coordinates, or whose zone or heading cannot be read; names the file.
    """
    total = len(paths)
    columns: dict[str, Array] = {
        "east": np.empty(total),
        "north": np.empty(total),
        "zone": np.empty(total, np.int16),
        "heading": np.empty(total, np.float32),
        "place": np.full(total, -1, np.int64),
        "sequence": np.full(total, -1, np.int64),
        "frame": np.full(total, -1, np.int64),
        "time": np.empty(total, "datetime64[s]"),
        "condition": np.full(total, -1, np.int16),
        "view": np.full(total, -1, np.int8),
    }
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        first = paths.offsets[start]
        blob = paths.blob[first : paths.offsets[stop]]
        chunk, odd = _parse_chunk(blob, paths.offsets[start : stop + 1] - first)
        for column, values in chunk.items():
            columns[column][start:stop] = values
        if odd.any():
            _parse_others(paths, start + np.flatnonzero(odd), columns)
    return columns


def _parse_others(paths: Paths, rows: Array, columns: dict[str, Array]) -> None:
    """Fills `columns` of the rows that are names of frames, or of another number of fields."""
    frames, known = frame_names.parse(paths.take(rows))
    for column, values in frames.items():
        columns[column][rows[known]] = values[known]
    for row in rows[~known]:
        for column, value in _parse_one(paths[int(row)]).items():
            columns[column][row] = value


def _parse_chunk(blob: Array, offsets: Array) -> tuple[dict[str, Array], Array]:
    """Columns of the names in `blob`, and which rows (bool) have to be parsed one by one instead."""
    at, odd = spans(blob, offsets, SEPARATORS)
    blob = np.append(blob, np.zeros(PADDING + int(np.diff(offsets).max(initial=0)), np.uint8))
    field = {k: (at[k - 1] + 1, at[k] - at[k - 1] - 1) for k in (1, 2, 3, 4, 5, 9, 13, 14)}
    east, ok_east = numbers(blob, *field[1])
    north, ok_north = numbers(blob, *field[2])
    zone, ok_zone = _zones(blob, field[3], field[4], field[5])
    place, condition, view = notes.parse(blob, *field[14])
    heading, ok_heading = numbers(blob, *field[9])
    no_compass = (place >= 0) | (field[9][1] <= 0)
    odd |= ~(ok_east & ok_north & ok_zone & (ok_heading | no_compass))
    heading = geo.wrapped(np.where(no_compass, np.nan, heading))
    time = times(blob, *field[13])
    columns = {"east": east, "north": north, "zone": zone, "heading": heading, "place": place, "time": time}
    return {**columns, "condition": condition, "view": view}, odd


def _zones(blob: Array, digits: tuple, letter: tuple, latitude: tuple) -> tuple[Array, Array]:
    """Zones (int16) of number and letter, and whether each was read; without a letter the latitude's sign decides."""
    value, ok = numbers(blob, *digits)
    ok &= (value >= 1) & (value <= 60) & (value == np.floor(value))
    character = first_bytes(blob, letter[0], letter[1], 1)[0]
    known = IS_LETTER[character] & (letter[1] == 1)
    minus = (first_bytes(blob, latitude[0], latitude[1], 1)[0] == ord("-")) & (letter[1] <= 0)
    south = (known & (character < ord("N"))) | minus
    zone = np.where(ok, value, 0).astype(np.int16) + np.int16(100) * south
    empty = digits[1] <= 0
    return np.where(empty, np.int16(-1), zone), empty | (ok & (known | (letter[1] <= 0)))


def _parse_one(path: str) -> dict[str, object]:
    """Columns of one name, by plain Python; see `parse`."""
    parts = path.rsplit("/", 1)[-1].split("@")
    if len(parts) < 4:
        raise DataError(
            f"{path}: no coordinates in the file name; expected {EXPECTED}. Rename it, or use the csv reader."
        )
    if frame_names.is_one(parts):
        return frame_names.parse_one(path, parts)
    field = parts[:-1] + [""] * SEPARATORS
    note = field[14].encode("utf-8", "surrogateescape")
    place = notes.place_of_note(note)
    return {
        "east": number(path, "1 (UTM east, metres)", field[1]),
        "north": number(path, "2 (UTM north, metres)", field[2]),
        "zone": _zone(path, field[3], field[4], field[5]),
        "heading": _heading(path, field[9] if place < 0 else ""),
        "place": place,
        "time": time_of(field[13]),
        "condition": notes.condition_of_note(note),
        "view": notes.view_of_note(note),
    }


def _heading(path: str, text: str) -> np.float32:
    degrees = number(path, "9 (heading, degrees)", text) if text else np.nan
    return geo.wrapped(np.array([degrees]))[0]


def _zone(path: str, digits: str, letter: str, latitude: str) -> int:
    if not digits:
        return -1
    if not (
        digits.isascii()
        and digits.isdigit()
        and len(digits) < 9
        and 1 <= int(digits) <= 60
        and letter in ("", *LETTERS)
    ):
        raise DataError(
            f"{path}: fields 3 and 4 (UTM zone) are {digits!r} and {letter!r}; expected 1 to 60 and one of {LETTERS}, "
            "or nothing; or, in the name of a frame, the sequence and the frame's number"
        )
    south = letter < "N" if letter else latitude.startswith("-")
    return int(digits) + 100 * south
