"""Query and reference folders with a published list of correct pairs, as in VPR-Bench (Zaffar et al., 2021)."""

from __future__ import annotations

import io
import math
import os
import pickle
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.answers import Answers, offsets
from data_pipelines.errors import DataError, short
from data_pipelines.places import ROLES, Places
from data_pipelines.readers import listing, text

Array = np.ndarray
FILES = ("ground_truth.csv", "ground_truth_new.npy", "ground_truth.npy")
PICKLED = {  # all that an array of arrays of numbers needs; anything else in a pickle is refused
    (module, name)
    for module, name in (
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )
}


def read(
    root: str | os.PathLike[str], *, query: str = "query", database: str = "ref", name: str | None = None
) -> Places:
    """Reads the folders `query` and `database` of `root`; `frame` numbers the images of each in sorted order.

    The database's rows come first. A published list beside them (`ground_truth`) becomes `Places.answers`; it counts
    in these numbers. Without one there are no answers.

    Raises:
      DataError: a missing or empty folder, a file that is not an image, or a list of other images.
    """
    root = listing.folder(root)
    name = name or Path(root).absolute().name
    parts = []
    for role, folder in (("database", database), ("query", query)):
        paths = listing.images(root / folder)
        parts.append(Places.create(name, paths, role=ROLES.index(role), frame=np.arange(len(paths))))
    places = Places.concat(parts, name)
    file = _list_file(root)
    if file is None:
        return places
    return places.with_answers(ground_truth(root, file.name, queries=len(parts[1]), database=len(parts[0])), str(file))


def _list_file(root: Path, file: str | None = None) -> Path | None:
    return next((root / name for name in ((file,) if file else FILES) if (root / name).exists()), None)


def ground_truth(root: str | os.PathLike[str], file: str | None = None, *, queries: int, database: int) -> Answers:
    """The published positives: query i (sorted order) has the references `indices[indptr[i]:indptr[i + 1]]`.

    Read are `ground_truth.csv` (`query,references` with the references separated by blanks) and `.npy` of object rows
    `[query, references]`, of an index array per query, or of one reference per query ([N] or [N, 1] integers).
    A query that the list leaves out has no positive; -1 in place of the references says so, too.

    Args:
      root: the data set, or the folder of the list.
      file: the list relative to `root`; by default the first of `FILES` that exists.
      queries, database: how many images there are of each.

    Returns:
      indptr int64 [queries + 1], indices int64 [pairs], sorted within a query.

    Raises:
      DataError: no list, or a row that cannot be read or is of other images; names file and row.
    """
    path = _list_file(Path(root), file)
    if path is None:
        raise DataError(f"no list of positives in {root}; expected {file or ' or '.join(FILES)}")
    rows = _csv_rows(path) if path.suffix == ".csv" else _npy_rows(path)
    sets: dict[int, set[int]] = {}
    for where, row in rows:
        query, references = _pair(row, where)
        if query >= queries or max(references, default=-1) >= database:
            raise DataError(
                f"{where}: the list of positives names query {short(query)} and the references {short(references)}, "
                f"but there are {queries} queries and {database} database images. Read the images that the list was "
                "made for, or leave the list out"
            )
        sets.setdefault(query, set()).update(references)
    if not sets:
        raise DataError(f"{path} holds no row; expected one per query")
    lists = [sorted(sets.get(query, ())) for query in range(queries)]
    return Answers(
        offsets(np.array([len(row) for row in lists])), np.array([i for row in lists for i in row], np.int64)
    )


def _csv_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Where each row stands, and its query and references."""
    header, rows, lines = text.table(file, "a table of query,references")
    if header != ["query", "references"]:
        raise DataError(f"{file}: its first line is {short(','.join(header))}; expected query,references")
    for (query, references), line in zip(rows, lines, strict=True):
        yield f"{file}, line {line}", (query, references.split())


def _npy_rows(file: Path) -> Iterator[tuple[str, Any]]:
    rows = load_npy(file)
    named = all(_names_its_query(row) for row in rows)
    for k, row in enumerate(rows):
        yield f"{file}, row {k}", (row if named else (k, row))


def _names_its_query(row: Any) -> bool:
    """Whether a row is [query, references], not the references alone."""
    return _is_list(row) and len(row) == 2 and not _is_list(row[0]) and _is_list(row[1])


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _pair(row: Any, where: str) -> tuple[int, list[int]]:
    """One query and its references as integers that are not negative."""
    try:
        query, references = row
        numbers = [_integer(query), *(_integer(one) for one in (references if _is_list(references) else [references]))]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: {short(row)} is not a query's number and its references' numbers") from error
    if numbers[1:] == [-1]:
        del numbers[1:]
    if min(numbers) < 0:
        raise DataError(
            f"{where}: {short(row)} holds a negative number; images are counted from 0, and -1 alone is none"
        )
    return numbers[0], numbers[1:]


def _integer(number: Any) -> int:
    if isinstance(number, np.ndarray | np.generic) and number.ndim == 0:
        number = number.item()
    if not isinstance(number, int | float | str):
        raise TypeError(f"{type(number)} is not a number")
    value = int(number)
    if not isinstance(number, str) and value != number:
        raise ValueError(f"{number} is not an integer")
    return value


def load_npy(file: str | os.PathLike[str]) -> Array:
    """An array of a .npy file, pickled objects included, where a pickle may hold nothing but arrays, lists and numbers.

    Raises:
      DataError: the file is not a .npy file, says that it is larger than it is, or its pickle holds anything else (such
        a file could run code).
    """
    data = text.data_of(file, "an array in NumPy's format")
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings(action="ignore"):
            version = np.lib.format.read_magic(stream)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = read_header[version](stream)
            if dtype.hasobject:
                array = _Arrays(stream).load()
            else:
                _check_size(shape, dtype, len(data))
                stream.seek(0)
                array = np.load(stream, allow_pickle=False)
    except Exception as error:  # NumPy and pickle raise whatever damaged bytes lead them to
        raise DataError(f"cannot read {file} as an array of numbers or of arrays: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise DataError(f"{file} holds {type(array).__name__}, not an array of rows")
    return array


def _check_size(shape: Sequence[int], dtype: np.dtype, most: int) -> None:
    """Raises ValueError for an array of more bytes than the file has, before NumPy makes room for it."""
    if min(shape, default=0) < 0 or math.prod(shape) * max(dtype.itemsize, 1) > 16 * most:
        raise ValueError(f"an array of shape {short(shape)} does not fit into {most} bytes")


class _Arrays(pickle.Unpickler):
    """Reads a pickle of arrays, lists and numbers; an array takes no more memory than the file could fill."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.size = len(stream.getvalue())

    def find_class(self, module: str, name: str):
        if (module, name) not in PICKLED:
            raise pickle.UnpicklingError(f"its pickle holds {module}.{name}, which is not allowed")
        if name == "_reconstruct":
            size = self.size

            class Sized(np.ndarray):
                def __setstate__(self, state):
                    _check_size(state[1], state[2], size)
                    super().__setstate__(state)

            return lambda kind, shape, code: np.ndarray.__new__(Sized, (0,), "b")
        return "an array" if name == "ndarray" else super().find_class(module, name)  # a name alone: nobody calls it
