"""Evaluates descriptors on data sets: extract, search, recall, with the protocol that makes a recall comparable."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.clips import Clips, Cutting
from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, Paths, Places
from data_pipelines.progress import slow
from jaxvpr.errors import UserError
from jaxvpr.retrieval.classes import Classes, locate
from jaxvpr.retrieval.describer import Apply, Describer
from jaxvpr.retrieval.extract import Described
from jaxvpr.retrieval.positions import Placed
from jaxvpr.retrieval.positives import Positives
from jaxvpr.retrieval.protocol import EXACT
from jaxvpr.retrieval.recall import Recall, recall
from jaxvpr.retrieval.sequence_search import PLAIN, Comparison, Ranked, Score
from jaxvpr.retrieval.thresholds import parse_threshold
from jaxvpr.retrieval.where import AUTO, Where, nearest

Array = np.ndarray


@dataclass(frozen=True)
class Benchmark:
    """A data set to measure on.

    Attributes:
      name: its name in a report.
      split: which part of the data set it is, for the protocol line.
      database, queries: the images of each role; of clips one row each, `Clips.places`.
      positives: threshold ("25m") -> which database images answer each query.
      database_clips, query_clips: what the rows of both stand for, where those are clips.
      cutting: how the clips were cut.
    """

    name: str
    split: str
    database: Places
    queries: Places
    positives: Mapping[str, Positives]
    database_clips: Clips | None = None
    query_clips: Clips | None = None
    cutting: Cutting | None = None

    @property
    def shown(self) -> tuple[Paths | Clips, Paths | Clips]:
        """What a `Describer` is shown of the database, and of the queries."""
        return self.database_clips or self.database.path, self.query_clips or self.queries.path

    def compared(self, score: Score) -> Comparison | None:
        """The clips and the score that compares them; None for images, or where descriptors are compared as they are.

        Raises as `Comparison`.
        """
        if not (score.score and self.database_clips and self.query_clips and self.cutting):
            return None
        return Comparison(self.name, self.database_clips, self.query_clips, self.cutting, score)


@dataclass(frozen=True)
class Measured:
    """Predictions of one set of descriptors on a benchmark, and their recalls.

    Attributes:
      predictions: int64 [Q, k], database rows, nearest first. distances: float32 [Q, k], squared L2, or a
        score.
      recalls: threshold -> `Recall`.
      dimension: of the descriptors.
      missing: how many images could not be read (they count as never found, or as queries that fail).
      extraction_ms: per image, with reading. matching_ms: per query.
      located: threshold -> recall of localisation by the model's classes; see `classes.locate`.
      classes: their number.
      index: what found the predictions, for the protocol line.
      queries: their descriptors, where each has one.
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
    index: str = EXACT
    queries: Described | None = None


class Evaluated(NamedTuple):
    """One benchmark, measured with the method and with the baselines (`thumbnail`, `untrained`) of the recipe, and what
    the model's own head answers, where it has one."""

    bench: Benchmark
    method: Measured
    baselines: dict[str, Measured]
    placed: Placed | None = None


def benchmark(
    name: str,
    places: Places,
    split: str,
    thresholds: tuple[str, ...],
    cutting: Cutting | None = None,
    conditions: tuple[str, ...] = (),
) -> Benchmark:
    """A benchmark from one table with both roles.

    Args:
      places: rows with role "database" and "query"; others are left out. Its answers are those of the threshold "list".
      thresholds: such as ("25m",); see `thresholds.parse_threshold`.
      cutting: into clips; None for images.
      conditions: of the queries that are kept, () for all; of a clip it is those of the frame that stands for it.

    Raises:
      DataError: where one of the roles has no image, or no clip.
    """
    if conditions:
        places.only(conditions=conditions, role="query")  # an error where no query is left
    if conditions and cutting is None:
        places = places.take((places.role != ROLES.index("query")) | places.having(*conditions))
    database, queries = places.select(role="database"), places.select(role="query")
    for role, part in (("database", database), ("query", queries)):
        if not len(part):
            raise DataError(f"{name}: no {role} images among {len(places)}; a data set to measure on needs both roles")
    makers = {text: parse_threshold(text, places.answers) for text in thresholds}
    if cutting is None:
        return Benchmark(name, split, database, queries, _positives(name, makers, database, queries))
    clips, asked = cutting.database(database), cutting.queries(queries)
    if conditions:
        asked = asked.take(asked.places.having(*conditions))
        if not len(asked):
            raise DataError(f"{name}: no clip of {cutting.length} frames is of the conditions {list(conditions)}")
    return Benchmark(
        name, split, clips.places, asked.places, _positives(name, makers, clips, asked), clips, asked, cutting
    )


def _positives(name: str, makers: Mapping[str, Any], database: Any, queries: Any) -> dict[str, Positives]:
    what = "clips" if isinstance(database, Clips) else "images"
    with slow(f"{name}: finding the positives of {len(queries):,} queries among {len(database):,} {what}"):
        return {text: make(database, queries) for text, make in makers.items()}


def measure(
    describer: Describer,
    variables: Any,
    bench: Benchmark,
    ns: tuple[int, ...],
    apply: Apply | None = None,
    classes: Classes | None = None,
    where: Where = AUTO,
    score: Score = PLAIN,
) -> Measured:
    """Descriptors of a benchmark's images, their exact nearest neighbours, and the recall for every threshold.

    With `classes` the queries are localised by classification too, unless a `score` ranks clips by their frames alone.
    Descriptors of queries are in every process.

    Raises:
      UserError: where the database has fewer images than the largest N, or needs more memory than there is.
    """
    if len(bench.database) < max(ns):
        raise UserError(
            f"{bench.name}: recall@{max(ns)} needs as many images, but the database has {len(bench.database)}; "
            "lower eval.recalls"
        )
    compared = bench.compared(score)
    if compared and score.of_frames:
        found = compared.ranked(describer, variables, apply, max(ns))
    else:
        k = max(max(ns), min(score.top, len(bench.database))) if compared else max(ns)
        found = _nearest(describer, variables, bench, k, apply, where)
    if compared and not score.of_frames:
        found = compared.again(describer, variables, apply, found, max(ns))
    located = {}
    if classes and found.queries:
        located = locate(
            classes, found.queries.descriptors, bench.queries, thresholds=tuple(bench.positives), ns=ns,
            missing=found.queries.missing,
        )  # fmt: skip
    return Measured(
        predictions=found.predictions,
        distances=found.distances,
        recalls={name: recall(found.predictions, positives, ns) for name, positives in bench.positives.items()},
        dimension=found.dimension,
        missing=found.missing,
        extraction_ms=1000 * found.extraction / len(bench.queries),
        matching_ms=1000 * found.matching / len(bench.queries),
        located=located,
        classes=len(classes.places) if classes else 0,
        index=score.said if compared else EXACT,
        queries=found.queries,
    )


def _nearest(
    describer: Describer, variables: Any, bench: Benchmark, k: int, apply: Apply | None, where: Where
) -> Ranked:
    """The k nearest of a benchmark's database by the descriptors of its images or clips."""
    most, shown = max(len(bench.database), len(bench.queries)), bench.shown
    length = partial(describer.dimension, variables, shown[0], apply, most)
    on_mesh = where.on_mesh(bench.name, len(bench.database), length, describer.mesh)
    describe = describer.on_mesh if on_mesh else describer
    database = describe(variables, shown[0], apply, most)
    began = time.monotonic()  # after the database: the first batch of a model compiles it
    queries = describer(variables, shown[1], apply, most)
    extracted = time.monotonic()
    _require_one_length(bench, database.descriptors, queries.descriptors)
    distances, predictions = nearest(database, queries.descriptors, k)
    matched = time.monotonic()
    predictions[queries.missing] = -1
    missing, dimension = len(database.missing) + len(queries.missing), database.descriptors.shape[-1]
    return Ranked(distances, predictions, dimension, missing, extracted - began, matched - extracted, queries)


def _require_one_length(bench: Benchmark, database: Any, queries: Any) -> None:
    """Raises UserError where a head makes longer descriptors of longer clips, and those of both sides differ."""
    if database.shape[-1] != queries.shape[-1]:
        task = bench.cutting.task if bench.cutting else ""
        raise UserError(
            f"{bench.name}: clips.task={task!r} compares descriptors of {queries.shape[-1]} numbers with those of "
            f"{database.shape[-1]}: this model's depend on the length of a clip. Give it clips of one length, "
            "clips.task='seq2seq', or a head whose descriptors have one (model.sequence='mean', for one)"
        )
