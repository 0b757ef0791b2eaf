"""Files of text that others wrote, read whole: what is no text or no table is answered with the file and the line."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.errors import DataError, short


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; False for a name that no file can have, where Path raises."""
    return os.path.isfile(path)  # noqa: PTH113


def data_of(file: str | os.PathLike[str], expected: str) -> bytes:
    """The bytes of a file.

    Raises:
      DataError: for what is no file (a pipe would make us wait for ever) or cannot be read; ends with `expected`.
    """
    if not is_file(file):
        raise DataError(f"cannot read {file}: there is no such file, or it is a folder or a pipe. Expected {expected}")
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}. Expected {expected}") from error


def line_of(data: bytes, position: int) -> int:
    """The number of the line that a byte is in, from 1."""
    return data.count(b"\n", 0, position) + 1


def read(file: str | os.PathLike[str], expected: str) -> str:
    """The text of a file in UTF-8, without the mark that may begin it.

    Raises:
      DataError: as `data_of`, and for other bytes; names the line.
    """
    data = data_of(file, expected)
    try:
        text = data.decode("utf-8-sig")
        where = text.find("\0")
    except UnicodeDecodeError as error:
        where = error.start
    if where >= 0:
        raise DataError(
            f"cannot read {file}: line {line_of(data, where)} is not text in UTF-8. Save it so; expected {expected}"
        )
    return text


def table(file: str | os.PathLike[str], expected: str) -> tuple[list[str], list[list[str]], list[int]]:
    """The header of a CSV file, its names stripped; its rows, all as long as the header; and the last line of each.

    Raises:
      DataError: as `read`, and for no rows, a row of another length or another delimiter; names the line.
    """
    lines = csv.reader(io.StringIO(read(file, expected), newline=""))
    try:
        header = [name.strip() for name in next(lines, [])]
        both = [(row, lines.line_num) for row in lines if row]
    except csv.Error as error:
        raise DataError(f"cannot read {file} as CSV: line {lines.line_num}: {error}. Expected {expected}") from error
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if other:
        raise DataError(f"{file}, line 1: {short(header[0])} has {other!r} between its fields; save it with commas")
    for row, line in both:
        if len(row) != len(header):
            raise DataError(f"{file}, line {line}: {len(row)} fields, but the header has {len(header)}")
    if not both:
        raise DataError(f"{file} has no rows; expected a header line and one line per image")
    return header, [row for row, _ in both], [line for _, line in both]


def column(file: str | os.PathLike[str], header: Sequence[str], names: Sequence[str], advice: str) -> int | None:
    """Where the header has one of some names, None where it has none.

    Raises:
      DataError: where it has several; ends with `advice`.
    """
    found = [k for k, name in enumerate(header) if name in names]
    if len(found) > 1:
        raise DataError(f"{file}: {' and '.join(repr(header[k]) for k in found)} are both {names[0]}. {advice}")
    return found[0] if found else None
