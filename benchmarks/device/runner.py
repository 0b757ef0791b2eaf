"""Measurements one after the other, each in a process of its own with its own limit, all within one budget.

Whatever happens to a measurement, the others go on and its line says what happened to it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import side_by_side

Line = dict[str, Any]
OK, WRONG, FAILED, TIMEOUT, LEFT_OUT = "ok", "wrong", "failed", "timeout", "left out"
LEAST = 15.0  # seconds: less than it takes to start and compile anything
REASON = 1200  # characters of stderr that a line keeps
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")


class At(NamedTuple):
    """What a measurement is given.

    Attributes:
      folder: for files that measurements share, such as the weights both sides start from.
      tiny: shapes so small that a CPU does them in seconds; the figures then mean nothing.
    """

    folder: Path
    tiny: bool


class Measurement(NamedTuple):
    """One thing to measure.

    Attributes:
      name: "GROUP: SIDE". The lines of a group are compared with its plain side "jaxvpr".
      side: "jaxvpr", "pytorch" or "host": whose device the line names.
      seconds: after which its process is killed.
      measure: gives the figures. A figure "wrong" says that something was measured and is not as it must be, and why.
      flags: of the Python interpreter.
    """

    name: str
    side: str
    seconds: float
    measure: Callable[[At], dict[str, Any]]
    flags: tuple[str, ...] = ()


def run(
    plan: Iterable[Measurement], command: Callable[[Measurement], Sequence[str]], budget: float, patience: float = 1.0
) -> Iterator[Line]:
    """The plan's lines, in its order, each as its measurement ends.

    Args:
      command: of the process that does one measurement; its last line of output is what `report` gives.
      budget: seconds for all of them. What no longer fits is left out, and named.
      patience: times the limits of all measurements.
    """
    began = time.monotonic()
    for one in plan:
        left, limit = budget - (time.monotonic() - began), one.seconds * patience
        if left < min(limit, LEAST):
            yield _line(one.name, 0.0, LEFT_OUT, reason=f"{max(left, 0):.0f} s were left of {budget:g}")
        else:
            yield _in_own_process(one.name, command(one), min(limit, left))


def report(one: Measurement, at: At) -> Line:
    """Does a measurement in this process: its figures, device and versions."""
    figures = one.measure(at)
    wrong = figures.pop("wrong", "")
    found = side_by_side.device(one.side)
    return {"figures": figures, "wrong": wrong, "device": found["device"], "versions": side_by_side.versions(PACKAGES)}


def _line(name: str, seconds: float, status: str, found: Mapping[str, Any] | None = None, reason: str = "") -> Line:
    found = found or {}
    line = {"name": name, "seconds": round(seconds, 1), "status": status, "device": found.get("device")}
    line |= {"versions": found.get("versions", {}), "figures": found.get("figures", {})}
    return line | ({"reason": reason} if reason else {})


def _in_own_process(name: str, command: Sequence[str], limit: float) -> Line:
    began = time.monotonic()
    # A group of its own, so that a kill reaches what it has started itself.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=side_by_side.ROOT,
        env={**os.environ, "JAX_TRACEBACK_FILTERING": "quiet_remove_frames"},  # so that stderr ends with the error
        process_group=0,
    )
    try:
        out, err = process.communicate(timeout=limit)
        late = False
    except subprocess.TimeoutExpired:
        late = True
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if late:
        out, err = process.communicate()
    seconds = time.monotonic() - began
    if late:
        return _line(name, seconds, TIMEOUT, reason=f"not done after {limit:.0f} s. {_tail(err)}".strip())
    if process.returncode:
        said = _tail(err) or f"it said nothing and ended with status {process.returncode}"
        return _line(name, seconds, FAILED, reason=said)
    try:
        found = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        return _line(name, seconds, FAILED, reason=f"its last line is no JSON: {out[-REASON:]!r}")
    return _line(name, seconds, WRONG if found["wrong"] else OK, found, found["wrong"])


def _tail(text: str) -> str:
    """The end of what a process said, from the start of a line on."""
    if len(text) <= REASON:
        return text.strip()
    return text[-REASON:].partition("\n")[2].strip() or text[-REASON:].strip()


def own_command(module: str, at: At, one: Measurement) -> list[str]:
    """`python -m module` for one measurement."""
    tiny = ["--tiny"] if at.tiny else []
    return [sys.executable, *one.flags, "-m", module, "--one", one.name, "--folder", str(at.folder), *tiny]
