"""Parses the '@' names of frames, as the trees of sequences have them, to columns, many at once.

`name.split("@")` holds: 1 UTM east, 2 UTM north, 3 sequence, 4 frame, 5 panorama, 6 city, 7 time `YYYYMMDD_hhmmss` or a
prefix of it, 8 file suffix; 5 to 7 may be missing. A name is known as one of a frame by field 4: it is a number, which
the letter of a zone, field 4 of other '@' names, never is. The city may be a note as of other names: a condition and a
view before it, as in `night_forward_CITY`.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.places import Paths
from data_pipelines.readers import notes
from data_pipelines.readers.name_fields import (
    EXPECTED,
    PADDING,
    first_bytes,
    number,
    numbers,
    spans,
    texts,
    time_of,
    times,
)  # fmt: skip

Array = np.ndarray
SEPARATORS = 8
FEWEST = 5  # of the signs in a name that ends with the frame


def parse(paths: Paths) -> tuple[dict[str, Array], Array]:
    """Columns of `Places` from the names of frames of all fields, and which paths (bool) have such names."""
    blob, offsets = paths.blob, paths.offsets
    at, odd = spans(blob, offsets, SEPARATORS)
    blob = np.append(blob, np.zeros(PADDING + int(np.diff(offsets).max(initial=0)), np.uint8))
    field = {k: (at[k - 1] + 1, at[k] - at[k - 1] - 1) for k in range(1, SEPARATORS)}
    east, ok_east = numbers(blob, *field[1])
    north, ok_north = numbers(blob, *field[2])
    frame, ok_frame = numbers(blob, *field[4])
    digits = first_bytes(blob, *field[4], PADDING) - np.uint8(ord("0")) < 10
    ok_frame &= digits.sum(axis=0) == field[4][1]
    good = ~odd & ok_east & ok_north & ok_frame & (field[3][1] > 0)
    start, length = field[3]
    names, of = texts(blob, np.where(good, start, 0), np.where(good, length, 0))
    _, condition, view = notes.parse(blob, *field[6])
    columns = {"east": east, "north": north, "frame": np.where(good, frame, -1).astype(np.int64)}
    columns["sequence"] = np.array([sequence_of(name) for name in names], np.int64)[of]
    return {**columns, "time": times(blob, *field[7]), "condition": condition, "view": view} | _unknown(
        len(paths)
    ), good


def _unknown(count: int) -> dict[str, Array]:
    return {"zone": np.full(count, -1), "heading": np.full(count, np.nan), "place": np.full(count, -1)}


def is_one(parts: list[str]) -> bool:
    """Whether a name, split at its '@' signs, is that of a frame."""
    return FEWEST < len(parts) <= SEPARATORS + 1 and parts[4].isascii() and parts[4].isdigit()


def parse_one(path: str, parts: list[str]) -> dict[str, object]:
    """Columns of one name for which `is_one` holds; DataError names the field that cannot be read."""
    field = parts[:-1] + [""] * SEPARATORS
    if not field[3]:
        raise DataError(f"{path}: field 3 (sequence) is empty; expected {EXPECTED}")
    if len(field[4]) > 18:
        raise DataError(f"{path}: field 4 (frame) is {field[4]!r}, a number of more than 18 digits")
    note = os.fsencode(field[6])
    return {
        "east": number(path, "1 (UTM east, metres)", field[1]),
        "north": number(path, "2 (UTM north, metres)", field[2]),
        "zone": -1,
        "heading": np.nan,
        "place": -1,
        "sequence": sequence_of(os.fsencode(field[3])),
        "frame": int(field[4]),
        "time": time_of(field[7]),
        "condition": notes.condition_of_note(note),
        "view": notes.view_of_note(note),
    }


def sequence_of(name: bytes) -> int:
    """The number of a sequence of that name: 56 bits of its hash, which makes it independent of what is read along."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big")


def check_single(paths: Paths, sequence: Array, frame: Array, group: Array | int = 0) -> None:
    """Raises DataError where two images of one group are one frame of one sequence (-1: of none); names both."""
    rows = np.flatnonzero(sequence >= 0)
    keys = [frame[rows], sequence[rows], np.broadcast_to(group, len(sequence))[rows]]
    order = np.lexsort(keys)
    same = np.all([key[order][1:] == key[order][:-1] for key in keys], axis=0)
    if same.any():
        first, second = rows[order[np.argmax(same) : np.argmax(same) + 2]]
        raise DataError(
            f"{paths[first]} and {paths[second]} are both frame {frame[first]} of one sequence ({int(same.sum())} such "
            "pairs): number the frames, or remove one of the two"
        )
