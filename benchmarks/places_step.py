"""One step of metric learning on places beside the same step in PyTorch: MixVPR and SALAD as their authors train them.

Both start from the same random weights, take the same uint8 images from host memory, run the network forward and back
under multi-similarity loss and miner, and move what the recipe trains with its optimiser. Ours is the step of the
training loop, plain and with GradCache; PyTorch's is what one writes by hand: eager, with pytorch-metric-learning where
that is installed, with a fused optimiser, in either memory layout. With `--dtype bfloat16` ours computes the backbone
in that type and PyTorch runs under autocast.

Three things differ from a training, on both sides: rates are constant and small, so that the losses of the first steps
can be compared; SALAD has no dropout, for the same reason; and an image is its place's noise mixed with its own.
GradCache is another function where BatchNorm sees the batch. So MixVPR is measured twice, the second time with fixed
statistics on all sides.

`agree` says whether the losses of the first step lie within 1e-3 of each other (2e-2 in bfloat16) and those after three
updates within ten times that, as parts of PyTorch's first, and whether as many numbers train on all sides.

  python -m benchmarks.places_step --out benchmarks/results/places_step.json
  python -m benchmarks.places_step --dtype bfloat16 --cases "mixvpr 120x4, 320 px" \
"mixvpr 120x4, 320 px, fixed statistics" "salad 60x4, 224 px"          # on a GPU
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import side_by_side
from jaxvpr.parallel import memory

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from benchmarks import jax_side, torch_side

PLAIN, CACHED, PEERS = "jaxvpr", "jaxvpr, GradCache", ("pytorch", "pytorch channels last")
SIDES = (PLAIN, CACHED, *PEERS)
WARM = 4  # the last of them is the loss after three updates
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}


class Case(NamedTuple):
    """A recipe, what is changed in it, places of a batch, micro-batches of GradCache (0: not measured), and the steps
    that a round times. `method` lends its names to the weights; parameters train whose names there begin as `trained`.
    """

    recipe: str
    changes: Mapping[str, Any]
    places: int
    micro_batches: int
    steps: int
    method: str
    trained: str


def _mixvpr(changes: Mapping[str, Any], places: int, cached: int, steps: int, preset: str = "mixvpr") -> Case:
    trained = r"aggregator|backbone\.model\.layer3" if preset == "mixvpr" else ""
    changes = {"optimizer.rate": 1e-3, **changes}
    return Case(f"configs/mixvpr.py:{preset}", changes, places, cached, steps, "mixvpr-resnet50-4096", trained)


def _salad(changes: Mapping[str, Any], places: int, cached: int, steps: int, preset: str = "salad") -> Case:
    trained = r"aggregator|backbone\.model\.(norm|blocks\.(8|9|10|11))\." if preset == "salad" else r"(?!.*mask_token)"
    changes = {"model.aggregator_options.dropout": 0.0, **changes}
    return Case(f"configs/salad.py:{preset}", changes, places, cached, steps, "salad-dinov2b", trained)


FIXED = {"model.backbone_options.frozen_bn": "all"}
SMALL = {"image.size": (112, 112), "model.aggregator_options.cells": (7, 7)}
CASES = {
    "mixvpr 120x4, 320 px": _mixvpr({}, 120, 0, 10),
    "mixvpr 120x4, 320 px, fixed statistics": _mixvpr(FIXED, 120, 8, 10),
    "salad 60x4, 224 px": _salad({}, 60, 4, 10),
    "mixvpr 4x4, 112 px": _mixvpr(SMALL, 4, 0, 3),
    "mixvpr 4x4, 112 px, fixed statistics": _mixvpr({**SMALL, **FIXED}, 4, 2, 3),
    # Of 112 pixels are 64 patches, one too few for 64 clusters.
    "salad 4x4, 126 px": _salad({"image.size": (126, 126)}, 4, 2, 3),
    "tiny mixvpr": _mixvpr({**FIXED, "model.backbone_options.widths": (4, 8, 8, 8)}, 4, 2, 2, "city"),
    "tiny salad": _salad(
        {"optimizer.rate": 1e-4, "model.backbone_options.depth": 1, "model.backbone_options.width": 24}, 4, 0, 2, "city"
    ),
}
MEASURED = tuple(CASES)[3:6]


def recipe(case: Case, dtype: str) -> ConfigDict:
    """The recipe of a case."""
    from jaxvpr.cli.recipes import load_config

    config = load_config(case.recipe).unlock()
    config.update_from_flattened_dict({"model.dtype": dtype, **case.changes})
    config.objective.P, config.batch = case.places, case.places * config.objective.K
    return config.lock()


def batch_of(case: Case, config: ConfigDict) -> dict[str, np.ndarray]:
    """Images of noise, half of it that of their place; their places; and that all of them count."""
    rng, K = np.random.default_rng(0), config.objective.K
    shape = (*config.image.size, 3)
    shared = rng.integers(0, 128, (case.places, 1, *shape), np.uint8)
    own = rng.integers(0, 128, (case.places, K, *shape), np.uint8)
    labels = np.repeat(np.arange(case.places, dtype=np.int32), K)
    return {"image": (shared + own).reshape(-1, *shape), "label": labels, "mask": np.ones(config.batch, bool)}


Made = tuple[Callable[[], float], dict[str, Any], Callable[[], float | None]]


def jaxvpr_training(case: Case, config: ConfigDict, tensors: Path, micro_batches: int = 1) -> jax_side.Training:
    """The training of a recipe. Writes the weights that it starts from."""
    from benchmarks import jax_side

    training = jax_side.places_training(config, micro_batches)
    jax_side.export_start(training, tensors, case.method)
    return training


def pytorch_training(case: Case, config: ConfigDict, tensors: Path, channels_last: bool) -> torch_side.Training:
    """The same in PyTorch, from the weights that `jaxvpr_training` wrote."""
    from benchmarks import torch_places, torch_side
    from jaxvpr.weights import read

    network, trained = torch_places.network(config.model.to_dict(), dict(read(tensors)), case.trained, channels_last)
    which, loss = torch_places.loss()
    facts = {"trained": sum(parameter.numel() for parameter in trained), "loss": which}
    return torch_side.Training(network, [torch_places.optimiser(trained, config.optimizer.to_dict())], loss, facts)


def jaxvpr_step(name: str, case: Case, dtype: str, tensors: Path) -> Made:
    """A call makes one step of the training loop and returns its loss. Writes the weights that it starts from."""
    from benchmarks import jax_side

    config = recipe(case, dtype)
    training = jaxvpr_training(case, config, tensors, case.micro_batches if name == CACHED else 1)
    return jax_side.stepper(training, batch_of(case, config)), {"trained": training.trained}, side_by_side.peak_mib


def pytorch_step(name: str, case: Case, dtype: str, tensors: Path) -> Made:
    """The same in PyTorch, from the weights that `jaxvpr_step` wrote."""
    from benchmarks import torch_places, torch_side

    config = recipe(case, dtype)
    training, batch = pytorch_training(case, config, tensors, name.endswith("last")), batch_of(case, config)
    step = torch_side.stepper(training, batch["image"], batch["label"], dtype)
    return step, dict(training.facts), torch_places.peak_mib


def side(name: str, case: Case, dtype: str, tensors: Path, repeats: int) -> dict[str, Any]:
    """One side's part of a round, and the losses of its first steps."""
    memory.keep_freed()
    began = time.perf_counter()
    step, facts, peak = (pytorch_step if name in PEERS else jaxvpr_step)(name, case, dtype, tensors)
    facts |= {"start_seconds": time.perf_counter() - began}
    times, losses = side_by_side.clock(lambda: step, WARM, repeats)
    return {**times, **facts, "losses": losses, "peak_mib": peak(), "on": side_by_side.device(name)}


def measure(name: str, dtype: str, rounds: int, repeats: int | None) -> dict[str, Any]:
    """Interleaved rounds of a case."""
    case = CASES[name]
    config = recipe(case, dtype)
    sides = [side for side in SIDES if case.micro_batches or side != CACHED]
    with tempfile.TemporaryDirectory() as folder:
        given = ["--case", name, "--dtype", dtype, "--tensors", Path(folder) / "start.safetensors"]
        given += ["--repeats", repeats or case.steps]
        found = side_by_side.interleave("benchmarks.places_step", sides, rounds, *given)
    first = {one: reports[0] for one, reports in found.items()}
    return {
        "case": name,
        "backbone": config.model.backbone,
        "pixels": config.image.size[0],
        "places": case.places,
        "batch": config.batch,
        "micro_batches": case.micro_batches or None,
        "dtype": dtype,
        "optimiser": config.optimizer.name,
        "pytorch_loss": first["pytorch"]["loss"],
        "trained_parameters": {one: report["trained"] for one, report in first.items()},
        "peak_mib": {one: report["peak_mib"] for one, report in first.items()},
        **side_by_side.compare(found, config.batch, "pytorch"),
        **agreement(first, TOLERANCE[dtype]),
    }


def agreement(reports: Mapping[str, Mapping[str, Any]], tolerance: float) -> dict[str, Any]:
    """The losses of the warm steps, how far the sides' first and last lie apart, and whether that is near enough."""
    losses = {side: report["losses"] for side, report in reports.items()}
    apart = np.ptp(list(losses.values()), axis=0) / abs(losses["pytorch"][0])
    first, last = float(apart[0]), float(apart[-1])
    same = len({report["trained"] for report in reports.values()}) == 1
    return {
        "losses": losses,
        "relative_difference": {"first step": first, "last warm step": last},
        "agree": bool(same and first <= tolerance and last <= 10 * tolerance),
    }


if __name__ == "__main__":
    side_by_side.program(__doc__, CASES, MEASURED, SIDES, side, measure)
