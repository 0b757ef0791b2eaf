"""How the process keeps memory that was freed, so that every step finds its own again."""

from __future__ import annotations

import ctypes
import os
import platform
from importlib.util import find_spec

# Names and numbers of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8


def keep_freed(anywhere: bool = False) -> bool:
    """Where JAX will compute on a CPU, tells glibc's allocator to keep freed memory below 1 GiB a piece, instead of
    giving it back to the system.

    On a CPU, XLA allocates the temporaries of a step anew each time (77 MB for the embedded city's). As it stands,
    glibc maps and unmaps such a piece, and the kernel clears its 19,000 pages again in every step: a quarter of the
    processor time of a training. One arena instead of one a thread, because only that of the main thread can hold
    pieces of more than 64 MiB. A process grows by what it would have given back. On the host of a GPU or TPU, whose
    temporaries lie elsewhere, the one arena would only let the threads that read images wait for one another.

    Call it before JAX starts its backend: the threads that this starts keep the arenas they have then.

    Args:
      anywhere: also on the host of an accelerator, to measure what that costs.

    Returns:
      Whether there was a glibc to tell; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc" or not (anywhere or _on_cpu()):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {ARENA_MAX: 1, MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def _on_cpu() -> bool:
    """Whether JAX will choose the CPU, told without importing it: by `JAX_PLATFORMS` where that is set, else because no
    plugin for an accelerator is installed. One that finds no device counts as one that does."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return asked.partition(",")[0] == "cpu"
    return not any(find_spec(plugins) for plugins in ("jax_plugins", "libtpu"))
