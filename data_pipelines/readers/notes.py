"""What the notes of '@' names say: a place, or a condition and where the camera looks."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from data_pipelines.places import VIEWS
from data_pipelines.readers.name_fields import texts

Array = np.ndarray
CONDITIONS = (
    "day", "dawn", "dusk", "night", "rain", "snow", "fog", "overcast", "sun", "spring", "summer", "autumn", "winter",
)  # fmt: skip
PLACE_BITS = 24
PLACE_NOTE = re.compile(rb"(\d{1,7})_([^\W\d_]+)")


def parse(blob: Array, start: Array, length: Array) -> tuple[Array, Array, Array]:
    """`place` (int64), `condition` (int16, index into `CONDITIONS`) and `view` (int8, into `VIEWS`) that the notes
    give, -1 where they give none."""
    place, condition = np.full(len(start), -1, np.int64), np.full(len(start), -1, np.int16)
    view = np.full(len(start), -1, np.int8)
    rows = np.flatnonzero(length > 0)
    if len(rows):
        notes, of = texts(blob, start[rows], length[rows])
        place[rows] = np.array([place_of_note(note) for note in notes], np.int64)[of]
        condition[rows] = np.array([condition_of_note(note) for note in notes], np.int16)[of]
        view[rows] = np.array([view_of_note(note) for note in notes], np.int8)[of]
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
