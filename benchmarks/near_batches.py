"""How long do 1,000 batches of places by nearness take to draw, from half a million images?

  python -m benchmarks.near_batches --out benchmarks/results/near_batches.json

The peer is the obvious loop: a tree of the images, and for each anchor of a shuffled pass a look at who is near, which
of these look the same way, and which images of the batch are in the way. Both find the same anchors. Every side runs in
a process of its own. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

from benchmarks import side_by_side
from benchmarks.partition import peak, rows_of_a_city
from data_pipelines.near_batches import near_batches, near_table
from data_pipelines.places import Paths, Places

K, RADIUS, ANGLE, MIN_DISTANCE = 2, 12.0, 10.0, 25.0
SIDES = ("ours", "loop")


def stage(side: str, rows: int, steps: int, P: int) -> side_by_side.Report:
    """One side's part of a round: seconds for what is made once, and for a plan of so many batches."""
    east, north, heading = rows_of_a_city(rows, 0)
    began = time.perf_counter()
    if side == "ours":
        places = Places.create("city", Paths.of(["x.jpg"] * rows), east=east, north=north, heading=heading, zone=10)
        table = near_table([places], K=K, radius=RADIUS, angle=ANGLE)
        ready, anchors = time.perf_counter(), len(table)
        drawn = near_batches(table, P=P, steps=steps, rng=np.random.default_rng(0), min_distance=MIN_DISTANCE).rows
        batches = drawn.reshape(steps, P, K)
    else:
        loop = Loop(np.column_stack([east, north]), heading)
        ready, anchors = time.perf_counter(), len(loop.anchors)
        batches = loop.batches(steps, P, np.random.default_rng(0))
    ended = time.perf_counter()
    checked(batches, np.column_stack([east, north]), heading)
    return {
        "table_seconds": ready - began,
        "plan_seconds": ended - ready,
        "anchors": anchors,
        "peak_mib": round(peak()),
    }


class Loop:
    """The peer: one image at a time."""

    def __init__(self, positions: np.ndarray, heading: np.ndarray):
        from scipy.spatial import KDTree

        self.positions, self.heading, self.tree = positions, heading, KDTree(positions)
        self.anchors = [row for row in range(len(positions)) if len(self.partners(row)) >= K - 1]

    def partners(self, row: int) -> list[int]:
        """The images that may be of one place with `row`."""
        near = self.tree.query_ball_point(self.positions[row], RADIUS)
        turned = np.abs((self.heading[near] - self.heading[row] + 180) % 360 - 180) <= ANGLE
        return [other for other, fits in zip(near, turned.tolist(), strict=True) if fits and other != row]

    def batches(self, steps: int, P: int, rng: np.random.Generator) -> np.ndarray:
        """Rows [steps, P, K]."""
        queue = rng.permutation(self.anchors).tolist()
        return np.array([self.batch(queue, P, rng) for _ in range(steps)])

    def batch(self, queue: list[int], P: int, rng: np.random.Generator) -> list[list[int]]:
        """The next P places off the end of `queue`."""
        groups: list[list[int]] = []
        skipped: list[int] = []
        while len(groups) < P:
            anchor = queue.pop()
            group = [anchor, *rng.choice(self.partners(anchor), K - 1, replace=False).tolist()]
            held = self.positions[[row for other in groups for row in other]].reshape(-1, 2)
            apart = np.linalg.norm(self.positions[group][:, None] - held, axis=-1)
            if (apart < MIN_DISTANCE).any():
                skipped.append(anchor)
            else:
                groups.append(group)
        queue.extend(reversed(skipped))
        return groups


def checked(batches: np.ndarray, positions: np.ndarray, heading: np.ndarray) -> None:
    """Raises ValueError where a batch does not keep its promises."""
    for groups in batches:
        apart = np.linalg.norm(positions[groups].reshape(-1, 1, 2) - positions[groups].reshape(1, -1, 2), axis=-1)
        same = np.kron(np.eye(len(groups)), np.ones((K, K))) > 0
        turned = np.abs((heading[groups] - heading[groups[:, :1]] + 180) % 360 - 180)
        within = np.linalg.norm(positions[groups] - positions[groups[:, :1]], axis=-1)
        if (apart[~same] < MIN_DISTANCE).any() or within.max() > RADIUS or turned.max() > ANGLE:
            raise ValueError("a batch holds images of two places that are near, or of one that are far")


def main() -> None:
    """Runs both sides in turns and prints JSON."""
    parser = side_by_side.flags(__doc__, rounds=3)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--places", type=int, default=32, help="in a batch")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(stage(given.side, given.rows, given.steps, given.places)))
        return
    arguments = ("--rows", given.rows, "--steps", given.steps, "--places", given.places)
    found = side_by_side.interleave("benchmarks.near_batches", SIDES, given.rounds, *arguments)
    results = {side: {key: [report[key] for report in found[side]] for key in found[side][0]} for side in SIDES}
    faster = {
        key: statistics.median(np.divide(results["loop"][key], results["ours"][key]).tolist())
        for key in ("table_seconds", "plan_seconds")
    }
    results |= {"times_faster": faster, "agree": len({n for side in SIDES for n in results[side]["anchors"]}) == 1}
    keys = {"P": given.places, "K": K, "radius": RADIUS, "angle": ANGLE, "min_distance": MIN_DISTANCE}
    finished = side_by_side.report(results, ("numpy", "scipy"), rows=given.rows, steps=given.steps, **keys)
    side_by_side.finish(finished, given.out)


if __name__ == "__main__":
    main()
