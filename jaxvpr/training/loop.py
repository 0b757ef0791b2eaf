"""The one training loop. It serves every objective, and a run killed at any step resumes to the bit.

What makes it exact: a batch depends on the seed, the plan and the step alone; a checkpoint holds the device state, the
plan, the objective's memory and how far the log had come; whatever follows is recomputed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.loaders import loading_options
from data_pipelines.progress import first_slow, slow
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.objectives.objective import Plan
from jaxvpr.parallel import compiling, connection, device_memory, hosts
from jaxvpr.retrieval.recall import wilson
from jaxvpr.training import early_stop, settings
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.feed import Feed
from jaxvpr.training.host import Host
from jaxvpr.training.logs import Log, Progress
from jaxvpr.training.plans import Plans, calls
from jaxvpr.training.plateau import Watch
from jaxvpr.training.profile import Profile
from jaxvpr.training.recipe import Outcome, Recipe
from jaxvpr.training.state import TrainState, abstract, init_state, next_generation, started, variables_of
from jaxvpr.training.step import Turn, make_step
from jaxvpr.training.step_memory import SHARED, StepMemory

log = logging.getLogger(__name__)
# Calls of the devices whose metrics are not read yet: the steps of each, and what came of them.
Pending = deque[tuple[list[int], dict[str, jax.Array]]]
UNREAD = 10  # batches in a row without an image that could be read, which end a run


def train(config: ConfigDict, workdir: Path, recipe: Recipe, mesh: Mesh) -> Outcome:
    """Trains, or resumes, the recipe until `config.epochs` are done, validation gets no better, or it is stopped.

    Raises:
      UserError: for a non-finite loss or gradient (the workdir then holds the last good state), a full disk, or a
        configuration that does not fit the devices.
    """
    objective, total = recipe.objective, config.epochs * config.steps_per_epoch
    settled = settings.settle(config, recipe, mesh)
    of_state = settings.state_options(config, recipe, settled)
    fresh = partial(init_state, recipe.model, objective, settled.groups, mesh, **of_state)
    whole = device_memory.told("the model with its heads and optimisers", lambda: f"Take smaller ones, or {SHARED}")
    with slow("preparing the weights to start from"), whole:
        state, shardings = fresh()
        start = partial(hosts.together, "preparing the weights to start from", recipe.start)
        state = started(state, shardings, start, objective.load_aux)
    initial: Variables = jax.device_get(variables_of(state))
    recipe = recipe.ready(initial) if recipe.ready else recipe
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
    restored = checkpoints.restore(abstract(state))
    host = Host()
    if restored:
        state, host = restored.state, Host.of(restored)
        log.info("resumed at step %d of %d", host.step, total)
    options = settings.step_options(config, settled)
    many = config.steps_per_call > 1
    made = make_step(objective, settled.groups, mesh, shardings, tables=bool(recipe.tables), many=many, **options)
    step, told, profile = _program(made, config, mesh, workdir / "profile")
    written = Log(workdir if hosts.is_first() else None, host.log_offset, host.step)
    feed = Feed(
        recipe.sources, mesh, seed=config.seed, loader=loading_options(config.loader), by_image=settled.by_image,
        tables=recipe.tables,
    )  # fmt: skip
    run = _Run(
        config, recipe, feed, checkpoints, written, settled.follow, settled.deciding,
        renew=lambda state: next_generation(state, fresh()[0], shardings, initial, objective.inherited),
        told=told, seconds=host.seconds,
    )  # fmt: skip
    alone = connection.advising(checkpoints.restart)
    with alone, checkpoints.explained(), closing(run), profile, hosts.stop_on_sigterm() as leave:
        while not (finished := run.ended(host)) and not leave(host.step):
            state = run.period(step, state, host, leave)
        if not finished:
            run.save(state, host)
        checkpoints.wait()
        last = variables_of(state)
        best = checkpoints.variables(last, "best")
        extra = checkpoints.extra(best[0]) if best and recipe.classes else None
    best_step, chosen = best or (host.step, last)
    return Outcome(jax.device_get(chosen), initial, best_step, finished, run.seconds(), host.planning_seconds, extra)


def _program(
    made: Any, config: ConfigDict, mesh: Mesh, folder: Path
) -> tuple[Callable[..., tuple[TrainState, Any]], Callable[[], AbstractContextManager], Profile]:
    """The compiled step as the loop calls it; a context in which its want of memory is told; its trace, in `folder`."""
    what = "the training step"
    memory = StepMemory(
        made, batch=config.batch, accumulate=config.accumulate, grad_cache=config.grad_cache, devices=mesh.size
    )
    profile = Profile(folder, config.profile.first, config.profile.steps if hosts.is_first() else 0)
    first = first_slow(made, compiling.message(what), _steps_of, before=memory.noting(compiling.together(made, what)))
    told = partial(device_memory.told, f"{what} with batch={config.batch}", memory.advice)
    return profile.traced(first), told, profile


def _steps_of(state: Any, batches: Any, turn: Turn, *tables: Any) -> tuple[int, ...]:
    """What programs differ in: how many steps a call has."""
    return np.shape(turn.number)


class _Run:
    """The things a period of training works with; what decides a result is in the state and in `Host`, not here."""

    def __init__(
        self, config: ConfigDict, recipe: Recipe, feed: Feed, checkpoints: Checkpoints, written: Log,
        follow: settings.Follow, deciding: early_stop.Deciding, *,
        renew: Callable[[TrainState], TrainState], told: Callable[[], AbstractContextManager], seconds: float,
    ):  # fmt: skip
        self.config, self.recipe, self.feed = config, recipe, feed
        self.checkpoints, self.log, self.follow, self.renew = checkpoints, written, follow, renew
        self.deciding, self.unread, self.told = deciding, 0, told
        self.tables, self.many = (feed.tables,) if feed.tables else (), config.steps_per_call > 1
        self.period_steps = recipe.objective.period
        self.total = config.epochs * config.steps_per_epoch
        self.plans = Plans(recipe.objective, feed, seed=config.seed, total=self.total)
        self.progress = Progress(self.total, config.batch, config.log_seconds)
        self._began = time.monotonic() - seconds

    def seconds(self) -> float:
        """How long the run has taken, with the parts before this one."""
        return time.monotonic() - self._began

    def ended(self, host: Host) -> bool:
        """Whether all steps are done, or validation has not got better for long enough."""
        return host.step >= self.total or 0 < self.config.best.patience <= host.patience.bad

    def period(self, step: Callable, state: TrainState, host: Host, leave: hosts.StopRequest) -> TrainState:
        """Trains from `host.step` to the end of its plan, or until it is stopped."""
        index, within = divmod(host.step, self.period_steps)
        if host.plan is None:
            state = self._of_generation(index, state, host)
            self.log.clock(host.step, self.plans.make(index, host, self.recipe.embed(variables_of(state))))
        plan, first = cast(Plan, host.plan), index * self.period_steps
        self.progress.images = sum(draw.rows[within].size for draw in plan.draws.values())
        pending: Pending = deque()
        with self.told(), closing(self.plans.batches(host)) as stream:
            waiting = time.monotonic()
            for numbers, batches in calls(stream, self.config.steps_per_call, self._save_is_due):
                self.progress.waited(time.monotonic() - waiting)
                turns = [Turn(np.int32(n), np.int32(plan.slot), np.bool_(n - first < plan.heads_only)) for n in numbers]
                state, metrics = step(state, *self._given(batches, turns), *self.tables)
                pending.append((numbers, metrics))
                host.step = numbers[-1] + 1
                if len(pending) > 1:
                    self._settle(pending, 1, state, host)
                if host.step < first + self.period_steps:
                    leaving = leave(host.step)
                    if leaving or self._save_is_due(host.step):
                        self._settle(pending, 0, state, host)
                        self.save(state, host)
                    if leaving:
                        return state
                waiting = time.monotonic()
            self._settle(pending, 0, state, host)
        host.plan = None
        return self._finish_plan(state, host)

    def _given(self, batches: list[Any], turns: list[Turn]) -> tuple[Any, Turn]:
        """What a call takes beside the state, stacked where it may have several steps."""
        if not self.many:
            return self.feed.on_mesh(batches[0]), turns[0]
        return self.feed.stacked(batches), Turn(*map(np.stack, zip(*turns, strict=True)))

    def _of_generation(self, index: int, state: TrainState, host: Host) -> TrainState:
        """The state that the plan of this number is made with: a new one where a generation begins."""
        begins = self.recipe.objective.new_generation
        if not (begins and begins(index)):
            return state
        log.info("step %d: a new generation begins", host.step)
        host.watch, host.patience = Watch(), early_stop.Patience()
        return self.renew(state)

    def _finish_plan(self, state: TrainState, host: Host) -> TrainState:
        """Validates and saves where an epoch ends that is validated; elsewhere saves if it is time to."""
        epoch, rest = divmod(host.step, self.config.steps_per_epoch)
        if (rest or epoch % self.config.every_epochs) and host.step != self.total:
            if self._save_is_due(host.step):
                self.save(state, host)
            return state
        with slow(f"step {host.step}: validating"):
            measures = hosts.numbers_of_first(self.recipe.validate(variables_of(state), state.extra))
        self.log.write(host.step, {"epoch": epoch, **measures})
        name = self.deciding.name(measures)
        shown = "  ".join(f"{one} {number:.1f}{self._interval(one, name, number)}" for one, number in measures.items())
        log.info("epoch %d/%d  step %d  %s", epoch, self.config.epochs, host.step, shown)
        if name is None:
            self.save(state, host)
            return state
        state = self._rate_followed(state, host, measures[name])
        score = self.deciding.score(name, measures[name])
        host.patience = early_stop.after(host.patience, score)
        if self.ended(host) and host.step < self.total:
            best = self.deciding.score(name, host.patience.best or 0.0)
            better = "below" if self.deciding.lower_is_better(name) else "above"
            why = f"no {name} {better} {round(best, 4)} in {host.patience.bad} validations"
            self.log.write(host.step, {"ended": why})
            log.info("ended at step %d of %d: %s", host.step, self.total, why)
        self.save(state, host, score)
        return state

    def _interval(self, measure: str, deciding: str | None, value: float) -> str:
        """Wilson's interval of the measure that decides, where it is a share of queries: what lies within it may be
        chance."""
        trials = self.recipe.trials.get(measure, 0)
        if measure != deciding or not trials:
            return ""
        low, high = wilson(round(value * trials / 100), trials)
        return f" ({low:.1f}-{high:.1f})"

    def _rate_followed(self, state: TrainState, host: Host, value: float) -> TrainState:
        """The state with the scale of the learning rates that a validation leads to."""
        before, host.watch = host.watch, self.follow(host.watch, value, host.step - 1)
        if host.watch.scale == before.scale:
            return state
        log.info("no better validation than %s for a while: learning rates times %.3g", before.best, host.watch.scale)
        return state._replace(rate_scale=jax.device_put(np.float32(host.watch.scale), state.rate_scale.sharding))

    def _save_is_due(self, step: int) -> bool:
        every = self.config.checkpoint.every_steps
        return bool(every) and step % every == 0

    def _settle(self, pending: Pending, leave: int, state: TrainState, host: Host) -> None:
        """Reads back the metrics of all but the newest `leave` calls, logs them, and stops at a step that went
        wrong."""
        while len(pending) > leave:
            numbers, metrics = pending.popleft()
            read = {name: np.reshape(value, -1).tolist() for name, value in jax.device_get(metrics).items()}
            for index, step in enumerate(numbers):
                values = {name: value[index] for name, value in read.items()}
                if not values.pop("ok"):
                    self._stop(step, values, state, host)
                self._check_read(step, values.pop("counts"), host)
                self.log.write(step, values)
                self.log.clock(step, self.progress.step(step + 1, values["loss"]))

    def _check_read(self, step: int, counts: bool, host: Host) -> None:
        """Stops where `UNREAD` batches in a row, or all of a plan, had a stream of which nothing could be read."""
        planned = all(draw.mask[step % self.period_steps].any() for draw in cast(Plan, host.plan).draws.values())
        self.unread = 0 if counts else self.unread + planned
        if self.unread >= min(UNREAD, self.period_steps):
            raise UserError(
                f"step {step}: none of the images of the last {self.unread} batches could be read, so that nothing is "
                "learned from them; the lines above name them. Put them back, or give the right root, and start again: "
                "the run goes on from its last checkpoint"
            )

    def _stop(self, step: int, values: dict[str, float], state: TrainState, host: Host) -> None:
        rows = {stream: draw.rows[step % self.period_steps] for stream, draw in cast(Plan, host.plan).draws.items()}
        names = [
            f"{stream}: {name}"
            for stream, of_stream in rows.items()
            for name in self.recipe.sources[stream].names(np.unique(of_stream[of_stream >= 0]))
        ]
        host.step = step
        self.save(state, host)
        self.checkpoints.wait()
        raise UserError(
            f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}: not finite. The state before "
            f"this step is saved in {self.checkpoints.folder / str(step)}; nothing of it entered. Its batch:\n  "
            + "\n  ".join(names)
            + "\nLook at these, or start anew in another --workdir with a lower learning rate or margin."
        )

    def save(self, state: TrainState, host: Host, value: float | None = None) -> None:
        """Saves the state of `host.step`, with the validation value if there is one."""
        host.log_offset, host.seconds = self.log.offset(), self.seconds()
        self.checkpoints.save(host.step, state, host.arrays(), host.meta(), value)

    def close(self) -> None:
        self.progress.close()
        if self.feed.unreadable:
            log.warning("%d times an image could not be read and was left out of its batch", self.feed.unreadable)
        with closing(self.log), closing(self.plans):
            self.checkpoints.close()
