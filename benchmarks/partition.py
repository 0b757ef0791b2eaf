"""How long does it take to cut millions of images into CosPlace's classes, and to read their '@' names?

  python -m benchmarks.partition --out benchmarks/results/partition.json    # 5.9 million rows (SF-XL)
  python -m benchmarks.partition --rows 1000000 --rounds 1

The peer does what the published CosPlace code does: a Python loop that makes a class and a group tuple per image, a
dictionary of lists, and for the names `str.split` and one conversion of all strings to floats. Every stage runs in a
process of its own, so that its peak memory (the rows themselves included) is its own. Prints JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import time
from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks import side_by_side
from data_pipelines.partitions import Cells, cosplace_cells
from data_pipelines.places import Paths
from data_pipelines.readers import names

M, ALPHA, N, L, MIN_IMAGES = 10, 30, 5, 2, 10


def rows_of_a_city(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """East, north (metres to the centimetre) and heading (12 per panorama) of panoramas along a grid of streets.

    2000 panoramas per kilometre of street, as over a dozen years of driving: some 20 images a class, as in SF-XL.
    Rows come in the order of sorted names, that is by east.
    """
    rng = np.random.default_rng(seed)
    panoramas = -(-rows // 12)
    side = max(np.sqrt(panoramas / 2000 / 18) * 1000, 200)  # streets 110 m apart: 18 km of them per square kilometre
    along, street = rng.uniform(0, side, panoramas), rng.integers(0, int(side // 110) + 1, panoramas) * 110 + 5
    across = street + rng.normal(0, 2, panoramas)
    turned = rng.random(panoramas) < 0.5
    east, north = np.where(turned, along, across) + 545_000, np.where(turned, across, along) + 4_173_000
    order = np.argsort(east, kind="stable")
    east, north = (np.repeat(values[order].round(2), 12)[:rows] for values in (east, north))
    return east, north, np.tile(np.arange(0, 360, 30, dtype=np.float32), panoramas)[:rows]


def names_of(east: np.ndarray, north: np.ndarray, heading: np.ndarray) -> Paths:
    """'@' names as SF-XL writes them."""
    fields = zip(east.tolist(), north.tolist(), heading.astype(int).tolist(), strict=True)
    made = (
        f"@{e:010.2f}@{n:010.2f}@10@S@037.71668@-122.38552@{k:022d}@@{h}@@@@{2008 + k % 14}11@@.jpg".encode()
        for k, (e, n, h) in enumerate(fields)
    )
    return Paths.of(made)


def peer_cells(east: np.ndarray, north: np.ndarray, heading: np.ndarray) -> tuple[list[list[tuple]], dict]:
    """Classes and groups by a loop over images: (class tuples of each group, images of each class)."""
    ids = [peer_ids(e, n, h) for e, n, h in np.stack([east, north, heading.astype(np.float64)], axis=1)]
    all_images = defaultdict(list)
    for row, (cell, _) in enumerate(ids):
        all_images[cell].append(row)
    images = {cell: rows for cell, rows in all_images.items() if len(rows) >= MIN_IMAGES}
    groups = defaultdict(set)
    for cell, group in ids:
        if cell in images:
            groups[group].add(cell)
    return [sorted(cells) for cells in groups.values()], images


def peer_ids(east: float, north: float, heading: float) -> tuple[tuple, tuple]:
    """The class of one image (lower corner in metres, degrees) and its group."""
    cell = (int(east // M * M), int(north // M * M), int(heading // ALPHA * ALPHA))
    return cell, (cell[0] % (M * N) // M, cell[1] % (M * N) // M, cell[2] % (ALPHA * L) // ALPHA)


def peer_names(lines: list[str]) -> np.ndarray:
    """East, north, heading by splitting every name: float64 [rows, 3]."""
    parts = [line.split("@") for line in lines]
    return np.array([(p[1], p[2], p[9]) for p in parts]).astype(np.float64)


def digest(groups: list[list[tuple[tuple, int, int]]]) -> str:
    """A hash of all groups in order, each a list of (class, first image, number of images)."""
    return hashlib.sha256(json.dumps(groups).encode()).hexdigest()[:16]


def ours_as_lists(cells: Cells) -> list:
    keys = (cells.keys * [M, M, ALPHA]).tolist()
    first, size = cells.rows[cells.indptr[:-1]].tolist(), np.diff(cells.indptr).tolist()
    whole = list(zip(keys, first, size, strict=True))
    return [whole[a:b] for a, b in zip(cells.groups[:-1], cells.groups[1:], strict=True)]


def stage(name: str, rows: int, seed: int) -> dict:
    """Runs one stage on generated rows and measures it."""
    columns = rows_of_a_city(rows, seed)
    given: Any = names_of(*columns) if name.endswith("names") else columns
    parsed: Any = None
    if name == "peer_names":
        given = list(given)
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    if name == "cells":
        cells = cosplace_cells(*columns, M=M, alpha=ALPHA, N=N, L=L, min_images=MIN_IMAGES)
    elif name == "peer_cells":
        groups, images = peer_cells(*columns)
    elif name == "names":
        parsed = names.parse(given)
    else:
        parsed = peer_names(given)
    seconds = time.perf_counter() - start
    busy = time.process_time() - cpu  # the same on a machine that others use, too
    result = {
        "rows": rows,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(busy, 3),
        "rows_per_second": round(rows / seconds),
    }
    result |= {"peak_mib": round(peak()), "peak_mib_before": round(before)}
    if name == "cells":
        facts = {"groups": len(cells), "classes": len(cells.keys), "images_in_classes": len(cells.rows)}
        return result | facts | {"digest": digest(ours_as_lists(cells))}
    if name == "peer_cells":
        return result | {"digest": digest([[(c, images[c][0], len(images[c])) for c in group] for group in groups])}
    read = parsed if name == "peer_names" else np.stack([parsed[c] for c in ("east", "north", "heading")], axis=1)
    return result | {"digest": hashlib.sha256(np.ascontiguousarray(read, np.float64).tobytes()).hexdigest()[:16]}


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Runs every stage in turns, compares what ours and the peer's found, and prints JSON."""
    parser = side_by_side.flags(__doc__, rounds=1)
    parser.add_argument("--rows", type=int, default=5_900_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=["cells", "peer_cells", "names", "peer_names"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(stage(given.side, given.rows, given.seed)))
        return
    results = {}
    for ours, peer in (("cells", "peer_cells"), ("names", "peer_names")):
        arguments = "benchmarks.partition", (ours, peer), given.rounds, "--rows", given.rows, "--seed", given.seed
        found = side_by_side.interleave(*arguments)
        seconds = {one: [report["seconds"] for report in reports] for one, reports in found.items()}
        results[ours] = {
            **{one: reports[0] for one, reports in found.items()},
            "seconds": seconds,
            "times_faster": side_by_side.ratios(seconds, ours)[peer],
            "agree": len({report["digest"] for reports in found.values() for report in reports}) == 1,
        }
    side_by_side.finish(side_by_side.report(results, ("numpy",), rows=given.rows), given.out)


if __name__ == "__main__":
    main()
