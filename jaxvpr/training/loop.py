"""The one training loop. It serves every objective, and a run killed at any step resumes to the bit.

What makes it exact: a batch depends on the seed, the plan and the step alone; a checkpoint holds the device state, the
plan, the objective's memory and how far the log had come; whatever follows is recomputed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Objective, slot_of
from jaxvpr.parallel import hosts
from jaxvpr.training import optimisers
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.ema import averaged
from jaxvpr.training.feed import Feed
from jaxvpr.training.host import Host
from jaxvpr.training.logs import Log, Progress
from jaxvpr.training.plateau import Watch, plateau
from jaxvpr.training.schedules import Schedule
from jaxvpr.training.state import TrainState, Variables, abstract, init_state, started, variables_of
from jaxvpr.training.step import make_step

log = logging.getLogger(__name__)
Follow = Callable[[Watch, float, int], Watch]


class Recipe(NamedTuple):
    """What is trained on what.

    Attributes:
      model: a `PlaceModel`.
      objective: what it draws and learns.
      sources: {stream: where its images come from}.
      example: an input of the model with a batch of one, to initialise it with.
      start: fills freshly initialised variables with the weights the run starts from.
      embed_rows: (variables, rows) -> descriptors [len(rows), D] of training images, for objectives that mine.
      validate: variables -> {measure: value in per cent}; the first measure decides which checkpoint is best.
      frozen: patterns of parameter paths that rest, on top of those of the recipe's key `frozen`.
    """

    model: Any
    objective: Objective
    sources: Mapping[str, Any]
    example: np.ndarray
    start: Callable[[Variables], Variables]
    embed_rows: Callable[[Variables, np.ndarray], np.ndarray]
    validate: Callable[[Variables], dict[str, float]]
    frozen: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What a run ends with.

    Attributes:
      best, initial: variables of the best step in validation, and those the run started from.
      best_step: which step that is.
      finished: False where the run was told to leave before its end.
      seconds: of training and validation, summed over the parts of an interrupted run.
    """

    best: Variables
    initial: Variables
    best_step: int
    finished: bool
    seconds: float


def train(config: ConfigDict, workdir: Path, recipe: Recipe, mesh: Mesh) -> Outcome:
    """Trains, or resumes, the recipe until `config.epochs` plans are done or the run is told to leave.

    Raises:
      UserError: for a non-finite loss or gradient (the workdir then holds the last good state), a full disk, or a
        configuration that does not fit the devices.
    """
    objective, total = recipe.objective, config.epochs * recipe.objective.period
    tuner, tuner_extra = (_optimiser(config, key, objective.period) for key in ("optimizer", "optimizer_extra"))
    _check_parts(config, mesh)
    follow, averages, frozen = _follow(config, tuner.rate), _averages(config), (*config.frozen, *recipe.frozen)
    state, shardings = init_state(
        recipe.model, objective, tuner, tuner_extra, mesh,
        example=recipe.example, frozen=frozen, seed=config.seed, ema=bool(averages),
    )  # fmt: skip
    state = started(state, shardings, recipe.start, objective.load_aux)
    initial = jax.device_get(variables_of(state))
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
    restored = checkpoints.restore(abstract(state))
    host = Host()
    if restored:
        state, host = restored.state, Host.of(restored)
        log.info("resumed at step %d of %d", host.step, total)
    step = make_step(
        objective, tuner, tuner_extra, mesh, shardings,
        total=total, frozen=frozen, accumulate=config.accumulate, grad_cache=config.grad_cache, ema=averages,
    )  # fmt: skip
    written = Log(workdir if hosts.is_first() else None, host.log_offset, host.step)
    run = _Run(config, recipe, mesh, checkpoints, written, follow, host.seconds)
    with checkpoints.explained(), closing(run), hosts.leave_on_sigterm() as leave:
        while host.step < total and not leave(host.step):
            state = run.period(step, state, host, leave)
        finished = host.step >= total
        if not finished:
            run.save(state, host)
        checkpoints.wait()
        best = checkpoints.variables(variables_of(state), "best")
    best_step, chosen = best or (host.step, variables_of(state))
    return Outcome(jax.device_get(chosen), initial, best_step, finished, run.seconds())


class _Run:
    """The things a period of training works with; what decides a result is in the state and in `Host`, not here."""

    def __init__(
        self, config: ConfigDict, recipe: Recipe, mesh: Mesh,
        checkpoints: Checkpoints, written: Log, follow: Follow, seconds: float,
    ):  # fmt: skip
        self.config, self.recipe = config, recipe
        self.checkpoints, self.log, self.follow = checkpoints, written, follow
        self.period_steps = recipe.objective.period
        self.total = config.epochs * self.period_steps
        self.progress = Progress(self.total, config.batch, config.log_seconds)
        loader = {key: config.loader[key] for key in ("threads", "workers", "prefetch")}
        self.feed = Feed(
            recipe.sources, recipe.objective.draw, mesh, batch=config.batch, seed=config.seed, loader=loader
        )
        self._began = time.monotonic() - seconds

    def seconds(self) -> float:
        """How long the run has taken, with the parts before this one."""
        return time.monotonic() - self._began

    def period(self, step: Callable, state: TrainState, host: Host, leave: hosts.Leave) -> TrainState:
        """Trains from `host.step` to the end of its period, or until told to leave; saves either way."""
        objective, config = self.recipe.objective, self.config
        index, within = divmod(host.step, self.period_steps)
        if not within and not host.plan:
            rng = np.random.default_rng([config.seed, index])
            describe = partial(self.recipe.embed_rows, variables_of(state))
            host.plan, host.memory = objective.plan(index, rng, host.memory, describe)
        slot, first = np.int32(slot_of(host.plan)), index * self.period_steps
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
        return self._finish_period(state, host)

    def _finish_period(self, state: TrainState, host: Host) -> TrainState:
        epoch = host.step // self.period_steps
        if epoch % self.config.every_epochs and host.step != self.total:
            if self._save_is_due(host.step):
                self.save(state, host)
            return state
        measures = self.recipe.validate(variables_of(state))
        self.log.write(host.step, {"epoch": epoch, **measures})
        shown = "  ".join(f"{name} {number:.1f}" for name, number in measures.items())
        log.info("epoch %d/%d  step %d  %s", epoch, self.config.epochs, host.step, shown)
        value = next(iter(measures.values()), None)
        if value is not None:
            state = self._rate_followed(state, host, value)
        self.save(state, host, value)
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
        if self.feed.unreadable:
            log.warning("%d times an image could not be read and was left out of its batch", self.feed.unreadable)
        self.checkpoints.close()
        self.log.close()


def _optimiser(config: ConfigDict, group: str, period: int) -> optimisers.Optimiser:
    options = config[group].to_dict()
    name, course = options.pop("name"), options.pop("schedule")
    try:
        return optimisers.build(name, total=config.epochs * period, period=period, schedule_name=course, **options)
    except UserError as error:
        raise UserError(f"config.{group}: {error}") from error


def _check_parts(config: ConfigDict, mesh: Mesh) -> None:
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
