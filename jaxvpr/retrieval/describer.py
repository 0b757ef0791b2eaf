"""Images to descriptors with one model and its preprocessing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from jax.sharding import Mesh

from data_pipelines import shapes
from data_pipelines.clips import Clips
from data_pipelines.image_source import ImageSource
from data_pipelines.images import DEVICE_RULES, Size, middle
from data_pipelines.loaders import every_image
from data_pipelines.places import Paths
from data_pipelines.sources import ClipSource, Source
from jaxvpr.errors import UserError
from jaxvpr.models import Preprocess, resizing
from jaxvpr.parallel import device_memory, hosts
from jaxvpr.parallel.mesh import local_rows
from jaxvpr.retrieval import cache
from jaxvpr.retrieval.extract import (
    Described,
    NotFiniteError,
    Table,
    describe,
    describe_mixed,
    in_memory,
    memory,
    trace,
)

log = logging.getLogger(__name__)
Array = np.ndarray
Apply = Callable[[Any, Any], Any]
T = TypeVar("T", Described, cache.Cache)
Images: TypeAlias = Paths | Sequence[Array]  # files, or uint8 [H, W, 3] each
Shown: TypeAlias = Images | Clips | Source


class Describer:
    """Turns images into descriptors with one model and its preprocessing; reading and computing overlap.

    Images that are resized on the device, or keep their own size, are read as they are: their sizes are read from
    the headers first, and a prefetched batch may be large (`eval.batch`, `loader.prefetch`).

    Args:
      apply: `(variables, images [B, H, W, 3] in [0, 255], uint8 or float32) -> [B, D]`; of clips [B, F, H, W, 3].
      mesh: a batch is split over all of its devices.
      preprocess: how images are brought to the model's size.
      batch: images of a batch on each device. Of all devices together where descriptors depend on the batch.
      loading: `threads`, `workers` and `prefetch` of `loaders.batches`.
      on_error: what an unreadable image does, as in `sources.ImageSource`.
      depends_on_batch: a descriptor depends on the other images of its batch. Batches then are `batch` images in order,
        and the last is not filled up with blank ones.
    """

    def __init__(
        self,
        apply: Apply,
        mesh: Mesh,
        preprocess: Preprocess,
        *,
        batch: int,
        loading: Mapping[str, int],
        on_error: str = "raise",
        depends_on_batch: bool = False,
    ):
        self.mesh, self._apply, self._depends_on_batch = mesh, apply, depends_on_batch
        self._batch = -(-batch // mesh.size) * mesh.size if depends_on_batch else batch * mesh.size
        self._loading, self._on_error = dict(loading), on_error
        self._size: Any = tuple(preprocess.size)  # (height, width), or () for each image's own
        self._multiple, self._crop = preprocess.multiple, preprocess.crop
        on_device = preprocess.resize in DEVICE_RULES
        self._host_rule = "pil_bilinear" if on_device else preprocess.resize
        self._device_rule = preprocess.resize if on_device else ""
        self._named: set[str] = set()

    def __call__(
        self,
        variables: Any,
        images: Shown,
        apply: Apply | None = None,
        sized_for: int = 0,
        table: Table = in_memory,
    ) -> Described:
        """Descriptors of all images; another `apply` (a baseline) sees the same.

        Fewer images than a batch do not pay for all of one: their batch is the next power of two (times the devices),
        so that few sizes are compiled.

        Args:
          images: files, uint8 arrays [H, W, 3], clips, or a source that brings its rows to one shape itself, such as
            cached feature maps. `apply` is given what the source reads, an array or, where that is several, a dict.
          sized_for: images of another set whose batch size, and so compiled program, this call shares.
          table: makes what the descriptors are put into, as of `extract.describe`.
        """
        batch = self._batch_for(max(len(images), sized_for))
        in_order, mixed = (partial(make, table=table) for make in (describe, describe_mixed))
        return self._described(in_order, mixed, variables, images, apply, batch)

    def on_mesh(self, variables: Any, images: Shown, apply: Apply | None = None, sized_for: int = 0) -> cache.Cache:
        """The same descriptors, left on the devices; image r is row r. Without `sized_for` a batch is always full, so
        that sets of any size share one program."""
        batch = self._batch_for(max(len(images), sized_for or self._batch))
        fill, fill_mixed = (partial(make, batch=batch) for make in (cache.fill, cache.fill_mixed))
        return self._described(fill, fill_mixed, variables, images, apply, batch)

    def dimension(self, variables: Any, images: Shown, apply: Apply | None = None, sized_for: int = 0) -> int:
        """How many numbers a descriptor has; nothing is computed."""
        frames = (images.length,) if isinstance(images, Clips) else ()
        size = (*frames, *shapes.common_size(self._size, self._multiple, self._crop))
        batch = self._batch_for(max(len(images), sized_for))
        return trace(apply or self._apply, variables, self.mesh, batch, size, np.uint8)

    def _batch_for(self, images: int) -> int:
        return min(self._batch, shapes.padded_length(images, self.mesh.size))

    def _described(
        self,
        in_order: Callable[..., T],
        mixed: Callable[..., T],
        variables: Any,
        images: Shown,
        apply: Apply | None,
        batch: int,
    ) -> T:
        """What one of two functions makes of all images: `mixed` of those that are read at several sizes."""
        apply = apply or self._apply
        if isinstance(images, Clips):
            images, apply = self._of_clips(images, apply)
        source = self._source_of_one_size(images)
        too_much = device_memory.told(
            f"describing images, eval.batch={batch // self.mesh.size}",
            partial(self._advice, apply, variables, batch, source),
        )
        with _naming(images), too_much:
            if source is None:
                found = self._of_own_sizes(mixed, apply, variables, cast(Images, images), batch)
            else:
                found = in_order(apply, variables, self._batches(source, batch), len(source), self.mesh)
        self._log_missing(images, found.missing)
        return found

    def _advice(self, apply: Apply, variables: Any, batch: int, source: Any) -> str:
        """The batch that fits, where images have one size."""
        devices, dtype = self.mesh.size, np.float32 if source is None and self._device_rule else np.uint8
        each, found, fits = batch // devices, "", 0
        shape: tuple[int, ...] = ()
        if isinstance(source, ClipSource):
            shape = (source.clips.shape[1], *source.images.size)
        elif self._size:
            shape = shapes.common_size(self._size, self._multiple, self._crop)
        if shape:

            def takes(each: int) -> int:
                return memory(apply, variables, self.mesh, each * devices, shape, dtype)

            fits, found = device_memory.that_fits(takes, "eval.batch", each, 1)
        return f"{found}{'. ' * bool(found)}Start with --config.eval.batch={fits or max(each // 2, 1)}"

    def _source_of_one_size(self, images: Shown) -> Any:
        """The source that reads all images at the model's input size, in order; None where their sizes differ."""
        if isinstance(images, Clips) or hasattr(images, "read"):
            return images
        if not self._size or self._device_rule or self._depends_on_batch:
            return None
        return self._source(images, shapes.common_size(self._size, self._multiple, self._crop), self._crop)

    def _of_clips(self, clips: Clips, apply: Apply) -> tuple[ClipSource, Apply]:
        """The source of some clips at one size, and what describes them: it resizes them first where that is due on
        the device.

        Raises:
          UserError: for frames of several sizes that are not resized on the host.
        """
        read = size = shapes.common_size(self._size, self._multiple, self._crop)
        rule, crop_from = self._on_device()
        if rule or not self._size:
            read = self._size_of_frames(clips)
            size = _pair(shapes.shown_sizes(np.array([read]), self._size, self._multiple, self._crop)[0])
        crop = self._size if self._crop and not rule else None
        frames = ImageSource(
            clips.images.path, read if rule else size, self._host_rule, on_error=self._on_error, crop_from=crop
        )
        return ClipSource(frames, clips.rows), _of_resized(apply, rule, size, crop_from) if rule else apply

    def _size_of_frames(self, clips: Clips) -> Size:
        """(height, width) of all frames; UserError where they differ."""
        used = np.unique(clips.rows)
        paths = clips.images.path.take(used)
        own = self._own_sizes(paths)
        other = np.flatnonzero((own != own[:1]).any(axis=1))
        if len(other):
            (height, width), (tall, wide) = own[0], own[other[0]]
            raise UserError(
                f"{paths[0]} has {height}x{width} pixels and {paths[other[0]]} {tall}x{wide}: the frames of clips "
                "share a size. Set image.size, and image.resize to a rule of the host such as pil_bilinear"
            )
        return _pair(own[0])

    def _on_device(self) -> tuple[str, Any]:
        """The rule by which images of their own sizes are resized on the device, "" for none; and the size before
        their middle is cut out."""
        # Images of their own size that are cropped are not resized at all.
        rounds = self._multiple > 1 and not self._crop
        rule = self._device_rule if self._size or rounds else ""
        return rule, self._size if self._crop and rule else None

    def _batches(self, source: Any, batch: int) -> Iterator[Mapping[str, Array]]:
        """This host's share of batches of one size, all rows in order."""
        return every_image(source, batch, part=local_rows(self.mesh, batch), **self._loading)

    def _of_own_sizes(self, make: Callable[..., T], apply: Apply, variables: Any, images: Images, batch: int) -> T:
        own = self._own_sizes(images)
        paths = images if isinstance(images, Paths) else None
        show = shapes.shown_sizes(own, self._size, self._multiple, self._crop, paths)
        rule, crop_from = self._on_device()
        plan = shapes.plan(
            own if rule else show,
            show,
            batch,
            unit=self.mesh.size,
            fixed=bool(self._size),
            exact=self._depends_on_batch,
        )
        self._refuse_too_small(apply, variables, images, plan, np.float32 if rule else np.uint8)
        if self._depends_on_batch and any(mixed.length > _images(mixed) for mixed in plan):
            log.warning(
                "this model's descriptors depend on the other images of a batch, and for %d devices the last batch is "
                "padded with blank ones. Use one device, or model.aggregator_options.cross_image=false",
                self.mesh.size,
            )
        lengths = {len(chunk.rows) for mixed in plan for chunk in mixed.chunks}
        parts = {length: local_rows(self.mesh, length) for length in lengths}
        source = self._source(images, shapes.NOMINAL, self._crop and not rule)
        batches = shapes.mixed_batches(source, plan, parts, **self._loading)
        counts = [len(np.unique(sizes, axis=0)) for sizes in (own, show)]
        log.info("%d images, sizes: %d, sizes shown to the model: %d", len(own), *counts)
        return make(apply, variables, batches, len(images), self.mesh, rule=rule, crop_from=crop_from)

    def _refuse_too_small(self, apply: Apply, variables: Any, images: Images, plan: list[shapes.Mixed], dtype: Any):
        """Raises UserError, which names an image, where the model cannot be traced at the size of its batch: before
        anything is computed."""
        first = {(mixed.size, mixed.length): mixed for mixed in plan[::-1]}
        for mixed in sorted(first.values()):
            try:
                trace(apply, variables, self.mesh, mixed.length, mixed.size, dtype)
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"{_name(images, mixed.chunks[0].rows[0])}, shown to the model at {mixed.size[0]}x{mixed.size[1]} "
                    f"pixels: {error}. Leave it out, or bring all images to one size (image.size)"
                ) from error

    def _own_sizes(self, images: Images) -> Array:
        """int32 [N, 2], the same on every host; an unreadable file gets the size of the first readable one, and
        is reported when it is decoded."""
        if isinstance(images, Paths):
            read_sizes = partial(shapes.own_sizes, images, self._loading["threads"])
            own = hosts.of_first(read_sizes, (len(images), 2))
        else:
            own = np.array([image.shape[:2] for image in images], np.int32)
        readable = own.min(axis=1, initial=1) > 0
        return np.where(readable[:, None], own, own[readable][0] if readable.any() else shapes.NOMINAL)

    def _source(self, images: Images, size: Size, crop: bool) -> ImageSource | shapes.MemorySource:
        crop_from = self._size if crop else None
        if isinstance(images, Paths):
            return ImageSource(images, size, self._host_rule, on_error=self._on_error, crop_from=crop_from)
        return shapes.MemorySource(images, size, self._host_rule, crop_from)

    def _log_missing(self, images: Any, missing: Array) -> None:
        """Names each unreadable image once, however often it is read, and counts them, or their clips, every time."""
        if not len(missing):
            return
        source = ImageSource(images, shapes.NOMINAL) if isinstance(images, Paths) else images
        names = source.names(missing)
        new = np.array([row for row, name in zip(missing, names, strict=True) if name not in self._named], np.int64)
        self._named.update(names)
        for error in source.read_errors({"row": new, "bad": np.ones(len(new), bool)}):
            log.warning("left out: %s", error)
        what = "clips" if isinstance(images, ClipSource) else "images"
        log.warning("%d of %d %s could not be read", len(missing), len(images), what)


@lru_cache(maxsize=16)
def _of_resized(apply: Apply, rule: str, size: Size, crop_from: Any) -> Apply:
    """`apply` for clips of another size. The same object for equal arguments, so that it is compiled once."""

    def resized(variables: Any, clips: Any) -> Any:
        frames = clips.reshape(-1, *clips.shape[2:])
        shown = resizing.resize(frames, crop_from or size, rule, middle(crop_from or size, size))
        return apply(variables, shown.reshape(*clips.shape[:2], *shown.shape[1:]))

    return resized


def _pair(sides: Array) -> Size:
    height, width = sides.tolist()
    return height, width


def _name(images: Shown, row: int) -> str:
    """What an error calls an image."""
    if isinstance(images, Paths):
        return images[row]
    return images.names(np.array([row]))[0] if hasattr(images, "names") else f"image {row}"


@contextmanager
def _naming(images: Shown) -> Iterator[None]:
    """Errors of one image name it."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(error.row, error.more, _name(images, error.row)) from error


def _images(mixed: shapes.Mixed) -> int:
    return sum(int((chunk.rows >= 0).sum()) for chunk in mixed.chunks)
