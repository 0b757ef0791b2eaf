"""Checkpoints: device state, host arrays and bookkeeping as one unit.

A checkpoint is `<workdir>/checkpoints/<step>/` with three items: `state` (the `TrainState`, each device its shard),
`host` (flat dict of NumPy arrays: the plan and the objective's memory) and `meta` (JSON). Orbax writes in the
background and renames at the end, so a run killed while writing leaves the previous checkpoint whole. Before that, each
item gets the checksums of its files: tensorstore reads many flipped bits as other weights, without a word.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from data_pipelines.errors import DataError
from data_pipelines.own_files import read_json
from jaxvpr.errors import UserError
from jaxvpr.training import full_disk, items
from jaxvpr.training.state import TrainState

log = logging.getLogger(__name__)
T = TypeVar("T")
# Where a checkpoint that is no longer kept is moved, in one step, before its files go: a run that is killed between two
# of them would else leave a checkpoint that looks damaged.
DELETED = "deleted"


class Restored(NamedTuple):
    """What a checkpoint gives back."""

    step: int
    state: TrainState
    host: dict[str, np.ndarray]
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: `<workdir>/checkpoints`.
      keep: how many of the newest are kept, beside the best. Two, so that one cut short has a predecessor.
      read_only: changes nothing in the folder. A training removes what a killed run left half written; a
        reader must not, since a run that is alive may be writing it now.
    """

    def __init__(self, folder: Path, keep: int = 2, read_only: bool = False):
        self.folder = folder.resolve()
        self._values: dict[int, float | None] = {}
        self._without_value: dict[int, str] = {}  # why none could be read
        self._passed_over: list[int] = []
        options = ocp.CheckpointManagerOptions(
            preservation_policy=items.KeepBestAndLast(keep, self._values),
            cleanup_tmp_directories=not read_only,
            enable_background_delete=False,
            todelete_subdir=None if read_only else DELETED,
            create=not read_only,
        )
        if not read_only:
            self._free()
        self._manager = ocp.CheckpointManager(self.folder, options=options, handler_registry=items.registry())
        self._values |= {step: self._value(step) for step in self.steps()}

    def save(
        self, step: int, state: TrainState, host: Mapping[str, np.ndarray], meta: Mapping[str, Any], value: float | None
    ) -> None:
        """Starts writing a checkpoint; returns as soon as the arrays have left the devices.

        Args:
          value: validation measure, higher is better; None where none was taken.

        Raises:
          UserError: if this or the previous write failed for want of space; names the last whole checkpoint.
        """
        for broken in self._passed_over:  # orbax saves nothing that is older than what lies there
            self._manager.delete(broken)
        self._passed_over = []
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            host=ocp.args.StandardSave(dict(host)),
            meta=ocp.args.JsonSave({**meta, "value": value}),
        )
        self._values[step] = value
        with self.explained():
            self._manager.wait_until_finished()
            self._free()
            self._manager.save(step, args=args)

    def _free(self) -> None:
        """Deletes the files of checkpoints that were moved away."""
        if jax.process_index() == 0:
            shutil.rmtree(self.folder / DELETED, ignore_errors=True)

    def wait(self) -> None:
        """Waits until everything is on disk; raises as `save`."""
        with self.explained():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go."""
        with self.explained():
            try:
                self._manager.wait_until_finished()
                self._free()
            finally:  # threads that go on writing would meet the end of the process
                self._manager.close()

    def steps(self) -> list[int]:
        """The steps there are, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the best validation value, None if none was measured.

        Raises:
          UserError: if the value of a checkpoint cannot be read: it may be the best.
        """
        if self._without_value:
            step, reason = next(iter(self._without_value.items()))
            raise UserError(
                f"which checkpoint is the best is not known, since the value of {self.folder / str(step)} is lost: "
                f"{reason}. Name one: --checkpoint=STEP, of {self.steps()}"
            )
        return items.best([(step, self._values.get(step)) for step in self.steps()])

    def _value(self, step: int) -> float | None:
        """The validation value of a checkpoint on disk; None where none was taken."""
        folder = self.folder / str(step) / "meta"
        try:
            value, reason = read_json(folder / "metadata").get("value"), items.broken(folder)
        except DataError as error:
            value, reason = None, str(error)
        if reason or not isinstance(value, float | int | None):
            self._without_value[step] = reason or f"it is {value!r}"
            return None
        return value

    def restore(self, template: TrainState, which: str | int = "last") -> Restored | None:
        """Reads a checkpoint, whole or not at all.

        Of "last", one that is damaged is passed over for the one before it, and that is said. So is one with an older
        best that is damaged: the run computes again what it would lack at its end. When it next saves, it replaces the
        checkpoints that it passed over.

        Args:
          template: shapes, types and shardings to restore into.
          which: "last", "best" or a step.

        Returns:
          None if there is no checkpoint at all.

        Raises:
          UserError: if there are checkpoints but the run can go on from none, or the wanted one is damaged or does not
            exist.
        """
        if which != "last":
            return self._wanted(which, lambda step: self._read(step, template))
        reasons: list[str] = []
        for step in reversed(self.steps()):
            found, reason = self._attempt(step, partial(self._read, step, template))
            if found and not (reason := self._lost_before(step)):
                if reasons:
                    log.warning("went back to checkpoint %d", step)
                self._passed_over = [later for later in self.steps() if later > step]
                self._without_value = {}
                return found
            reasons.append(f"{self.folder / str(step)}: {reason}")
            log.warning("checkpoint %s cannot be read (%s); trying another", step, reason)
        if not reasons:
            return None
        damaged = [
            str(self.folder / str(one)) for one in self.steps() if one in self._without_value or self._damage(one)
        ]
        raise UserError(
            "this run can go on from no checkpoint:\n  " + "\n  ".join(reasons) + "\nGive another --workdir to start "
            f"anew. Or delete what is damaged, {', '.join(damaged)}: the run goes on without, and takes the best of "
            "the others."
        )

    def _lost_before(self, step: int) -> str:
        """Why a run that goes on from `step` could not take its best checkpoint at the end; "" where it could."""
        steps = [one for one in self.steps() if one <= step]
        if unknown := [f"checkpoint {one}: {self._without_value[one]}" for one in steps if one in self._without_value]:
            return unknown[0]
        best = items.best([(one, self._values.get(one)) for one in steps])
        damage = "" if best is None or best == step else self._damage(best)
        return damage and f"checkpoint {best}, the best before it: {damage}"

    def _damage(self, step: int) -> str:
        """What of a checkpoint is not as it was written; one of before there were checksums is taken as it is."""
        return next(filter(None, (items.broken(self.folder / str(step) / item) for item in items.ITEMS)), "")

    def _attempt(self, step: int, read: Callable[[], T]) -> tuple[T | None, str]:
        """What is read of a checkpoint, or None and the reason why it cannot be."""
        if damage := self._damage(step):
            return None, damage
        with items.quietly():
            try:
                return read(), ""
            except Exception as error:  # orbax raises many kinds for a file cut short
                return None, _first_line(error)

    def _wanted(self, which: str | int, read: Callable[[int], T]) -> T | None:
        """What is read of the one checkpoint that is asked for; None if there is none at all."""
        if not (steps := self.steps()):
            return None
        step = self._first(which, steps)
        found, reason = self._attempt(step, partial(read, step))
        if found is None:
            others = [one for one in steps if one != step]
            instead = f"Another is taken by --checkpoint=STEP, of {others}" if others else "There is no other"
            raise UserError(f"checkpoint {self.folder / str(step)} cannot be read: {reason}. {instead}")
        return found

    def variables(self, shapes: Mapping[str, Any], which: str | int = "best") -> tuple[int, dict[str, Any]] | None:
        """The model's variables alone, averaged where the run keeps averages, for one device.

        Returns:
          (step, {"params", "batch_stats"}), or None if there is no checkpoint at all.

        Raises:
          UserError: as `restore`.
        """
        return self._wanted(which, lambda step: (step, items.variables(self.folder / str(step) / "state", shapes)))

    def extra(self, step: int) -> Any:
        """The trained heads of a checkpoint, whole, as NumPy arrays on this host.

        Raises:
          UserError: if there is no checkpoint of this step.
        """
        return items.heads(self.folder / str(self._first(step, self.steps())) / "state")

    def _first(self, which: str | int, steps: list[int]) -> int:
        if which == "last":
            return steps[-1]
        if which == "best":
            best = self.best_step()
            return steps[-1] if best is None else best
        if int(which) not in steps:
            raise UserError(f"{self.folder} has no checkpoint of step {which}; there are {steps}")
        return int(which)

    def _read(self, step: int, template: TrainState) -> Restored:
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(template),
            host=ocp.args.StandardRestore(),
            meta=ocp.args.JsonRestore(),
        )
        found = self._manager.restore(step, args=args)
        return Restored(step, found["state"], found["host"] or {}, found["meta"])

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Want of space, whichever file of the run met it, becomes a UserError that names the last whole checkpoint."""
        try:
            yield
        except Exception as error:
            told = self._explained(error)
            if told is error:
                raise
            raise told from error

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, UserError) or not full_disk.is_full(error):
            return error
        last = self._last_whole()
        kept = "no checkpoint was finished" if last is None else f"the last whole checkpoint is step {last}"
        return UserError(
            f"the disk of {self.folder} is full (No space left on device); {kept}. Free space and start again."
        )

    def restart(self) -> str:
        """Where the run goes on if it is started again; looks at the names in the folder alone."""
        if (last := self._last_whole()) is None:
            return "There is no checkpoint yet: the same command begins anew"
        return f"The same command goes on from step {last}, the last checkpoint in {self.folder}"

    def _last_whole(self) -> int | None:
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return max((int(name) for name in names if name.isdecimal()), default=None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
