"""Query and reference folders with a published list of correct pairs, as in VPR-Bench (Zaffar et al., 2021)."""

from __future__ import annotations

import csv
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_pipelines.answers import Answers
from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, Places
from data_pipelines.readers import listing

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
    indptr, indices = ground_truth(root, file.name)
    left_out = max(len(parts[1]) + 1 - len(indptr), 0)  # queries after the last that the list names
    return places.with_answers(Answers(np.append(indptr, np.repeat(indptr[-1], left_out)), indices), str(file))


def _list_file(root: Path, file: str | None = None) -> Path | None:
    return next((root / name for name in ((file,) if file else FILES) if (root / name).is_file()), None)


def ground_truth(root: str | os.PathLike[str], file: str | None = None) -> tuple[Array, Array]:
    """The published positives: query i (sorted order) has the references `indices[indptr[i]:indptr[i + 1]]`.

    Read are `ground_truth.csv` (`query,references` with the references separated by blanks) and `.npy` of object rows
    `[query, references]`, of an index array per query, or of one reference per query ([N] or [N, 1] integers).
    A query that the list leaves out has no positive.

    Args:
      root: the data set, or the folder of the list.
      file: the list relative to `root`; by default the first of `FILES` that exists.

    Returns:
      indptr int64 [queries + 1], indices int64 [pairs], sorted within a query.

    Raises:
      DataError: no list, or a row that cannot be read; names file and row.
    """
    path = _list_file(Path(root), file)
    if path is None:
        raise DataError(f"no list of positives in {root}; expected {file or ' or '.join(FILES)}")
    pairs = _csv_pairs(path) if path.suffix == ".csv" else _npy_pairs(path)
    sets: dict[int, set[int]] = {}
    for query, references in pairs:
        sets.setdefault(query, set()).update(references)
    lists = [sorted(sets.get(query, ())) for query in range(max(sets) + 1)]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in lists], dtype=np.int64)])
    return indptr, np.array([i for row in lists for i in row], np.int64)


def _csv_pairs(file: Path) -> list[tuple[int, list[int]]]:
    with file.open(newline="", encoding="utf-8-sig") as text:
        rows = list(csv.reader(text))
    if not rows or [cell.strip() for cell in rows[0]] != ["query", "references"]:
        raise DataError(f"{file}: its first line is {','.join(rows[0]) if rows else ''!r}; expected query,references")
    where = [f"{file}, line {k}" for k in range(2, len(rows) + 1)]
    pairs = [_pair(row, at, str.split) for row, at in zip(rows[1:], where, strict=True) if row]
    return _some(pairs, file)


def _npy_pairs(file: Path) -> list[tuple[int, list[int]]]:
    rows = load_npy(file)
    named = all(_names_its_query(row) for row in rows)
    pairs = [_pair(row if named else [k, row], f"{file}, row {k}", np.atleast_1d) for k, row in enumerate(rows)]
    return _some(pairs, file)


def _names_its_query(row) -> bool:
    """Whether a row is [query, references], not the references alone."""
    return (
        isinstance(row, (list, tuple, np.ndarray)) and len(row) == 2 and np.ndim(row[0]) == 0 and np.ndim(row[1]) == 1
    )


def _some(pairs: list, file: Path) -> list[tuple[int, list[int]]]:
    if not pairs:
        raise DataError(f"{file} holds no row; expected one per query")
    return pairs


def _pair(row, where: str, split: Callable) -> tuple[int, list[int]]:
    """One query and its references as integers that are not negative."""
    try:
        query, references = row
        numbers = [_integer(query), *(_integer(reference) for reference in split(references))]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {row!r} is not a query's number and its references' numbers") from error
    if min(numbers) < 0:
        raise DataError(f"{where}: {row!r} holds a negative number; images are counted from 0")
    return numbers[0], numbers[1:]


def _integer(number) -> int:
    value = int(number)
    if not isinstance(number, str) and value != number:
        raise ValueError(f"{number} is not an integer")
    return value


def load_npy(file: str | os.PathLike[str]) -> Array:
    """An array of a .npy file, pickled objects included, where a pickle may hold nothing but arrays, lists and numbers.

    Raises:
      DataError: the file is not a .npy file, or its pickle holds anything else (such a file could run code).
    """
    with Path(file).open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if not read_header[version](stream)[2].hasobject:
                stream.seek(0)
                return np.load(stream, allow_pickle=False)
            array = _Arrays(io.BytesIO(stream.read())).load()
        except (ValueError, KeyError, EOFError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            raise DataError(f"cannot read {file} as an array of numbers or of arrays: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise DataError(f"{file} holds {type(array).__name__}, not an array of rows")
    return array


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in PICKLED:
            raise pickle.UnpicklingError(f"its pickle holds {module}.{name}, which is not allowed")
        return super().find_class(module, name)
