"""Several hosts as one run: order of work, agreement, and requests to stop."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxvpr.errors import HostLost, UserError
from jaxvpr.parallel import connection

log = logging.getLogger(__name__)
T = TypeVar("T")

_numbers = itertools.count()


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has called it, for `hosts.wait` seconds, and says for whom.

    It asks the coordination service, not the devices: gloo's collectives give up after 30 seconds.

    Raises:
      HostLost: where one has not come by then.
    """
    if jax.process_count() == 1:
        return
    store, wait = connection.store(), connection.wait_seconds()
    here = f"jaxvpr {next(_numbers)}"  # not the name: the roots in it may differ
    store.key_value_set(f"{here}/{jax.process_index()}", socket.gethostname())
    passed = threading.Event()
    threading.Thread(target=_say_who_is_late, args=(store, here, name, passed), daemon=True).start()
    try:
        store.wait_at_barrier(here, int(1000 * wait))
    except jax.errors.JaxRuntimeError as error:
        if not (late := _late(store, here)):
            raise
        raise HostLost(
            f"{name}: process {late} of {jax.process_count()} did not come within {wait:.0f} s. Look at its console. "
            "Where it only takes longer: --config.hosts.wait=SECONDS"
        ) from error
    finally:
        passed.set()
    store.key_value_delete(f"{here}/{jax.process_index()}")


def _late(store: Any, here: str) -> list[int]:
    there = {int(key.rpartition("/")[2]) for key, _ in store.key_value_dir_get(here)}
    return sorted(set(range(jax.process_count())) - there)


def _say_who_is_late(store: Any, here: str, name: str, passed: threading.Event) -> None:
    waited = 0.0
    while not passed.wait(connection.SAY_SECONDS):
        waited += connection.SAY_SECONDS
        late = _late(store, here)
        log.warning("%s: waiting since %.0f s for process %s of %d", name, waited, late, jax.process_count())


def finish() -> None:
    """The end of a command that succeeded: waits for all hosts, which then need not watch each other any more."""
    barrier("the end of the command")
    for watch in connection.watching:
        watch.stopped.set()


def agree(what: str, facts: Callable[[], Mapping[str, Any]]) -> None:
    """Looks whether all hosts have the facts of the first; does nothing for a run of one.

    Args:
      what: they are of, for the message.
      facts: gives values that JSON has, by name.

    Raises:
      UserError: on every host, where one differs; names what differs, and on which.
    """
    if jax.process_count() == 1:
        return
    store, here, me = connection.store(), f"jaxvpr {next(_numbers)}", jax.process_index()
    ours = json.loads(json.dumps(dict(facts())))
    if me == 0:
        store.key_value_set(f"{here} first", json.dumps(ours))
    first = json.loads(store.blocking_key_value_get(f"{here} first", int(1000 * connection.wait_seconds())))
    differ = [
        f"{name}: {first.get(name, 'absent')!r} on host 0, {ours.get(name, 'absent')!r} on host {me}"
        for name in sorted({*first, *ours})
        if first.get(name, "absent") != ours.get(name, "absent")
    ]
    store.key_value_set(f"{here}/{me}", "\n  ".join(differ))
    barrier(what)
    found = sorted(text for _, text in store.key_value_dir_get(here) if text)
    if found:
        raise UserError(
            f"the hosts do not agree on {what}, and would make a wrong model together:\n  "
            + "\n  ".join(found)
            + "\nStart all of them with the same recipe, versions and data"
        )


def all_come(name: str, seconds: float) -> bool:
    """Whether every process calls this, by a name of its own, within so many seconds of one another."""
    if jax.process_count() == 1:
        return True
    try:
        connection.store().wait_at_barrier(f"jaxvpr {name}", int(1000 * seconds))
    except jax.errors.JaxRuntimeError:
        return False
    return True


def together(name: str, make: Callable[..., T], *arguments: Any) -> T:
    """`make(*arguments)`, which may take longer on one host than on another; all have it when this returns."""
    made = make(*arguments)
    barrier(name)
    return made


def first_then_others(name: str, make: Callable[[], T]) -> T:
    """Calls `make` on process 0, then on the others, which find the files that the first wrote.

    Where it fails on process 0, the others go on and meet the same error, instead of waiting for ever.
    """
    if not is_first():
        barrier(name)
        return make()
    try:
        return make()
    finally:
        barrier(name)


def of_first(make: Callable[[], np.ndarray], shape: tuple[int, ...], dtype: Any = np.int32) -> np.ndarray:
    """The array that `make` gives on process 0, of this shape and type (of four bytes), the same on every process."""
    if jax.process_count() == 1:
        return make()
    ours = together("what the first host found", make if is_first() else lambda: np.zeros(shape, dtype))
    return np.asarray(multihost_utils.broadcast_one_to_all(ours))


def numbers_of_first(values: Mapping[str, float]) -> dict[str, float]:
    """The values that process 0 has, on every process: others may have rounded to another side of a decision."""
    if not values or jax.process_count() == 1:
        return dict(values)
    ours = np.array(list(values.values()), np.float64).view(np.int32)  # as halves, which no device rounds
    return dict(zip(values, of_first(lambda: ours, ours.shape).view(np.float64).tolist(), strict=True))


class StopRequest:
    """Whether the run has been requested to stop; called between steps, as often on every host,
    with the same result on each."""

    def __init__(self) -> None:
        self._requested, self._asked = threading.Event(), 0

    def __call__(self, step: int) -> bool:
        if jax.process_count() > 1:
            # JAX names a number above those that hosts have asked with and waits for it: steps may leave some out.
            self._asked += 1
            return bool(multihost_utils.reached_preemption_sync_point(self._asked))
        return self._requested.is_set()

    def set(self, number: int = signal.SIGTERM, _: object = None) -> None:
        """Requests a stop after the current step; a second Ctrl-C does not wait for it."""
        if number == signal.SIGINT and self._requested.is_set():
            raise KeyboardInterrupt
        self._requested.set()


_open: list[StopRequest] = []


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Turns SIGTERM and the first Ctrl-C into a request to stop after the step.

    With several processes JAX's own preemption service listens for SIGTERM and agrees on a common step. A block within
    another one yields the same `StopRequest`.
    """
    if _open:
        yield _open[0]
        return
    request = StopRequest()
    ours = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, request.set) for number in (signal.SIGTERM, signal.SIGINT) if ours}
    _open.append(request)
    try:
        yield request
    finally:
        _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
