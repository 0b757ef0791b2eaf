"""The first call of a program, which XLA compiles: what is logged, and how hosts wait for one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxvpr.parallel import hosts


def message(what: str) -> str:
    """`compiling the training step, once; cached afterwards`, where compiled programs are kept in files."""
    kept = jax.config.values["jax_enable_compilation_cache"] and jax.config.values["jax_compilation_cache_dir"]
    return f"compiling {what}, once{'; cached afterwards' if kept else ''}"


def together(jitted: Any, what: str) -> Callable[..., None]:
    """What to do before the first call of a program: several hosts compile it, and go on when all have it.

    A collective would not wait long for a host that compiles longer.
    """

    def compile_all(*arguments: Any) -> None:
        if jax.process_count() > 1:
            jitted.lower(*arguments).compile()  # the call finds it
            hosts.barrier(f"compiling {what}")

    return compile_all
