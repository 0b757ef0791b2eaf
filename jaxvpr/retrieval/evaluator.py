"""Evaluates descriptors on data sets: extract, search, recall, with the protocol that makes a recall comparable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.errors import DataError
from data_pipelines.loaders import ImageSource, complaints, every_image
from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import local_rows
from jaxvpr.retrieval import search
from jaxvpr.retrieval.extract import Described, describe
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
    """

    predictions: Array
    distances: Array
    recalls: Mapping[str, Recall]
    dimension: int
    missing: int
    extraction_ms: float
    matching_ms: float


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
    return Benchmark(name, split, database, queries, {text: make(database, queries) for text, make in makers.items()})


class Describer:
    """Turns paths into descriptors with one model, at one image size; reading and computing overlap.

    Args:
      apply: `(variables, images uint8 [B, H, W, 3]) -> [B, D]`.
      config: the whole recipe; its `image`, `eval` and `loader` are read.
    """

    def __init__(self, apply: Apply, config: ConfigDict, mesh: Mesh):
        self._apply, self._mesh = apply, mesh
        self._batch = -(-config.eval.batch // mesh.size) * mesh.size
        loader = config.loader
        self._loading = {"threads": loader.threads, "workers": loader.workers, "prefetch": loader.prefetch}
        self._source = partial(
            ImageSource, size=tuple(config.image.size), rule=config.image.resize, on_error=loader.on_error
        )
        self._named: set[str] = set()

    def __call__(self, variables: Any, paths: Paths, apply: Apply | None = None) -> Described:
        """Descriptors of all images; another `apply` (a baseline) reads the same images."""
        batches = every_image(
            self._source(paths=paths), self._batch, part=local_rows(self._mesh, self._batch), **self._loading
        )
        found = describe(apply or self._apply, variables, batches, len(paths), self._mesh)
        if len(found.missing):
            self._complain(paths, found.missing)
        return found

    def _complain(self, paths: Paths, missing: Array) -> None:
        """Names each unreadable image once, however often it is asked for, and counts them every time."""
        new = np.array([row for row in missing if paths[row] not in self._named], np.int64)
        self._named |= {paths[row] for row in new}
        for complaint in complaints(paths, {"row": new, "bad": np.ones(len(new), bool)}):
            log.warning("left out: %s", complaint)
        log.warning("%d of %d images could not be read", len(missing), len(paths))


def measure(
    describer: Describer, variables: Any, bench: Benchmark, ns: tuple[int, ...], apply: Apply | None = None
) -> Measured:
    """Descriptors of a benchmark's images, their exact nearest neighbours, and the recall for every threshold.

    Raises:
      UserError: where the database has fewer images than the largest N.
    """
    if len(bench.database) < max(ns):
        raise UserError(
            f"{bench.name}: recall@{max(ns)} was asked for, but the database has {len(bench.database)} images; "
            "set eval.recalls"
        )
    database = describer(variables, bench.database.path, apply)
    began = time.monotonic()  # after the database: the first batch of a model compiles it
    queries = describer(variables, bench.queries.path, apply)
    extracted = time.monotonic()
    distances, predictions = search.exact(database.descriptors, queries.descriptors, max(ns), missing=database.missing)
    matched = time.monotonic()
    predictions[queries.missing] = -1
    return Measured(
        predictions=predictions,
        distances=distances,
        recalls={name: recall(predictions, positives, ns) for name, positives in bench.positives.items()},
        dimension=database.descriptors.shape[1],
        missing=len(database.missing) + len(queries.missing),
        extraction_ms=1000 * (extracted - began) / len(bench.queries),
        matching_ms=1000 * (matched - extracted) / len(bench.queries),
    )
