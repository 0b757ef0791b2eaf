"""From draws to batches, ahead of time: read in threads and processes, prefetched with grain.

Every host knows the global batch of a step (a `Draw`) and reads its own slice of it from a source (`sources`).
"""

from __future__ import annotations

import functools
import gc
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from data_pipelines.children import end_with_parent
from data_pipelines.cores import cores
from data_pipelines.draws import EVERYTHING, Batch, Draw, sequential_draw
from data_pipelines.sources import Source

MOST_THREADS = 16  # unless a recipe sets more
LEAST_IMAGES = 8  # of a span: what a span costs beside reading is then little, even of small images
Streams = dict[str, Batch]


class Span(NamedTuple):
    """The elements from `start` on of the `total` that this host reads of a batch."""

    start: int
    total: int
    batch: Batch


class Reader(ABC):
    """What `batches` reads; picklable where other processes do."""

    @abstractmethod
    def images(self, step: int) -> int:
        """How many images this host reads of the stream that has most of them."""

    @abstractmethod
    def read(self, step: int, number: int, count: int) -> dict[str, Span]:
        """The `number`-th of `count` spans of every stream's batch, where there is anything in it."""

    def __call__(self, step: int) -> Streams:
        """The whole batches of a step."""
        return {name: span.batch for name, span in self.read(step, 0, 1).items()}


@dataclass(frozen=True)
class StepReader(Reader):
    """Step to batches of every stream; `batches` calls it in threads or in other processes.

    Attributes:
      sources: stream name to its source.
      draw: step to {stream name: Draw}, pure and picklable.
      seed: of the augmentation.
      parts: stream name to the slice of its global batch that this host decodes; all of it by default.
      by_image: streams whose slices are of images, not of elements (`ImageSource.read_images`).
    """

    sources: Mapping[str, Source]
    draw: Callable[[int], Mapping[str, Draw]]
    seed: int = 0
    parts: Mapping[str, slice] = field(default_factory=dict)
    by_image: frozenset[str] = frozenset()

    def images(self, step: int) -> int:
        """As of `Reader`."""
        return max(self._rows(name, draw)[self._part(name)].size for name, draw in self.draw(step).items())

    def read(self, step: int, number: int, count: int) -> dict[str, Span]:
        """As of `Reader`. Elements of several images are not cut, unless the devices split them too."""
        spans: dict[str, Span] = {}
        for name, draw in self.draw(step).items():
            source: Any = self.sources[name]
            read = source.read_images if name in self.by_image else source.read
            of_step = functools.partial(read, draw, self.seed, step, name)
            spans |= span(name, of_step, self._part(name), len(self._rows(name, draw)), number, count)
        return spans

    def _part(self, name: str) -> slice:
        return self.parts.get(name, EVERYTHING)

    def _rows(self, name: str, draw: Draw) -> np.ndarray:
        return draw.rows.ravel() if name in self.by_image else draw.rows


def span(
    name: str, read: Callable[[slice], Batch], part: slice, length: int, number: int, count: int
) -> dict[str, Span]:
    """{name: the `number`-th of `count` spans of `part` of a batch of `length`}, empty where nothing is in it."""
    first, stop, _ = part.indices(length)
    start, end = ((stop - first) * at // count for at in (number, number + 1))
    return {name: Span(start, stop - first, read(slice(first + start, first + end)))} if end > start else {}


def batches(
    reader: Reader,
    first: int,
    last: int,
    *,
    threads: int = 4,
    workers: int = 0,
    prefetch: int = 4,
) -> Generator[tuple[int, Streams]]:
    """Reads the steps first, first + 1, ..., last - 1 ahead of time, from now on, and yields them in this order.

    Threads and processes share each batch: they read spans of it, which are put together in order. Close the iterator
    (or drop it) to stop early; its threads and processes end with it.

    Args:
      reader: of the batches, such as a `StepReader`.
      first, last: the steps to read; a run that resumes begins at another `first`.
      threads: spans read at the same time, in this process or in each worker. Decoders let go of the interpreter, so
        threads alone are usually enough; 0 reads in the caller's thread.
      workers: further processes, each with its own threads and its own copy of `reader`; spans come back through
        shared memory (`/dev/shm` must hold `workers * prefetch` batches).
      prefetch: batches held ready, per process, beside the spans that are being read.

    Yields:
      (step, {stream: {key: array}}), one step at a time.

    Raises:
      ImageError: of a source that does not skip; as from the reader itself, from wherever it was raised.
    """
    reading = _batches(reader, first, last, threads, workers, prefetch)
    next(reading)  # begins to read, and makes `close` end it
    return reading


def _batches(reader: Reader, first: int, last: int, threads: int, workers: int, prefetch: int) -> Generator[Any]:
    if last <= first:
        yield
        return
    import grain  # here, since reading a source alone does not need it

    count = max(1, min(threads * max(1, workers), reader.images(first) // LEAST_IMAGES))
    joined, read = _Joined(copies=workers > 0), functools.partial(_read, reader, count, workers > 0)
    spans = grain.MapDataset.range(first * count, last * count).map(read)
    spans = spans if workers else spans.map(joined.add)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch * count + threads)
    dataset = spans.to_iter_dataset(ahead)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads its flags, which only an absl app has parsed
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch * count)
        dataset = dataset.mp_prefetch(options)
    iterator = iter(dataset)
    try:
        iterator.start_prefetch()  # of threads; processes start with the first batch that is asked for
        yield
        for number, step in enumerate(map(joined.add, iterator) if workers else iterator, 1):
            if number % count == 0:
                yield step, joined.pop(step)
    finally:
        iterator.close()
        if workers:
            gc.collect()  # grain's last exception holds the last batches in a cycle, and they hold shared memory


class _Joined:
    """Batches whose spans come in any order, from any thread.

    Args:
      copies: whether all arrays are copied, so that the shared memory of a worker that holds them is freed; else those
        that are a whole batch are taken as they are.
    """

    def __init__(self, copies: bool):
        self._copies, self._lock = copies, threading.Lock()
        self._steps: dict[int, Streams] = {}

    def add(self, read: tuple[int, dict[str, Span]]) -> int:
        """Puts the spans of a step in their places; returns the step."""
        step, spans = read
        for name, (start, total, batch) in spans.items():
            whole = self._arrays(step, name, total, batch)
            for key, rows in batch.items():
                if whole[key] is not rows:
                    whole[key][start : start + len(rows)] = rows
        return step

    def _arrays(self, step: int, name: str, total: int, batch: Batch) -> Batch:
        with self._lock:
            streams = self._steps.setdefault(step, {})
            if name not in streams:
                alone = not self._copies and len(next(iter(batch.values()))) == total
                streams[name] = batch if alone else _empty(total, batch)
            return streams[name]

    def pop(self, step: int) -> Streams:
        """The batches of a step, all of whose spans are there; in one order, whichever came first."""
        return dict(sorted(self._steps.pop(step).items()))


def _empty(total: int, batch: Batch) -> Batch:
    return {key: np.empty((total, *rows.shape[1:]), rows.dtype) for key, rows in batch.items()}


def _read(reader: Reader, count: int, in_worker: bool, index: int) -> tuple[int, dict[str, Span]]:
    if in_worker:
        end_with_parent()
    step, number = divmod(int(index), count)
    return step, reader.read(step, number, count)


def loading_options(keys: Mapping[str, int]) -> dict[str, int]:
    """The `threads`, `workers` and `prefetch` of `batches` from a recipe's keys of the same names.

    `threads=0` is one for each core that this process may use, 16 at most; worker processes share them. Processes that
    share a machine, as hosts simulated on one do, know nothing of each other and take as many each: give a number.
    """
    threads, workers, prefetch = (int(keys[key]) for key in ("threads", "workers", "prefetch"))
    threads = threads or max(1, min(MOST_THREADS, cores()) // max(1, workers))
    return {"threads": threads, "workers": workers, "prefetch": prefetch}


def every_image(source: Any, batch: int, *, part: slice = slice(None), **options) -> Iterator[Batch]:
    """All images of a source that has a length, in order, in batches of `batch` with the last one padded.

    Hosts give `part`, their slice of a batch; `options` as `batches` takes.
    """
    reader = StepReader({"source": source}, sequential_draw(len(source), batch), parts={"source": part})
    for _, streams in batches(reader, 0, -(-len(source) // batch), **options):
        yield streams["source"]
