"""The number of processor cores that a process may use."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # what a container may use: microseconds of processor time and of the clock


def cores() -> int:
    """Cores that this process may use, at least one: fewer than the machine has where it is bound to some of them, or
    its container has a quota (of version 2 of Linux's control groups)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used, _, period = QUOTA.read_text(encoding="utf-8").partition(" ") if QUOTA.is_file() else ("max", "", "")
    return allowed if used == "max" else max(1, min(allowed, int(used) // int(period)))
