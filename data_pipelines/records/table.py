"""All columns of a `Places` in one file, whose images are records of shards."""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.answers import Answers
from data_pipelines.atomic import replacing
from data_pipelines.errors import DataError
from data_pipelines.places import COLUMNS, Paths, Places

FILE = "places.npz"
PART = 1 << 20  # rows


def rows_of(shard: int, number: int, rows: int) -> np.ndarray:
    """The rows of one of a number of shards. They are dealt in turn: each shard is a sample of the whole, however rows
    are sorted, so that hosts with some shards each have images of every place."""
    return np.arange(shard, rows, number)


def write(file: Path, places: Places) -> None:
    """Writes all that a table of images holds but the images; completely or not at all."""
    words = {"name": places.name, "conditions": places.conditions, "place_names": places.place_names}
    arrays = {column: getattr(places, column) for column in COLUMNS}
    arrays |= {"names": places.path.blob, "offsets": places.path.offsets}
    arrays["words"] = np.frombuffer(json.dumps(words).encode(), np.uint8)
    if places.answers:
        arrays |= places.answers._asdict()
    with replacing(file) as part, part.open("wb") as stream:
        np.savez(stream, **arrays)


def read(file: Path, shards: Sequence[str]) -> Places:
    """The table that `write` wrote, with images that are records of `shards`, files beside it.

    Raises:
      DataError: where it is no such table.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            words = json.loads(arrays["words"].tobytes())
            title, conditions, place_names = (words[key] for key in ("name", "conditions", "place_names"))
            names = Paths("", arrays["names"], arrays["offsets"])
            columns = {column: arrays[column] for column in COLUMNS}
            answers = Answers(arrays["indptr"], arrays["indices"]) if "indptr" in arrays else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is no table of records: {error}. Copy it again") from error
    # A part at a time, since a Python string for each row takes many times the memory of all paths.
    parts = [names.take(np.arange(first, min(first + PART, len(names)))) for first in range(0, len(names), PART)]
    heads = [os.fsencode(shard) for shard in shards]
    path = Paths.concat([Paths.of(_addresses(part, heads, k * PART), file.parent) for k, part in enumerate(parts)])
    places = Places.create(title, path, conditions=conditions, place_names=place_names, **columns)
    return places if answers is None else places.with_answers(answers, str(file))


def _addresses(names: Paths, shards: Sequence[bytes], first: int) -> Iterator[bytes]:
    """Of the rows from `first` on, as `rows_of` deals them. The name is for people and reports; a scheme or a slash
    before it would make another address of it."""
    blob = names.blob.tobytes()
    for row, (begin, end) in enumerate(itertools.pairwise(names.offsets.tolist()), first):
        number, shard = divmod(row, len(shards))
        yield b"%s#%d/%s" % (shards[shard], number, blob[begin:end].replace(b"://", b"/").lstrip(b"/"))
