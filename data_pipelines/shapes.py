"""Images of several shapes: at which size each is read and shown to the model, and which of them share a batch.

The arrays of a batch share one shape. Where images are resized on the device, or not at all, the host passes them on as
they are: rows are grouped by shape before anything is decoded, from the headers of the files alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.draws import Batch, Draw
from data_pipelines.errors import DataError
from data_pipelines.images import Array, ImageError, Size, fit, own_size
from data_pipelines.loaders import Reader, Span, batches, span
from data_pipelines.places import Paths
from data_pipelines.progress import Bar

# Stands for the size of images that keep their own, where there is no image (costs, shapes of parameters): Pitts30k's.
NOMINAL: Size = (480, 640)
HEADERS = 256  # headers that one task of a thread reads


class Chunk(NamedTuple):
    """The images of a batch that are read at one size.

    Attributes:
      size: (height, width) they are read at.
      rows: int64 [c], -1 pads. Few lengths occur, since each is compiled: the batch's, and `unit` times powers of two
        below it.
      start: the place of the first of them in the batch.
    """

    size: Size
    rows: Array
    start: int


class Mixed(NamedTuple):
    """A batch for the model: `length` places for images of one size, filled by the chunks one after the other."""

    size: Size
    length: int
    chunks: tuple[Chunk, ...]


def own_sizes(paths: Paths, threads: int = 1) -> Array:
    """int32 [N, 2]: (height, width) of every image, upright; (0, 0) where a file cannot be read."""

    def read(first: int) -> list[Size]:
        return [_size_or_none(paths[row]) for row in range(first, min(first + HEADERS, len(paths)))]

    sizes: list[Size] = []
    with Bar("reading sizes", len(paths), "images") as bar, ThreadPoolExecutor(max(1, threads)) as pool:
        for part in pool.map(read, range(0, len(paths), HEADERS)):
            sizes += part
            bar.advance(len(part))
    return np.array(sizes, np.int32).reshape(-1, 2)


def _size_or_none(path: str) -> Size:
    try:
        return own_size(path)
    except ImageError:
        return 0, 0


def shown_sizes(
    own: Array, size: Sequence[int], multiple: int = 1, crop: bool = False, paths: Paths | None = None
) -> Array:
    """int32 [N, 2]: the sizes at which a model is shown images.

    Args:
      own: int [N, 2], their own sizes.
      size: (height, width) for all of them, or empty: each keeps its own.
      multiple: the sides are rounded to the nearest multiple of this, at least one; a half goes to the even one, as
        Python's `round` has it in originals.
      crop: the largest multiples that fit instead; the rest is cut off all round.
      paths: of the images, for messages.

    Raises:
      DataError: names an image that is too small to be cropped to a multiple.
    """
    sizes = np.broadcast_to(np.asarray(size, np.int32), own.shape) if len(size) else np.asarray(own, np.int32)
    if crop:
        for row in np.flatnonzero((sizes < multiple).any(axis=1)):
            raise DataError(
                f"{paths[row] if paths else f'image {row}'}: {sizes[row][0]}x{sizes[row][1]} pixels are too few to be "
                f"cropped to multiples of {multiple}. Leave it out, or resize the images first (image.size)"
            )
        return sizes // multiple * multiple
    return (np.maximum(np.rint(sizes / multiple), 1) * multiple).astype(np.int32)


def common_size(size: Sequence[int], multiple: int = 1, crop: bool = False) -> Size:
    """The size that all images are shown at: `size`, or `NOMINAL` where it is empty, rounded or cropped as by
    `shown_sizes`."""
    return _size(shown_sizes(np.array([NOMINAL]), size, multiple, crop)[0])


def plan(
    read: Array, show: Array, batch: int, *, unit: int = 1, fixed: bool = False, exact: bool = False
) -> list[Mixed]:
    """Groups rows into batches: those shown at one size together, and within a batch those read at one size.

    Every row comes once; groups by ascending size, rows within a group in order. The same on every host.

    Args:
      read, show: int [N, 2], the sizes at which rows are read and shown.
      batch: images of a batch; a multiple of `unit`.
      unit: number of devices, which divides every chunk.
      fixed: all batches have `batch` places. Otherwise a size with fewer images has smaller ones.
      exact: rows of a group stay in order whatever their sizes, and the last batch has no more places than images (but
        for `unit`): for models whose descriptors depend on the other images of a batch.
    """
    sides = (show[:, 1], show[:, 0])
    order = np.lexsort(sides if exact else (read[:, 1], read[:, 0], *sides))
    result = []
    for group in _runs(show, order):
        most = batch if fixed or exact else min(batch, padded_length(len(group), unit))
        size = _size(show[group[0]])
        for first in range(0, len(group), most):
            rows = group[first : first + most]
            length = -(-len(rows) // unit) * unit if exact else most
            result.append(Mixed(size, length, tuple(_chunks(read, rows, size, length, unit))))
    return result


def _chunks(read: Array, rows: Array, show: Size, length: int, unit: int) -> Iterator[Chunk]:
    start = 0
    for run in _runs(read, rows):
        size = _size(read[run[0]])
        # Images that are shown as they are read need no further step: their chunk is the batch.
        padded = np.full(length if size == show else min(length, padded_length(len(run), unit)), -1, np.int64)
        padded[: len(run)] = run
        yield Chunk(size, padded, start)
        start += len(run)


def _runs(sizes: Array, rows: Array) -> list[Array]:
    """`rows` cut where the next has another size."""
    differs = (sizes[rows][1:] != sizes[rows][:-1]).any(axis=1)
    return np.split(rows, np.flatnonzero(differs) + 1) if len(rows) else []


def padded_length(images: int, unit: int) -> int:
    """The least `unit` times a power of two that holds so many images."""
    return unit << max(0, -(-images // unit) - 1).bit_length()


def _size(pair: Array) -> Size:
    return int(pair[0]), int(pair[1])


@dataclass(frozen=True)
class MemorySource:
    """Images that are in memory already; reads as `sources.ImageSource` does.

    Attributes:
      images: uint8 [H, W, 3] RGB each, of any sizes.
      size, rule: they are squashed to this size, by one of `images.RULES`.
      crop_from: as of `sources.ImageSource`.
    """

    images: Sequence[Array]
    size: Size
    rule: str = "pil_bilinear"
    crop_from: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = slice(None)) -> Batch:
        """{image: uint8 [b, H, W, 3], label, row, mask, bad} of the elements `part`; zeros where the row is -1."""
        rows = draw.rows[part]
        images = np.zeros((len(rows), *self.size, 3), np.uint8)
        for index in np.flatnonzero(rows >= 0):
            images[index] = fit(self.images[rows[index]], self.size, self.rule, self.crop_from)
        bad = np.zeros(len(rows), bool)
        return {"image": images, "label": draw.label[part], "row": rows, "mask": draw.mask[part], "bad": bad}


@dataclass(frozen=True)
class MixedReader(Reader):
    """Step to the chunks of the batch of that number, `{"0": ..., "1": ...}`; picklable.

    Attributes:
      source: where images come from; its size is that of the chunk.
      plan: the batches.
      parts: length of a chunk -> the slice of it that this host decodes.
    """

    source: Any
    plan: Sequence[Mixed]
    parts: Mapping[int, slice]

    def images(self, step: int) -> int:
        """As of `loaders.Reader`."""
        return sum(len(chunk.rows[self.parts[len(chunk.rows)]]) for chunk in self.plan[step].chunks)

    def read(self, step: int, number: int, count: int) -> dict[str, Span]:
        """As of `loaders.Reader`."""
        mixed = self.plan[step]
        spans: dict[str, Span] = {}
        for index, chunk in enumerate(mixed.chunks):
            of_chunk, length = partial(self._read, chunk, mixed.length), len(chunk.rows)
            spans |= span(str(index), of_chunk, self.parts[length], length, number, count)
        return spans

    def _read(self, chunk: Chunk, length: int, part: slice) -> Batch:
        batch = replace(self.source, size=chunk.size).read(Draw.of(chunk.rows), 0, 0, "source", part)
        place = np.where(chunk.rows >= 0, chunk.start + np.arange(len(chunk.rows)), length)
        return {**batch, "place": place[part].astype(np.int32)}


def mixed_batches(
    source: Any, batches_of: Sequence[Mixed], parts: Mapping[int, slice], **options
) -> Iterator[tuple[Mixed, list[Batch]]]:
    """Reads planned batches ahead of time, in order; `options` as `loaders.batches` takes.

    Yields:
      (the batch, its chunks): each as `ImageSource.read` gives it, with `place` int32 [c], where in the batch an image
      belongs (the batch's length where there is none).
    """
    reader = MixedReader(source, batches_of, parts)
    for step, chunks in batches(reader, 0, len(batches_of), **options):
        yield batches_of[step], [chunks[str(number)] for number in range(len(chunks))]
