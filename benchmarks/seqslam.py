"""How long does SeqSLAM's search take once the frames are described?

  python -m benchmarks.seqslam --out benchmarks/results/seqslam.json
  python -m benchmarks.seqslam --cases large     # on a GPU

Distances of all frames, local contrast, the best of the trajectories, the first 100 of the database: our jitted search,
and two programs of NumPy. "NumPy, loops" goes as pySeqSLAM does, query by query and frame by frame of the database,
with the trajectories of one pair in an array; contrast is frame by frame of the database, for all queries at once.
"NumPy, arrays" adds up whole matrices of queries and database, one for each velocity and frame of a clip. The whole
matrix of differences is in memory in both. All sides find the same. Each runs in processes of its own. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import side_by_side

Array = np.ndarray
Found = tuple[Array, Array]  # scores and clips [queries, K]
OURS, LOOPS, ARRAYS = "jaxvpr", "NumPy, loops", "NumPy, arrays"
DIMENSION, LENGTH, VELOCITIES, WINDOW, K = 512, 10, np.linspace(0.8, 1.2, 5), 10, 100
TOLERANCE = 2e-3  # of contrast, whose deviations are some hundredths


class Case(NamedTuple):
    """How many query clips and frames of the database, which sides, and how many timed calls a round."""

    queries: int
    database: int
    sides: tuple[str, ...]
    repeats: int


CASES = {
    "tiny": Case(30, 150, (OURS, ARRAYS, LOOPS), 1),
    "small": Case(500, 2_000, (OURS, ARRAYS, LOOPS), 1),
    "large": Case(1_000, 20_000, (OURS, ARRAYS), 3),
}


def drive(case: Case) -> tuple[Array, Array, Array]:
    """Unit vectors of a drive whose frames look like their neighbours [N, D], those of a part of it seen again with as
    much noise [M, D], and the frames of each query clip [Q, F]."""
    rng = np.random.default_rng(0)
    walk = rng.standard_normal((case.database + 4, DIMENSION), np.float32)
    database = sum(walk[shift : shift + case.database] for shift in range(5))
    again = database[: case.queries + LENGTH - 1]
    frames = again + rng.standard_normal(again.shape, np.float32) * np.float32(5**0.5)
    database, frames = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (database, frames))
    return database, frames, np.arange(case.queries)[:, None] + np.arange(LENGTH)


def table() -> Array:
    """The trajectories that end at a frame, as steps from it [V, F]."""
    return np.unique(np.rint(np.outer(VELOCITIES, np.arange(1 - LENGTH, 1))).astype(np.int32), axis=0)


def ours(case: Case) -> Callable[[], Found]:
    """Our search, every frame of the database the end of a clip."""
    from jaxvpr.parallel.mesh import make_mesh
    from jaxvpr.retrieval import sequence_scores

    database, frames, rows = drive(case)
    ends = np.zeros(case.database, np.int32), np.full(case.database, case.database, np.int32)
    drives = sequence_scores.Drives(database, *ends, np.arange(case.database, dtype=np.int32))
    return lambda: sequence_scores.search(drives, frames, rows, table(), WINDOW, K, make_mesh())


def contrast(database: Array, frames: Array) -> Array:
    """Differences of the frames [M, N] after local contrast, as pySeqSLAM makes them."""
    squares = (database**2).sum(1)[:, None] + (frames**2).sum(1) - 2 * database @ frames.T
    apart = np.sqrt(np.maximum(squares, 0))
    made = np.empty_like(apart)
    for n in range(len(database)):
        near = apart[max(n - WINDOW // 2, 0) : n + WINDOW // 2 + 1]
        made[n] = (apart[n] - near.mean(0)) / near.std(0, ddof=1)
    return np.ascontiguousarray(made.T)


def first(scores: Array) -> Found:
    """The K lowest scores of each query."""
    some = np.argpartition(scores, min(K, scores.shape[1] - 1), axis=1)[:, :K]
    order = np.take_along_axis(some, np.argsort(np.take_along_axis(scores, some, 1), axis=1), 1)
    return np.take_along_axis(scores, order, 1), order


def loops(case: Case) -> Callable[[], Found]:
    """Query by query and frame by frame of the database; beyond the ends a difference is infinite."""
    database, frames, rows = drive(case)
    steps = table()

    def once() -> Found:
        made = contrast(database, frames)
        reach = -steps.min()
        padded = np.pad(made, ((0, 0), (reach, 0)), constant_values=np.inf)
        scores = np.empty((case.queries, case.database), np.float32)
        for query, own in enumerate(rows):
            for n in range(case.database):
                scores[query, n] = padded[own, n + reach + steps].sum(1).min()
        return first(scores / LENGTH)

    return once


def arrays(case: Case) -> Callable[[], Found]:
    """One matrix of queries and database for each velocity and frame of a clip."""
    database, frames, rows = drive(case)

    def once() -> Found:
        made = contrast(database, frames)
        reach = -table().min()
        padded = np.pad(made, ((0, 0), (reach, 0)), constant_values=np.inf)
        best = np.full((case.queries, case.database), np.inf, np.float32)
        for steps in table():
            total = np.zeros_like(best)
            for frame, step in enumerate(steps):
                total += padded[rows[:, frame], reach + step : reach + step + case.database]
            np.minimum(best, total, out=best)
        return first(best / LENGTH)

    return once


def side(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """One side's part of a round; what it found is written for the comparison."""
    make = {OURS: ours, LOOPS: loops, ARRAYS: arrays}[name]
    times, found = side_by_side.clock(lambda: make(case), 1, case.repeats)
    np.savez(folder / f"{name}.npz", *found[0])
    return {**times, "on": side_by_side.device("jaxvpr" if name == OURS else "host")}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Interleaved rounds of a case, and whether all sides found the same."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        found = side_by_side.interleave(
            "benchmarks.seqslam", case.sides, rounds, "--case", name, "--folder", folder,
        )  # fmt: skip
        results = {one: list(np.load(Path(folder) / f"{one}.npz").values()) for one in case.sides}
    seconds = {one: [min(report["seconds"]) for report in reports] for one, reports in found.items()}
    wrong = [np.abs(results[one][0] - results[OURS][0]).max() for one in case.sides]

    def middle(key: str) -> dict[str, float]:
        return side_by_side.medians({one: [report[key] for report in reports] for one, reports in found.items()}, 2)

    return {
        "case": name,
        "queries": case.queries,
        "database": case.database,
        "trajectories": len(table()),
        "seconds": {one: [round(value, 3) for value in rounds] for one, rounds in seconds.items()},
        "times_our_time": side_by_side.ratios(seconds, OURS),
        "first_call_seconds": middle("first_call_seconds"),
        "cpu_seconds": middle("cpu_seconds"),
        "on": {one: reports[0]["on"] for one, reports in found.items()},
        "equal_clips": {one: round(float((results[one][1] == results[OURS][1]).mean()), 4) for one in case.sides},
        "largest_difference": float(max(wrong)),
        "agree": bool(max(wrong) < TOLERANCE),
    }


def main() -> None:
    """Measures the cases, or does one side's part of one round."""
    parser = side_by_side.flags(__doc__, rounds=3)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["small", "large"])
    for hidden in ("--side", "--case"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(side(given.side, CASES[given.case], given.folder)))
        return
    facts = {"dimension": DIMENSION, "length": LENGTH, "velocities": VELOCITIES.tolist(), "window": WINDOW, "k": K}
    results = [measure(case, given.rounds) for case in given.cases]
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "numpy"), **facts), given.out)


if __name__ == "__main__":
    main()
