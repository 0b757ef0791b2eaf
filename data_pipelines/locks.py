"""A folder for one process at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

log = logging.getLogger(__name__)


def taken(lock: filelock.BaseFileLock, folder: Path) -> bool:
    """Takes the lock of a folder, which the system lets go of however this process ends; False where another has it.

    A file system without locks keeps nobody out: then it warns, and the folder counts as taken.
    """
    try:
        lock.acquire()
    except filelock.Timeout:
        return False
    except NotImplementedError:
        log.warning("the file system of %s knows no locks: see to it that no other run works there", folder)
    return True


@contextmanager
def waiting(folder: Path) -> Iterator[None]:
    """Keeps a folder for this process until the block ends; waits, and says so, while another one has it."""
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    if not taken(lock, folder):
        log.info("%s: another process writes there; waiting until it has ended", folder)
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        lock.release()
