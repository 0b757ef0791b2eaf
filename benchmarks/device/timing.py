"""How work on a device is timed: started again and again, with one wait at the end, as a training does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 3


def rates(
    resident: Callable[[], object], from_host: Callable[[], object], wait: Callable[[], object], images: int, calls: int
) -> dict[str, Any]:
    """Images a second of work whose input lies on the device, and of the same work with its input sent first.

    Args:
      resident, from_host: start the work once. wait: returns when all that was started is done.
      images: that one call takes. calls: in a round.

    Returns:
      Medians of the rounds; `spread`, the fastest round over the slowest less one; the first call, which compiles.
    """
    began = time.perf_counter()
    resident()
    wait()
    figures: dict[str, Any] = {"first_call_seconds": round(time.perf_counter() - began, 2)}
    for name, start in (("images_per_second", resident), ("from_host_images_per_second", from_host)):
        start()  # sending compiles nothing, but takes its buffers
        wait()
        found = [_round(start, wait, images, calls) for _ in range(ROUNDS)]
        figures[name] = round(statistics.median(found), 1)
        figures[f"{name}_spread"] = round(max(found) / min(found) - 1, 3)
    return figures


def _round(start: Callable[[], object], wait: Callable[[], object], images: int, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        start()
    wait()
    return images * calls / (time.perf_counter() - began)
