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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.loaders import Draw, StepReader, batches, complaints
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Objective, Plan, slot_of
from jaxvpr.parallel import hosts
from jaxvpr.parallel.mesh import local_rows, to_global
from jaxvpr.training import optimisers
from jaxvpr.training.checkpoint import Checkpoints, Restored
from jaxvpr.training.logs import Log, Progress
from jaxvpr.training.state import TrainState, abstract, init_state
from jaxvpr.training.step import make_step

log = logging.getLogger(__name__)
Variables = dict[str, Any]


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
    """

    model: Any
    objective: Objective
    sources: Mapping[str, Any]
    example: np.ndarray
    start: Callable[[Variables], Variables]
    embed_rows: Callable[[Variables, np.ndarray], np.ndarray]
    validate: Callable[[Variables], dict[str, float]]


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


@dataclass
class _Host:
    """The host side of a run, saved with every checkpoint."""

    step: int = 0
    plan: Plan = field(default_factory=dict)
    memory: dict[str, np.ndarray] = field(default_factory=dict)
    log_offset: int = 0
    seconds: float = 0.0

    def arrays(self) -> dict[str, np.ndarray]:
        named = {f"plan.{k}": v for k, v in self.plan.items()} | {f"memory.{k}": v for k, v in self.memory.items()}
        return named | {"step": np.asarray(self.step)}  # orbax refuses an empty tree

    @classmethod
    def of(cls, restored: Restored) -> _Host:
        part = {
            kind: {k.removeprefix(kind): v for k, v in restored.host.items() if k.startswith(kind)}
            for kind in ("plan.", "memory.")
        }
        meta = restored.meta
        return cls(restored.step, part["plan."], part["memory."], meta["log_offset"], meta.get("seconds", 0.0))


def train(config: ConfigDict, workdir: Path, recipe: Recipe, mesh: Mesh) -> Outcome:
    """Trains, or resumes, the recipe until `config.epochs` plans are done or the run is told to leave.

    Raises:
      UserError: for a non-finite loss or gradient (the workdir then holds the last good state), a full disk, or a
        configuration that does not fit the devices.
    """
    objective, total = recipe.objective, config.epochs * recipe.objective.period
    settings = {"total": total, "frozen": tuple(config.frozen), "accumulate": config.accumulate}
    tuner, tuner_extra = (_optimiser(c, total, objective.period) for c in (config.optimizer, config.optimizer_extra))
    _check_batch(config, mesh)
    state, shardings = init_state(
        recipe.model, objective, tuner, tuner_extra, mesh,
        example=recipe.example, frozen=settings["frozen"], seed=config.seed,
    )  # fmt: skip
    state = _started(state, shardings, recipe.start)
    initial = jax.device_get(variables_of(state))
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
    restored = checkpoints.restore(abstract(state))
    host = _Host()
    if restored:
        state, host = restored.state, _Host.of(restored)
        log.info("resumed at step %d of %d", host.step, total)
    step = make_step(objective, tuner, tuner_extra, mesh, shardings, **settings)
    written = Log(workdir if hosts.is_first() else None, host.log_offset, host.step)
    run = _Run(config, recipe, mesh, checkpoints, written, host.seconds)
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


def variables_of(state: TrainState) -> Variables:
    """What `model.apply` takes."""
    return {"params": state.params, "batch_stats": state.stats}


class _Run:
    """The things a period of training works with; what decides a result is in the state and in `_Host`, not here."""

    def __init__(
        self, config: ConfigDict, recipe: Recipe, mesh: Mesh, checkpoints: Checkpoints, written: Log, seconds: float
    ):
        self.config, self.recipe, self.mesh = config, recipe, mesh
        self.checkpoints, self.log = checkpoints, written
        self.period_steps = recipe.objective.period
        self.total = config.epochs * self.period_steps
        self.progress = Progress(self.total, config.batch, config.log_seconds)
        self.unreadable = 0
        self._began = time.monotonic() - seconds

    def seconds(self) -> float:
        """How long the run has taken, with the parts before this one."""
        return time.monotonic() - self._began

    def period(self, step: Callable, state: TrainState, host: _Host, leave: hosts.Leave) -> TrainState:
        """Trains from `host.step` to the end of its period, or until told to leave; saves either way."""
        objective, config = self.recipe.objective, self.config
        index, within = divmod(host.step, self.period_steps)
        if not within and not host.plan:
            rng = np.random.default_rng([config.seed, index])
            describe = partial(self.recipe.embed_rows, variables_of(state))
            host.plan, host.memory = objective.plan(index, rng, host.memory, describe)
        slot, first = np.int32(slot_of(host.plan)), index * self.period_steps
        pending: deque[tuple[int, dict[str, jax.Array]]] = deque()
        with closing(self._batches(host.plan, first, within)) as stream:
            waiting = time.monotonic()
            for number, local in stream:
                self.progress.waited(time.monotonic() - waiting)
                state, metrics = step(state, self._on_mesh(local), slot, np.int32(number))
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
        self._finish_period(state, host)
        return state

    def _finish_period(self, state: TrainState, host: _Host) -> None:
        epoch = host.step // self.period_steps
        if epoch % self.config.every_epochs and host.step != self.total:
            if self._save_is_due(host.step):
                self.save(state, host)
            return
        measures = self.recipe.validate(variables_of(state))
        self.log.write(host.step, {"epoch": epoch, **measures})
        shown = "  ".join(f"{name} {number:.1f}" for name, number in measures.items())
        log.info("epoch %d/%d  step %d  %s", epoch, self.config.epochs, host.step, shown)
        self.save(state, host, next(iter(measures.values()), None))

    def _save_is_due(self, step: int) -> bool:
        every = self.config.checkpoint.every_steps
        return bool(every) and step % every == 0

    def _batches(self, plan: Plan, first: int, within: int) -> Any:
        loader = self.config.loader
        read = StepReader(
            dict(self.recipe.sources),
            partial(_draw, self.recipe.objective.draw, plan, first),
            self.config.seed,
            local_rows(self.mesh, self.config.batch),
        )
        return batches(
            read, first + within, first + self.period_steps,
            threads=loader.threads, workers=loader.workers, prefetch=loader.prefetch,
        )  # fmt: skip

    def _on_mesh(self, local: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, jax.Array]]:
        for stream, batch in local.items():
            self.unreadable += int(batch["bad"].sum())
            for complaint in complaints(self.recipe.sources[stream].paths, batch) if batch["bad"].any() else ():
                log.warning("left out of its batch: %s", complaint)
        return {
            stream: to_global(self.mesh, {name: batch[name] for name in batch if name not in ("row", "bad")})
            for stream, batch in local.items()
        }

    def _settle(self, pending: deque, leave: int, state: TrainState, host: _Host) -> None:
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

    def _stop(self, step: int, values: dict[str, float], state: TrainState, host: _Host) -> None:
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

    def save(self, state: TrainState, host: _Host, value: float | None = None) -> None:
        """Saves the state of `host.step`, with the validation value if there is one."""
        meta = {"log_offset": self.log.offset(), "seconds": self.seconds()}
        self.checkpoints.save(host.step, state, host.arrays(), meta, value)

    def close(self) -> None:
        if self.unreadable:
            log.warning("%d times an image could not be read and was left out of its batch", self.unreadable)
        self.checkpoints.close()
        self.log.close()


def _draw(draw: Callable, plan: Plan, first: int, step: int) -> dict[str, Draw]:
    """The draw of a step of the whole run; a module-level function, since loader processes are spawned."""
    return draw(plan, step - first)


def _started(state: TrainState, shardings: TrainState, start: Callable[[Variables], Variables]) -> TrainState:
    """The initial state with the weights that the run starts from."""
    filled = start(jax.device_get(variables_of(state)))
    return state._replace(
        params=jax.device_put(filled["params"], shardings.params),
        stats=jax.device_put(filled["batch_stats"], shardings.stats),
    )


def _optimiser(config: ConfigDict, total: int, period: int) -> optimisers.Optimiser:
    options = {key: value for key, value in config.items() if key not in ("name", "schedule")}
    return optimisers.build(config.name, total=total, period=period, schedule_name=config.schedule, **options)


def _check_batch(config: ConfigDict, mesh: Mesh) -> None:
    step = mesh.size * config.accumulate
    if config.batch % step:
        raise UserError(
            f"batch={config.batch} must be a multiple of {step} = devices x accumulate = "
            f"{mesh.size} x {config.accumulate}"
        )
