"""How long does it take to search a database that lies in a file, and how much memory does each process need?

  python -m benchmarks.search --out benchmarks/results/search.json
  python -m benchmarks.search --database 1000000 --dimensions 512 --queries 10000     # on a GPU

The way is that of `localize` after photos were described: `eval.search=host` is FAISS (flat), with all descriptors in
the process; `eval.search=mesh` puts the rows of each process's devices there and searches them. "Two processes" are two
with a CPU device each that search together, as two hosts would; their figures are those of the larger one. Each side
runs in processes of its own. All find the same. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import side_by_side
from benchmarks.mining import TOLERANCE

Array = np.ndarray
HOST, MESH, TWO = "host", "mesh", "mesh, two processes"
SIDES = (HOST, MESH, TWO)
DIMENSIONS, K, BLOCK = (512, 4096), 100, 4096


def write(folder: Path, database: int, dimension: int, queries: int) -> None:
    """Unit vectors in `database.npy`, and in `queries.npy` some of them with as much noise again."""
    rng = np.random.default_rng(0)
    shape = database, dimension
    table = np.lib.format.open_memmap(folder / "database.npy", mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, database, BLOCK):
        rows = rng.standard_normal((min(BLOCK, database - start), dimension), np.float32)
        table[start : start + BLOCK] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    asked = table[np.sort(rng.choice(database, queries, replace=False))]
    asked = asked + rng.standard_normal(asked.shape, np.float32) / np.float32(dimension**0.5)
    np.save(folder / "queries.npy", asked / np.linalg.norm(asked, axis=1, keepdims=True))
    table.flush()


def anonymous_mib() -> float:
    """Memory of this process in MiB, but for pages of files, which the system may take back."""
    status = Path("/proc/self/status").read_text()
    return sum(int(re.findall(rf"{name}:\s+(\d+)", status)[0]) for name in ("RssAnon", "RssShmem")) / 1024


@contextmanager
def peak() -> Iterator[list[float]]:
    """A list with the most MiB that the process had within the block, looked at every 5 ms."""
    most, ended = [anonymous_mib()], threading.Event()

    def look() -> None:
        while not ended.wait(0.005):
            most[0] = max(most[0], anonymous_mib())

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield most
    finally:
        ended.set()
        watch.join()


def side(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """One side's part of a round; what it found is written for the comparison."""
    from jaxvpr.parallel import joining, memory

    memory.keep_freed()
    if name == TWO and not given.coordinator:
        return pair(given)
    joining.start(given.coordinator, 2, given.process)
    from jaxvpr.parallel.mesh import make_mesh
    from jaxvpr.retrieval.where import Where, nearest

    file, asked = np.load(given.folder / "database.npy", mmap_mode="r"), np.load(given.folder / "queries.npy")
    mesh = make_mesh()
    before = anonymous_mib()

    def make() -> Any:
        kept = Where(HOST if name == HOST else MESH).kept("database.npy", file, mesh)
        return lambda: nearest(kept, asked, K)

    with peak() as most:
        times, found = side_by_side.clock(make, 1, given.repeats)
    if given.process == 0:
        np.savez(given.folder / f"{name}.npz", *found[0])
    on = {"threads": side_by_side.machine()["cores"]} if name == HOST else side_by_side.device("jaxvpr")
    return {**times, "mib_before": before, "grown_mib": most[0] - before, "device_peak_mib": device_mib(name), "on": on}


def pair(given: argparse.Namespace) -> dict[str, Any]:
    """Two processes with a CPU device each that search together; the figures of the larger one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.search", *sys.argv[1:], "--coordinator", f"127.0.0.1:{port}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [*command, "--process", str(me)], stdout=subprocess.PIPE, cwd=side_by_side.ROOT, env=environment
        )
        for me in range(2)
    ]
    printed = [process.communicate()[0].splitlines() for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("one of the two processes failed")
    return max((json.loads(lines[-1]) for lines in printed), key=lambda report: report["grown_mib"])


def device_mib(name: str) -> float | None:
    """Most memory that an accelerator held; None without one."""
    return None if name == HOST else side_by_side.peak_mib()


def measure(dimension: int, given: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of a dimension, and whether all sides found the same."""
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        write(folder, given.database, dimension, given.queries)
        arguments = ["--folder", folder, "--repeats", given.repeats]
        found = side_by_side.interleave("benchmarks.search", SIDES, given.rounds, *arguments)
        results = {one: [np.load(folder / f"{one}.npz")[f"arr_{part}"] for part in range(2)] for one in SIDES}
    seconds = {one: [min(report["seconds"]) for report in reports] for one, reports in found.items()}

    def middle(key: str) -> dict[str, float]:
        return side_by_side.medians({one: [report[key] for report in reports] for one, reports in found.items()}, 2)

    apart = {one: np.abs(results[one][0] - results[HOST][0]).max() for one in SIDES}
    return {
        "dimension": dimension,
        "descriptors_mib": round(given.database * dimension * 4 / 2**20, 1),
        "seconds": {one: [round(value, 3) for value in rounds] for one, rounds in seconds.items()},
        "times_the_host's_time": side_by_side.ratios(seconds, HOST),
        **{
            key: middle(key)
            for key in ("start_seconds", "first_call_seconds", "cpu_seconds", "mib_before", "grown_mib")
        },
        "device_peak_mib": {one: reports[0]["device_peak_mib"] for one, reports in found.items()},
        "on": {one: reports[0]["on"] for one, reports in found.items()},
        "equal_rows": {one: round(float((results[one][1] == results[HOST][1]).mean()), 6) for one in SIDES},
        "largest_difference": {one: float(value) for one, value in apart.items()},
        "agree": bool(max(apart.values()) < TOLERANCE),
    }


def main() -> None:
    """Measures every dimension, or does one side's part of one round."""
    parser = side_by_side.flags(__doc__, rounds=2)
    parser.add_argument("--database", type=int, default=30_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=1, help="timed calls a round, after one that compiles")
    parser.add_argument("--folder", type=Path, help="where the database is written while it is measured")
    for hidden in ("--coordinator", "--side"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    parser.add_argument("--process", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(side(given.side, given)))
        return
    facts = {"database": given.database, "queries": given.queries, "k": K}
    results = [measure(dimension, given) for dimension in given.dimensions]
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "numpy", "faiss-cpu"), **facts), given.out)


if __name__ == "__main__":
    main()
