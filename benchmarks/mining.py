"""How long does it take to mine triplets once the descriptors are there, and how much memory?

  python -m benchmarks.mining --out benchmarks/results/mining.json    # 10,000 queries, 100,000 images, 512 numbers each
  python -m benchmarks.mining --queries 1000 --database 10000         # a tenth of both
  python -m benchmarks.mining --database 1000000                      # on a GPU

For each query the nearest of its positives (within 10 m) and the 10 nearest negatives (beyond 25 m): among the whole
database, or among 1000 images drawn for the query and the 10 negatives that it had last, as the Deep Visual
Geo-localization Benchmark mines (Berton et al., CVPR 2022).

The peer does what that benchmark's code does with FAISS on the processor: a flat index of each query's positives; for a
pool, NumPy's set operations and a flat index of what they leave. That code has no search of the whole database; here
the peer asks a block of queries at once for so many neighbours that enough remain behind the mask. Its cache is one
array, which is faster than the list of rows that the benchmark has by default. What both sides are given is made
beforehand: descriptors, lists of positives, pools. A third side of the whole database is the matrix product of queries
and images alone, by NumPy: no exact search can take less. Each side runs in a process of its own. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import side_by_side
from data_pipelines.places import Paths, Places
from jaxvpr.retrieval.positives import Positives, within_metres, without

Array = np.ndarray
OURS, PEER, PRODUCT = "jaxvpr", "faiss", "product alone"
WHOLE, POOLS = "whole database", "pools of 1000"
CASES = (WHOLE, POOLS)
K, POOL, HARD, SOFT = 10, 1000, 10.0, 25.0
VIEWS = 12  # images taken at one spot
BLOCK = 64 * VIEWS  # images described at once
QUERY_BLOCK, ROW_BLOCK = 1024, 4096  # queries that FAISS is asked at once; images of a block of the product alone
TOLERANCE = 1e-5


class City(NamedTuple):
    """What is mined: sizes, the spot of every query, and the geography.

    Attributes:
      spots: int64 [Q], which spot each query was taken beside.
      positives, near: database images within 10 m and 25 m of each query.
      pools: int64 [Q, 1000], images drawn for each query. previous: int64 [Q, 10], negatives it had last. Both are
        [Q, 0] where nothing is drawn.
    """

    database: int
    dimension: int
    spots: Array
    positives: Positives
    near: Positives
    pools: Array
    previous: Array


def city_of(queries: int, database: int, dimension: int, pools: bool) -> City:
    """Spots at random, 0.002 to the square metre; 12 images of each; queries within some metres of a spot.

    A query then has 60 images within 25 m on average.
    """
    rng = np.random.default_rng(0)
    count = -(-database // VIEWS)
    at = rng.uniform(0, np.sqrt(count / 0.002), (count, 2))
    images = np.repeat(at, VIEWS, axis=0)[:database]
    spots = np.sort(rng.integers(0, count, queries))
    asked = at[spots] + rng.normal(0, 3, (queries, 2))
    tables = [
        Places.create("city", Paths.of(map(str, range(len(points)))), east=points[:, 0], north=points[:, 1])
        for points in (images, asked)
    ]
    near, pool, previous = within_metres(*tables, SOFT), np.empty((queries, 0), int), np.empty((queries, 0), int)
    if pools:
        drawn = [rng.choice(database, POOL, replace=False, shuffle=False) for _ in range(queries)]
        had = [rng.choice(database, 5 * K, replace=False, shuffle=False) for _ in range(queries)]
        pool = np.stack(drawn)
        previous = np.stack([np.setdiff1d(rows, near[query])[:K] for query, rows in enumerate(had)])
    return City(database, dimension, spots, within_metres(*tables, HARD), near, pool, previous)


def described(city: City) -> Iterator[tuple[Array, Array, Array]]:
    """Unit vectors block by block: those of images [block, D]; the queries beside these images, and theirs [q, D].

    Half of a vector is shared by all that was taken at the spot.
    """
    per_block = BLOCK // VIEWS
    for number, first in enumerate(range(0, city.database, BLOCK)):
        rng = np.random.default_rng([1, number])
        shared = rng.standard_normal((per_block, city.dimension), np.float32)
        images = np.repeat(shared, VIEWS, axis=0) + rng.standard_normal((BLOCK, city.dimension), np.float32)
        beside = np.flatnonzero(city.spots // per_block == number)
        asked = shared[city.spots[beside] % per_block]
        asked = asked + rng.standard_normal(asked.shape, np.float32)
        images, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, asked))
        yield images[: city.database - first], beside, asked


def arrays(city: City) -> tuple[Array, Array]:
    """All that is described: float32 [Q, D] queries and [N, D] images."""
    queries, cache = (np.empty((n, city.dimension), np.float32) for n in (len(city.spots), city.database))
    for number, (images, beside, asked) in enumerate(described(city)):
        queries[beside], cache[number * BLOCK :][: len(images)] = asked, images
    return queries, cache


Found = tuple[Array, Array, Array, Array]  # positive, its distance, negatives, their distances


def ours(city: City, case: str, memory_mib: int) -> Callable[[], Found]:
    """Our search of a cache that lies on the devices."""
    from jaxvpr.mining.hard_examples import hard_examples
    from jaxvpr.parallel.mesh import make_mesh
    from jaxvpr.retrieval.cache import fill

    queries, mesh = np.empty((len(city.spots), city.dimension), np.float32), make_mesh()
    if BLOCK % mesh.size:
        raise SystemExit(f"{mesh.size} devices do not divide batches of {BLOCK}; set CUDA_VISIBLE_DEVICES")

    def batches() -> Iterator[dict[str, Array]]:
        for number, (images, beside, asked) in enumerate(described(city)):
            queries[beside] = asked
            row = np.full(BLOCK, -1)
            row[: len(images)] = number * BLOCK + np.arange(len(images))
            padded = np.zeros((BLOCK, city.dimension), np.float32)
            padded[: len(images)] = images
            yield {"image": padded, "mask": row >= 0, "row": row}

    cache = fill(lambda _, image: image, {}, batches(), city.database, mesh, BLOCK)

    def mine() -> Found:
        options: dict[str, Any] = {"k": K, "memory_mib": memory_mib}
        if case == WHOLE:
            return hard_examples(cache, queries, city.positives, excluded=city.near, **options)
        among = without(as_lists(np.hstack([city.pools, city.previous])), city.near)
        return hard_examples(cache, queries, city.positives, allowed=among, **options)

    return mine


def as_lists(rows: Array) -> Positives:
    """Rows of each query [Q, n] as compressed rows: ascending, none twice."""
    rows = np.sort(rows, axis=1)
    fresh = np.column_stack([np.ones(len(rows), bool), np.diff(rows) > 0])
    return Positives(np.concatenate([[0], np.cumsum(fresh.sum(axis=1))]), rows[fresh])


def peer(city: City, case: str) -> Callable[[], Found]:
    """The same with FAISS, one query after the other."""
    import faiss

    queries, cache = arrays(city)

    def nearest(query: int, rows: Array, k: int) -> tuple[Array, Array]:
        index = faiss.IndexFlatL2(city.dimension)
        index.add(cache[rows])
        distances, places = index.search(queries[query : query + 1], k)
        return distances[0], rows[places[0]]

    def of_pool(query: int) -> tuple[Array, Array]:
        rows = np.setdiff1d(city.pools[query], city.near[query], assume_unique=True)
        return nearest(query, np.unique(np.concatenate([city.previous[query], rows])), K)

    def of_whole(first: int) -> tuple[Array, Array]:
        part = slice(first, min(first + QUERY_BLOCK, len(queries)))
        distances, rows = faiss.knn(queries[part], cache, K + int(city.near.counts[part].max()))
        far = [~np.isin(row, city.near[first + number], assume_unique=True) for number, row in enumerate(rows)]
        kept = np.stack([np.flatnonzero(one)[:K] for one in far])
        return np.take_along_axis(distances, kept, 1), np.take_along_axis(rows, kept, 1)

    def mine() -> Found:
        best = [
            nearest(query, city.positives[query], 1)
            if len(city.positives[query])
            else (np.array([np.inf]), np.array([-1]))
            for query in range(len(queries))
        ]
        positive_distances, positive = (np.concatenate(values) for values in zip(*best, strict=True))
        if case == WHOLE:
            parts = [of_whole(first) for first in range(0, len(queries), QUERY_BLOCK)]
            distances, negatives = (np.concatenate(values) for values in zip(*parts, strict=True))
        else:
            distances, negatives = map(np.stack, zip(*map(of_pool, range(len(queries))), strict=True))
        return positive, positive_distances, negatives, distances

    return mine


def product(city: City) -> Callable[[], Found]:
    """The dot products of all queries and images, in blocks that stay in the processor's cache."""
    queries, cache = arrays(city)
    dots = np.empty((QUERY_BLOCK, ROW_BLOCK), np.float32)

    def multiply() -> Found:
        for first in range(0, len(queries), QUERY_BLOCK):
            part = queries[first : first + QUERY_BLOCK]
            for start in range(0, len(cache), ROW_BLOCK):
                rows = cache[start : start + ROW_BLOCK]
                np.matmul(part, rows.T, out=dots[: len(part), : len(rows)])
        return (np.empty(0),) * 4

    return multiply


def side(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """One side's part of a round; what it found is written for the comparison."""
    from jaxvpr.parallel import memory

    memory.keep_freed()
    city = city_of(given.queries, given.database, given.dimension, given.case == POOLS)
    makers = {
        OURS: lambda: ours(city, given.case, given.memory_mib),
        PEER: lambda: peer(city, given.case),
        PRODUCT: lambda: product(city),
    }
    mine = makers[name]()
    before = resident_mib(fresh=True)
    times, found = side_by_side.clock(lambda: mine, 1, given.repeats)
    peak = resident_mib()
    np.savez(given.folder / f"{name}.npz", *found[0])
    facts = {"near": float(city.near.counts.mean()), "positives": float(city.positives.counts.mean())}
    on = side_by_side.device(name) if name == OURS else peer_device()
    return {**times, **facts, "mib_before": before, "peak_mib": peak, "device_peak_mib": device_mib(name), "on": on}


def peer_device() -> dict[str, Any]:
    """What FAISS runs on."""
    import faiss

    return {"device": "cpu", "threads": faiss.omp_get_max_threads()}


def resident_mib(fresh: bool = False) -> float:
    """Peak resident memory of this process in MiB, since the last `fresh` call, which itself gives what is resident."""
    if fresh:
        with suppress(OSError):  # where the kernel does not let us, it is the peak so far that counts from the start
            Path("/proc/self/clear_refs").write_text("5")
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) / 1024, 1)


def device_mib(name: str) -> float | None:
    """Most memory that an accelerator held; None without one."""
    return side_by_side.peak_mib() if name == OURS else None


def measure(case: str, given: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of a case, and whether both sides found the same."""
    with tempfile.TemporaryDirectory() as folder:
        arguments: list[Any] = ["--case", case, "--folder", folder]
        for flag in ("queries", "database", "dimension", "repeats", "memory_mib"):
            arguments += [f"--{flag.replace('_', '-')}", getattr(given, flag)]
        sides = (OURS, PEER, PRODUCT) if case == WHOLE else (OURS, PEER)
        found = side_by_side.interleave("benchmarks.mining", sides, given.rounds, *arguments)
        results = [[part for _, part in sorted(np.load(Path(folder) / f"{one}.npz").items())] for one in (OURS, PEER)]
    first = {name: reports[0] for name, reports in found.items()}
    seconds = {name: [min(one["seconds"]) for one in reports] for name, reports in found.items()}
    return {
        "case": case,
        "images within 25 m": round(first[OURS]["near"], 1),
        "positives": round(first[OURS]["positives"], 1),
        "seconds": {name: [round(one, 3) for one in rounds] for name, rounds in seconds.items()},
        "times_faster": {name: ratio for name, ratio in side_by_side.ratios(seconds, OURS).items() if name != OURS},
        **{
            f"{key}": {name: round(report[key], 3) for name, report in first.items()}
            for key in ("first_call_seconds", "cpu_seconds")
        },
        **{key: {name: report[key] for name, report in first.items()} for key in ("mib_before", "peak_mib", "on")},
        "device_peak_mib": first[OURS]["device_peak_mib"],
        **agreement(*results),
    }


def agreement(mine: list[Array], theirs: list[Array]) -> dict[str, Any]:
    """How many rows are the same, how far distances are apart, and whether that is rounding alone."""
    rows = [np.column_stack([found[0], found[2]]) for found in (mine, theirs)]
    distances = [np.column_stack([found[1], found[3]]) for found in (mine, theirs)]
    known = [np.isfinite(found) for found in distances]
    same, both = bool((known[0] == known[1]).all()), known[0] & known[1]
    apart = float(abs(distances[0][both] - distances[1][both]).max(initial=0))
    equal = float((rows[0] == rows[1]).mean())
    return {"equal_rows": round(equal, 6), "largest_difference": apart, "agree": same and apart < TOLERANCE}


def main() -> None:
    """Measures the cases, or does one side's part of one round."""
    parser = side_by_side.flags(__doc__, rounds=1)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--database", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--repeats", type=int, default=1, help="timed calls a round, after one that compiles")
    parser.add_argument("--memory-mib", type=int, default=1024, help="what our search may take beside the cache")
    parser.add_argument("--side", choices=[OURS, PEER, PRODUCT], help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.database < 2 * POOL:
        parser.error(f"a pool of {POOL} images wants at least {2 * POOL} to be drawn from, not {given.database}")
    if given.side:
        print(json.dumps(side(given.side, given)))
        return
    results = [measure(case, given) for case in given.cases]
    sizes = {flag: getattr(given, flag) for flag in ("queries", "database", "dimension", "memory_mib")}
    facts = {**sizes, "k": K}
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "numpy", "faiss-cpu"), **facts), given.out)


if __name__ == "__main__":
    main()
