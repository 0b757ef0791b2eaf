"""Out of device memory: what needed it, how much there is, and which batch fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jaxvpr.errors import UserError


@contextmanager
def told(what: str, advice: Callable[[], str]) -> Iterator[None]:
    """Raises UserError, with what the runtime said and `advice`, where the block runs out of a device's memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = str(error).splitlines()[0].partition("RESOURCE_EXHAUSTED:")[2].strip(" .")
        raise UserError(f"{what} needs more memory than a device has ({said}). {advice()}") from error


def that_fits(takes: Callable[[int], int], key: str, batch: int, unit: int) -> tuple[int, str]:
    """Looks for the largest half, quarter, ... of a batch whose program fits a device, by compiling each.

    Args:
      takes: a batch -> bytes of its program, as of `taken`.
      key: what the recipe calls the batch.
      batch: the one that did not fit.
      unit: of what a batch must be a multiple.

    Returns:
      (that batch, or 0 where none is found; the bytes that were found, in a sentence).
    """
    there, found, fits = limit(), list[str](), 0
    candidates = [batch >> halved for halved in range(batch.bit_length()) if not batch % (unit << halved)]
    for smaller in candidates if jax.process_count() == 1 else ():  # several hosts would have to compile together
        try:
            size = takes(smaller)
        except jax.errors.JaxRuntimeError:  # a TPU's compiler says itself what does not fit
            found.append(f"{key}={smaller} takes too much")
            continue
        found.append(f"{key}={smaller} takes {_gib(size)} GiB")
        if size <= there and smaller < batch:
            fits = smaller
            break
    compiled = f"As compiled, {', '.join(found)}; " if found else ""
    return fits, f"{compiled}{'a' if found else 'A'} device has {_gib(there)} GiB"


def taken(compiled: Any) -> int:
    """Bytes that a compiled program takes of each device, arguments and results included."""
    stats = compiled.memory_analysis()
    own = stats.temp_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return own + stats.argument_size_in_bytes + stats.generated_code_size_in_bytes


def limit() -> int:
    """Bytes that programs may use of a device; of a CPU, those of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g}"
