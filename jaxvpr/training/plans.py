"""The plans of a run and their batches: the next is drawn, and read from, before the last steps of one are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple, cast

import numpy as np

from data_pipelines.progress import slow
from jaxvpr.objectives.objective import Embed, Memory, Objective, Plan
from jaxvpr.parallel import hosts
from jaxvpr.training.feed import Feed
from jaxvpr.training.host import Host


class Drawn(NamedTuple):
    """A plan, the objective's memory after it, and the seconds that drawing it took."""

    plan: Plan
    memory: Memory
    seconds: float


class Plans:
    """Makes plans when their time has come, and reads their batches.

    A plan that asks nothing of the model is drawn while the last steps of the one before it run, and its first batches
    are read meanwhile, so that neither the next step nor a validation in between waits for them. Nothing of it is in
    `Host` before its time: a checkpoint holds what it would hold if nothing had been drawn.

    Args:
      total: steps of the run.
    """

    def __init__(self, objective: Objective, feed: Feed, *, seed: int, total: int):
        self._objective, self._feed, self._seed = objective, feed, seed
        self._count, self._ahead = total // objective.period, max(1, feed.loader["prefetch"])
        self._draws_ahead = True  # until a plan asks for the model: what it had done until then was in vain
        self._next: tuple[Drawn, Any] | None = None

    def make(self, index: int, host: Host, embed: Embed) -> dict[str, float]:
        """Gives `host` the plan of that number, which `embed` may describe images for; returns how long it took.

        Raises:
          UserError: as of the objective; for a plan that does not fit; where hosts do not agree on it.
        """
        period = self._objective.period
        with slow(f"step {host.step}: planning the next {period} steps"):
            drawn = self._next[0] if self._next else self._draw(index, host.memory, embed)
            self._feed.check(drawn.plan.draws, self._objective.streams, period)
            # Each host made it, from the same descriptors, but perhaps by a processor that rounds otherwise.
            draws = drawn.plan.draws.items()
            hosts.agree(f"the plan of step {host.step}", lambda: {stream: draw.digest() for stream, draw in draws})
        host.plan, host.memory = drawn.plan, drawn.memory
        host.planning_seconds += drawn.seconds
        return {"planning_seconds": drawn.seconds}

    def batches(self, host: Host) -> Generator[tuple[int, Any]]:
        """(step, {stream: this host's batch}) from `host.step` to the end of its plan."""
        index, memory = host.step // self._objective.period, host.memory
        stop = (index + 1) * self._objective.period
        reading = self._next[1] if self._next else self._read(index, cast(Plan, host.plan), host.step)
        self._next = None
        with closing(reading):
            for number, local in reading:
                yield number, local
                if stop - number <= self._ahead and index + 1 < self._count:
                    self._look_ahead(index + 1, memory)

    def close(self) -> None:
        """Ends the reading of a next plan."""
        if self._next:
            self._next[1].close()

    def _look_ahead(self, index: int, memory: Memory) -> None:
        if self._next or not self._draws_ahead:
            return
        try:
            drawn = self._draw(index, memory, Embed(_refused, _refused))
            self._next = drawn, self._read(index, drawn.plan, index * self._objective.period)
        except Exception:  # whatever it is comes again when the plan is due, unless it was the model that was missing
            self._draws_ahead = False

    def _draw(self, index: int, memory: Memory, embed: Embed) -> Drawn:
        began = time.monotonic()
        plan, memory = self._objective.plan(index, np.random.default_rng([self._seed, index]), dict(memory), embed)
        return Drawn(plan, memory, time.monotonic() - began)

    def _read(self, index: int, plan: Plan, start: int) -> Any:
        period = self._objective.period
        return self._feed.read(plan.draws, index * period, start, (index + 1) * period)


def calls(
    stream: Iterable[tuple[int, Any]], most: int, ends: Callable[[int], bool]
) -> Iterator[tuple[list[int], list[Any]]]:
    """(numbers, batches) of the steps that run in one call of the devices: `most` of them, fewer before a step that a
    call `ends` before, and at the end of the stream."""
    numbers, batches = list[int](), []
    for number, local in stream:
        numbers.append(number)
        batches.append(local)
        if len(numbers) == most or ends(number + 1):
            yield numbers, batches
            numbers, batches = [], []
    if numbers:
        yield numbers, batches


def _refused(rows: np.ndarray) -> Any:
    raise LookupError("the model that this plan asks for is still training")
