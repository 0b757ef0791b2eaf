"""Compiled programs are kept in the user's cache, so that a second start compiles nothing."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from pathlib import Path

import filelock
import jax

log = logging.getLogger(__name__)

LIMIT = 2 * 2**30  # bytes; the programs used least recently go first
LEAST_SECONDS = 0.1  # a program that compiles faster is not worth a file
PROCESSORS = Path("/proc/cpuinfo")


def keep_programs() -> Path | None:
    """Turns on JAX's persistent compilation cache, in a folder of the user's cache.

    JAX's own variables come first: JAX_COMPILATION_CACHE_DIR moves it, JAX_COMPILATION_CACHE_MAX_SIZE bounds it, and
    JAX_ENABLE_COMPILATION_CACHE=false switches it off. Of several processes JAX lets the first write; those that share
    its folder read.

    Returns:
      The folder; None where the cache stays off.
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    given = jax.config.values["jax_compilation_cache_dir"]
    bounds = {"jax_compilation_cache_max_size": LIMIT, "jax_persistent_cache_min_compile_time_secs": LEAST_SECONDS}
    for name, value in bounds.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        folder = Path(given) if given else home / "jaxvpr" / "compiled" / _machine()
        folder.mkdir(parents=True, exist_ok=True)
        if jax.config.values["jax_compilation_cache_max_size"] >= 0:
            _drop_unfinished(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        log.warning("compiled programs are not kept, so that every start compiles anew: %s", error)
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _machine() -> str:
    """A name of the processor: machines may share a home, but a program's instructions may not run on another one."""
    lines = PROCESSORS.read_text("utf-8", "replace").splitlines() if PROCESSORS.exists() else []
    # "flags" on x86, "Features" on ARM: the instruction sets, the same for every core.
    known = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"


def _drop_unfinished(folder: Path) -> None:
    """Deletes entries of a process that was killed while writing: JAX writes the time of an entry after it,
    and can neither read the entry nor evict any other once that is missing."""
    with filelock.FileLock(folder / ".lockfile", timeout=10):
        for entry in folder.glob("*-cache"):
            if not entry.with_name(f"{entry.name.removesuffix('-cache')}-atime").exists():
                entry.unlink()
