"""The one training loop. It serves every objective, and a run killed at any step resumes to the bit.

What makes it exact: a batch depends on the seed, the plan and the step alone; a checkpoint holds the device state, the
plan, the objective's memory and how far the log had come; whatever follows is recomputed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.loaders import reading
from data_pipelines.progress import first_slow, slow
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.objectives.objective import slot_of
from jaxvpr.parallel import compiling, hosts
from jaxvpr.training import early_stop, optimisers
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.ema import averaged
from jaxvpr.training.feed import Feed
from jaxvpr.training.host import Host
from jaxvpr.training.logs import Log, Progress
from jaxvpr.training.plateau import Watch, plateau
from jaxvpr.training.recipe import Outcome, Recipe
from jaxvpr.training.schedules import Schedule
from jaxvpr.training.state import TrainState, abstract, init_state, reborn, started, variables_of
from jaxvpr.training.step import make_step

log = logging.getLogger(__name__)
Follow = Callable[[Watch, float, int], Watch]


def train(config: ConfigDict, workdir: Path, recipe: Recipe, mesh: Mesh) -> Outcome:
    """Trains, or resumes, the recipe until `config.epochs` are done, validation gets no better, or it is told to leave.

    Raises:
      UserError: for a non-finite loss or gradient (the workdir then holds the last good state), a full disk, or a
        configuration that does not fit the devices.
    """
    objective, total = recipe.objective, config.epochs * config.steps_per_epoch
    tuners = optimisers.Optimisers(*(_optimiser(config, f"optimizer{group}") for group in ("", "_extra", "_shared")))
    _check_sizes(config, mesh, objective.period)
    follow, averages, frozen = _follow(config, tuners.model.rate), _averages(config), (*config.frozen, *recipe.frozen)
    born = partial(
        init_state, recipe.model, objective, tuners, mesh,
        example=recipe.example, frozen=frozen, seed=config.seed, ema=bool(averages),
    )  # fmt: skip
    with slow("preparing the weights to start from"):
        state, shardings = born()
        state = started(state, shardings, recipe.start, objective.load_aux)
    initial: Variables = jax.device_get(variables_of(state))
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
    restored = checkpoints.restore(abstract(state))
    host = Host()
    if restored:
        state, host = restored.state, Host.of(restored)
        log.info("resumed at step %d of %d", host.step, total)
    made = make_step(
        objective, tuners, mesh, shardings,
        total=total, epoch=config.steps_per_epoch, frozen=frozen,
        accumulate=config.accumulate, grad_cache=config.grad_cache, ema=averages,
    )  # fmt: skip
    step = first_slow(made, compiling.once("the training step"))
    written = Log(workdir if hosts.is_first() else None, host.log_offset, host.step)
    run = _Run(
        config, recipe, mesh, checkpoints, written, follow,
        again=lambda state: reborn(state, born()[0], shardings, initial, objective.taught), seconds=host.seconds,
    )  # fmt: skip
    with checkpoints.explained(), closing(run), hosts.leave_on_sigterm() as leave:
        while not (finished := run.ended(host)) and not leave(host.step):
            state = run.period(step, state, host, leave)
        if not finished:
            run.save(state, host)
        checkpoints.wait()
        best = checkpoints.variables(variables_of(state), "best")
        extra = checkpoints.extra(best[0]) if best and recipe.classes else None
    best_step, chosen = best or (host.step, variables_of(state))
    return Outcome(jax.device_get(chosen), initial, best_step, finished, run.seconds(), host.planning_seconds, extra)


class _Run:
    """The things a period of training works with; what decides a result is in the state and in `Host`, not here."""

    def __init__(
        self, config: ConfigDict, recipe: Recipe, mesh: Mesh, checkpoints: Checkpoints, written: Log, follow: Follow,
        *, again: Callable[[TrainState], TrainState], seconds: float,
    ):  # fmt: skip
        self.config, self.recipe = config, recipe
        self.checkpoints, self.log, self.follow, self.again = checkpoints, written, follow, again
        self.period_steps = recipe.objective.period
        self.total = config.epochs * config.steps_per_epoch
        self.progress = Progress(self.total, config.batch, config.log_seconds)
        self.feed = Feed(recipe.sources, recipe.objective.draw, mesh, seed=config.seed, loader=reading(config.loader))
        self._began = time.monotonic() - seconds

    def seconds(self) -> float:
        """How long the run has taken, with the parts before this one."""
        return time.monotonic() - self._began

    def ended(self, host: Host) -> bool:
        """Whether all steps are done, or validation has not got better for long enough."""
        return host.step >= self.total or 0 < self.config.best.patience <= host.patience.bad

    def period(self, step: Callable, state: TrainState, host: Host, leave: hosts.Leave) -> TrainState:
        """Trains from `host.step` to the end of its plan, or until told to leave."""
        index, within = divmod(host.step, self.period_steps)
        if not within and not host.plan:
            state = self._planned(index, state, host)
        slot, first = np.int32(slot_of(host.plan)), index * self.period_steps
        self.progress.images = sum(draw.rows.size for draw in self.recipe.objective.draw(host.plan, within).values())
        pending: deque[tuple[int, dict[str, jax.Array]]] = deque()
        with closing(self.feed.read(host.plan, first, host.step, first + self.period_steps)) as stream:
            waiting = time.monotonic()
            for number, local in stream:
                self.progress.waited(time.monotonic() - waiting)
                state, metrics = step(state, self.feed.on_mesh(local), slot, np.int32(number))
                pending.append((number, metrics))
                host.step = number + 1
                if len(pending) > 1:
                    self._settle(pending, 1, state, host)
                if host.step < first + self.period_steps:
                    going = leave(host.step)
                    if going or self._save_is_due(host.step):
                        self._settle(pending, 0, state, host)
                        self.save(state, host)
                    if going:
                        return state
                waiting = time.monotonic()
        self._settle(pending, 0, state, host)
        host.plan = {}
        return self._finish_plan(state, host)

    def _planned(self, index: int, state: TrainState, host: Host) -> TrainState:
        """Makes a plan with the model of the moment, which is a new one where a generation begins."""
        objective, began = self.recipe.objective, time.monotonic()
        if objective.new_generation and objective.new_generation(index):
            log.info("step %d: a new generation begins", host.step)
            state, host.watch, host.patience = self.again(state), Watch(), early_stop.Patience()
        rng = np.random.default_rng([self.config.seed, index])
        with slow(f"step {host.step}: planning the next {self.period_steps} steps"):
            host.plan, host.memory = objective.plan(index, rng, host.memory, self.recipe.embed(variables_of(state)))
        spent = time.monotonic() - began
        host.planning_seconds += spent
        self.log.clock(host.step, {"planning_seconds": spent})
        return state

    def _finish_plan(self, state: TrainState, host: Host) -> TrainState:
        """Validates and saves where an epoch ends that is validated; elsewhere saves if it is time to."""
        epoch, rest = divmod(host.step, self.config.steps_per_epoch)
        if (rest or epoch % self.config.every_epochs) and host.step != self.total:
            if self._save_is_due(host.step):
                self.save(state, host)
            return state
        with slow(f"step {host.step}: validating"):
            measures = self.recipe.validate(variables_of(state), state.extra)
        self.log.write(host.step, {"epoch": epoch, **measures})
        shown = "  ".join(f"{name} {number:.1f}" for name, number in measures.items())
        log.info("epoch %d/%d  step %d  %s", epoch, self.config.epochs, host.step, shown)
        name = early_stop.deciding(measures, self.config.best.measure)
        if name is None:
            self.save(state, host)
            return state
        state = self._rate_followed(state, host, measures[name])
        host.patience = early_stop.after(host.patience, measures[name])
        if self.ended(host) and host.step < self.total:
            why = f"no {name} above {host.patience.best} in {host.patience.bad} validations"
            self.log.write(host.step, {"ended": why})
            log.info("ended at step %d of %d: %s", host.step, self.total, why)
        self.save(state, host, measures[name])
        return state

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

    def _settle(self, pending: deque, leave: int, state: TrainState, host: Host) -> None:
        """Reads back the metrics of all but the newest `leave` steps, logs them, and stops at a step that went
        wrong."""
        while len(pending) > leave:
            step, metrics = pending.popleft()
            values = {name: value.item() for name, value in jax.device_get(metrics).items()}
            if not values.pop("ok"):
                self._stop(step, values, state, host)
            self.log.write(step, values)
            rates = self.progress.step(step + 1, values["loss"])
            self.log.clock(step, rates)

    def _stop(self, step: int, values: dict[str, float], state: TrainState, host: Host) -> None:
        draws = self.recipe.objective.draw(host.plan, step % self.period_steps)
        paths = [
            f"{stream}: {self.recipe.sources[stream].paths[row]}"
            for stream, draw in draws.items()
            for row in np.unique(draw.rows[draw.rows >= 0])
        ]
        host.step = step
        self.save(state, host)
        self.checkpoints.wait()
        raise UserError(
            f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}: not finite. The state before "
            f"this step is saved in {self.checkpoints.folder / str(step)}; nothing of it entered. Its batch:\n  "
            + "\n  ".join(paths)
            + "\nLook at these images, or start anew in another --workdir with a lower learning rate or margin."
        )

    def save(self, state: TrainState, host: Host, value: float | None = None) -> None:
        """Saves the state of `host.step`, with the validation value if there is one."""
        host.log_offset, host.seconds = self.log.offset(), self.seconds()
        self.checkpoints.save(host.step, state, host.arrays(), host.meta(), value)

    def close(self) -> None:
        self.progress.close()
        if self.feed.unreadable:
            log.warning("%d times an image could not be read and was left out of its batch", self.feed.unreadable)
        self.checkpoints.close()
        self.log.close()


def _optimiser(config: ConfigDict, group: str) -> optimisers.Optimiser:
    options, epoch = config[group].to_dict(), config.steps_per_epoch
    name, course = options.pop("name"), options.pop("schedule")
    try:
        return optimisers.build(name, total=config.epochs * epoch, period=epoch, schedule_name=course, **options)
    except UserError as error:
        raise UserError(f"config.{group}: {error}") from error


def _check_sizes(config: ConfigDict, mesh: Mesh, period: int) -> None:
    if config.steps_per_epoch % period:
        raise UserError(
            f"steps_per_epoch={config.steps_per_epoch} must be a multiple of the {period} steps that a plan of "
            f"objective.name={config.objective.name!r} lasts"
        )
    if config.accumulate > 1 and config.grad_cache > 1:
        raise UserError(
            f"accumulate={config.accumulate} and grad_cache={config.grad_cache} both take the batch in parts. The loss "
            "sees each part alone with accumulate, the whole batch with grad_cache; set one of them to 1"
        )
    name = "grad_cache" if config.grad_cache > 1 else "accumulate"
    step = mesh.size * config[name]
    if config.batch % step:
        raise UserError(
            f"batch={config.batch} must be a multiple of {step} = devices x {name} = {mesh.size} x {config[name]}"
        )


def _averages(config: ConfigDict) -> dict[str, Any]:
    """How weights are averaged; empty for not at all."""
    averaged({}, {}, jnp.int32(0), **config.ema)  # says what is wrong before anything has begun
    return config.ema.to_dict() if config.ema.decay else {}


def _follow(config: ConfigDict, rate: Schedule) -> Follow:
    """(watch, value, step) -> watch: what a validation after this step means for the learning rate."""
    if not config.plateau.factor:
        return lambda watch, value, step: watch
    if not config.val_data:
        raise UserError(
            f"plateau.factor={config.plateau.factor} lowers the learning rate where validation gets no better, and the "
            "recipe validates on nothing; give it val_data, or set plateau.factor=0"
        )
    rule = plateau(**config.plateau, validations=-(-config.epochs // config.every_epochs))
    return lambda watch, value, step: rule(watch, value, float(rate(jnp.int32(step))))
