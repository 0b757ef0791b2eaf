"""What the benchmarks share: sides that take turns, each in a process of its own, and a report that says where and how.

Two frameworks in one process fight over the cores with their thread pools (PyTorch's figures swung thirtyfold here), so
a side is run as a fresh process, `python -m MODULE ... --side NAME`, which prints one line of JSON. The sides of a
round run one after the other, and each round starts with another side, so that a machine that grows warm or busy treats
them alike. Ratios are taken within a round; the figure is their median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data_pipelines.cores import cores

ROOT = Path(__file__).resolve().parent.parent
Report = dict[str, Any]


def flags(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The flags that every benchmark has: how many rounds, and where the JSON goes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path, help="JSON file to write; it is printed either way")
    return parser


def in_own_process(module: str, *arguments: object) -> Report:
    """What `python -m module arguments` prints as its last line; its stderr passes through.

    Raises:
      subprocess.CalledProcessError: if it fails.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def turns(sides: Sequence[str], rounds: int) -> Iterable[str]:
    """The sides in the order they run: all of them each round, every round starting with the next one."""
    for number in range(rounds):
        first = number % len(sides)
        yield from (*sides[first:], *sides[:first])


def interleave(module: str, sides: Sequence[str], rounds: int, *arguments: object) -> dict[str, list[Report]]:
    """Runs every side once a round, in processes of their own; {side: one report a round}."""
    found: dict[str, list[Report]] = {side: [] for side in sides}
    for side in turns(sides, rounds):
        found[side].append(in_own_process(module, *arguments, "--side", side))
    return found


def program(
    doc: str | None,
    cases: Mapping[str, Any],
    measured: Sequence[str],
    sides: Sequence[str],
    side: Callable[[str, Any, str, Path, int], Report],
    measure: Callable[[str, str, int, int | None], Report],
) -> None:
    """The program of a benchmark of cases: measures those asked for, or does one side's part of one round.

    Args:
      doc: what it says about itself.
      cases: by name. measured: the names of those that are measured where none is asked for.
      sides: their names.
      side: (side, case, dtype, file for the weights that the sides share, timed calls) -> its part of a round.
      measure: (name of a case, dtype, rounds, timed calls a round if not the case's own) -> what interleaved rounds of
        this very program gave.
    """
    parser = flags(doc, rounds=3)
    parser.add_argument("--cases", nargs="+", choices=list(cases), default=list(measured))
    parser.add_argument("--repeats", type=int, help="timed calls a round, instead of the case's own")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=list(cases), help=argparse.SUPPRESS)
    parser.add_argument("--tensors", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(side(given.side, cases[given.case], given.dtype, given.tensors, given.repeats)))
        return
    results = [measure(case, given.dtype, given.rounds, given.repeats) for case in given.cases]
    finish(report(results, ("jax", "jaxlib", "flax", "optax", "torch", "pytorch-metric-learning")), given.out)


def clock(make: Callable[[], Callable[[], Any]], warm: int, repeats: int) -> tuple[Report, list[Any]]:
    """One side's part of a round.

    Args:
      make: puts the side together and returns a function that does the work once, to its end.
      warm: calls that are not timed; the first of them compiles.
      repeats: calls that are.

    Returns:
      Seconds: to put it together, of the first call, of every timed one, and of all cores' work a timed call; and what
      the warm calls returned.
    """
    began = time.perf_counter()
    once = make()
    started = time.perf_counter()
    outputs = [once()]
    first = time.perf_counter() - started
    outputs += [once() for _ in range(warm - 1)]
    busy, seconds = time.process_time(), []
    for _ in range(repeats):
        at = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - at)
    busy = (time.process_time() - busy) / repeats
    times = {"start_seconds": started - began, "first_call_seconds": first, "seconds": seconds, "cpu_seconds": busy}
    return times, outputs


def compare(found: Mapping[str, Sequence[Report]], images: int, peer: str) -> Report:
    """The figures of interleaved rounds of `clock`, each call of which took `images` images.

    Medians say what a user gets. The fastest call of all says what the machine can do even where others use it besides,
    since they only ever slow a call down.
    """
    rates = {
        side: [round(images / statistics.median(one["seconds"]), 1) for one in reports]
        for side, reports in found.items()
    }

    best = {side: images / min(min(one["seconds"]) for one in reports) for side, reports in found.items()}

    def middle(key: str, times: float, digits: int) -> dict[str, float]:
        return medians({side: [one[key] * times for one in reports] for side, reports in found.items()}, digits)

    return {
        "images_per_second": rates,
        "median_images_per_second": medians(rates),
        f"ratio_to_{peer}": ratios(rates, peer),
        "fastest_images_per_second": {side: round(rate, 1) for side, rate in best.items()},
        "cpu_ms_per_image": middle("cpu_seconds", 1000 / images, 3),
        "start_seconds": middle("start_seconds", 1, 2),
        "first_call_seconds": middle("first_call_seconds", 1, 2),
        "on": {side: reports[0]["on"] for side, reports in found.items()},
    }


def medians(rounds: Mapping[str, Sequence[float]], digits: int = 1) -> dict[str, float]:
    """The median of every side's rounds."""
    return {side: round(statistics.median(values), digits) for side, values in rounds.items()}


def ratios(rounds: Mapping[str, Sequence[float]], peer: str) -> dict[str, float]:
    """How many times the peer's figure each side reaches: the median of the ratios within the rounds."""
    return {
        side: round(statistics.median(a / b for a, b in zip(values, rounds[peer], strict=True)), 2)
        for side, values in rounds.items()
    }


def report(results: Any, packages: Sequence[str] = (), **facts: Any) -> Report:
    """The results with the command, the date, the machine, and the versions of `packages` that are installed."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["python", "-m", module.name] if module else ["python", sys.argv[0]]
    return {
        "command": shlex.join([*program, *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions(packages),
        **facts,
        "results": results,
    }


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, and how busy they were when asked."""
    facts = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", facts.read_text()) if facts.exists() else None
    return {
        "processor": named[1] if named else platform.processor() or platform.machine(),
        "cores": cores(),
        "load average": [round(load, 2) for load in os.getloadavg()],
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python's version, and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def finish(made: Report, out: Path | None) -> None:
    """Prints a report, and writes it if asked to."""
    text = json.dumps(made, indent=2)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")


def device(side: str) -> Report:
    """What a side runs on; asked in its own process, since importing the other would start its threads."""
    if side == "host":
        return {"device": "host", "threads": machine()["cores"]}
    if side.startswith("pytorch"):
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        return {"device": name, "threads": torch.get_num_threads()}
    import jax

    return {"device": jax.devices()[0].device_kind, "devices": jax.device_count()}


def peak_mib() -> float | None:
    """Most memory that the first device of this process has held, in MiB; None where it does not say, as a CPU."""
    import jax

    said = jax.local_devices()[0].memory_stats()
    return round(said["peak_bytes_in_use"] / 2**20, 1) if said else None
