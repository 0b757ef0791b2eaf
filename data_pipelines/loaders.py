"""From drawn rows to batches: decode, augment, stack, and prefetch with grain.

Every host knows the global batch of a step (a `Draw`) and decodes its own slice of it. What an image looks like depends
on the seed, the step, the stream and the image's position in the global batch, never on threads, workers or hosts; so a
run may stop at any step and go on with other numbers of them.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from absl import flags

from data_pipelines.augment import Augment, crop_resize
from data_pipelines.cores import cores
from data_pipelines.draws import Batch, Draw, generator, sequential_draw
from data_pipelines.errors import DataError
from data_pipelines.images import RULES, Array, Encoded, ImageError, Size, fit, pixels, read
from data_pipelines.panorama import Panorama
from data_pipelines.places import Paths

MOST_THREADS = 16  # unless a recipe says more: each holds a batch in memory


class Source(Protocol):
    """Where a stream's arrays come from: image files, or memory-mapped descriptors. Must be picklable."""

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = slice(None)) -> Batch:
        """The elements `part` of the global batch."""
        ...


@dataclass(frozen=True)
class ImageSource:
    """Decodes image files.

    Attributes:
      paths: the file of every row.
      size: (height, width) of the images in a batch; images of other sizes are squashed to it.
      rule: one of `images.RULES`.
      augment: crop, flip and colours of a training image; None for none.
      on_error: what an unreadable image does: "raise" stops with its ImageError, "skip" gives zeros, mask False and
        bad True.
      reduce: decode JPEGs at 1/2, 1/4 or 1/8 where that is no smaller than the result. Faster and nearly the same, but
        not bit for bit what a published preprocessing gives. None: only while augmenting all images of an element.
      shared: give all images of one element (the frames of a clip) the same random numbers.
      queries_only: augment the first image of every element (the query of a triplet) and read the others as without
        augmentation. Flip alone is the element's: all its images are mirrored, or none.
      crop_from: (height, width) that images are squashed to instead, of which the middle `size` is cut; empty keeps
        each image's own. Without augmentation only.
      panorama: the files are panoramas. Where a draw has a heading its view is cut out first, and everything above is
        about that view; where it has NaN the whole strip is shown.
    """

    paths: Paths
    size: Size
    rule: str = "pil_bilinear"
    augment: Augment | None = None
    on_error: str = "raise"
    reduce: bool | None = None
    shared: bool = False
    crop_from: Sequence[int] | None = None
    queries_only: bool = False
    panorama: Panorama | None = None

    def __post_init__(self):
        if self.rule not in RULES:
            raise DataError(f"no resize rule {self.rule!r}; there are {', '.join(RULES)}")
        if self.on_error not in ("raise", "skip"):
            raise DataError(f"on_error={self.on_error!r}: expected 'raise' or 'skip'")
        if self.augment is not None and self.crop_from is not None:
            raise DataError("crop_from cuts the middle out; the crops of augment are random: give one of them")
        if self.queries_only and (self.augment is None or self.shared):
            raise DataError("queries_only augments one image of each element: give augment, and not shared")
        if self.panorama is not None and len(self.panorama.yaw) != len(self.paths):
            raise DataError(f"{len(self.panorama.yaw)} yaws of {len(self.paths)} panoramas: give each its own")

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = slice(None)) -> Batch:
        """Decodes the elements `part` of the global batch.

        Returns:
          image: uint8 [b, H, W, 3] or [b, F, H, W, 3], zeros where the row is -1 or the file is bad.
          label: int32 [b]. row: int64, the rows.
          mask: bool [b], the draw's, and False where a file is bad.
          bad: bool [b], elements with an unreadable file (only with on_error="skip").

        Raises:
          ImageError: names the unreadable file (only with on_error="raise").
          DataError: names a panorama whose yaw is unknown.
          ValueError: where the draw asks for headings, and the images are no panoramas.
        """
        view = draw.view[part]
        if self.panorama is None and not np.isnan(view).all():
            raise ValueError("this source reads whole images: the draw's view must be NaN, not a heading to cut out")
        rows = draw.rows[part]
        first, per_element = range(len(draw.rows))[part].start, int(np.prod(rows.shape[1:]))
        images = np.zeros((rows.size, *self.size, 3), np.uint8)
        unreadable = np.zeros(rows.size, bool)
        for index in np.flatnonzero(rows.ravel() >= 0):
            of, number = divmod(int(index), per_element)
            position = (first + of) * per_element + (0 if self.shared else number)
            rng = generator(seed, step, stream, position)
            try:
                images[index] = self.image(rows.flat[index], rng, number, float(view[of]))
            except ImageError:
                if self.on_error == "raise":
                    raise
                unreadable[index] = True
        bad = np.logical_or.reduce(unreadable.reshape(len(rows), per_element), axis=1)
        images = images.reshape(*rows.shape, *self.size, 3)
        if self.queries_only and self.augment is not None:
            # In a stream of its own, since how many numbers the query draws depends on its file.
            for position, element in enumerate(images, first):
                if generator(seed, step, f"{stream}/flip", position).random() < self.augment.flip:
                    element[:] = element[..., ::-1, :]
        return {
            "image": images,
            "label": draw.label[part],
            "row": rows,
            "mask": np.logical_and(draw.mask[part], ~bad),
            "bad": bad,
        }

    def image(self, row: int, rng: np.random.Generator, number: int = 0, heading: float = np.nan) -> Array:
        """uint8 [*size, 3] of one row, the `number`-th image of its element, seen under a heading of its panorama."""
        encoded = read(self.paths[row])
        full = self._full(encoded, heading)
        reduce = (self.augment is not None and not self.queries_only) if self.reduce is None else self.reduce
        augment = self._augment(number)
        if augment is None:
            whole = self._pixels(encoded, row, heading, self.size if reduce and self.crop_from is None else None)
            return fit(whole, self.size, self.rule, self.crop_from)
        box = augment.box(rng, full)
        # The box must keep as many pixels as the result has, so the whole image needs more by full / box.
        at_least = _enlarged(self.size, full, box[2:]) if reduce else None
        decoded = augment.begin(self._pixels(encoded, row, heading, at_least), rng)
        cut = crop_resize(decoded, _scaled(box, full, decoded.shape[:2]), self.size, self.rule)
        return augment.finish(cut, rng)

    def _full(self, encoded: Encoded, heading: float) -> Size:
        """(height, width) of the image, or of the view under `heading`, with all its pixels."""
        if self.panorama is None or np.isnan(heading):
            return encoded.height, encoded.width
        self.panorama.check(encoded)
        return self.panorama.size[0], self.panorama.width

    def _pixels(self, encoded: Encoded, row: int, heading: float, at_least: Size | None) -> Array:
        if self.panorama is None or np.isnan(heading):
            return pixels(encoded, at_least)
        return self.panorama.view(encoded, row, heading, at_least)

    def complaints(self, batch: Batch) -> list[str]:
        """Why the bad elements of a batch are bad; see the function of that name."""
        return complaints(self.paths, batch, self.panorama)

    def _augment(self, number: int) -> Augment | None:
        if self.augment is None or not self.queries_only:
            return self.augment
        return None if number else dataclasses.replace(self.augment, flip=0.0)


def _enlarged(size: Size, full: Size, box: Size) -> Size:
    return -(-size[0] * full[0] // box[0]), -(-size[1] * full[1] // box[1])


def _scaled(box: tuple[int, int, int, int], full: Size, reduced: Size) -> tuple[int, int, int, int]:
    """A box of the full image in the pixels of the reduced one, rounded outwards to whole pixels inside it."""
    if full == reduced:
        return box
    top, left = box[0] * reduced[0] // full[0], box[1] * reduced[1] // full[1]
    bottom, right = -(-(box[0] + box[2]) * reduced[0] // full[0]), -(-(box[1] + box[3]) * reduced[1] // full[1])
    return top, left, bottom - top, right - left


@dataclass(frozen=True)
class ArraySource:
    """Reads rows of a `.npy` file, memory-mapped: cached descriptors instead of images.

    Attributes:
      file: float array [N, ...].
      name: the key of the batch that holds the rows.
    """

    file: str
    name: str = "descriptor"

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = slice(None)) -> Batch:
        """{name: float32 [*rows.shape, ...], label, row, mask, bad}; zeros where the row is -1."""
        rows = draw.rows[part]
        values = np.load(self.file, mmap_mode="r")[np.maximum(rows, 0)].astype(np.float32)
        values[rows < 0] = 0
        batch = {"label": draw.label[part], "row": rows, "mask": draw.mask[part], "bad": np.zeros(len(rows), bool)}
        return {self.name: values, **batch}


@dataclass(frozen=True)
class StepReader:
    """Step to batches of every stream: what `batches` calls, in threads or in other processes.

    Attributes:
      sources: stream name to its source.
      draw: step to {stream name: Draw}, pure and picklable.
      seed: of the augmentation.
      parts: stream name to the slice of its global batch that this host decodes; all of it where nothing is said.
    """

    sources: Mapping[str, Source]
    draw: Callable[[int], Mapping[str, Draw]]
    seed: int = 0
    parts: Mapping[str, slice] = field(default_factory=dict)

    def __call__(self, step: int) -> dict[str, Batch]:
        return {
            name: self.sources[name].read(draw, self.seed, step, name, self.parts.get(name, slice(None)))
            for name, draw in self.draw(step).items()
        }


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
    import grain  # here, since what only looks at sources needs none of it

    ahead = max(prefetch, threads)
    steps = grain.MapDataset.range(first, last).map(functools.partial(_numbered, read_step))
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


def reading(asked: Mapping[str, int]) -> dict[str, int]:
    """The `threads`, `workers` and `prefetch` of `batches` that a recipe asks for with its keys of the same names.

    `threads=0` is one for each core that this process may use, 16 at most; worker processes share them. Processes that
    share a machine, as hosts simulated on one do, know nothing of each other and take as many each: give a number.
    """
    threads, workers, prefetch = (int(asked[key]) for key in ("threads", "workers", "prefetch"))
    threads = threads or max(1, min(MOST_THREADS, cores()) // max(1, workers))
    return {"threads": threads, "workers": workers, "prefetch": prefetch}


def _numbered(read_step: Callable[[int], dict[str, Batch]], step: int) -> tuple[int, dict[str, Batch]]:
    return int(step), read_step(int(step))


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


def complaints(paths: Paths, batch: Batch, panorama: Panorama | None = None) -> list[str]:
    """Why the bad elements of a batch are bad, one line a file: what a run that skips them prints and counts.

    Of a source with a `panorama`, give that: a file of another size is none of its panoramas.
    """
    messages = []
    for row in np.unique(batch["row"][batch["bad"]]):
        try:
            if row >= 0:
                encoded = read(paths[row])
                pixels(encoded)
                if panorama is not None:
                    panorama.check(encoded)
        except ImageError as error:
            messages.append(str(error))
    return messages
