"""What `checkpoint` needs of orbax: items, each a folder with the checksums of its files, and which steps are kept."""

from __future__ import annotations

import gc
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from data_pipelines.atomic import write_json
from data_pipelines.errors import DataError
from data_pipelines.own_files import digest, read_json

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
def reader() -> Iterator[tuple[ocp.PyTreeCheckpointHandler, ocp.Checkpointer]]:
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
