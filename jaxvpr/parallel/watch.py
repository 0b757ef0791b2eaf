"""Which host of a run is gone, and the end of the others: none can go on alone.

Every process writes a sign of life into the key-value store of JAX's coordination service, and reads those of all. One
that was not heard for `SILENT_SECONDS`, or said that it fails, ends the run. Process 0 has the store: its own end shows
as a closed connection (`relay`).
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxvpr.errors import AGAIN

SIGN_SECONDS = 2.0  # between two signs of life
SILENT_SECONDS = 20.0
# JAX itself aborts a process, with a stack of C++, half of this to all of it after another fell silent: later than we.
JAX_SECONDS = 80
# Where all hosts fail alike, each has so much time to say so itself. Process 0 stays longer, since it serves the store.
ALIKE_SECONDS, FIRST_SECONDS = 3.0, 6.0
FOLDER = "jaxvpr signs"


class Lost(NamedTuple):
    """Why the run cannot go on, and the status to leave with."""

    why: str
    status: int


@dataclass
class Sign:
    """What was last heard of a process.

    Attributes:
      name: of its host.
      beat: a number that grows as long as it lives.
      status, why: what it leaves with and what it says of that; None as long as it works.
      at: when it last changed, on the clock of this process.
    """

    name: str
    beat: int
    at: float
    status: int | None = None
    why: str = ""


class Watch:
    """The signs of all processes of a run, as this one sees them.

    Args:
      store: JAX's client of the coordination service.
      me: the number of this process. count: how many there are.
      closed: whether the connection to process 0 has ended.
      clock: seconds.
    """

    def __init__(
        self, store: Any, me: int, count: int, closed: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self._store, self._me, self._count, self._closed, self._clock = store, me, count, closed, clock
        self._signs: dict[int, Sign] = {}
        self._beat, self._heard = 0, clock()
        self._began, self._lock = clock(), threading.Lock()
        self._own: dict[str, Any] = {"name": socket.gethostname()}
        self.stopped = threading.Event()
        self.advice: Callable[[], str] = lambda: "Start all of them again"

    def start(self) -> None:
        """Watches in the background until `stopped` is set; a lost host then ends this process."""
        atexit.register(self.stopped.set)  # before JAX closes the connection, which registered earlier
        for task in (self._exchange, self._judge):
            threading.Thread(target=task, daemon=True).start()

    def _exchange(self) -> None:
        while not self.stopped.is_set():
            with suppress(Exception):  # a store that does not answer shows in `_heard`
                self.exchange()
            self.stopped.wait(SIGN_SECONDS)

    def exchange(self) -> None:
        """Gives this process's sign, and reads those of all."""
        self._give()
        signs = {int(key.rpartition("/")[2]): json.loads(text) for key, text in self._store.key_value_dir_get(FOLDER)}
        now = self._clock()
        for number, sign in signs.items():
            before = self._signs.get(number)
            if before is None or before.beat != sign["beat"]:
                self._signs[number] = Sign(**sign, at=now)
        self._heard = now

    def _give(self) -> None:
        with self._lock:
            self._beat += 1
            sign = json.dumps({**self._own, "beat": self._beat})
            self._store.key_value_set(f"{FOLDER}/{self._me}", sign, allow_overwrite=True)

    def leaving(self, status: int, why: str) -> None:
        """Tells the others that this process leaves, and that with it the run ends. It watches them no more."""
        self.stopped.set()
        self._own |= {"status": status, "why": why}
        sender = threading.Thread(target=self._last_sign, daemon=True)
        sender.start()
        sender.join(ALIKE_SECONDS)  # a store that is gone may not answer for minutes

    def _last_sign(self) -> None:
        with suppress(Exception):  # the others find out by silence
            self._give()

    def lost(self) -> Lost | None:
        """Why the run cannot go on; None as long as it can."""
        now, others = self._clock(), [number for number in range(self._count) if number != self._me]
        for number in others:
            if (sign := self._signs.get(number)) and sign.status is not None:
                return _of(sign, self._named(number)) if now - sign.at >= ALIKE_SECONDS else None
        if self._closed():
            return Lost(f"{self._named(0)} is gone: it closed the connection", AGAIN)
        if now - self._heard > SILENT_SECONDS:
            return Lost(f"{self._named(0)} is gone: no answer for {SILENT_SECONDS:.0f} s", AGAIN)
        for number in others:
            last = self._signs[number].at if number in self._signs else self._began
            if now - last > SILENT_SECONDS:
                return Lost(f"{self._named(number)} is gone: no sign of it for {SILENT_SECONDS:.0f} s", AGAIN)
        return None

    def _named(self, number: int) -> str:
        host = f" on {self._signs[number].name}" if number in self._signs else ""
        return f"process {number} of {self._count}{host}"

    def _judge(self) -> None:
        while not self.stopped.wait(0.5):
            if found := self.lost():
                self._end(found)

    def _end(self, found: Lost) -> None:
        text = found.why
        if found.status == AGAIN:
            with suppress(Exception):  # a folder that cannot be read any more
                text = f"{found.why}. The other hosts end too, since none can go on alone. {self.advice()}"
        sys.stdout.flush()
        print(f"error: {text}", file=sys.stderr, flush=True)
        self.leaving(found.status, found.why)
        leave(found.status, self._me == 0 and not self._closed())


def _of(sign: Sign, who: str) -> Lost:
    """A process that ends because it has lost another one names that; a mistake of the user is one for all hosts."""
    if sign.status == AGAIN:
        return Lost(sign.why, AGAIN)
    return Lost(f"{who} has ended with status {sign.status}: {sign.why}", 2 if sign.status == 2 else AGAIN)


def leave(status: int, first: bool) -> None:
    """Ends this process at once: an ordinary exit waits for the other hosts, which may wait for this one.

    The first is the last to go: it serves their coordination, and takes them with it.
    """
    if first:
        time.sleep(FIRST_SECONDS)
    os._exit(status)
