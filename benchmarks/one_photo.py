"""One photo described: in a batch of its own, and in one of `eval.batch` images that is filled up with blank ones.

Both go the way of `jaxvpr.load(...).describe([photo])`: an array in host memory, resized, described, back in host
memory, with random weights. They take turns in one process; the figure is the median of the warm calls.
`first_call_seconds` is mostly compilation.

  python -m benchmarks.one_photo --out benchmarks/results/one_photo.json
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import side_by_side
from jaxvpr.parallel import memory

CASES = {
    "city": "configs/cosplace.py:city",
    "mixvpr-resnet50-4096": "configs/zoo.py:mixvpr-resnet50-4096",
    "salad-dinov2b": "configs/zoo.py:salad-dinov2b",
    "tiny": "configs/cosplace.py:tiny",
}
MEASURED = tuple(CASES)[:-1]
PHOTO = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Both ways, in turns."""
    import jax

    from jaxvpr import builders
    from jaxvpr.cli.recipes import load_config

    config = load_config(CASES[name])
    describer = builders.describer(config, builders.mesh(config))
    describe = partial(describer, jax.device_put(builders.initial_variables(config)), [PHOTO])
    ways = {"alone": describe, "in a whole batch": partial(describe, sized_for=config.eval.batch)}
    first = {way: round(seconds(call), 2) for way, call in ways.items()}
    warm: dict[str, list[float]] = {way: [] for way in ways}
    for way in side_by_side.turns(tuple(ways), rounds):
        warm[way].append(1000 * seconds(ways[way]))
    one, whole = (describes().descriptors for describes in ways.values())
    return {
        "case": name,
        "batch": config.eval.batch,
        "image": builders.image_size(config),
        "milliseconds": {way: round(statistics.median(times), 2) for way, times in warm.items()},
        "times_faster": side_by_side.ratios(warm, "alone")["in a whole batch"],
        "first_call_seconds": first,
        "largest_difference": float(np.abs(one - whole).max()),
        "on": side_by_side.device("jaxvpr"),
    }


if __name__ == "__main__":
    parser = side_by_side.flags(__doc__, rounds=20)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(MEASURED))
    given = parser.parse_args()
    memory.keep_freed()
    results = [measure(case, given.rounds) for case in given.cases]
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "flax")), given.out)
