"""What a run writes down: JSONL, TensorBoard, and a line on the console. The only file that imports tensorboardX.

`log.jsonl` holds what the run computed and nothing that depends on the clock, so that an interrupted and resumed run
leaves the same bytes as an uninterrupted one. Rates and waits go to TensorBoard and the console.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.own_files import read_json_lines
from data_pipelines.progress import Bar

log = logging.getLogger(__name__)
FLUSH_SECONDS = 10.0
FILE = "log.jsonl"


class Log:
    """The log of one run; a process other than the first passes `folder=None` and writes nothing.

    Args:
      folder: the workdir.
      offset: bytes of `log.jsonl` that belong to the checkpoint resumed from; what lies beyond is cut.
      step: the step resumed from; TensorBoard drops later points.
    """

    def __init__(self, folder: Path | None, offset: int = 0, step: int = 0):
        self._lines = self._board = None
        if folder is None:
            return
        if offset:
            read(folder, offset)  # junk is met now, not when the report is written
        self._lines = (folder / FILE).open("ab")
        if self._lines.seek(0, os.SEEK_END) < offset:
            log.warning("%s is shorter than it was at step %d: what it lost stays lost", self._lines.name, step)
        else:
            self._lines.truncate(offset)
            self._lines.seek(offset)
        self._board = Board(folder / "tensorboard", step)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One record of what the run computed."""
        if self._lines is None or self._board is None:
            return
        self._lines.write(json.dumps({"step": step, **values}).encode() + b"\n")
        self.clock(step, values)

    def clock(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers for TensorBoard alone."""
        if self._board is None:
            return
        self._board.write(step, {name: value for name, value in values.items() if isinstance(value, int | float)})

    def offset(self) -> int:
        """Bytes of `log.jsonl` so far, all of them handed to the system: they outlive this process."""
        if self._lines is None:
            return 0
        self._lines.flush()
        return self._lines.tell()

    def close(self) -> None:
        """Writes what is left and lets go."""
        if self._lines is not None and self._board is not None:
            with closing(self._board):
                self._lines.close()


class Board:
    """Scalars for TensorBoard, written by the thread that calls.

    tensorboardX's own writer does it in a thread, which dies where the disk is full; the run would then wait for it.

    Args:
      folder: where its file of events goes.
      step: TensorBoard drops what earlier files have from this step on; 0 for nothing.
    """

    def __init__(self, folder: Path, step: int):
        # Here, since it imports torch where that is installed: seconds that nobody waits for who does not train.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._scalar, self._flushed = Event, scalar, time.monotonic()
        self._file = EventsWriter(str(folder / "events"))
        if step:
            self._file.write_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the points of one step; at most ten seconds later they are on disk."""
        summaries = [self._scalar(name, value) for name, value in values.items()]
        for summary in summaries:
            self._file.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is left and lets go."""
        self._file.close()


def read(folder: Path, end: int | None = None) -> list[dict[str, Any]]:
    """All records of `log.jsonl`, or of its first `end` bytes, oldest first; the last line of a run that was killed
    while it wrote is left out.

    Raises:
      DataError: for a line that is no record; names it.
    """
    file = folder / FILE
    if not file.exists():
        return []
    advice = f"Without the line, or without {FILE}, only curves of the training are lost"
    records = read_json_lines(file, advice, end)
    for number, record in enumerate(records, 1):
        if not _is_record(record):
            raise DataError(f"{file}, line {number}: expected a step and its figures, found {record!r:.100}. {advice}")
    return records


def _is_record(record: Mapping[str, Any]) -> bool:
    counts = [record.get("step"), record.get("epoch", 0)]
    figures = [value for key, value in record.items() if key != "ended"]
    return (
        all(type(count) is int and 0 <= count < 1 << 53 for count in counts)
        and all(isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53) for value in figures)
        and isinstance(record.get("ended", ""), str)
    )


class Progress:
    """The bar of a run, or a console line every few seconds: step, loss, rate, share of the time spent waiting for
    data, time left.

    Args:
      total: steps of the run.
      images: images a step; may be set anew.
      every: seconds between lines, and between the rates that TensorBoard gets.
    """

    def __init__(self, total: int, images: int, every: float = 10.0):
        self._bar = Bar("step", total, "steps", every=math.inf)
        self.images, self._every, self._rates = images, every, ""
        self._waited, self._last_step, self._last_time = 0.0, -1, time.monotonic()

    def waited(self, seconds: float) -> None:
        """Adds time that the step waited for its batch."""
        self._waited += seconds

    def step(self, step: int, loss: float) -> dict[str, float]:
        """Moves the bar; returns the rates if it is time to."""
        now = time.monotonic()
        self._bar.note = f"loss {loss:.3f}{self._rates}"
        self._bar.advance(step - self._bar.done)
        if self._last_step < 0:  # the first step compiles; rates start after it
            self._last_step, self._last_time, self._waited = step, now, 0.0
            return {}
        span, steps = now - self._last_time, step - self._last_step
        if span < self._every or not steps:
            return {}
        rates = {
            "steps_per_second": steps / span,
            "images_per_second": steps * self.images / span,
            "data_wait_percent": 100 * self._waited / span,
        }
        self._rates = "  {images_per_second:.0f} images/s  data wait {data_wait_percent:.0f}%".format(**rates)
        self._bar.note = f"loss {loss:.3f}{self._rates}"
        self._bar.log()
        self._last_step, self._last_time, self._waited = step, now, 0.0
        return rates

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()
