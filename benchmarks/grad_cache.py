"""What GradCache costs and saves: memory of the compiled training step, and images a second.

The memory is XLA's own account of a compiled step: `temp` is what it needs besides its arguments (state and images) and
its results at the worst moment. Nothing of that size is run or even allocated, so that a step on 1,024 images can be
judged on a small machine. The account is that of the device it is compiled for.

Images a second are measured for the cases and batches of `--timed`, the plain step and the cached one in turns.

  python -m benchmarks.grad_cache --out benchmarks/results/grad_cache.json
  python -m benchmarks.grad_cache --cases "salad, DINOv2-S, 224 px" --batches 64 --micro 16 --timed none
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import compiled, jax_side, side_by_side
from jaxvpr.cli.recipes import load_config
from jaxvpr.parallel import memory

WARM = 2
NONE = "none"


class Case(NamedTuple):
    """A recipe of places, and what is changed in it."""

    recipe: str
    changes: Mapping[str, Any]


CASES = {
    "salad, DINOv2-S, 224 px": Case("configs/salad.py:salad", {"model.backbone": "dinov2_vits14"}),
    "salad, small DINOv2, 112 px": Case("configs/salad.py:city", {}),
    "mixvpr, small ResNet with fixed statistics, 64 px": Case(
        "configs/mixvpr.py:city", {"model.backbone_options.frozen_bn": "all"}
    ),
}


def recipe(case: Case, batch: int, dtype: str) -> ConfigDict:
    """The recipe of a case, with batches of so many images."""
    config = load_config(case.recipe).unlock()
    config.update_from_flattened_dict({"model.dtype": dtype, **case.changes})
    if batch % config.objective.K:
        raise SystemExit(f"a batch of {batch} images is no whole number of places of {config.objective.K}")
    config.batch, config.objective.P = batch, batch // config.objective.K
    return config.lock()


def ways(batch: int, micro: list[int]) -> list[int]:
    """Counts of micro-batches: 1, the plain step, and those that make parts of `micro` images."""
    return [1, *(batch // size for size in micro if batch > size and batch % size == 0)]


def needs(case: Case, batch: int, count: int, dtype: str) -> dict[str, Any]:
    """Memory in MiB of the step that takes a batch in `count` parts, as compiled for the device there is."""
    config = recipe(case, batch, dtype).unlock()
    config.grad_cache = count
    made = compiled.step(config.lock(), jax.devices()[:1])
    return {
        "batch": batch,
        "micro_batch": batch // count,
        "grad_cache": count,
        **{f"{part}_mib": round(size / 2**20, 1) for part, size in made.memory.items()},
        "compile_seconds": round(made.seconds, 1),
    }


def against_plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with its part of the temporary memory of the plain step at the same batch."""
    plain = {row["batch"]: row["temp_mib"] for row in rows if row["grad_cache"] == 1}
    return [{**row, "temp_to_plain": round(row["temp_mib"] / plain[row["batch"]], 4)} for row in rows]


def rate(case: Case, batch: int, count: int, dtype: str, repeats: int) -> dict[str, Any]:
    """One side's part of a round: steps on noise."""
    memory.keep_freed()
    config = recipe(case, batch, dtype)
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(config.objective.P, dtype=np.int32), config.objective.K)
    image = rng.integers(0, 256, (batch, *config.image.size, 3), np.uint8)

    def make() -> Any:
        training = jax_side.places_training(config, count)
        batches = {"image": image, "label": labels, "mask": np.ones(batch, bool)}
        return jax_side.stepper(training, batches)

    times, _ = side_by_side.clock(make, WARM, repeats)
    return {**times, "on": side_by_side.device("jaxvpr")}


def rates(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of the plain step and the cached ones."""
    sides = [str(count) for count in ways(given.timed_batch, given.micro)]
    arguments = ["--case", name, "--timed-batch", given.timed_batch, "--dtype", given.dtype, "--repeats", given.repeats]
    found = side_by_side.interleave("benchmarks.grad_cache", sides, given.rounds, *arguments)
    named = {
        "plain" if side == "1" else f"micro-batches of {given.timed_batch // int(side)}": reports
        for side, reports in found.items()
    }
    return {
        "case": name,
        "batch": given.timed_batch,
        "dtype": given.dtype,
        **side_by_side.compare(named, given.timed_batch, "plain"),
    }


def main() -> None:
    """The table of memory and the rates, or, where a side is named, its part of one round."""
    parser = side_by_side.flags(__doc__, rounds=3)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="whose memory")
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--micro", nargs="+", type=int, default=[16, 64], help="images of a micro-batch")
    parser.add_argument("--timed", nargs="+", choices=[*CASES, NONE], default=list(CASES)[1:], help="whose images/s")
    parser.add_argument("--timed-batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps a round")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(rate(CASES[given.case], given.timed_batch, int(given.side), given.dtype, given.repeats)))
        return
    table = {
        name: against_plain(
            [
                needs(CASES[name], batch, count, given.dtype)
                for batch in given.batches
                for count in ways(batch, given.micro)
            ]
        )
        for name in given.cases
    }
    results = {"memory": table, "rates": [rates(name, given) for name in given.timed if name != NONE]}
    facts = {"on": side_by_side.device("jaxvpr"), "dtype": given.dtype}
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "flax", "optax"), **facts), given.out)


if __name__ == "__main__":
    main()
