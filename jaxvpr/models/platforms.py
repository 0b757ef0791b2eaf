"""Layers that XLA's CPU is slow at have a program of their own there; everywhere else they are one operation of lax."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")
_plain: ContextVar[bool] = ContextVar("plain", default=False)


def by_platform(cpu: Callable[..., jax.Array], other: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """`cpu(*arrays)` in programs compiled for a CPU, `other(*arrays)` in all others and in those of `plain`.

    What decides is what the program is lowered for, not where that happens: a host without a TPU compiles the TPU's.
    """
    if _plain.get():
        return other(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=other)


def is_plain() -> bool:
    """Whether a program of `plain` is traced."""
    return _plain.get()


def plain(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, traced as one program for all platforms, of lax's operations: for a file that others run.

    It is another function than the one given, so that `jax.jit` does not take a trace made without it.
    """

    @wraps(function)
    def traced(*arguments: P.args, **options: P.kwargs) -> T:
        token = _plain.set(True)
        try:
            return function(*arguments, **options)
        finally:
            _plain.reset(token)

    return traced
