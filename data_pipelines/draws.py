"""The rows, labels and headings that each step draws, and the random numbers of each element of its batch."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_pipelines import digests
from data_pipelines.images import Array

Batch = dict[str, Array]
EVERYTHING = slice(None)


class Draw(NamedTuple):
    """The global batch of one step, or those of several steps along a leading axis; the same on every host.

    Attributes:
      rows: int64 [B] or [B, T], numbers of what the source holds (images, clips, rows of a table); -1 pads. An element
        may have several, T: a query, its positive and its negatives.
      view: float32 [B], heading in degrees that all panoramas of an element are cut at, or NaN.
      label: int32 [B].
      mask: bool [B], False where the element does not count.
    """

    rows: Array
    view: Array
    label: Array
    mask: Array

    @classmethod
    def of(cls, rows: Array, label: Array | int = -1, view: Array | float = np.nan) -> Draw:
        """A draw of `rows`; scalars fill their column, and the mask is False where an element's (first) row is -1."""
        return cls._made(rows, label, view, 1)

    @classmethod
    def of_steps(cls, rows: Array, label: Array | int = -1, view: Array | float = np.nan) -> Draw:
        """As `of`, of several steps: rows [steps, B] or [steps, B, T], label and view [steps, B]."""
        return cls._made(rows, label, view, 2)

    @classmethod
    def _made(cls, rows: Array, label: Array | int, view: Array | float, axes: int) -> Draw:
        rows = np.asarray(rows, np.int64)
        elements = rows.shape[:axes]
        return cls(
            rows=rows,
            view=np.broadcast_to(np.asarray(view, np.float32), elements),
            label=np.broadcast_to(np.asarray(label, np.int32), elements),
            mask=rows.reshape(*elements, -1)[..., 0] >= 0,
        )

    def digest(self) -> str:
        """A name of what is drawn."""
        return digests.of_arrays(self)

    @property
    def each(self) -> int:
        """How many rows an element of one step's draw has."""
        return int(np.prod(self.rows.shape[1:]))

    def by_row(self) -> Draw:
        """The draw of one step with each row as an element of its own: [B, T] as [B * T]."""
        return Draw(self.rows.ravel(), *(np.repeat(column, self.each) for column in (self.view, self.label, self.mask)))

    def at(self, step: int) -> Draw:
        """The draw of one of several steps."""
        return Draw(*(column[step] for column in self))


def generator(seed: int, step: int, stream: str, position: int) -> np.random.Generator:
    """The random numbers of one element of the global batch.

    The four numbers are key and counter of Philox, so no two elements share any part of their sequences, and building
    it takes microseconds.
    """
    words = [seed, zlib.crc32(stream.encode()), 0, position, step, 0]
    key_and_counter = np.array([word % 2**64 for word in words], np.uint64)
    return np.random.Generator(np.random.Philox(key=key_and_counter[:2], counter=key_and_counter[2:]))


def sequential_draw(count: int, batch: int) -> Callable[[int], dict[str, Draw]]:
    """Step to {"source": Draw} over the rows 0..count-1 in order, `batch` at a time; the last is padded with -1.

    There are `ceil(count / batch)` such steps. Picklable.
    """
    return functools.partial(_sequential, count, batch)


def _sequential(count: int, batch: int, step: int) -> dict[str, Draw]:
    rows = np.arange(step * batch, (step + 1) * batch)
    return {"source": Draw.of(np.where(rows < count, rows, -1))}
