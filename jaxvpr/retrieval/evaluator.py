"""Evaluates descriptors on data sets: extract, search, recall, with the protocol that makes a recall comparable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import shapes
from data_pipelines.errors import DataError
from data_pipelines.images import DEVICE_RULES, Size
from data_pipelines.loaders import ImageSource, complaints, every_image, reading
from data_pipelines.places import Paths, Places
from data_pipelines.progress import slow
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.parallel.mesh import local_rows
from jaxvpr.retrieval import cache, search
from jaxvpr.retrieval.classes import Classes, locate
from jaxvpr.retrieval.extract import Described, describe, describe_mixed
from jaxvpr.retrieval.positives import Positives, parse_threshold
from jaxvpr.retrieval.recall import Recall, recall

log = logging.getLogger(__name__)
Array = np.ndarray
Apply = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Benchmark:
    """A data set to measure on.

    Attributes:
      name: what a report calls it.
      split: which part of the data set it is, for the protocol line.
      database, queries: the images of each role.
      positives: threshold ("25m") -> which database images answer each query.
    """

    name: str
    split: str
    database: Places
    queries: Places
    positives: Mapping[str, Positives]


@dataclass(frozen=True)
class Measured:
    """Predictions of one set of descriptors on a benchmark, and what they are worth.

    Attributes:
      predictions: int64 [Q, k], database rows, nearest first. distances: float32 [Q, k], squared L2.
      recalls: threshold -> `Recall`.
      dimension: of the descriptors.
      missing: how many images could not be read (they count as never found, or as queries that fail).
      extraction_ms: per image, with reading. matching_ms: per query.
      located: threshold -> what the classes that the model was trained with are worth; see `classes.locate`.
      classes: how many there are.
    """

    predictions: Array
    distances: Array
    recalls: Mapping[str, Recall]
    dimension: int
    missing: int
    extraction_ms: float
    matching_ms: float
    located: Mapping[str, Recall] = field(default_factory=dict)
    classes: int = 0


class Evaluated(NamedTuple):
    """One benchmark measured: by the method and by the baselines (`thumbnail`, `untrained`) where they were asked
    for."""

    bench: Benchmark
    method: Measured
    baselines: dict[str, Measured]


def benchmark(name: str, places: Places, split: str, thresholds: tuple[str, ...], lists: Any = None) -> Benchmark:
    """A benchmark from one table with both roles.

    Args:
      places: rows with role "database" and "query"; others are left out.
      thresholds: such as ("25m",); see `positives.parse_threshold`.
      lists: published positives (indptr, indices), for the threshold "list".

    Raises:
      DataError: where one of the roles has no image.
    """
    database, queries = places.select(role="database"), places.select(role="query")
    for role, part in (("database", database), ("query", queries)):
        if not len(part):
            raise DataError(f"{name}: no {role} images among {len(places)}; a data set to measure on needs both roles")
    makers = {text: parse_threshold(text, lists) for text in thresholds}
    with slow(f"{name}: looking which of {len(database):,} images answer {len(queries):,} queries"):
        positives = {text: make(database, queries) for text, make in makers.items()}
    return Benchmark(name, split, database, queries, positives)


class Describer:
    """Turns images into descriptors with one model and its preprocessing; reading and computing overlap.

    Images that are resized on the device, or keep their own size, are read as they are: their sizes are looked up in
    the headers first, and a prefetched batch may be large (`eval.batch`, `loader.prefetch`).

    Args:
      apply: `(variables, images [B, H, W, 3] in [0, 255], uint8 or float32) -> [B, D]`.
      config: the whole recipe; its `image`, `eval` and `loader` are read.
      across: the model looks from one image of a batch to the others. Batches then are `eval.batch` images in order,
        and the last is not filled up with blank ones.
    """

    def __init__(self, apply: Apply, config: ConfigDict, mesh: Mesh, across: bool = False):
        self._apply, self._mesh, self._across = apply, mesh, across
        self._batch = -(-config.eval.batch // mesh.size) * mesh.size
        loader, image = config.loader, config.image
        self._loading = reading(loader)
        self._on_error = loader.on_error
        self._size, self._multiple, self._crop = tuple(image.size), image.multiple, image.crop
        on_device = image.resize in DEVICE_RULES
        self._host_rule = "pil_bilinear" if on_device else image.resize
        self._device_rule = image.resize if on_device else ""
        self._named: set[str] = set()

    def __call__(
        self, variables: Any, images: Paths | Sequence[Array], apply: Apply | None = None, beside: int = 0
    ) -> Described:
        """Descriptors of all images, files or uint8 arrays [H, W, 3]; another `apply` (a baseline) sees the same.

        Fewer images than `eval.batch` do not pay for a whole one: their batch is the next power of two (times the
        devices), so that few sizes are compiled. A set of `beside` images that is described besides shares its size.
        """
        apply, batch = apply or self._apply, self._batch_for(max(len(images), beside))
        if self._one_size():
            found = describe(apply, variables, self._batches(images, batch), len(images), self._mesh)
        else:
            found = self._of_own_sizes(apply, variables, images, batch)
        if isinstance(images, Paths):
            self._complain(images, found.missing)
        return found

    def on_mesh(self, variables: Any, images: Paths | Sequence[Array]) -> cache.Cache:
        """The same descriptors, left on the devices; image r is row r.

        Images that are read at several sizes are described out of order. Their descriptors come to the host and are
        sent back.
        """
        if not self._one_size():
            return cache.spread(self(variables, images, beside=self._batch), self._mesh, self._batch)
        batches = self._batches(images, self._batch)
        found = cache.keep(self._apply, variables, batches, len(images), self._mesh, self._batch)
        if isinstance(images, Paths):
            self._complain(images, cache.missing(found))
        return found

    def _one_size(self) -> bool:
        """Whether all images are read at the size that the model is shown, and may be batched in order."""
        return bool(self._size and not self._device_rule and not self._across)

    def _batch_for(self, images: int) -> int:
        """Images of a batch of a set of so many."""
        return min(self._batch, shapes.enough(images, self._mesh.size))

    def _batches(self, images: Paths | Sequence[Array], batch: int) -> Iterator[Mapping[str, Array]]:
        """This host's share of batches of one size, all images in order."""
        size = shapes.target(self._size, self._multiple, self._crop)
        source, part = self._source(images, size, self._crop), local_rows(self._mesh, batch)
        return every_image(source, batch, part=part, **self._loading)

    def _of_own_sizes(self, apply: Apply, variables: Any, images: Paths | Sequence[Array], batch: int) -> Described:
        own = self._own_sizes(images)
        paths = images if isinstance(images, Paths) else None
        show = shapes.shown(own, self._size, self._multiple, self._crop, paths)
        # Images of their own size that are cropped are not resized at all.
        rounds = self._multiple > 1 and not self._crop
        rule = self._device_rule if self._size or rounds else ""
        plan = shapes.plan(
            own if rule else show,
            show,
            batch,
            unit=self._mesh.size,
            fixed=bool(self._size),
            exact=self._across,
        )
        if self._across and any(mixed.length > _images(mixed) for mixed in plan):
            log.warning(
                "this model looks at all images of a batch, and %d devices fill the last up with blank ones; one "
                "device would not, or model.aggregator_options.cross_image=false, which makes each image independent",
                self._mesh.size,
            )
        lengths = {len(chunk.rows) for mixed in plan for chunk in mixed.chunks}
        parts = {length: local_rows(self._mesh, length) for length in lengths}
        source = self._source(images, shapes.NOMINAL, self._crop and not rule)
        batches = shapes.mixed_batches(source, plan, parts, **self._loading)
        log.info("%d images, sizes: %d, sizes shown to the model: %d", len(own), *map(shapes.distinct, (own, show)))
        crop_from = self._size if self._crop and rule else None
        return describe_mixed(apply, variables, batches, len(images), self._mesh, rule, crop_from)

    def _own_sizes(self, images: Paths | Sequence[Array]) -> Array:
        """int32 [N, 2], the same on every host; an unreadable file is taken to be as large as the first readable one,
        and is met again when it is decoded."""
        if isinstance(images, Paths):
            look = partial(shapes.own_sizes, images, self._loading["threads"])
            own = hosts.of_first(look, (len(images), 2))
        else:
            own = np.array([image.shape[:2] for image in images], np.int32)
        readable = own.min(axis=1, initial=1) > 0
        return np.where(readable[:, None], own, own[readable][0] if readable.any() else shapes.NOMINAL)

    def _source(self, images: Paths | Sequence[Array], size: Size, crop: bool) -> ImageSource | shapes.MemorySource:
        crop_from = self._size if crop else None
        if isinstance(images, Paths):
            return ImageSource(images, size, self._host_rule, on_error=self._on_error, crop_from=crop_from)
        return shapes.MemorySource(images, size, self._host_rule, crop_from)

    def _complain(self, paths: Paths, missing: Array) -> None:
        """Names each unreadable image once, however often it is asked for, and counts them every time."""
        if not len(missing):
            return
        new = np.array([row for row in missing if paths[row] not in self._named], np.int64)
        self._named |= {paths[row] for row in new}
        for complaint in complaints(paths, {"row": new, "bad": np.ones(len(new), bool)}):
            log.warning("left out: %s", complaint)
        log.warning("%d of %d images could not be read", len(missing), len(paths))


def _images(mixed: shapes.Mixed) -> int:
    return sum(int((chunk.rows >= 0).sum()) for chunk in mixed.chunks)


def measure(
    describer: Describer,
    variables: Any,
    bench: Benchmark,
    ns: tuple[int, ...],
    apply: Apply | None = None,
    classes: Classes | None = None,
) -> Measured:
    """Descriptors of a benchmark's images, their exact nearest neighbours, and the recall for every threshold.

    With `classes` the queries are localised by classification too.

    Raises:
      UserError: where the database has fewer images than the largest N.
    """
    if len(bench.database) < max(ns):
        raise UserError(
            f"{bench.name}: recall@{max(ns)} was asked for, but the database has {len(bench.database)} images; "
            "set eval.recalls"
        )
    most = max(len(bench.database), len(bench.queries))
    database = describer(variables, bench.database.path, apply, most)
    began = time.monotonic()  # after the database: the first batch of a model compiles it
    queries = describer(variables, bench.queries.path, apply, most)
    extracted = time.monotonic()
    distances, predictions = search.exact(database.descriptors, queries.descriptors, max(ns), missing=database.missing)
    matched = time.monotonic()
    predictions[queries.missing] = -1
    located = {}
    if classes:
        located = locate(
            classes, queries.descriptors, bench.queries, thresholds=tuple(bench.positives), ns=ns,
            missing=queries.missing,
        )  # fmt: skip
    return Measured(
        predictions=predictions,
        distances=distances,
        recalls={name: recall(predictions, positives, ns) for name, positives in bench.positives.items()},
        dimension=database.descriptors.shape[1],
        missing=len(database.missing) + len(queries.missing),
        extraction_ms=1000 * (extracted - began) / len(bench.queries),
        matching_ms=1000 * (matched - extracted) / len(bench.queries),
        located=located,
        classes=len(classes.places) if classes else 0,
    )
