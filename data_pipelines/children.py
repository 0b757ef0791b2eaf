"""Processes that we start, and their end."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading


@functools.cache
def end_with_parent() -> None:
    """Ends this process of `multiprocessing` once its parent is gone, also where that was killed and could say nothing.

    A worker that waits for its next task holds both ends of the pipe it waits at, and would wait for ever.
    """
    threading.Thread(target=_wait_and_exit, args=(multiprocessing.parent_process(),), daemon=True).start()


def _wait_and_exit(parent) -> None:
    parent.join()
    os._exit(1)
