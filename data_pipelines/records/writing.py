"""Writes records in processes of one machine, and goes on where it was stopped."""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np

from data_pipelines import image_bytes, locks
from data_pipelines.atomic import replacing
from data_pipelines.children import end_with_parent
from data_pipelines.cores import cores
from data_pipelines.errors import DataError
from data_pipelines.image_files import naming
from data_pipelines.places import Places
from data_pipelines.progress import Bar
from data_pipelines.records import folder, shards, table
from data_pipelines.records.folder import Contents
from data_pipelines.records.shards import Shard

SHARD_BYTES = 1 << 28  # of one shard where none says how many there are
LOOKED_AT = 64  # images whose length says how large all are


def write(places: Places, root: Path, *, count: int = 0, processes: int = 0, overwrite: bool = False) -> Contents:
    """Writes the images of a table, and all that is known of them, as records. What `root` has of them already is kept.

    Args:
      places: the images. Those that cannot be decoded are written as they are.
      root: the folder; made where it is missing.
      count: of shards; 0 for shards of some 256 MiB, 512 at most.
      processes: how many write; 0 is one for each core.
      overwrite: begin anew, whatever records `root` has.

    Raises:
      DataError: without tensorflow-datasets; for more shards than images; where `root` has these records already,
        or others, or other files, or another process writes there; for an image that cannot be read; where the disk
        is full.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise DataError("writing records needs TFDS: pip install tensorflow-datasets importlib_resources")
    if not 0 <= count <= (most := min(len(places), shards.MOST)):
        raise DataError(f"{count} shards of {len(places)} images: expected 1 to {most}")
    with _alone(root):
        return _write(places, root, count, processes or cores(), overwrite)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keeps a folder for this process; the system lets go of it however the process ends."""
    root.mkdir(parents=True, exist_ok=True)
    whole = root.absolute()
    lock = filelock.FileLock(whole.with_name(f".{whole.name}.lock"), timeout=0)
    if not locks.taken(lock, root):
        raise DataError(f"{root} is being written by another process. Wait until it ends")
    try:
        yield
    finally:
        lock.release()


def _write(places: Places, root: Path, count: int, processes: int, overwrite: bool) -> Contents:
    from data_pipelines.records import builder

    wanted = Contents(places.digest(), builder.split_of(places), count or _count(places), {})
    contents = _begun(root, wanted, overwrite)
    with Bar("writing records", len(places), "images") as bar:
        bar.advance(sum(shard.images for shard in contents.done.values()))
        for k, shard in _written(places, root, contents, processes):
            contents.done[k] = shard
            contents.save(root)
            bar.advance(shard.images)
    builder.describe(root, contents, places)
    return folder.finish(root, contents, places)


def _count(places: Places) -> int:
    """How many shards of `SHARD_BYTES` the images make, by some of them."""
    looked_at = np.linspace(0, len(places) - 1, min(LOOKED_AT, len(places))).astype(int)
    total = 0
    for path in (places.path[int(row)] for row in looked_at):
        with naming(path):
            total += len(image_bytes.read(path))
    wanted = -(-total * len(places) // len(looked_at) // SHARD_BYTES)
    return min(max(1, wanted), shards.MOST_OPEN, len(places))


def _begun(root: Path, wanted: Contents, overwrite: bool) -> Contents:
    """What is to be done in a folder, with the shards that are there; those that nobody knows of are deleted."""
    there = next((file for file in (root / folder.FILE, root / folder.UNFINISHED) if file.is_file()), None)
    if there is None and any(root.iterdir()):
        raise DataError(f"{root} is not empty and holds no records; give a new folder or an empty one")
    found = folder.load(there) if there and not overwrite else wanted
    if found[:3] != wanted[:3]:
        raise DataError(
            f"{root} has records of other images, of what is known of them, or in {found.number} shards, not "
            f"{wanted.number}; --overwrite replaces them, or give another folder"
        )
    kept = {k: shard for k, shard in found.done.items() if _is_there(root / found.files[k], shard)}
    if found.table and len(kept) == found.number:
        raise DataError(f"{root} has these records already; --overwrite writes them anew, --verify looks at them")
    begun = wanted._replace(done=kept)
    begun.save(root)
    (root / folder.FILE).unlink(missing_ok=True)
    known = {begun.files[k] for k in kept}
    for left in (*root.glob(f".{shards.NAME}-*.part"), *root.glob(f"{shards.NAME}-*{shards.MARK}*")):
        if left.name not in known:
            left.unlink(missing_ok=True)
    return begun


def _is_there(file: Path, shard: Shard) -> bool:
    return file.is_file() and file.stat().st_size == shard.bytes


def _written(places: Places, root: Path, contents: Contents, processes: int) -> Iterator[tuple[int, Shard]]:
    """Writes the shards that are missing, side by side; yields each as it is done."""
    parts = {
        k: table.rows_of(k, contents.number, len(places)) for k in range(contents.number) if k not in contents.done
    }
    # Its part of the table alone goes to a process: all of it may be gigabytes.
    tasks = ((k, root / contents.files[k], places.take(rows)) for k, rows in parts.items())
    if processes == 1 or len(parts) < 2:
        yield from itertools.starmap(_shard, tasks)
        return
    # Spawned, not forked: a parent may hold threads of JAX.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(processes, len(parts)), context, end_with_parent) as pool:
            yield from _in_turn(pool, tasks, 2 * processes)
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that wrote records to {root} died, perhaps for want of memory. The same command goes on"
        ) from error


def _in_turn(pool: ProcessPoolExecutor, tasks: Iterable, most: int) -> Iterator[tuple[int, Shard]]:
    """The results of tasks, of which at most so many wait at a time."""
    tasks, running = iter(tasks), set[Future]()
    while True:
        running |= {pool.submit(_shard, *task) for task in itertools.islice(tasks, most - len(running))}
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _shard(k: int, file: Path, places: Places) -> tuple[int, Shard]:
    from data_pipelines.records import builder

    try:
        with replacing(file) as part:
            builder.write_shard(part, places)
            shard = shards.measured(part)
            if shard.images != len(places):
                raise DataError(f"{file}: {shard.images} of {len(places)} records were written")
    except RuntimeError as error:  # ArrayRecord's, for whatever the system refused
        reason = str(error).partition(";")[0]
        raise DataError(f"{file}: {reason}. Free space, or give another folder; the same command goes on") from error
    return k, shard
