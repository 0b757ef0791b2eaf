"""What a run says while XLA compiles."""

from __future__ import annotations

import jax


def once(what: str) -> str:
    """`compiling the training step, once; cached afterwards`, where compiled programs are kept in files."""
    kept = "; cached afterwards" if jax.config.values["jax_compilation_cache_dir"] else ""
    return f"compiling {what}, once{kept}"
