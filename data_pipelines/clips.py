"""Clips: frames of one drive in order, cut from any table that has sequences and frame numbers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from data_pipelines.answers import offsets
from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, Places

log = logging.getLogger(__name__)
Array = np.ndarray
MATCHES = ("any", "last")
ORDERS = ("normal", "reversed", "shuffled")
# task -> whether queries and database are clips; the other side is single images, as clips of one frame.
TASKS = {"seq2seq": (True, True), "im2seq": (False, True), "seq2im": (True, False), "im2im": (False, False)}


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips of F frames each.

    Attributes:
      images: the table of frames.
      rows: int64 [N, F], rows of `images`, in the order in which a model sees them.
      key: int64 [N], the row of the frame that stands for each clip: where it is, when, in which role.
      match: when two clips show one place: where "any" pair of their frames does, or where their "last" do.
    """

    images: Places
    rows: Array
    key: Array
    match: str = "any"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def length(self) -> int:
        """How many frames a clip has."""
        return self.rows.shape[1]

    @cached_property
    def places(self) -> Places:
        """One row a clip: its middle frame, or its last where clips match by their last."""
        return self.images.take(self.key)

    def take(self, rows: Array) -> Clips:
        """Some of the clips (int [M] or bool [N]), in that order; the table of frames stays whole."""
        return dataclasses.replace(self, rows=self.rows[rows], key=self.key[rows])

    def ordered(self, order: str) -> Clips:
        """The same clips with their frames in another order, one of `ORDERS`; the key frame stays.

        "shuffled" gives each clip an order of its own, always the same.
        """
        if order == "normal":
            return self
        rows = self.rows[:, ::-1] if order == "reversed" else np.random.default_rng(0).permuted(self.rows, axis=1)
        return dataclasses.replace(self, rows=rows)

    @staticmethod
    def concat(parts: Sequence[Clips]) -> Clips:
        """All clips of several tables, with one table of frames.

        Raises:
          DataError: for clips of several lengths, which share no batch.
        """
        lengths = sorted({part.length for part in parts})
        if len(lengths) > 1:
            raise DataError(f"clips of {lengths} frames cannot share a batch; cut all data sets at one length")
        first = offsets(np.array([len(part.images) for part in parts]))
        rows, key = (
            np.concatenate([getattr(part, column) + start for part, start in zip(parts, first, strict=False)])
            for column in ("rows", "key")
        )
        return dataclasses.replace(parts[0], images=Places.concat([part.images for part in parts]), rows=rows, key=key)


def table_of(elements: Places | Clips) -> Places:
    """A row for each of some images, or clips: where it is, when, in which role."""
    return elements.places if isinstance(elements, Clips) else elements


@dataclass(frozen=True)
class Cutting:
    """How a data set is cut into clips.

    Attributes:
      length: frames of a clip.
      stride: frames from the start of a clip to that of the next.
      every: from a frame of a clip to its next one: 2 leaves every second out.
      metres, seconds: no clip goes across a step between two frames that is longer; 0: any.
      task: one of `TASKS`; what queries and what the database consist of.
      match: one of `MATCHES`.
      order: one of `ORDERS`, of the frames of clips of the database.

    Raises:
      DataError: for a value that there is not.
    """

    length: int
    stride: int = 1
    every: int = 1
    metres: float = 0.0
    seconds: float = 0.0
    task: str = "seq2seq"
    match: str = "any"
    order: str = "normal"

    def __post_init__(self):
        for key, known in (("task", TASKS), ("match", MATCHES), ("order", ORDERS)):
            if getattr(self, key) not in known:
                raise DataError(f"clips.{key}={getattr(self, key)!r} does not exist; there are {list(known)}")
        wrong = [f"clips.{key}={getattr(self, key)}" for key in ("length", "stride", "every") if getattr(self, key) < 1]
        wrong += [f"clips.{key}={getattr(self, key)}" for key in ("metres", "seconds") if getattr(self, key) < 0]
        if wrong:
            raise DataError(
                f"{', '.join(wrong)}: length, stride and every are at least 1, metres and seconds at least 0"
            )

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> Cutting | None:
        """The cutting that the `clips` of a data set describes; None where it has images, length 0."""
        return cls(**keys) if keys.get("length", 0) else None

    def database(self, images: Places) -> Clips:
        """The clips of a database."""
        return self._side(images, TASKS[self.task][1]).ordered(self.order)

    def queries(self, images: Places) -> Clips:
        """The clips of queries."""
        return self._side(images, TASKS[self.task][0])

    def clips(self, images: Places) -> Clips:
        """All clips of a table; of each sequence, role and split its own.

        Raises:
          DataError: where frames have no numbers, or one has the number of another; where no sequence is as long as a
            clip.
        """
        order, starts, counts = runs(images, self.metres, self.seconds)
        span = (self.length - 1) * self.every + 1
        windows = np.maximum((counts - span) // self.stride + 1, 0)
        if not windows.any():
            bounds = [f"clips.{key}={getattr(self, key):g}" for key in ("metres", "seconds") if getattr(self, key)]
            raise DataError(
                f"{images.name}: no clip of clips.length={self.length} frames (clips.every={self.every}) can be cut "
                f"from {len(images):,}{_role(images)} images: the longest of {len(counts):,} drives without a gap, "
                f"where frame numbers rise by 1, has {counts.max(initial=0):,} frames. Ask for shorter clips"
                f"{', or raise ' * bool(bounds)}{' and '.join(bounds)}"
            )
        number = np.arange(windows.sum()) - np.repeat(offsets(windows)[:-1], windows)
        first = np.repeat(starts, windows) + number * self.stride
        rows = order[first[:, None] + np.arange(self.length) * self.every]
        return self._made(images, rows)

    def _side(self, images: Places, clips: bool) -> Clips:
        return self.clips(images) if clips else self._made(images, np.arange(len(images))[:, None])

    def _made(self, images: Places, rows: Array) -> Clips:
        return Clips(images, rows, rows[:, -1 if self.match == "last" else rows.shape[1] // 2], self.match)


def cut(images: Places, length: int, **keys: Any) -> Clips:
    """All clips of `length` frames of a table; `keys` and errors as of `Cutting`."""
    return Cutting(length, **keys).clips(images)


def runs(images: Places, metres: float, seconds: float) -> tuple[Array, Array, Array]:
    """Drives without a gap: rows in their order (int64 [N]), and where in it each begins and how long it is [R]."""
    _require(images)
    order = np.lexsort((images.frame, images.sequence, images.role, images.split))
    ahead, row = order[:-1], order[1:]
    same = np.ones(len(row), bool)
    for column in (images.sequence, images.role, images.split):
        same &= column[ahead] == column[row]
    step = images.frame[row] - images.frame[ahead]
    alone = "have the same frame number, and no image has a sequence, which would tell drives apart"
    twice = "are the same frame of one sequence" if (images.sequence >= 0).any() else alone
    _refuse(images, ahead, row, same & (step == 0), twice)
    later = (images.time[row] - images.time[ahead]) / np.timedelta64(1, "s")  # NaN where one is unknown
    back = same & (later < 0)
    if back.any():
        first = np.argmax(back)
        log.warning(
            "%s: %d times a frame was taken before the one of the next lower number, first %s after %s; no clip goes "
            "across", images.name, back.sum(), images.path[row[first]], images.path[ahead[first]],
        )  # fmt: skip
    follows = same & (step == 1) & ~back
    if metres:
        if why := images.unlocated():
            raise DataError(f"{images.name}: {why}, which clips.metres={metres:g} needs. Set it to 0")
        way = np.hypot(images.east[row] - images.east[ahead], images.north[row] - images.north[ahead])
        follows &= way <= metres
    if seconds:
        unknown = np.flatnonzero(np.isnat(images.time))
        if len(unknown):
            raise DataError(
                f"{images.name}: {images.path[unknown[0]]} and {len(unknown) - 1:,} more have no time, which "
                f"clips.seconds={seconds:g} needs. Set it to 0"
            )
        follows &= later <= seconds
    starts = np.flatnonzero(np.append([True], ~follows)) if len(order) else np.zeros(0, np.int64)
    return order, starts, np.diff(np.append(starts, len(order)))


def _require(images: Places) -> None:
    """Raises DataError unless all frames have numbers, and all or none have sequences."""
    advice = (
        "Give the columns sequence and frame in a table (reader=csv), or a tree of sequences (docs/data_formats.md)"
    )
    unknown = np.flatnonzero(images.frame < 0)
    if len(unknown):
        raise DataError(
            f"{images.name}: {images.path[unknown[0]]} and {len(unknown) - 1:,} more of {len(images):,} images have no "
            f"frame number, which clips need. {advice}"
        )
    alone = np.flatnonzero(images.sequence < 0)
    if len(alone) and len(alone) < len(images):  # without any, all images of a role are one drive
        raise DataError(
            f"{images.name}: {images.path[alone[0]]} and {len(alone) - 1:,} more of {len(images):,} images belong to "
            f"no sequence, others do. {advice}"
        )


def _refuse(images: Places, ahead: Array, row: Array, wrong: Array, why: str) -> None:
    found = np.flatnonzero(wrong)
    if len(found):
        pair = images.path[ahead[found[0]]], images.path[row[found[0]]]
        more = f" (and so on, {len(found):,} times)" if len(found) > 1 else ""
        raise DataError(f"{images.name}: {pair[0]} and {pair[1]} {why}{more}; clips need frames in one order")


def _role(images: Places) -> str:
    roles = np.unique(images.role)
    return f" {ROLES[roles[0]]}" if len(roles) == 1 and roles[0] >= 0 else ""
