"""Sources of the rows of a draw: image files (`image_source`), clips of them, and arrays of numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from data_pipelines.draws import EVERYTHING, Batch, Draw
from data_pipelines.image_source import ImageSource, why_unreadable
from data_pipelines.images import Array
from data_pipelines.paths import Paths

BOOKKEEPING = ("label", "row", "mask", "bad")  # of a batch: all but the model's inputs


class Source(Protocol):
    """Where a stream's arrays come from. Must be picklable: a class of a recipe file is not, and with
    `loader.workers` above 0 needs a module that Python can import.

    One whose elements have several images, and may be split by image over the devices (`Objective.images`), has a
    `read_images` too: see that of `ImageSource`.
    """

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """The elements `part` of the global batch: the model's inputs by name, and `BOOKKEEPING`.

        label int32 [b], row int64 [b, ...], mask bool [b] (elements that count), bad bool [b] (unreadable ones).
        """
        ...

    def take(self, rows: Array) -> Source:
        """The source of some of the rows alone, numbered anew."""
        ...

    def names(self, rows: Array) -> list[str]:
        """What an error calls these rows: a file, or a row of one."""
        ...

    def read_errors(self, batch: Batch) -> list[str]:
        """Why the bad elements of a batch are bad, one line a file; a run that skips them logs them."""
        ...


@dataclass(frozen=True, eq=False)
class ClipSource:
    """Reads clips: a row of a draw is the number of a clip, which is expanded to its frames, all augmented alike.

    Attributes:
      images: the source of the frames. `queries_only` augments the first clip of an element, all its frames alike.
      clips: int64 [N, F], rows of images in order, as `clips.Clips` has them.
    """

    images: ImageSource
    clips: Array

    def __post_init__(self):
        object.__setattr__(self, "images", dataclasses.replace(self.images, frames=self.clips.shape[1]))

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """As `ImageSource.read`: image uint8 [b, F, H, W, 3] or [b, T, F, H, W, 3]."""
        batch = self.images.read(self._expanded(draw), seed, step, stream, part)
        return self._folded(batch, draw.rows[part])

    def read_images(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """As `ImageSource.read_images`, with clips in place of images: arrays are [clips, F, ...]."""
        (start, stop, _), length = part.indices(draw.rows.size), self.clips.shape[1]
        frames = slice(start * length, stop * length)
        batch = self.images.read_images(self._expanded(draw), seed, step, stream, frames)
        bad = np.logical_or.reduce(batch["bad"].reshape(-1, length), axis=1)
        per_clip = {
            "label": batch["label"][::length],
            "mask": batch["mask"].reshape(-1, length).all(axis=1),
            "bad": bad,
        }
        return self._folded({**batch, **per_clip}, draw.rows.ravel()[start:stop])

    def _expanded(self, draw: Draw) -> Draw:
        """The draw of all frames: [..., T * F] rows in place of T clips."""
        rows = np.where(draw.rows[..., None] >= 0, self.clips[np.maximum(draw.rows, 0)], -1)
        return draw._replace(rows=rows.reshape(len(rows), -1))

    def _folded(self, batch: Batch, rows: Array) -> Batch:
        images, length = batch["image"], self.clips.shape[1]
        return {**batch, "image": images.reshape(*rows.shape, length, *images.shape[-3:]), "row": rows}

    def take(self, rows: Array) -> ClipSource:
        """The source of some of the clips alone."""
        return dataclasses.replace(self, clips=self.clips[rows])

    def names(self, rows: Array) -> list[str]:
        """A clip is named by its first and its last frame."""
        return [f"{self.images.paths[clip[0]]} to {self.images.paths[clip[-1]]}" for clip in self.clips[rows]]

    def read_errors(self, batch: Batch) -> list[str]:
        """Why the bad elements of a batch are bad; a line each file."""
        rows = np.unique(batch["row"][batch["bad"]])
        frames = self.clips[rows[rows >= 0]]
        return self.images.read_errors({"row": frames, "bad": np.ones(len(frames), bool)})


@dataclass(frozen=True, eq=False)
class RowSource:
    """Rows of which nothing is read, since all that a step needs of them lies on the devices.

    Attributes:
      paths: the image of each row. absent: bool [N], those of which there is nothing.
    """

    paths: Paths
    absent: Array

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """label, row, mask and bad of the elements."""
        rows = draw.rows[part]
        bad = (self.absent[np.maximum(rows, 0)] & (rows >= 0)).reshape(len(rows), -1).any(1)
        return {"label": draw.label[part], "row": rows, "mask": draw.mask[part] & ~bad, "bad": bad}

    def read_images(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """As `ImageSource.read_images`, of rows."""
        return self.read(draw.by_row(), seed, step, stream, part)

    def take(self, rows: Array) -> RowSource:
        """The source of some of the rows alone."""
        return RowSource(self.paths.take(rows), self.absent[rows])

    def names(self, rows: Array) -> list[str]:
        """The images of some rows."""
        return [self.paths[row] for row in rows]

    def read_errors(self, batch: Batch) -> list[str]:
        """Why the images of the bad rows of a batch could not be described, one line a file."""
        rows = np.unique(batch["row"][batch["bad"]])
        return [reason for row in rows if row >= 0 and (reason := why_unreadable(self.paths[row]))]


@dataclass(frozen=True)
class ArraySource:
    """Reads rows of a `.npy` file, memory-mapped: cached descriptors or feature maps instead of images.

    Attributes:
      file: float array [N, ...].
      name: the key of the batch that holds the rows.
      rows: int64 [M], which rows of the file are meant; None: all.
    """

    file: str
    name: str = "descriptor"
    rows: Array | None = None

    def __len__(self) -> int:
        return len(np.load(self.file, mmap_mode="r")) if self.rows is None else len(self.rows)

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """{name: float32 [*rows.shape, ...], label, row, mask, bad}; zeros where the row is -1."""
        rows = draw.rows[part]
        values = np.load(self.file, mmap_mode="r")[self._in_file(np.maximum(rows, 0))].astype(np.float32)
        values[rows < 0] = 0
        batch = {"label": draw.label[part], "row": rows, "mask": draw.mask[part], "bad": np.zeros(len(rows), bool)}
        return {self.name: values, **batch}

    def read_images(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """As `ImageSource.read_images`, with rows of the file in place of images."""
        return self.read(draw.by_row(), seed, step, stream, part)

    def _in_file(self, rows: Array) -> Array:
        return rows if self.rows is None else self.rows[rows]

    def take(self, rows: Array) -> ArraySource:
        """The source of some of the rows alone."""
        return dataclasses.replace(self, rows=self._in_file(np.asarray(rows)))

    def names(self, rows: Array) -> list[str]:
        """Rows of the file."""
        return [f"{self.file}, row {row}" for row in self._in_file(np.asarray(rows))]

    def read_errors(self, batch: Batch) -> list[str]:
        """None: every row can be read."""
        return []


@dataclass(frozen=True, eq=False)
class TargetSource:
    """A source whose rows have numbers to predict, such as positions.

    Attributes:
      source: of the model's inputs.
      targets: {name: float [N, ...]}, read beside it under these names.
    """

    source: Any
    targets: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """The batch of the source, and {name: float32 [*rows.shape, ...]}, zeros where the row is -1."""
        return self._with_targets(self.source.read(draw, seed, step, stream, part), draw.rows[part])

    def read_images(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """As `ImageSource.read_images`, with the numbers of each image's row."""
        batch = self.source.read_images(draw, seed, step, stream, part)
        return self._with_targets(batch, draw.rows.ravel()[part])

    def _with_targets(self, batch: Batch, rows: Array) -> Batch:
        for name, values in self.targets.items():
            batch[name] = values[np.maximum(rows, 0)].astype(np.float32)
            batch[name][rows < 0] = 0
        return batch

    def take(self, rows: Array) -> TargetSource:
        """The source of some of the rows alone."""
        return TargetSource(self.source.take(rows), {name: values[rows] for name, values in self.targets.items()})

    def names(self, rows: Array) -> list[str]:
        """As of the source."""
        return self.source.names(rows)

    def read_errors(self, batch: Batch) -> list[str]:
        """As of the source."""
        return self.source.read_errors(batch)
