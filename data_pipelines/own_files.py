"""Reads files that we wrote ourselves: JSON, its lines, tables, arrays.

One that was damaged or edited, or is somebody else's, gets an error that names it and says what to do about it.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError

# Names of files are bytes to the system. Decoded and encoded so, they come back as they were, in any locale.
NAMES: dict[str, Any] = {"encoding": sys.getfilesystemencoding(), "errors": "surrogateescape"}


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(file: Path, advice: str = "") -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
      advice: what the user can do about a file that cannot be read.

    Raises:
      DataError: no such file, or not an object of JSON.
    """
    try:
        return _object(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: {_reason(error)}. {advice}".rstrip()) from error


def read_json_lines(file: Path, advice: str = "", end: int | None = None) -> list[dict[str, Any]]:
    """The objects of a file with one a line; what follows the last line feed, a line cut short, is left out.

    Args:
      end: how many bytes of it are read; None for all.

    Raises:
      DataError: as `read_json`; names the line.
    """
    found: list[dict[str, Any]] = []
    try:
        for line in file.read_bytes()[:end].split(b"\n")[:-1]:
            found.append(_object(line))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file}, line {len(found) + 1}: cannot be read: {_reason(error)}. {advice}".rstrip()
        ) from error
    return found


def read_table(
    file: Path, columns: Sequence[str], numbers: Sequence[str], advice: str = "", later: int = 0
) -> list[dict[str, str]]:
    """The rows of a CSV file that has exactly these columns; those of `numbers` hold one, or nothing.

    Args:
      later: so many of the last columns are empty in files that were written before there were such columns.

    Raises:
      DataError: no such file, other columns, or a row that does not fit; names the row, from 1.
    """
    found: list[dict[str, str]] = []
    try:
        with file.open(newline="", **NAMES) as stream:
            lines = csv.reader(stream, strict=True)
            header = next(lines, [])
            if header != list(columns[: max(len(header), len(columns) - later)]):
                raise ValueError(f"it begins with {','.join(header)!r:.100}, not {','.join(columns)!r}")
            for line in lines:
                found.append(_row(columns, line + [""] * (len(columns) - len(header)), numbers))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file}, row {len(found) + 1}: cannot be read: {_reason(error)}. {advice}".rstrip()) from error
    return found


class MatrixFile:
    """The float32 [N, D] of a .npy file that is being written, its rows in any order; rows that never come are zeros.

    Args:
      stream: of the new file.
      shape: (N, D).

    Raises:
      OSError: where the disk has no room for all of it.
    """

    def __init__(self, stream: BufferedWriter, shape: tuple[int, int]):
        self.shape, self._stream = shape, stream
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        self._begin = stream.tell()
        size = self._begin + 4 * shape[0] * shape[1]
        if shutil.disk_usage(Path(stream.name).parent).free < size:  # known now, not after hours
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        stream.truncate(size)

    def __setitem__(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Writes rows int [n] of float32 [n, D]; those that follow each other in one go."""
        runs = np.flatnonzero(np.diff(rows) != 1) + 1
        for numbers, part in zip(np.split(rows, runs), np.split(values, runs), strict=True):
            if len(numbers):
                self._stream.seek(self._begin + 4 * self.shape[1] * int(numbers[0]))
                self._stream.write(part.astype("<f4").tobytes())


def read_matrix(file: Path, advice: str = "", whole: bool = True) -> np.ndarray:
    """The float32 [N, D] of a .npy file, memory-mapped.

    Args:
      whole: look at every number, which reads the whole file.

    Raises:
      DataError: no such file, another format, type or shape, or a value that is not finite (names the row).
    """
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.ndim != 2:
            what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "an archive"
            raise ValueError(f"it holds {what}, not float32 [N, D]")
        for start in range(0, len(found) if whole else 0, 1 << 14):
            if not (good := np.isfinite(found[start : start + (1 << 14)]).all(axis=1)).all():
                raise ValueError(f"row {start + int(np.argmin(good))} is not finite")
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, OverflowError, TypeError) as error:
        raise DataError(f"{file} cannot be read as descriptors: {_reason(error)}. {advice}".rstrip()) from error
    return found


def _row(columns: Sequence[str], line: list[str], numbers: Sequence[str]) -> dict[str, str]:
    row = dict(zip(columns, line, strict=True))
    for name in numbers:
        if row[name] and not math.isfinite(float(row[name])):
            raise ValueError(f"{name} is {row[name]}")
    return row


def _object(content: bytes) -> dict[str, Any]:
    found = json.loads(content.decode("utf-8-sig"), parse_float=_finite)
    if not isinstance(found, dict):
        raise ValueError(f"it holds {type(found).__name__}, not an object")
    return found


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text:.20} is more than a number can be")
    return number


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
