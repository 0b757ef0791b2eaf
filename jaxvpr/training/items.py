"""What `checkpoint` needs of orbax: items, each a folder with the checksums of its files; what is read of one alone;
and which steps are kept."""

from __future__ import annotations

import gc
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from data_pipelines.atomic import write_json
from data_pipelines.errors import DataError
from data_pipelines.own_files import digest, read_json
from jaxvpr.training.state import with_averages

log = logging.getLogger(__name__)
ITEMS = ("state", "host", "meta")
FILE = "checksums.json"


def seal(folder: Path) -> None:
    """Writes the SHA-256 of every file below `folder` into its `checksums.json`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != FILE)
    write_json(folder / FILE, {file.relative_to(folder).as_posix(): digest(file) for file in files})


def broken(folder: Path) -> str:
    """What is not as it was when the folder was sealed, in words; "" for a whole one, and for one without a seal."""
    if not (folder / FILE).is_file():
        return ""
    try:
        for name, wanted in read_json(folder / FILE).items():
            if not (folder / name).is_file():
                return f"{folder.name}/{name} is missing"
            if digest(folder / name) != wanted:
                return f"{folder.name}/{name} does not hold the bytes that were written"
    except (OSError, DataError) as error:
        return str(error)
    return ""


class _SealedArrays(ocp.StandardCheckpointHandler):
    """Orbax calls `finalize` on one host, in the background, between the last write and the rename."""

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        seal(Path(directory))


class _SealedJson(ocp.JsonCheckpointHandler):
    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        seal(Path(directory))


def registry() -> ocp.handlers.CheckpointHandlerRegistry:
    """Which handler writes and reads each item of a checkpoint."""
    known = ocp.handlers.DefaultCheckpointHandlerRegistry()
    arrays, text = (ocp.args.StandardSave, ocp.args.StandardRestore), (ocp.args.JsonSave, ocp.args.JsonRestore)
    for item in ITEMS:
        handler, kinds = (_SealedJson(), text) if item == "meta" else (_SealedArrays(), arrays)
        for kind in kinds:
            known.add(item, kind, handler)
    return known


class KeepBestAndLast:
    """Keeps the newest few checkpoints and the one with the best value (the earliest, if several are)."""

    def __init__(self, last: int, values: Mapping[int, float | None]):
        self._last, self._values = last, values

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        chosen = best([(info.step, self._values.get(info.step)) for info in checkpoints])
        newest = len(checkpoints) - self._last
        return [index >= newest or info.step == chosen for index, info in enumerate(checkpoints)]


def best(values: Sequence[tuple[int, float | None]]) -> int | None:
    """The step with the highest value, the earliest of equals; None if there is none."""
    # NaN compares as False with everything, and so would stay the best once it came first.
    known = [(-value, step) for step, value in values if value is not None and not math.isnan(value)]
    return min(known)[1] if known else None


@contextmanager
def _reader() -> Iterator[tuple[ocp.PyTreeCheckpointHandler, ocp.Checkpointer]]:
    """What reads parts of an item. The handler tells the structure: the `Checkpointer` would look in the item's folder
    for the metadata of a whole step, and warn that there are none."""
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as reader:
        yield handler, reader


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps orbax's last words off the console: reading a file cut short leaves tasks behind that die of it later."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda dying: log.debug("left behind by orbax: %r", dying.exc_value)
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = before


def variables(folder: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """{"params", "batch_stats"} of the item `state` in a folder, averaged where it has averages, for one device.

    Args:
      shapes: of both, with their types; `batch_stats` may be empty.
    """
    whole = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    flat = flatten_dict(shapes["params"], sep="/")
    # Not through the manager, which reads an item in one way only once it has read it.
    with _reader() as (handler, reading):
        kept = handler.metadata(folder).tree.get("ema") or {}
        template = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
            {"params": shapes["params"], "stats": shapes["batch_stats"], "ema": {path: flat[path] for path in kept}},
        )
        how = ocp.checkpoint_utils.construct_restore_args(template)
        state = reading.restore(folder, args=ocp.args.PyTreeRestore(template, restore_args=how, partial_restore=True))
    params = with_averages(state["params"], state.get("ema") or {})
    return {"params": params, "batch_stats": state.get("stats", {})}


def heads(folder: Path) -> Any:
    """The trained heads of the item `state` in a folder, whole, as NumPy arrays on this host."""
    with _reader() as (handler, reading):
        kept = handler.metadata(folder).tree.get("extra") or {}
        template = {"extra": jax.tree.map(lambda leaf: np.zeros((0,), leaf.dtype), kept)}
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
        wanted = ocp.args.PyTreeRestore(template, restore_args=how, partial_restore=True)
        return reading.restore(folder, args=wanted)["extra"]
