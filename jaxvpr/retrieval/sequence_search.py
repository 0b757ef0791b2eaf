"""Ranks clips by a score of their frames, which are described one by one, each of them once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.clips import Clips, Cutting, runs
from jaxvpr.errors import UserError
from jaxvpr.retrieval import sequence_scores
from jaxvpr.retrieval.describer import Apply, Describer
from jaxvpr.retrieval.extract import Described

Array = np.ndarray
AVERAGE, SEQSLAM, TWO_STAGE = "average", "seqslam", "two_stage"
SCORES = ("", AVERAGE, SEQSLAM, TWO_STAGE)


class Score(NamedTuple):
    """The keys `eval.sequence`: how the clips of a database are ranked for a clip.

    Attributes:
      score: "": by the descriptors that the model gives clips; "average": by the mean distance of aligned frames;
        "seqslam"; "two_stage": by the descriptors of clips, and the first of them again by "average".
      top: how many "two_stage" ranks again.
      velocity: the least and the greatest of "seqslam", in frames of the database for each of the query.
      velocities: how many of them are tried, evenly from the one to the other; 1: the least alone.
      window: of its contrast, as `sequence_scores.search` has it.
    """

    score: str = ""
    top: int = 20
    velocity: tuple[float, float] = (0.8, 1.2)
    velocities: int = 5
    window: int = 10

    @property
    def of_frames(self) -> bool:
        """Whether frames alone are described, and no clip."""
        return self.score in (AVERAGE, SEQSLAM)

    @property
    def said(self) -> str:
        """What it is called in the protocol of a recall."""
        low, high = self.velocity
        average = "mean distance of aligned frames"
        contrast = f"contrast over {self.window} frames" if self.window else "no contrast"
        return {
            AVERAGE: f"{average} (exact)",
            SEQSLAM: f"SeqSLAM, {self.velocities} velocities {low:g} to {high:g}, {contrast} (exact)",
            TWO_STAGE: f"flat L2, of it the first {self.top} by {average}",
        }[self.score]

    def ways(self, steps: Array) -> tuple[Array, int]:
        """Trajectories of clips whose frames are so many `steps` from the one that stands for them; the window."""
        if self.score == SEQSLAM:
            return sequence_scores.trajectories(steps, np.linspace(*self.velocity, self.velocities)), self.window
        return sequence_scores.trajectories(steps, np.ones(1)), 0


PLAIN = Score()


class Ranked(NamedTuple):
    """What of a database was found for queries, and what that took.

    Attributes:
      distances: float32 [Q, k], lowest first. predictions: int64 [Q, k], rows of the database; -1 pads.
        A query that could not be read has no other.
      dimension: of the descriptors. missing: how many images or clips could not be read.
      extraction, matching: seconds, of the queries.
      queries: their descriptors, where each has one.
    """

    distances: Array
    predictions: Array
    dimension: int
    missing: int
    extraction: float
    matching: float
    queries: Described | None = None


@dataclass(frozen=True)
class Comparison:
    """The clips of a benchmark, and the score that compares them.

    Attributes:
      name: of the benchmark, in messages.
      cutting: how the clips were cut.

    Raises:
      UserError: for clips whose frames cannot be compared one by one.
    """

    name: str
    database: Clips
    queries: Clips
    cutting: Cutting
    score: Score

    def __post_init__(self):
        if self.database.length != self.queries.length:
            raise UserError(
                f"{self._says} compares clips frame by frame, and those of the queries have {self.queries.length} "
                f"frames, those of the database {self.database.length}. Cut both alike: clips.task='seq2seq'"
            )
        if self.cutting.order == "shuffled":
            raise UserError(
                f"{self._says} needs the frames of all clips in one order, and clips.order='shuffled' gives each clip "
                "its own. Use 'normal' or 'reversed'"
            )

    @property
    def _says(self) -> str:
        return f"{self.name}: eval.sequence.score={self.score.score!r}"

    def ranked(self, describer: Describer, variables: Any, apply: Apply | None, k: int) -> Ranked:
        """The first k of the database by "average" or "seqslam".

        Raises:
          UserError: for velocities that no drive is long enough for.
        """
        frames = self._described(describer, variables, apply)
        began = time.monotonic()
        drives, steps = self._drives(frames.database)
        table, window = self.score.ways(steps)
        self._require_room(drives, table)
        distances, predictions = sequence_scores.search(
            drives, frames.queries.descriptors, self.queries.rows, table, window, k, describer.mesh
        )
        return self._result(frames, distances, predictions, time.monotonic() - began)

    def again(self, describer: Describer, variables: Any, apply: Apply | None, first: Ranked, k: int) -> Ranked:
        """The second stage: the first `score.top` of what was found in the order of "average"; k in all.

        The others follow in their order, with the distances of the first stage.
        """
        frames = self._described(describer, variables, apply)
        began, top = time.monotonic(), self.score.top
        found = sequence_scores.reranked(
            frames.database.descriptors, self.database.rows, frames.queries.descriptors, self.queries.rows,
            first.predictions[:, :top], _with_missing(self.database, frames.database),
        )  # fmt: skip
        distances = np.hstack([found[0], first.distances[:, top:]])[:, :k]
        predictions = np.hstack([found[1], first.predictions[:, top:]])[:, :k]
        second = self._result(frames, distances, predictions, time.monotonic() - began)
        return second._replace(
            dimension=first.dimension, missing=first.missing, queries=first.queries,
            extraction=first.extraction + second.extraction, matching=first.matching + second.matching,
        )  # fmt: skip

    def _described(self, describer: Describer, variables: Any, apply: Apply | None) -> _Frames:
        paths = self.database.images.path, self.queries.images.path
        most = max(map(len, paths))
        database = describer(variables, paths[0], apply, most)
        began = time.monotonic()
        queries = describer(variables, paths[1], apply, most)
        return _Frames(database, queries, time.monotonic() - began)

    def _result(self, frames: _Frames, distances: Array, predictions: Array, matching: float) -> Ranked:
        lost = np.flatnonzero(_with_missing(self.queries, frames.queries))
        predictions[lost] = -1
        missing = len(frames.database.missing) + len(frames.queries.missing)
        dimension = frames.database.descriptors.shape[1]
        return Ranked(distances, predictions, dimension, missing, frames.seconds, matching)

    def _drives(self, frames: Described) -> tuple[sequence_scores.Drives, Array]:
        """The frames of the database in order, and how far each frame of a clip is from the one that stands for it."""
        order, starts, _ = runs(self.database.images, self.cutting.metres, self.cutting.seconds)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        at = place[self.database.key]
        steps = place[self.database.rows] - at[:, None]
        # A frame that could not be read ends a drive, and another begins after it.
        lost = np.sort(place[frames.missing])
        begins = np.unique(np.concatenate([starts, lost, lost[lost + 1 < len(order)] + 1]))
        counts = np.diff(np.append(begins, len(order)))
        first, stop = np.repeat(begins, counts), np.repeat(begins + counts, counts)
        stop[lost] = lost
        columns = (column.astype(np.int32) for column in (first, stop, at))
        return sequence_scores.Drives(frames.descriptors[order], *columns), steps[0]

    def _require_room(self, drives: sequence_scores.Drives, table: Array) -> None:
        """Raises UserError where no trajectory of any clip stays in its drive."""
        before, after = drives.at - drives.first[drives.at], drives.stop[drives.at] - 1 - drives.at
        fits = (-table.min(axis=1)[:, None] <= before) & (table.max(axis=1)[:, None] <= after)
        if not fits.any():
            least, longest = np.ptp(table, axis=1).min() + 1, (drives.stop - drives.first).max()
            raise UserError(
                f"{self.name}: eval.sequence.velocity={tuple(self.score.velocity)} leaves every drive of the database: "
                f"{self.queries.length} frames of a query pass {least} of the database at least, and no clip has as "
                f"many around it (the longest drive has {longest}). Give velocities nearer to 1, or shorter clips"
            )


class _Frames(NamedTuple):
    """The described frames of both sides."""

    database: Described
    queries: Described
    seconds: float  # that those of the queries took


def _with_missing(clips: Clips, frames: Described) -> Array:
    """bool [N], the clips with a frame that could not be read."""
    return np.any(np.isin(clips.rows, frames.missing), axis=1)
