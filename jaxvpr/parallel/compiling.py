"""What a run logs while XLA compiles."""

from __future__ import annotations

import jax


def message(what: str) -> str:
    """`compiling the training step, once; cached afterwards`, where compiled programs are kept in files."""
    kept = jax.config.values["jax_enable_compilation_cache"] and jax.config.values["jax_compilation_cache_dir"]
    return f"compiling {what}, once{'; cached afterwards' if kept else ''}"
