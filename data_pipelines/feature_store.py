"""Arrays that a model makes of images, kept on disk: what is computed once is found again, image by image.

A store is a folder for one model with its weights and its preprocessing, which its name is a digest of:

    about.json      what the rows are of, and the names, shapes and type of the arrays in a row
    000000.npy      [n, numbers], a row an image, its arrays one after the other
    000000.csv      path, size, time, checksum: the image of each row (bytes, nanoseconds) and the CRC-32 of the row
    000001.npy ...

Parts are added, each completely or not at all, and never changed. An image that has changed, or a row that is no longer
what was written, counts as absent and is computed again.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import image_bytes, locks
from data_pipelines.atomic import replacing, write_json
from data_pipelines.draws import EVERYTHING, Batch, Draw, generator
from data_pipelines.errors import DataError
from data_pipelines.image_source import why_unreadable
from data_pipelines.own_files import NAMES, read_json, read_table
from data_pipelines.paths import Paths, is_url

log = logging.getLogger(__name__)
Array = np.ndarray
Shapes = Mapping[str, tuple[int, ...]]

COLUMNS = ("path", "size", "time", "checksum")
ABOUT = "about.json"
PART_MIB = 64  # what a fill that is killed loses at most


class FeatureStore:
    """The store of one model in a folder of stores.

    Args:
      root: the folder of stores.
      key: all that decides a row but the image: weights, model, preprocessing; JSON.
      shapes: {name: shape} of the arrays of a row.
      dtype: "float16" or "float32".

    Attributes:
      folder: of this store.
    """

    def __init__(self, root: str | os.PathLike[str], key: Mapping[str, Any], shapes: Shapes, dtype: str = "float16"):
        self.shapes, self.dtype = dict(shapes), np.dtype(dtype)
        about = {"key": dict(key), "arrays": {name: list(shape) for name, shape in shapes.items()}, "dtype": dtype}
        self._about = json.loads(json.dumps(about))
        text = json.dumps(self._about, sort_keys=True)
        self.folder = Path(root) / hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def numbers(self) -> int:
        """How many numbers a row has."""
        return sum(map(prod, self.shapes.values()))

    @property
    def part_rows(self) -> int:
        """How many rows a part should have."""
        return max(64, (PART_MIB << 20) // (self.numbers * self.dtype.itemsize))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the folder for this process, which may then add to it; waits while another one does.

        Raises:
          DataError: where something else lies in the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locks.waiting(self.folder):
            about = self.folder / ABOUT
            if not about.exists():
                write_json(about, self._about)
            if read_json(about, f"Delete the folder {self.folder}: it is made again") != self._about:
                raise DataError(f"{about} is not what was written there. Delete the folder: it is made again")
            yield

    def kept(self, paths: Paths) -> Kept:
        """The rows of some images that are there and whole."""
        parts = list(_parts(self.folder, self.numbers, self.dtype))
        known: dict[str, tuple[int, tuple[int, int], int]] = {}
        starts = np.cumsum([0] + [len(rows) for _, rows in parts])
        for start, (_, rows) in zip(starts, parts, strict=False):
            for number, row in enumerate(rows):
                stamp = (int(row["size"]), int(row["time"]))
                known[row["path"]] = (int(start) + number, stamp, int(row["checksum"]))
        files = tuple(file for file, _ in parts)
        held, index, damaged = Kept(self.shapes, files, starts, {}), dict[str, int](), 0
        for name in dict.fromkeys(_name(paths[row]) for row in range(len(paths))):
            if name not in known or known[name][1] != image_bytes.stamp(name):
                continue
            number, _, checksum = known[name]
            if zlib.crc32(held.rows(np.array([number]))[0]) == checksum:
                index[name] = number
            else:
                damaged += 1
        if damaged:
            log.warning("%s: %d rows are not what was written there; they are computed again", self.folder, damaged)
        return replace(held, index=index)

    def add(self, paths: Paths, values: Array) -> None:
        """Adds rows [n, numbers] of n images as a part; within `held`.

        Raises:
          DataError: a number that the type cannot hold; names the image.
          OSError: where the disk has no room.
        """
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(values, self.dtype)
        if not (finite := np.isfinite(rows).all(axis=1)).all():
            row = int(np.argmin(finite))
            raise DataError(
                f"{paths[row]}: the model gives {np.abs(values[row]).max():.3g}, more than {self.dtype} holds: check "
                "the weights, or train without a cache"
            )
        if shutil.disk_usage(self.folder).free < rows.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self.folder))
        numbers = [int(file.stem) for file in self.folder.glob("*.npy") if file.stem.isdecimal()]
        file = self.folder / f"{max(numbers, default=-1) + 1:06}.npy"
        with replacing(file) as part, part.open("wb") as stream:
            np.save(stream, rows, allow_pickle=False)
        # The table comes last: a part without one is not there.
        with replacing(file.with_suffix(".csv")) as part, part.open("w", newline="", **NAMES) as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            for number in range(len(rows)):
                name = _name(paths[number])
                writer.writerow((name, *image_bytes.stamp(name), zlib.crc32(rows[number])))


@dataclass(frozen=True, eq=False)
class Kept:
    """Rows of a store, by image.

    Attributes:
      shapes: of the arrays of a row.
      files: of the parts. starts: int64 [parts + 1], the number of the first row of each.
      index: {image: number of its row}.
    """

    shapes: Shapes
    files: tuple[str, ...]
    starts: Array
    index: Mapping[str, int]

    def has(self, paths: Paths) -> Array:
        """bool [N]: which images have a row."""
        return self._rows_of(paths) >= 0

    def source(self, paths: Paths, crop: float = 1.0) -> FeatureSource:
        """What reads the rows of some images; those that have none are unreadable to it. `crop` is as there."""
        return FeatureSource(self, paths, self._rows_of(paths), crop)

    def arrays(self, paths: Paths) -> tuple[Array, Array]:
        """(the whole rows of some images [N, numbers], zeros where one has none; which have one, bool [N])."""
        numbers = self._rows_of(paths)
        there = numbers >= 0
        found = self.rows(numbers[there])
        whole = np.zeros((len(paths), sum(map(prod, self.shapes.values()))), found.dtype if len(found) else np.float32)
        whole[there] = found
        return whole, there

    def rows(self, numbers: Array) -> Array:
        """[n, numbers of a row]: the rows of these numbers, copied."""
        part = np.searchsorted(self.starts, numbers, side="right") - 1
        found = None
        for each in np.unique(part):
            chosen = part == each
            read = _opened(self.files[each])[numbers[chosen] - self.starts[each]]
            if found is None:
                found = np.empty((len(numbers), read.shape[1]), read.dtype)
            found[chosen] = read
        return np.zeros((0, 0)) if found is None else found

    def _rows_of(self, paths: Paths) -> Array:
        return np.array([self.index.get(_name(paths[row]), -1) for row in range(len(paths))], np.int64)


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """Reads arrays of a store in place of images.

    Attributes:
      kept: where they are; None: nothing is yet, and all of them are zeros of these shapes.
      paths: the image of every row.
      numbers: int64 [N], the row of each in the store, -1 where it has none.
      crop: share of the height and of the width of the window that is cut out of a map [h, w, C] at random; 1: none is.
      shapes: {name: shape} of the arrays where nothing is kept yet.
    """

    kept: Kept | None
    paths: Paths
    numbers: Array
    crop: float = 1.0
    shapes: Shapes | None = None

    def __post_init__(self):
        if not 0 < self.crop <= 1:
            raise DataError(f"a crop of {self.crop:g} of a map is none: give a share above 0; 1 is all of it")

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """{name: float [*rows.shape, *shape], label, row, mask, bad}; zeros where the row is -1 or has no array."""
        start, stop, _ = part.indices(len(draw.rows))
        rows = draw.rows[start:stop]
        arrays, bad = self._arrays(draw, seed, step, stream, start * draw.each, stop * draw.each)
        bad = np.logical_or.reduce(bad.reshape(len(rows), draw.each), axis=1)
        arrays = {name: x.reshape(*rows.shape, *x.shape[1:]) for name, x in arrays.items()}
        mask = draw.mask[start:stop] & ~bad
        return {**arrays, "label": draw.label[start:stop], "row": rows, "mask": mask, "bad": bad}

    def read_images(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """As `ImageSource.read_images`, with arrays in place of images."""
        start, stop, _ = part.indices(draw.rows.size)
        arrays, bad = self._arrays(draw, seed, step, stream, start, stop)
        single = Draw(*(column[start:stop] for column in draw.by_row()))
        return {**arrays, "label": single.label, "row": single.rows, "mask": single.mask & ~bad, "bad": bad}

    def take(self, rows: Array) -> FeatureSource:
        """The source of some of the rows alone."""
        return FeatureSource(self.kept, self.paths.take(rows), self.numbers[rows], self.crop, self.shapes)

    def names(self, rows: Array) -> list[str]:
        """The images of some rows."""
        return [self.paths[row] for row in rows]

    def read_errors(self, batch: Batch) -> list[str]:
        """Why the images of the bad rows of a batch have no arrays, one line a file."""
        rows = np.unique(batch["row"][batch["bad"]])
        return [reason for row in rows if row >= 0 and (reason := why_unreadable(self.paths[row]))]

    def _shapes(self) -> Shapes:
        return self.kept.shapes if self.kept else self.shapes or {}

    def _arrays(self, draw: Draw, seed: int, step: int, stream: str, start: int, stop: int) -> tuple[Batch, Array]:
        """The arrays of the images from `start` to `stop` of a batch, [n, ...] each, and which have none, bool [n]."""
        rows = draw.rows.ravel()[start:stop]
        number = np.where(rows >= 0, self.numbers[np.maximum(rows, 0)], -1)
        there = number >= 0
        bad = (rows >= 0) & ~there & (self.kept is not None)
        shapes, found = self._shapes(), None
        if self.kept and there.any():
            found = self.kept.rows(number[there])
        arrays, begin = dict[str, Array](), 0
        for name, shape in shapes.items():
            whole = np.zeros((len(rows), *shape), np.float16 if found is None else found.dtype)
            if found is not None:
                whole[there] = found[:, begin : begin + prod(shape)].reshape(-1, *shape)
            begin += prod(shape)
            arrays[name] = self._cropped(whole, seed, step, stream, start) if self._is_cut(shape) else whole
        return arrays, bad

    def _is_cut(self, shape: Sequence[int]) -> bool:
        return self.crop < 1 and len(shape) == 3

    def _cropped(self, maps: Array, seed: int, step: int, stream: str, start: int) -> Array:
        height, width = (max(1, round(self.crop * side)) for side in maps.shape[1:3])
        free = np.array(maps.shape[1:3]) - (height, width)
        cut = np.empty((len(maps), height, width, maps.shape[3]), maps.dtype)
        for index in range(len(maps)):
            top, left = generator(seed, step, stream, start + index).integers(free + 1)
            cut[index] = maps[index, top : top + height, left : left + width]
        return cut


def _name(path: str) -> str:
    """What a store calls an image, from whatever folder a command is run."""
    return path if is_url(path) else os.path.abspath(path)  # noqa: PTH100 (millions of Path objects would be slow)


def _parts(folder: Path, numbers: int, dtype: np.dtype) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The parts that can be read: the file of each and its table; one that cannot is told and passed over."""
    for table in sorted(folder.glob("[0-9]*.csv")):
        file = table.with_suffix(".npy")
        try:
            rows = read_table(table, COLUMNS, COLUMNS[1:])
            held = _opened(str(file))
            if held.shape != (len(rows), numbers) or held.dtype != dtype:
                raise ValueError(f"it holds {held.dtype} {held.shape}, not {dtype} {(len(rows), numbers)}")
        except (DataError, OSError, ValueError) as error:
            log.warning("%s is passed over, and its images are computed again: %s", file, error)
            continue
        yield str(file), rows


@lru_cache(maxsize=4096)
def _opened(file: str) -> Array:
    return np.load(file, mmap_mode="r", allow_pickle=False)
