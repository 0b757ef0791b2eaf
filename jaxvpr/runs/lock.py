"""One run a folder: a lock that says who holds it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import filelock
import numpy as np

from data_pipelines import locks
from data_pipelines.atomic import write_json
from data_pipelines.errors import DataError
from data_pipelines.own_files import read_json
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts

# The system lets go of a lock when its process ends, however it ends. Who holds it lies beside it, since on some file
# systems other hosts do not see locks.
LOCK, HOLDER = ".run.lock", ".run.json"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps a folder for this run until the block ends; the hosts of one run are one holder.

    Raises:
      UserError: on every host, where another run holds the folder; says which.
    """
    lock, refusal = filelock.FileLock(folder / LOCK, timeout=0), ""
    if hosts.is_first():
        refusal = _take(lock, folder)
    try:
        if hosts.of_first(lambda: np.array([bool(refusal)], np.int32), (1,))[0]:
            raise UserError(refusal or f"{folder} is in use, as the first host says")
        yield
    finally:
        if lock.is_locked:
            if not refusal:
                (folder / HOLDER).unlink(missing_ok=True)
            lock.release()


def _take(lock: filelock.BaseFileLock, folder: Path) -> str:
    """Takes the lock of a folder and writes down who has it; else why that cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    here = platform.node()
    if not locks.taken(lock, folder):
        return f"{folder} is in use by {_holder(folder)[1]}. Wait until it ends, or give another --workdir"
    host, who = _holder(folder)
    if host not in ("", here):
        return (
            f"{folder} is in use by {who}, as {folder / HOLDER} says. Whether that still runs cannot be seen from "
            f"{here}: if not, delete that file; else wait, or give another --workdir"
        )
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    write_json(folder / HOLDER, {"host": here, "process": os.getpid(), "since": now})
    return ""


def _holder(folder: Path) -> tuple[str, str]:
    """The host of who wrote down that he holds a folder, and who it is in words; "" where nobody did."""
    try:
        found = read_json(folder / HOLDER)
    except DataError:  # not yet written, or cut short by a crash
        return "", "another process"
    host = str(found.get("host", ""))
    return host, f"process {found.get('process')} on {host} since {found.get('since')}"
