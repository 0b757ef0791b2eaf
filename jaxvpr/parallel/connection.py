"""The connection of this process to the coordination service of its run, and the watch over the other processes."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from jax._src import distributed  # JAX's own coordination service, which orbax uses too

from jaxvpr.errors import AGAIN, HostLost
from jaxvpr.parallel import environment
from jaxvpr.parallel.relay import Relay, reachable
from jaxvpr.parallel.watch import JAX_SECONDS, SIGN_SECONDS, SILENT_SECONDS, Watch, leave

log = logging.getLogger(__name__)

SAY_SECONDS = 20.0  # after which, and after as many again, a waiting host says for whom
watching: list[Watch] = []  # the one of this process, where it belongs to a run of several
_wait: list[float] = [3600.0]


def store() -> Any:
    """The client of the coordination service: its key-value store and barriers."""
    return distributed.global_state.client


def wait_seconds() -> float:
    """How long hosts wait for a late one."""
    return _wait[-1]


def connect(
    coordinator: str, processes: int, process: int, wait: float, local_device_ids: Sequence[int] | None = None
) -> None:
    """Connects to process 0, waits for all processes, and begins to watch them.

    Args:
      coordinator: `host:port` of process 0, which listens there.
      processes, process: how many there are, and the number of this one.
      wait: seconds for a late process, here and at every later barrier.
      local_device_ids: the accelerators of this machine that this process uses; None: all.

    Raises:
      HostLost: where process 0 cannot be reached within `wait`. Where another one does not come, this process ends.
    """
    _wait.append(wait)
    relay, address = None, coordinator
    if process:
        host, port = environment.split(coordinator)
        if reason := reachable(host, port, wait, SAY_SECONDS):
            raise HostLost(f"process 0 at {coordinator} did not answer within {wait:.0f} s (hosts.wait): {reason}")
        relay = Relay(host, port)
        address = relay.address
    come = threading.Event()
    closed = relay.closed.is_set if relay else lambda: False
    threading.Thread(target=_wait_for_all, args=(processes, wait, come, closed), daemon=True).start()
    jax.distributed.initialize(
        address, processes, process, local_device_ids,
        # JAX aborts the process when this is over; `_wait_for_all` is earlier.
        initialization_timeout=int(wait) + 60, heartbeat_timeout_seconds=JAX_SECONDS,
    )  # fmt: skip
    come.set()
    if processes > 1:
        watch = Watch(store(), process, processes, closed)
        watching.append(watch)
        watch.start()


def _wait_for_all(processes: int, wait: float, come: threading.Event, closed: Callable[[], bool]) -> None:
    """Says that this process waits, and ends it after `wait` seconds, or where process 0 is gone meanwhile: that of an
    earlier run, which had not noticed its end yet."""
    began = said = time.monotonic()
    while not come.wait(0.2):
        now = time.monotonic()
        if closed():
            why = "process 0 has closed the connection before all had come. Start all of them again"
        elif now - began >= wait:
            why = f"not all of {processes} processes came within {wait:.0f} s (hosts.wait). Look at their consoles"
        else:
            if now - said >= SAY_SECONDS:
                said = now
                log.warning("waiting since %.0f s until all %d processes have come", now - began, processes)
            continue
        print(f"error: {why}", file=sys.stderr, flush=True)
        leave(AGAIN, first=False)


def tell(status: int, why: str) -> None:
    """Tells the other processes that this one ends, why, and with which status: they end too."""
    for watch in watching:
        watch.leaving(status, why)


def look_for_lost(error: Exception) -> None:
    """Gives the watch time to find out, and to say, that an error of a computation comes of a host that is gone."""
    # That of gloo is a ValueError where a program's result is made.
    if watching and (isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)):
        log.warning("process %d: a computation of all hosts failed; looking which is gone", jax.process_index())
        if watching[-1].stopped.wait(SILENT_SECONDS + 3 * SIGN_SECONDS):
            threading.Event().wait()  # the watch ends this process


def leave_run(status: int) -> None:
    """Ends this process at once where it belongs to a run of several; see `watch.leave`."""
    if jax.distributed.is_initialized():
        # `jax.process_index` would wait for hosts that are not there yet.
        leave(status, distributed.global_state.process_id == 0)


@contextmanager
def advising(advice: Callable[[], str]) -> Iterator[None]:
    """Within it, `advice` says what to do when a host is lost: the step that a restart goes on from.

    An error that leaves it changes nothing: it may come of a lost host, which is found a little later.
    """
    before = [watch.advice for watch in watching]
    for watch in watching:
        watch.advice = advice
    yield
    for watch, old in zip(watching, before, strict=True):
        watch.advice = old
