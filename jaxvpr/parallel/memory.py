"""Keeps memory that the process frees, so that the next step reuses it."""

from __future__ import annotations

import ctypes
import os
import platform
from importlib.util import find_spec

# Names and numbers of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8


def keep_freed(anywhere: bool = False) -> bool:
    """Where JAX will compute on a CPU, makes glibc's allocator keep freed blocks below 1 GiB instead of returning
    them to the system.

    On a CPU, XLA allocates the temporaries of a step anew each time (77 MB for the embedded city's). By default,
    glibc maps and unmaps such a block, and the kernel clears its 19,000 pages again in every step: a quarter of the
    processor time of a training. One arena instead of one a thread, because only that of the main thread can hold
    blocks of more than 64 MiB. A process grows by what it would have returned. On the host of a GPU or TPU, whose
    temporaries lie elsewhere, the one arena would only make the threads that read images wait for one another.

    Call it before JAX starts its backend: the threads that this starts keep the arenas they have then.

    Args:
      anywhere: also on the host of an accelerator, to measure what that costs.

    Returns:
      Whether glibc's allocator was set; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc" or not (anywhere or _on_cpu()):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {ARENA_MAX: 1, MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def _on_cpu() -> bool:
    """Whether JAX will choose the CPU, without importing it: by `JAX_PLATFORMS` where that is set, else where no plugin
    for an accelerator is installed. A plugin counts even if it finds no device."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.partition(",")[0] == "cpu"
    return not any(find_spec(plugins) for plugins in ("jax_plugins", "libtpu"))
