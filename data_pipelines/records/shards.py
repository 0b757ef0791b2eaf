"""Shards of records: their names, one image out of them, and whether they are as they were written."""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.own_files import digest
from data_pipelines.paths import Paths

NAME = "image_records"  # of the data set, to TFDS
MARK = ".array_record-"
ADDRESS = re.compile(r"(.+\.array_record-\d{5}-of-\d{5})#(\d{1,18})(?:/.*)?", re.DOTALL)
# Each holds a file open and 8 bytes a record; systems let a process open 1,024 files.
MOST_OPEN = 512
MOST = 99_999  # that five digits number
# Nothing is read ahead, since the next image lies anywhere.
RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"
_opened_by = 0  # the process that opened the first shard
AGAIN = "Copy it again; or delete it and give the command that wrote the records: it writes what is missing"


class Shard(NamedTuple):
    """What a shard must be: its number of records, bytes and checksum."""

    images: int
    bytes: int
    sha256: str


def file_name(split: str, shard: int, shards: int) -> str:
    """As TFDS names it."""
    return f"{NAME}-{split}{MARK}{shard:05d}-of-{shards:05d}"


def of_address(address: str) -> tuple[str, int] | None:
    """Shard and number of a record from its address, `SHARD#17/NAME.jpg`; None for another address."""
    found = ADDRESS.fullmatch(address) if MARK in address else None
    return (found[1], int(found[2])) if found else None


def numbers(paths: Paths) -> np.ndarray:
    """int64 [rows]: the shard of each image of one folder of records."""
    if not len(paths):
        return np.zeros(0, np.int64)
    digits = paths.offsets[:-1] + paths.relative(0).index(MARK) + len(MARK)
    return sum((paths.blob[digits + k].astype(np.int64) - ord("0")) * 10 ** (4 - k) for k in range(5))


def image(shard: str, number: int) -> bytes:
    """The encoded image of one record.

    Readers are opened once a process and shared by its threads. A process that was forked after that is refused: it may
    wait for ever for a lock that a thread held which the fork left behind. Ours are spawned.

    Raises:
      DataError: the shard is missing or cut short, or has no such record: other images are missing as well.
      OSError: this record alone is damaged.
    """
    reader = _reader(shard)
    if _opened_by != os.getpid():
        raise DataError(f"{shard} was opened before this process was forked; start processes by spawn")
    if number >= reader.num_records():
        raise DataError(f"{shard} has {reader.num_records()} records, none with number {number}. {AGAIN}")
    try:
        (record,) = reader.read([number])
        return image_of(record)
    except (RuntimeError, ValueError, IndexError) as error:
        raise OSError(errno.EIO, f"record {number} is damaged ({error})", shard) from error


@functools.lru_cache(MOST_OPEN)
def _reader(shard: str) -> Any:
    global _opened_by
    _opened_by = _opened_by or os.getpid()
    return opened(shard)


def opened(shard: str | os.PathLike[str]) -> Any:
    """ArrayRecord's reader of a shard; DataError where the shard is missing or cut short."""
    from array_record.python.array_record_module import ArrayRecordReader  # here, since only records need it

    if not Path(shard).is_file():  # the reader would say so at the first record only
        raise DataError(f"{shard}: this file of records is not there. {AGAIN}")
    try:
        reader = ArrayRecordReader(os.fspath(shard), options=RANDOM_ACCESS, file_reader_buffer_size=1 << 15)
        if not reader.num_records():  # so a file looks whose end is missing at some places
            raise RuntimeError("it has no list of its records")
        return reader
    except RuntimeError as error:
        raise DataError(f"{shard}: this file of records is cut short or damaged ({error}). {AGAIN}") from error


def image_of(record: bytes) -> bytes:
    """The field `image` of a record, a tf.train.Example; ValueError where there is none.

    Messages of protocol buffers, one in the other: Example.features, Features.feature (an entry a field: its name and a
    Feature), Feature.bytes_list, BytesList.value.
    """
    (features,) = _parts(record, 0, len(record))
    for entry in _parts(record, *features):
        name, feature = _parts(record, *entry)
        if record[slice(*name)] == b"image":
            (bytes_list,) = _parts(record, *feature)
            (value,) = _parts(record, *bytes_list)
            return record[slice(*value)]
    raise ValueError("it has no image")


def _parts(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each part of a message, all of whose parts have a length."""
    while at < end:
        at, shift, length = at + 1, 0, 0
        while True:
            length |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                break
        yield at, at + length
        at += length


def measured(file: Path) -> Shard:
    """What a shard that was just written is."""
    return Shard(opened(file).num_records(), file.stat().st_size, digest(file))


def check_size(file: Path, shard: Shard) -> None:
    """Raises DataError where a shard is missing or of another length than when it was written."""
    there = file.stat().st_size if file.is_file() else -1
    if there != shard.bytes:
        what = "is not there" if there < 0 else f"has {there:,} of {shard.bytes:,} bytes: it was cut short or changed"
        raise DataError(f"{file}: this file of records {what}. {AGAIN}")


def check(file: Path, shard: Shard) -> None:
    """Reads all of a shard; DataError where it is not, to the byte, what was written."""
    check_size(file, shard)
    found = measured(file)
    if found != shard:
        what = (
            f"{found.images} records, not {shard.images}" if found.images != shard.images else "bytes that have changed"
        )
        raise DataError(f"{file}: this file of records has {what}. {AGAIN}")
