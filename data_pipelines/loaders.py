"""From draws to batches, ahead of time: read in threads and processes, prefetched with grain.

Every host knows the global batch of a step (a `Draw`) and reads its own slice of it from a source (`sources`).
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from absl import flags

from data_pipelines.children import end_with_parent
from data_pipelines.cores import cores
from data_pipelines.draws import Batch, Draw, sequential_draw
from data_pipelines.sources import Source

MOST_THREADS = 16  # unless a recipe sets more: each holds a batch in memory


@dataclass(frozen=True)
class StepReader:
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

    def __call__(self, step: int) -> dict[str, Batch]:
        return {name: self._read(name, draw, step) for name, draw in self.draw(step).items()}

    def _read(self, name: str, draw: Draw, step: int) -> Batch:
        source: Any = self.sources[name]
        read = source.read_images if name in self.by_image else source.read
        return read(draw, self.seed, step, name, self.parts.get(name, slice(None)))


def batches(
    read_step: Callable[[int], dict[str, Batch]],
    first: int,
    last: int,
    *,
    threads: int = 4,
    workers: int = 0,
    prefetch: int = 4,
) -> Iterator[tuple[int, dict[str, Batch]]]:
    """Reads the steps first, first + 1, ..., last - 1 ahead of time and yields them in this order.

    Close the iterator (or drop it) to stop early; its threads and processes end with it.

    Args:
      read_step: step to {stream: batch}; picklable where `workers` > 0. See `StepReader`.
      first, last: the steps to read; a run that resumes begins at another `first`.
      threads: steps decoded at the same time, in this process or in each worker. Decoders let go of the
        interpreter, so threads alone are usually enough; 0 reads in the caller's thread.
      workers: further processes, each with its own threads and its own copy of `read_step`; batches come back through
        shared memory (`/dev/shm` must hold `workers * prefetch` of them).
      prefetch: batches held ready, per process; at least `threads`.

    Yields:
      (step, {stream: {key: array}}), one step at a time.

    Raises:
      ImageError: of a source that does not skip; as from `read_step` itself, from wherever it was raised.
    """
    if last <= first:
        return
    import grain  # here, since reading a source alone does not need it

    ahead = max(prefetch, threads)
    steps = grain.MapDataset.range(first, last).map(functools.partial(_in_worker if workers else _numbered, read_step))
    dataset = steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads its flags, which only an absl app has parsed
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
        dataset = dataset.mp_prefetch(options)
    iterator = iter(dataset)
    try:
        yield from map(_owned, iterator) if workers else iterator
    finally:
        iterator.close()
        if workers:
            gc.collect()  # grain's last exception holds the last batches in a cycle, and they hold shared memory


def loading_options(keys: Mapping[str, int]) -> dict[str, int]:
    """The `threads`, `workers` and `prefetch` of `batches` from a recipe's keys of the same names.

    `threads=0` is one for each core that this process may use, 16 at most; worker processes share them. Processes that
    share a machine, as hosts simulated on one do, know nothing of each other and take as many each: give a number.
    """
    threads, workers, prefetch = (int(keys[key]) for key in ("threads", "workers", "prefetch"))
    threads = threads or max(1, min(MOST_THREADS, cores()) // max(1, workers))
    return {"threads": threads, "workers": workers, "prefetch": prefetch}


def _numbered(read_step: Callable[[int], dict[str, Batch]], step: int) -> tuple[int, dict[str, Batch]]:
    return int(step), read_step(int(step))


def _in_worker(read_step: Callable[[int], dict[str, Batch]], step: int) -> tuple[int, dict[str, Batch]]:
    end_with_parent()
    return _numbered(read_step, step)


def _owned(element: tuple[int, dict[str, Batch]]) -> tuple[int, dict[str, Batch]]:
    """Copies what a worker left in shared memory into plain arrays, so that the shared memory is freed."""
    step, streams = element
    return step, {name: {key: np.array(value) for key, value in batch.items()} for name, batch in streams.items()}


def every_image(source: Any, batch: int, *, part: slice = slice(None), **options) -> Iterator[Batch]:
    """All images of a source that has a length, in order, in batches of `batch` with the last one padded.

    Hosts give `part`, their slice of a batch; `options` as `batches` takes.
    """
    reader = StepReader({"source": source}, sequential_draw(len(source), batch), parts={"source": part})
    for _, streams in batches(reader, 0, -(-len(source) // batch), **options):
        yield streams["source"]
