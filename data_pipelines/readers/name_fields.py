"""Values of the fields of '@' names, many at once: the bytes of all names are read by NumPy, column of characters by
column."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError

Array = np.ndarray
PADDING = 16
POWERS = 10.0 ** np.arange(PADDING + 1)
EXPECTED = (
    "a name such as @0554156.86@4174558.49@10@S@@@@@270@@@@201311@@.jpg (east, north, zone, letter, ..., heading, ...) "
    "or @0554156.86@4174558.49@SEQUENCE@12@@CITY@201311@.jpg (east, north, sequence, frame, panorama, city, time)"
)


def spans(blob: Array, offsets: Array, separators: int) -> tuple[Array, Array]:
    """Where the separators of each name are and where it ends: int64 [separators + 1, names]; and which names (bool)
    have another number of them, whose numbers here mean nothing."""
    starts, ends = offsets[:-1], offsets[1:]
    signs = np.flatnonzero(blob == ord("@"))
    odd = np.zeros(len(starts), bool)
    at = np.zeros((separators + 1, len(starts)), np.int64)
    at[separators] = ends
    slashes = np.flatnonzero(blob == ord("/"))
    if len(slashes):
        starts = np.maximum(starts, np.append(slashes, -1)[np.searchsorted(slashes, ends) - 1] + 1)
    if len(signs) == separators * len(starts):  # perhaps as many in each, which spares the search for each name's
        at[:separators] = signs.reshape(-1, separators).T
        if (at[0] >= starts).all() and (at[separators - 1] < ends).all():
            return at, odd
    first = np.searchsorted(signs, starts)
    odd = np.searchsorted(signs, ends) - first != separators
    at[:, odd] = 0
    at[:separators, ~odd] = signs[first[~odd] + np.arange(separators)[:, None]]
    return at, odd


def first_bytes(blob: Array, start: Array, length: Array, width: int) -> Array:
    """uint8 [width, rows], the first characters of a field, 0 after its end; `blob` has `PADDING` bytes to spare."""
    windows = np.lib.stride_tricks.sliding_window_view(blob, width)  # gathers rows at once, far faster than bytes
    characters = np.ascontiguousarray(windows[start].T)
    characters[np.arange(width)[:, None] >= length] = 0
    return characters


def numbers(blob: Array, start: Array, length: Array) -> tuple[Array, Array]:
    """Decimal numbers (float64) and whether each field is one of at most 16 characters: sign, digits, one point.

    The digits are gathered in an integer and divided once by a power of ten, which rounds as `float(text)` does.
    """
    width = max(int(min(length.max(initial=0), PADDING)), 1)
    characters = first_bytes(blob, start, length, width)
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


def times(blob: Array, start: Array, length: Array) -> Array:
    """datetime64[s] of `YYYY[MM[DD[_hh[mm[ss]]]]]`, else NaT; a month, day or hour that is missing is the first."""
    characters = first_bytes(blob, start, length, 15)
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


def time_of(text: str) -> np.datetime64:
    """`times` of one field."""
    encoded = np.frombuffer(text.encode("ascii", "replace").ljust(PADDING, b"\0"), np.uint8)
    return times(encoded, np.zeros(1, np.int64), np.array([len(text)]))[0]


def texts(blob: Array, start: Array, length: Array) -> tuple[list[bytes], Array]:
    """The distinct texts of a field, and which of them each row has: int64 [rows]."""
    width = max(int(length.max(initial=0)), 1)
    characters = np.ascontiguousarray(first_bytes(blob, start, length, width).T)
    found, of = np.unique(characters.view(f"S{width}").reshape(-1), return_inverse=True)
    return found.tolist(), of.reshape(-1)


def number(path: str, field: str, text: str) -> float:
    """`numbers` of one field of a path, with Python's own reading; DataError names both where it is none."""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f"{path}: field {field} is {text!r}, not a number; expected {EXPECTED}")
    return value
