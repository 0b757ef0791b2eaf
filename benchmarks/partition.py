"""How long does it take to cut millions of images into the classes of CosPlace and of EigenPlaces, and to read their
'@' names?

  python -m benchmarks.partition --out benchmarks/results/partition.json    # 5.9 million rows (SF-XL)
  python -m benchmarks.partition --rows 1000000 --rounds 1

The peer does what the published CosPlace code does: a Python loop that makes a class and a group tuple per image, a
dictionary of lists, and for the names `str.split` and one conversion of all strings to floats. EigenPlaces' peer loops
over images, viewpoints and cells, each cell's focal points by a singular value decomposition as in the published code.
Every stage runs in a process of its own, so that its peak memory (its rows included) is its own. Prints JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import resource
import time
from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks import side_by_side
from data_pipelines.eigen import Views, eigen_classes
from data_pipelines.partitions import Cells, cosplace_cells
from data_pipelines.places import Paths
from data_pipelines.readers import names

M, ALPHA, N, L, MIN_IMAGES = 10, 30, 5, 2, 10
LOOKS = {"M": 15, "N": 3, "distance": 10, "min_images": 5, "turn": 20}  # EigenPlaces'


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


def peer_looks(east: np.ndarray, north: np.ndarray, heading: np.ndarray) -> list[list]:
    """EigenPlaces' classes by loops: groups of (cell, rows of its lateral class, rows of its frontal class)."""
    side, groups = LOOKS["M"], defaultdict(list)
    viewpoints, cells = defaultdict(list), defaultdict(list)
    for row, position in enumerate(zip(east.tolist(), north.tolist(), strict=True)):
        viewpoints[position].append(row)
    for position in viewpoints:
        cells[int(position[0] // side), int(position[1] // side)].append(position)
    headings = heading.tolist()
    for cell, positions in cells.items():
        looking = [
            sorted(row for at in positions for row in peer_view(at, point, viewpoints[at], headings))
            for point in peer_points(np.array(positions))
        ]
        if min(map(len, looking)) >= LOOKS["min_images"]:
            groups[cell[0] % LOOKS["N"], cell[1] % LOOKS["N"]].append((cell, *looking))
    first = {group: min(min(a[0], b[0]) for _, a, b in classes) for group, classes in groups.items()}
    return [sorted(groups[group]) for group in sorted(groups, key=first.__getitem__)]


def peer_points(positions: np.ndarray) -> list[tuple[float, float]]:
    """The lateral and the frontal focal point of a cell's viewpoints, float64 [n, 2]; the axis across points east."""
    mean = positions.mean(0)
    axes, _, _ = np.linalg.svd((positions - mean).T, full_matrices=False)
    across = axes[:, -1] if len(positions) > 1 else np.array([0.0, 1.0])
    if across[0] < -1e-9 or (abs(across[0]) <= 1e-9 and across[1] < 0):
        across = -across
    (e, n), (x, y) = mean.tolist(), (LOOKS["distance"] * across).tolist()
    return [(e + x, n + y), (e - y, n + x)]


def peer_view(at: tuple, point: tuple, rows: list[int], headings: list[float]) -> list[int]:
    """The row of the image whose heading is nearest to the point's bearing, none where none is near."""
    bearing = math.degrees(math.atan2(point[0] - at[0], point[1] - at[1]))
    off, row = min((abs((headings[row] - bearing + 180) % 360 - 180), row) for row in rows)
    return [row] if off <= LOOKS["turn"] else []


def peer_names(lines: list[str]) -> np.ndarray:
    """East, north, heading by splitting every name: float64 [rows, 3]."""
    parts = [line.split("@") for line in lines]
    return np.array([(p[1], p[2], p[9]) for p in parts]).astype(np.float64)


def digest(groups: list[list[tuple]]) -> str:
    """A hash of all groups in order, each a list of a class and what is known of its images."""
    return hashlib.sha256(json.dumps(groups).encode()).hexdigest()[:16]


def ours_as_lists(cells: Cells) -> list:
    keys = (cells.keys * [M, M, ALPHA]).tolist()
    first, size = cells.rows[cells.indptr[:-1]].tolist(), np.diff(cells.indptr).tolist()
    whole = list(zip(keys, first, size, strict=True))
    return [whole[a:b] for a, b in zip(cells.groups[:-1], cells.groups[1:], strict=True)]


def looks_as_lists(lateral: Views, frontal: Views) -> list:
    """As `peer_looks` gives them."""
    rows = [np.split(looks.cells.rows, looks.cells.indptr[1:-1]) for looks in (lateral, frontal)]
    whole = [
        (key, one.tolist(), other.tolist())
        for key, one, other in zip(lateral.cells.keys[:, :2].tolist(), *rows, strict=True)
    ]
    return [whole[a:b] for a, b in zip(lateral.cells.groups[:-1], lateral.cells.groups[1:], strict=True)]


def stage(name: str, rows: int, seed: int) -> dict:
    """Runs one stage on generated rows and measures it."""
    columns = rows_of_a_city(rows, seed)
    given: Any = names_of(*columns) if name.endswith("names") else columns
    parsed: Any = None
    if name == "peer_names":
        given = list(given)
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    found: Any = None
    if name == "looks":
        found = eigen_classes(*columns, np.zeros(rows, "datetime64[s]"), **LOOKS)
    elif name == "peer_looks":
        found = peer_looks(*columns)
    elif name == "cells":
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
    if name == "looks":
        images = [len(looks.cells.rows) for looks in found]
        facts = {"groups": len(found[0].cells), "cells": len(found[0].cells.keys), "images_in_classes": images}
        return result | facts | {"digest": digest(looks_as_lists(*found))}
    if name == "peer_looks":
        return result | {"digest": digest(found)}
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
    parser.add_argument(
        "--side", choices=["cells", "peer_cells", "looks", "peer_looks", "names", "peer_names"], help=argparse.SUPPRESS
    )
    given = parser.parse_args()
    if given.side:
        print(json.dumps(stage(given.side, given.rows, given.seed)))
        return
    results = {}
    for ours, peer in (("cells", "peer_cells"), ("looks", "peer_looks"), ("names", "peer_names")):
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
