"""Checkpoints: device state, host arrays and bookkeeping as one unit. The only file that imports orbax.

A checkpoint is `<workdir>/checkpoints/<step>/` with three items: `state` (the `TrainState`, each device its shard),
`host` (flat dict of NumPy arrays: the plan and the objective's memory) and `meta` (JSON). Orbax writes in the
background and renames at the end, so a run killed while writing leaves the previous checkpoint whole.
"""

from __future__ import annotations

import errno
import gc
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from jaxvpr.errors import UserError
from jaxvpr.training.state import TrainState, with_averages

log = logging.getLogger(__name__)
T = TypeVar("T")


class Restored(NamedTuple):
    """What a checkpoint gives back."""

    step: int
    state: TrainState
    host: dict[str, np.ndarray]
    meta: dict[str, Any]


class _KeepBestAndLast:
    """Keeps the newest few checkpoints and the one with the best value (the earliest, if several are)."""

    def __init__(self, last: int, values: Mapping[int, float | None]):
        self._last, self._values = last, values

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        best = _best([(info.step, self._values.get(info.step)) for info in checkpoints])
        newest = len(checkpoints) - self._last
        return [index >= newest or info.step == best for index, info in enumerate(checkpoints)]


def _best(values: Sequence[tuple[int, float | None]]) -> int | None:
    # NaN compares as False with everything, and so would stay the best once it came first.
    known = [(-value, step) for step, value in values if value is not None and not math.isnan(value)]
    return min(known)[1] if known else None


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
        self._passed_over: list[int] = []
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_KeepBestAndLast(keep, self._values),
            cleanup_tmp_directories=not read_only,
            enable_background_delete=False,
            create=not read_only,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "host", "meta"))
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
        try:
            self._manager.save(step, args=args)
        except Exception as error:
            raise self._explained(error) from error

    def wait(self) -> None:
        """Waits until everything is on disk; raises as `save`."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._explained(error) from error

    def close(self) -> None:
        """Waits and lets go."""
        self.wait()
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps there are, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the best validation value, None if none was measured."""
        return _best([(step, self._values.get(step)) for step in self.steps()])

    def _value(self, step: int) -> float | None:
        """The validation value of a checkpoint on disk; None where none was taken or it cannot be read."""
        try:
            meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        except Exception:  # orbax raises many kinds for a file cut short; restoring this checkpoint reports it
            return None
        return meta.get("value")

    def restore(self, template: TrainState, which: str | int = "last") -> Restored | None:
        """Reads a checkpoint; one that cannot be read is passed over for the one before it, and that is said.

        A run that goes on from an older checkpoint replaces the newer ones it could not read when it next saves.

        Args:
          template: shapes, types and shardings to restore into.
          which: "last", "best" or a step.

        Returns:
          None if there is no checkpoint at all.

        Raises:
          UserError: if there are checkpoints but none can be read, or the wanted step does not exist.
        """
        found = self._first_readable(which, lambda step: self._read(step, template))
        if found and which == "last":
            self._passed_over = [step for step in self.steps() if step > found.step]
        return found

    def variables(self, shapes: Mapping[str, Any], which: str | int = "best") -> tuple[int, dict[str, Any]] | None:
        """The model's variables alone, averaged where the run keeps averages, for one device.

        Returns:
          (step, {"params", "batch_stats"}), or None if there is no checkpoint at all.

        Raises:
          UserError: as `restore`.
        """
        whole = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        flat = flatten_dict(shapes["params"], sep="/")

        def read(step: int) -> tuple[int, dict[str, Any]]:
            folder = self.folder / str(step) / "state"
            # Not through the manager, which reads an item in one way only once it has read it.
            with _reader() as (handler, reader):
                kept = handler.metadata(folder).tree.get("ema") or {}
                template = jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
                    {
                        "params": shapes["params"],
                        "stats": shapes["batch_stats"],
                        "ema": {path: flat[path] for path in kept},
                    },
                )
                wanted = ocp.args.PyTreeRestore(
                    template,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(template),
                    partial_restore=True,
                )
                state = reader.restore(folder, args=wanted)
            params = with_averages(state["params"], state.get("ema") or {})
            return step, {"params": params, "batch_stats": state.get("stats", {})}

        return self._first_readable(which, read)

    def extra(self, step: int) -> Any:
        """The trained heads of a checkpoint, whole, as NumPy arrays on this host.

        Raises:
          UserError: if there is no checkpoint of this step.
        """
        folder = self.folder / str(self._first(step, self.steps())) / "state"
        with _reader() as (handler, reader):
            kept = handler.metadata(folder).tree.get("extra") or {}
            template = {"extra": jax.tree.map(lambda leaf: np.zeros((0,), leaf.dtype), kept)}
            whole = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
            wanted = ocp.args.PyTreeRestore(template, restore_args=whole, partial_restore=True)
            return reader.restore(folder, args=wanted)["extra"]

    def _first_readable(self, which: str | int, read: Callable[[int], T]) -> T | None:
        steps = self.steps()
        if not steps:
            return None
        first = self._first(which, steps)
        order = [first, *(step for step in reversed(steps) if step != first and (which == "best" or step < first))]
        reasons = []
        for step in order:
            with _quietly():
                try:
                    restored, reason = read(step), ""
                except Exception as error:  # orbax raises many kinds for a file cut short
                    reason = _first_line(error)
            if reason:
                reasons.append(f"{self.folder / str(step)}: {reason}")
                log.warning("checkpoint %s cannot be read (%s); trying another", step, reason)
                continue
            if reasons:
                log.warning("went back to checkpoint %d", step)
            return restored
        raise UserError(
            "no checkpoint can be read:\n  " + "\n  ".join(reasons) + "\nGive another --workdir to start anew."
        )

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
        items = self._manager.restore(step, args=args)
        return Restored(step, items["state"], items["host"] or {}, items["meta"])

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Want of space, whichever file of the run met it, becomes a UserError that names the last whole checkpoint."""
        try:
            yield
        except OSError as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and "No space left" not in str(error):
            return error
        whole = [path.name for path in self.folder.iterdir() if path.name.isdigit()] if self.folder.is_dir() else []
        last = max(map(int, whole), default=None)
        kept = "no checkpoint was finished" if last is None else f"the last whole checkpoint is step {last}"
        return UserError(
            f"the disk of {self.folder} is full: {_first_line(error)}; {kept}. Free space and start again."
        )


@contextmanager
def _reader() -> Iterator[tuple[ocp.PyTreeCheckpointHandler, ocp.Checkpointer]]:
    """What reads parts of an item. The handler tells the structure: the `Checkpointer` would look in the item's folder
    for the metadata of a whole step, and warn that there are none."""
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as reader:
        yield handler, reader


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps orbax's last words off the console: reading a file cut short leaves tasks behind that die of it later."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda dying: log.debug("left behind by orbax: %r", dying.exc_value)
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = before


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
