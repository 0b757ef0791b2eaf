"""How the process keeps memory that was freed, so that every step finds its own again."""

from __future__ import annotations

import ctypes
import platform

# Names and numbers of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8


def keep_freed() -> bool:
    """Tells glibc's allocator to keep freed memory below 1 GiB a piece, instead of giving it back to the system.

    On a CPU, XLA allocates the temporaries of a step anew each time (77 MB for the embedded city's). As it stands,
    glibc maps and unmaps such a piece, and the kernel clears its 19,000 pages again in every step: a quarter of the
    processor time of a training. One arena instead of one a thread, because only that of the main thread can hold
    pieces of more than 64 MiB. Call it before threads are started; a process grows by what it would have given back.

    Returns:
      Whether there was a glibc to tell; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {ARENA_MAX: 1, MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
