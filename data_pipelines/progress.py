"""Progress of work that takes longer than two seconds: a bar on a terminal, log lines elsewhere.

A program calls `to_console` once. Its log lines then go to stderr, with a bar below them if stderr is a terminal. If it
is a file or a pipe, a line is logged every ten seconds instead. A library that is called from elsewhere only logs.
Nothing is written to stdout, which belongs to results, and nothing where the logger of this package does not let INFO
through: on all hosts but the first.

rich is imported when the first bar is due, not at the start.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
AFTER = 2.0  # seconds before anything is shown
EVERY = 10.0  # seconds between two lines of a log
REDRAW = 0.1  # seconds between two states of a bar
_lock = threading.RLock()
_live: _Live | None = None  # the bars on the terminal; None while there are none


class Bar:
    """A progress bar. Use it as a context manager, so that it goes away however its block ends.

    Args:
      label: the activity, such as "describing".
      total: how many there are; 0 where that is unknown.
      unit: plural, for the rate: "images".
      every: seconds between log lines where there is no terminal; infinity for those of `log` alone.

    Attributes:
      done: how many are done.
      note: shown after the numbers; the rate where it is empty.
    """

    def __init__(self, label: str, total: int, unit: str, every: float = EVERY):
        self.done, self.note = 0, ""
        self._label, self._total, self._unit, self._every = label, total, unit, every
        self._first: tuple[float, int] | None = None
        self._logged = time.monotonic()
        self._due = self._logged + AFTER if log.isEnabledFor(logging.INFO) else math.inf
        self._task: Any = None

    def advance(self, count: int = 1) -> None:
        """Counts `count` more as done, and draws or logs it when that is due."""
        self.done += count
        now = time.monotonic()
        if self._first is None:  # the first of all may have compiled: rates start after it
            self._first = now, self.done
        if now < self._due:
            return
        terminal = _terminal()
        if terminal is not None:
            self._show(terminal, now)
            self._due = now + REDRAW
            return
        if now - self._logged >= self._every:
            self._write(now)
        self._due = self._logged + self._every

    def log(self) -> None:
        """Writes a log line now, unless the bar is on a terminal."""
        if _terminal() is None:
            self._write(time.monotonic())

    def text(self, now: float) -> str:
        """The text after the label: `1,200/7,500  310 images/s  0:20 left`."""
        (began, before), done = self._first or (now, self.done), self.done
        rate = (done - before) / (now - began) if now > began else 0.0
        parts = [f"{done:,}/{self._total:,}" if self._total else f"{done:,}"]
        if self.note or rate:
            parts.append(self.note or f"{rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s")
        if self._total and rate:
            parts.append(f"{clock((self._total - done) / rate)} left")
        return "  ".join(parts)

    def close(self) -> None:
        """Takes the bar off the terminal."""
        if self._task is not None and _live is not None:
            _live.remove(self._task)
        self._task, self._due = None, math.inf

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, now: float) -> None:
        self._logged = now
        log.info("%s %s", self._label, self.text(now))

    def _show(self, terminal: Console, now: float) -> None:
        global _live
        with _lock:
            _live = _live or _Live(terminal)
            self._task = _live.show(self._task, self._label, self.done, self._total, self.text(now))


class _Live:
    """The bars of a terminal, one below the other; the last one to go takes it down."""

    def __init__(self, console: Console):
        from rich.progress import BarColumn, Progress, TextColumn

        self.console, self._tasks = console, 0
        label, text = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[text]"))
        # What is printed to stdout stays there: it may be a file while stderr is a terminal.
        self._progress = Progress(
            label, BarColumn(None), text,
            console=console, transient=True, expand=True, refresh_per_second=5, redirect_stdout=False,
        )  # fmt: skip

    def show(self, task: Any, label: str, done: int, total: int, text: str) -> Any:
        """Draws a bar, a new one where `task` is None; returns its task."""
        if task is None:
            if not self._tasks:
                self._progress.start()
            self._tasks += 1
            return self._progress.add_task(label, completed=done, total=total or None, text=text)
        self._progress.update(task, completed=done, text=text)
        return task

    def remove(self, task: Any) -> None:
        """Takes a bar away."""
        global _live
        with _lock:
            self._progress.remove_task(task)
            self._tasks -= 1
            if not self._tasks:
                self._progress.stop()
                _live = None


@contextmanager
def slow(what: str) -> Iterator[None]:
    """Logs `what` if its block has not ended after two seconds."""
    timer = threading.Timer(AFTER, log.info, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def first_slow(
    function: Callable,
    what: str,
    kind: Callable[..., Any] = lambda *_: None,
    before: Callable[..., Any] = lambda *_: None,
) -> Callable:
    """`function`, which logs `what` if its first call, which compiles, takes longer than two seconds.

    Args:
      function: takes positional arguments.
      kind: arguments -> what a program is compiled for, such as a shape; the first call of each kind counts.
      before: is called with the arguments before that first call.
    """
    known = set()

    def call(*arguments: Any) -> Any:
        if (key := kind(*arguments)) in known:
            return function(*arguments)
        with slow(what):
            before(*arguments)
            result = function(*arguments)
        known.add(key)
        return result

    return call


def clock(seconds: float) -> str:
    """`1:05` or `2:02:02`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class _Lines(logging.StreamHandler):
    """Log lines on a stream, each after the seconds since the start, and above the bars if there are any."""

    def emit(self, record: logging.LogRecord) -> None:
        live = _live
        if live is None:
            super().emit(record)
        else:
            live.console.print(self.format(record), markup=False, highlight=False, emoji=False, soft_wrap=True)


def to_console(*loggers: str) -> None:
    """Sends the records of these loggers, from INFO on, to the present stderr. Call it first in a program.

    From then on, what a terminal's encoding lacks, or a name that is no text, is printed as an escape.
    """
    began = time.monotonic()
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")

    class Clock(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"[{time.monotonic() - began:6.1f}s] {super().format(record)}"

    lines = _Lines()
    lines.setFormatter(Clock("%(message)s"))
    for name in loggers:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [lines], False
        logger.setLevel(logging.INFO)


class _Unbroken:
    """A stream whose reader may leave, as `head` does: what is printed from then on is dropped."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        # In place of the pipe, so that what the stream still holds has somewhere to go when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def keep_printing() -> None:
    """Lets the work of this process go on where nobody reads stdout or stderr any more."""
    sys.stdout, sys.stderr = _Unbroken(sys.stdout), _Unbroken(sys.stderr)


def _terminal() -> Console | None:
    """The terminal that bars are drawn on; None in a library, and where stderr is a file, a pipe or a terminal without
    a cursor that moves."""
    if _live is not None:
        return _live.console
    lines = next((handler for handler in _handlers() if isinstance(handler, _Lines)), None)
    if lines is None or not lines.stream.isatty():
        return None
    from rich.console import Console

    console = Console(file=lines.stream)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def _handlers() -> Iterator[logging.Handler]:
    logger: logging.Logger | None = log
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None
