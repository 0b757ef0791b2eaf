"""Parses '@' file names to columns, many at once: the bytes of all names are read by NumPy, column of characters by
column.

`name.split("@")` holds: 1 UTM east, 2 UTM north, 3 zone number, 4 zone letter, 5 latitude, 6 longitude, 7 panorama, 8
tile, 9 heading, 10 pitch, 11 roll, 12 height, 13 time `YYYYMMDD_hhmmss` or a prefix of it, 14 note, 15 file suffix.
Only 1 and 2 are required. Names of another number of fields, and numbers written in an unusual way, go through a plain
Python parse one by one, which also words the errors.

Names of frames have at most nine fields: 1 UTM east, 2 UTM north, 3 sequence, 4 frame, 5 panorama, 6 city, 7 time. They
are known by field 4, which is a number there; as the letter of a zone it never is one.
"""

from __future__ import annotations

import hashlib
import os
import re

import numpy as np

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.places import VIEWS, Paths

Array = np.ndarray
CONDITIONS = (
    "day", "dawn", "dusk", "night", "rain", "snow", "fog", "overcast", "sun", "spring", "summer", "autumn", "winter",
)  # fmt: skip
SEPARATORS = 15
CHUNK = 1 << 15  # rows at a time: the working arrays stay in the processor's cache
PADDING = 16
POWERS = 10.0 ** np.arange(PADDING + 1)
PLACE_BITS = 24
LETTERS = "CDEFGHJKLMNPQRSTUVWX"
IS_LETTER = np.isin(np.arange(256), np.frombuffer(LETTERS.encode(), np.uint8))
PLACE_NOTE = re.compile(rb"(\d{1,7})_([^\W\d_]+)")
EXPECTED = (
    "a name such as @0554156.86@4174558.49@10@S@@@@@270@@@@201311@@.jpg (east, north, zone, letter, ..., heading, ...) "
    "or @0554156.86@4174558.49@SEQUENCE@12@@CITY@201311@.jpg (east, north, sequence, frame, panorama, city, time)"
)
FRAME_FIELDS = 9  # of a name of a frame, at most, with the empty one before the first '@' and the suffix


def parse(paths: Paths) -> dict[str, Array]:
    """Columns of `Places` from the file names of `paths`; folders in front are ignored.

    East and north are metres; zone is -1 where the name has none, else 1..60 north (letters N..X, or no letter) and
    101..160 south of the equator (C..M). Heading is reduced to [0, 360), NaN where empty. A note `placeid_CITY` gives
    `place` (unique over cities, the same in every run), and then field 9 is not a compass heading: it is read as NaN. A
    note whose first part before `_` is one of `CONDITIONS` gives `condition`, and its second part `view` where that is
    one of `VIEWS`, as in `night_sideways_lund`. A time that is not a prefix of a date is NaT.

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
        for row in start + np.flatnonzero(odd):
            for column, value in _parse_one(paths[int(row)]).items():
                columns[column][row] = value
    return columns


def _parse_chunk(blob: Array, offsets: Array) -> tuple[dict[str, Array], Array]:
    """Columns of the names in `blob`, and which rows (bool) have to be parsed one by one instead."""
    at, odd = _fields(blob, offsets)
    blob = np.append(blob, np.zeros(PADDING + int(np.diff(offsets).max(initial=0)), np.uint8))
    field = {k: (at[k - 1] + 1, at[k] - at[k - 1] - 1) for k in (1, 2, 3, 4, 5, 9, 13, 14)}
    east, ok_east = _numbers(blob, *field[1])
    north, ok_north = _numbers(blob, *field[2])
    zone, ok_zone = _zones(blob, field[3], field[4], field[5])
    place, condition, view = _notes(blob, *field[14])
    heading, ok_heading = _numbers(blob, *field[9])
    no_compass = (place >= 0) | (field[9][1] <= 0)
    odd |= ~(ok_east & ok_north & ok_zone & (ok_heading | no_compass))
    heading = geo.wrapped(np.where(no_compass, np.nan, heading))
    time = _times(blob, *field[13])
    columns = {"east": east, "north": north, "zone": zone, "heading": heading, "place": place, "time": time}
    return {**columns, "condition": condition, "view": view}, odd


def _fields(blob: Array, offsets: Array) -> tuple[Array, Array]:
    """Where the separators of each name are and where it ends: int64 [SEPARATORS + 1, names]; and which names (bool)
    have another number of them, whose numbers here mean nothing."""
    starts, ends = offsets[:-1], offsets[1:]
    signs = np.flatnonzero(blob == ord("@"))
    odd = np.zeros(len(starts), bool)
    at = np.zeros((SEPARATORS + 1, len(starts)), np.int64)
    at[SEPARATORS] = ends
    slashes = np.flatnonzero(blob == ord("/"))
    if len(slashes):
        starts = np.maximum(starts, np.append(slashes, -1)[np.searchsorted(slashes, ends) - 1] + 1)
    if len(signs) == SEPARATORS * len(starts):  # perhaps as many in each, which spares the search for each name's
        at[:SEPARATORS] = signs.reshape(-1, SEPARATORS).T
        if (at[0] >= starts).all() and (at[SEPARATORS - 1] < ends).all():
            return at, odd
    first = np.searchsorted(signs, starts)
    odd = np.searchsorted(signs, ends) - first != SEPARATORS
    at[:, odd] = 0
    at[:SEPARATORS, ~odd] = signs[first[~odd] + np.arange(SEPARATORS)[:, None]]
    return at, odd


def _characters(blob: Array, start: Array, length: Array, width: int) -> Array:
    """uint8 [width, rows], the first characters of a field, 0 after its end; `blob` has `PADDING` bytes to spare."""
    windows = np.lib.stride_tricks.sliding_window_view(blob, width)  # gathers rows at once, far faster than bytes
    characters = np.ascontiguousarray(windows[start].T)
    characters[np.arange(width)[:, None] >= length] = 0
    return characters


def _numbers(blob: Array, start: Array, length: Array) -> tuple[Array, Array]:
    """Decimal numbers (float64) and whether each field is one of at most 16 characters: sign, digits, one point.

    The digits are gathered in an integer and divided once by a power of ten, which rounds as `float(text)` does.
    """
    width = max(int(min(length.max(initial=0), PADDING)), 1)
    characters = _characters(blob, start, length, width)
    digit = characters - np.uint8(ord("0"))  # what is not a digit wraps to 10 and more
    is_digit = digit < 10
    is_point = characters == ord(".")
    negative = characters[0] == ord("-")
    accepted = is_digit | is_point | (characters == 0)
    accepted[0] |= negative
    mantissa = np.zeros(len(start), np.int64)
    for character, counts in zip(digit, is_digit, strict=True):
        mantissa = np.where(counts, mantissa * 10 + character, mantissa)
    points = is_point.sum(axis=0, dtype=np.uint8)
    point = (is_point * np.arange(width, dtype=np.uint8)[:, None]).sum(axis=0, dtype=np.uint8)
    decimals = np.where(points == 1, np.clip(length, 1, width) - 1 - point, 0)
    good = (length > 0) & (length <= width) & accepted.all(axis=0) & is_digit.any(axis=0) & (mantissa < 2**53)
    good &= points <= 1
    value = mantissa / POWERS[decimals]
    return np.where(negative, -value, value), good


def _zones(blob: Array, number: tuple, letter: tuple, latitude: tuple) -> tuple[Array, Array]:
    """Zones (int16) of number and letter, and whether each was read; without a letter the latitude's sign decides."""
    value, ok = _numbers(blob, *number)
    ok &= (value >= 1) & (value <= 60) & (value == np.floor(value))
    character = _characters(blob, letter[0], letter[1], 1)[0]
    known = IS_LETTER[character] & (letter[1] == 1)
    minus = (_characters(blob, latitude[0], latitude[1], 1)[0] == ord("-")) & (letter[1] <= 0)
    south = (known & (character < ord("N"))) | minus
    zone = np.where(ok, value, 0).astype(np.int16) + np.int16(100) * south
    empty = number[1] <= 0
    return np.where(empty, np.int16(-1), zone), empty | (ok & (known | (letter[1] <= 0)))


def _notes(blob: Array, start: Array, length: Array) -> tuple[Array, Array, Array]:
    """`place` (int64), `condition` (int16, index into `CONDITIONS`) and `view` (int8, into `VIEWS`) that the notes
    give, -1 where they give none."""
    place, condition = np.full(len(start), -1, np.int64), np.full(len(start), -1, np.int16)
    view = np.full(len(start), -1, np.int8)
    rows = np.flatnonzero(length > 0)
    if len(rows):
        width = int(length.max())
        characters = np.ascontiguousarray(_characters(blob, start[rows], length[rows], width).T)
        notes, inverse = np.unique(characters.view(f"S{width}").reshape(-1), return_inverse=True)
        inverse = inverse.reshape(-1)
        place[rows] = np.array([place_of_note(note) for note in notes], np.int64)[inverse]
        condition[rows] = np.array([condition_of_note(note) for note in notes], np.int16)[inverse]
        view[rows] = np.array([view_of_note(note) for note in notes], np.int8)[inverse]
    return place, condition, view


def place_of_note(note: bytes) -> int:
    """The place of a note `placeid_CITY`, else -1: 39 bits of the city's hash and 24 bits of its number.

    A hash instead of a counter makes the number independent of which other cities are read along.
    """
    match = PLACE_NOTE.fullmatch(note)
    return -1 if match is None else first_place(match[2]) + int(match[1])


def first_place(city: bytes) -> int:
    """The number of a city's place 0; those of its others follow, below that number + 2 ** `PLACE_BITS`."""
    return int.from_bytes(hashlib.blake2b(city, digest_size=5).digest(), "big") >> 1 << PLACE_BITS


def condition_of_note(note: bytes) -> int:
    """The index into `CONDITIONS` of a note's first part before `_`, else -1."""
    first = note.split(b"_")[0].decode("utf-8", "replace").lower()
    return CONDITIONS.index(first) if first in CONDITIONS else -1


def view_of_note(note: bytes) -> int:
    """The index into `VIEWS` of the second part of a note that begins with a condition, else -1."""
    second = note.split(b"_")[1:2]
    word = second[0].decode("utf-8", "replace").lower() if second and condition_of_note(note) >= 0 else ""
    return VIEWS.index(word) if word in VIEWS else -1


def _times(blob: Array, start: Array, length: Array) -> Array:
    """datetime64[s] of `YYYY[MM[DD[_hh[mm[ss]]]]]`, else NaT; a month, day or hour that is missing is the first."""
    characters = _characters(blob, start, length, 15)
    digit = (characters - np.uint8(ord("0"))).astype(np.int16)
    is_digit = digit < 10
    is_digit[8] = characters[8] == ord("_")
    shape = np.isin(length, [4, 6, 8, 11, 13, 15])
    shape &= (is_digit | (np.arange(15)[:, None] >= length)).all(axis=0)

    longest = length.max(initial=0)

    def pair(k: int, otherwise: int) -> Array | np.int16:
        # Many data sets give no hour, some no month.
        return np.where(length > k, digit[k] * 10 + digit[k + 1], otherwise) if longest > k else np.int16(otherwise)

    year = pair(0, 0) * 100 + pair(2, 0)
    month, day, hour, minute, second = pair(4, 1), pair(6, 1), pair(9, 0), pair(11, 0), pair(13, 0)
    shape &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    months = (np.where(shape, (year.astype(np.int64) - 1970) * 12 + month - 1, 0)).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + np.where(shape, day - 1, 0).astype("timedelta64[D]")
    shape &= days.astype("datetime64[M]") == months  # 31 February lands in March
    of_day = np.where(shape, (hour.astype(np.int64) * 60 + minute) * 60 + second, 0)
    seconds = days.astype("datetime64[s]") + of_day.astype("timedelta64[s]")
    return np.where(shape, seconds, np.datetime64("NaT", "s"))


def _parse_one(path: str) -> dict[str, object]:
    """Columns of one name, by plain Python; see `parse`."""
    parts = path.rsplit("/", 1)[-1].split("@")
    if len(parts) < 4:
        raise DataError(
            f"{path}: no coordinates in the file name; expected {EXPECTED}. Rename it, or use the csv reader."
        )
    if 5 < len(parts) <= FRAME_FIELDS and parts[4].isascii() and parts[4].isdigit():
        return _parse_frame(path, parts[:-1] + [""] * FRAME_FIELDS)
    field = parts[:-1] + [""] * SEPARATORS
    note = field[14].encode("utf-8", "surrogateescape")
    place = place_of_note(note)
    return {
        "east": _number(path, "1 (UTM east, metres)", field[1]),
        "north": _number(path, "2 (UTM north, metres)", field[2]),
        "zone": _zone(path, field[3], field[4], field[5]),
        "heading": _heading(path, field[9] if place < 0 else ""),
        "place": place,
        "time": _time(field[13]),
        "condition": condition_of_note(note),
        "view": view_of_note(note),
    }


def _parse_frame(path: str, field: list[str]) -> dict[str, object]:
    """Columns of one name of a frame."""
    if not field[3]:
        raise DataError(f"{path}: field 3 (sequence) is empty; expected {EXPECTED}")
    note = field[6].encode("utf-8", "surrogateescape")
    return {
        "east": _number(path, "1 (UTM east, metres)", field[1]),
        "north": _number(path, "2 (UTM north, metres)", field[2]),
        "zone": -1,
        "heading": np.nan,
        "sequence": sequence_of(field[3]),
        "frame": _frame(path, field[4]),
        "time": _time(field[7]),
        "condition": condition_of_note(note),
        "view": view_of_note(note),
    }


def sequence_of(name: str) -> int:
    """The number of a sequence of that name: 56 bits of its hash, which makes it independent of what is read along."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=7).digest(), "big")


def _frame(path: str, text: str) -> int:
    if len(text) > 18:
        raise DataError(f"{path}: field 4 (frame) is {text!r}, a number of more than 18 digits")
    return int(text)


def _time(text: str) -> np.datetime64:
    encoded = np.frombuffer(text.encode("ascii", "replace").ljust(PADDING, b"\0"), np.uint8)
    return _times(encoded, np.zeros(1, np.int64), np.array([len(text)]))[0]


def _heading(path: str, text: str) -> np.float32:
    degrees = _number(path, "9 (heading, degrees)", text) if text else np.nan
    return geo.wrapped(np.array([degrees]))[0]


def _number(path: str, field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f"{path}: field {field} is {text!r}, not a number; expected {EXPECTED}")
    return value


def _zone(path: str, number: str, letter: str, latitude: str) -> int:
    if not number:
        return -1
    if not (
        number.isascii()
        and number.isdigit()
        and len(number) < 9
        and 1 <= int(number) <= 60
        and letter in ("", *LETTERS)
    ):
        raise DataError(
            f"{path}: fields 3 and 4 (UTM zone) are {number!r} and {letter!r}; expected 1 to 60 and one of {LETTERS}, "
            "or nothing; or, in the name of a frame, the sequence and the frame's number"
        )
    south = letter < "N" if letter else latitude.startswith("-")
    return int(number) + 100 * south
