"""What a step draws: rows, labels and headings of the global batch, and the random numbers of each of its elements."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_pipelines.images import Array

Batch = dict[str, Array]


class Draw(NamedTuple):
    """The global batch of one step, the same on every host; NumPy arrays of fixed shapes.

    Attributes:
      rows: int64 [B], [B, frames of a clip] or [B, 2 + negatives]; -1 pads.
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
        rows = np.asarray(rows, np.int64)
        size = rows.shape[:1]
        return cls(
            rows=rows,
            view=np.broadcast_to(np.asarray(view, np.float32), size),
            label=np.broadcast_to(np.asarray(label, np.int32), size),
            mask=rows.reshape(len(rows), -1)[:, 0] >= 0,
        )


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
