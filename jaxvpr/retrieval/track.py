"""The path of a drive through a database: of each frame's candidates those that one can have driven along."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

Array = np.ndarray
SLACK = 50.0  # metres: each of two right answers may be 25 m from where its frame was taken


class Candidates(NamedTuple):
    """What a database has for the T frames of a drive.

    Attributes:
      number: int64 [T], of the frames. seconds: float64 [T], from the start; NaN where unknown.
      distances: float32 [T, k], of the descriptors, nearest first. rows: int64 [T, k], of the database.
    """

    number: Array
    seconds: Array
    distances: Array
    rows: Array


class Track:
    """The path of a drive.

    Args:
      candidates: of its frames.
      places: float64 [N, 2], metres east and north of the database's rows; NaN where unknown.
      speed: metres a second that the camera moved at most; a frame where frames have no time.

    Attributes:
      rank: int64 [T], which candidate of each frame is on the path; 0 is the nearest.
    """

    def __init__(self, candidates: Candidates, places: Array, speed: float):
        self.candidates, self.places = candidates, places
        passed = np.diff(candidates.seconds)
        self._reach = speed * np.where(np.isfinite(passed), passed, np.diff(candidates.number))
        self.rank = smooth(candidates.distances, places[candidates.rows], self._reach)

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def nearest(self) -> Array:
        """int64 [T], the nearest row of the database."""
        return self.candidates.rows[:, 0]

    @cached_property
    def rows(self) -> Array:
        """int64 [T], the rows of the database on the path."""
        return self.candidates.rows[np.arange(len(self)), self.rank]

    @cached_property
    def distances(self) -> Array:
        """float32 [T], of the descriptors of frame and place on the path."""
        return self.candidates.distances[np.arange(len(self)), self.rank]

    @cached_property
    def metres(self) -> Array:
        """float64 [T - 1], from each frame's place on the path to the next one's; NaN where unknown."""
        return np.hypot(*np.diff(self.places[self.rows], axis=0).T)

    @cached_property
    def jumps(self) -> Array:
        """bool [T - 1], the steps that no right answers have, or of unknown length."""
        return ~(self.metres <= self._reach + SLACK)


def smooth(distances: Array, positions: Array, reach: Array, jump: float | None = None) -> Array:
    """Which candidate of each frame lies on the cheapest path, by the Viterbi algorithm.

    A path costs the distances of its candidates. A step costs nothing up to its `reach`, then more with each metre, and
    `jump` where it is `SLACK` longer or more: a lone wrong answer is passed over, and a drive that was lost is found
    again. Of several cheapest paths it is one that ends with the nearest candidate.

    Args:
      distances: float [T, k], of each frame's candidates, nearest first.
      positions: float [T, k, 2], metres; NaN where unknown: any step to there or from there costs `jump`.
      reach: float [T - 1], how many metres lie between a frame and its next one at most.
      jump: the highest cost of a step; None: the mean difference between a frame's last candidate and its first.

    Returns:
      int64 [T], numbers of candidates.

    References:
      Newson and Krumm 2009 (map matching by a hidden Markov model); Felzenszwalb and Huttenlocher 2006, section 2.2
      (truncated linear costs).
    """
    jump = float((distances[:, -1] - distances[:, 0]).mean()) if jump is None else jump
    cost = distances[0].astype(np.float64)
    before = np.zeros(distances.shape, np.int64)
    for t in range(1, len(distances)):
        metres = np.linalg.norm(positions[t - 1][:, None] - positions[t], axis=-1)
        step = cost[:, None] + jump * np.nan_to_num(np.clip((metres - reach[t - 1]) / SLACK, 0, 1), nan=1.0)
        before[t], cost = step.argmin(axis=0), step.min(axis=0) + distances[t]
    path = [int(cost.argmin())]
    for t in range(len(distances) - 1, 0, -1):
        path.append(int(before[t, path[-1]]))
    return np.array(path[::-1], np.int64)
