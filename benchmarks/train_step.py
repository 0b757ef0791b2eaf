"""One training step of ours beside the same step in PyTorch.

Both start from the same weights, take the same uint8 images from host memory, normalise them, run the network forward
and back, and let two Adams move the network and the prototypes of CosFace. Ours is the step of the training loop with
all that it does besides (gradient norm, refusal of non-finite batches); PyTorch's is what one writes by hand: eager,
fused Adam, in either memory layout. The losses of the first steps are reported, and must agree. A fourth side is ours
without the programs that a CPU has for some layers (`jaxvpr.models.platforms`).

Starting, compiling and warming up are not in the rates; `first_call_seconds` says what the first step takes.

  python -m benchmarks.train_step --out benchmarks/results/train_step.json
  python -m benchmarks.train_step --dtype bfloat16          # on a GPU
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import side_by_side
from jaxvpr.parallel import memory

if TYPE_CHECKING:
    import torch
    from ml_collections import ConfigDict

    from benchmarks import jax_side, torch_side

LAX = "jaxvpr by lax alone"
SIDES = ("jaxvpr", LAX, "pytorch", "pytorch channels last")
WARM = 3
SCALE, MARGIN, RATE = 30.0, 0.4, 1e-4


class Case(NamedTuple):
    """A recipe, what is changed in it, how many classes there are, the modules of PyTorch's backbone that rest as the
    recipe's `frozen` says, and the steps that a round times."""

    recipe: str
    changes: dict[str, Any]
    classes: int
    resting: int
    steps: int


CASES = {
    "small, 64 px": Case("configs/cosplace.py:city", {"batch": 64}, 128, 0, 20),
    "resnet18 from layer3 on, 224 px": Case(
        "configs/cosplace.py:sf_xl", {"batch": 16, "image.size": (224, 224)}, 1000, 6, 4
    ),
    "resnet18, 224 px": Case(
        "configs/cosplace.py:sf_xl", {"batch": 16, "image.size": (224, 224), "frozen": ()}, 1000, 0, 4
    ),
    "tiny": Case("configs/cosplace.py:tiny", {"batch": 8}, 16, 0, 2),
}
MEASURED = tuple(CASES)[:-1]


def recipe(case: Case, dtype: str) -> ConfigDict:
    """The recipe with a constant rate for both optimisers, so that the peer needs no schedule."""
    from jaxvpr.cli.recipes import load_config

    config = load_config(case.recipe).unlock()
    config.update_from_flattened_dict({"model.dtype": dtype, **case.changes})
    for optimiser in (config.optimizer, config.optimizer_extra):
        optimiser.update({"schedule": "constant", "warmup": 0, "rate": RATE})
    return config.lock()


def batch_of(case: Case, config: ConfigDict) -> dict[str, np.ndarray]:
    """Noise, and a label for each image."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (config.batch, *config.image.size, 3), np.uint8)
    labels = rng.integers(0, case.classes, config.batch).astype(np.int32)
    return {"image": image, "label": labels, "mask": np.ones(config.batch, bool)}


def jaxvpr_training(case: Case, config: ConfigDict, tensors: Path) -> jax_side.Training:
    """The training of a recipe. Writes the weights and prototypes that it starts from."""
    from benchmarks import jax_side

    training = jax_side.cells_training(config, case.classes, SCALE, MARGIN)
    prototypes = np.asarray(training.state.extra["prototypes"][0, : case.classes])
    jax_side.export_start(training, tensors, prototypes=prototypes)
    return training


def pytorch_training(case: Case, config: ConfigDict, tensors: Path, channels_last: bool) -> torch_side.Training:
    """The same in PyTorch, from the weights that `jaxvpr_training` wrote."""
    import torch

    from benchmarks import torch_side
    from jaxvpr.weights import read

    device, values = torch_side.device(), dict(read(tensors))
    prototypes = torch.nn.Parameter(torch.from_numpy(np.array(values.pop("prototypes"))).to(device))
    network = torch_side.network(config.model.to_dict(), values, channels_last).to(device).train()
    for child in list(network.described.backbone.children())[: case.resting]:
        child.requires_grad_(False)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    tuners = [torch.optim.Adam(what, RATE, fused=True) for what in (trained, [prototypes])]

    def loss(descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch_side.cosface(descriptors, labels, prototypes, SCALE, MARGIN)

    return torch_side.Training(network, tuners, loss)


def jaxvpr_step(case: Case, dtype: str, tensors: Path) -> Callable[[], float]:
    """The training loop's step: a call makes one and returns its loss. Writes the weights that it starts from."""
    from benchmarks import jax_side

    config = recipe(case, dtype)
    return jax_side.stepper(jaxvpr_training(case, config, tensors), batch_of(case, config))


def lax_step(case: Case, dtype: str, tensors: Path) -> Callable[[], float]:
    """`jaxvpr_step`, each layer as the one operation of lax that other devices have."""
    from jaxvpr.models.platforms import plain

    return plain(jaxvpr_step(case, dtype, tensors))


def pytorch_step(channels_last: bool, case: Case, dtype: str, tensors: Path) -> Callable[[], float]:
    """The same step in PyTorch, from the weights that `jaxvpr_step` wrote."""
    from benchmarks import torch_side

    config = recipe(case, dtype)
    batch = batch_of(case, config)
    training = pytorch_training(case, config, tensors, channels_last)
    return torch_side.stepper(training, batch["image"], batch["label"], dtype)


def side(name: str, case: Case, dtype: str, tensors: Path, repeats: int) -> dict[str, Any]:
    """One side's part of a round, and the losses of its first steps."""
    memory.keep_freed()
    ours = {"jaxvpr": jaxvpr_step, LAX: lax_step}
    function = ours.get(name) or partial(pytorch_step, name.endswith("last"))
    make = partial(function, case, dtype, tensors)
    times, losses = side_by_side.clock(make, WARM, repeats)
    return {**times, "losses": losses, "on": side_by_side.device(name)}


def measure(name: str, dtype: str, rounds: int, repeats: int | None) -> dict[str, Any]:
    """Interleaved rounds of a case."""
    case = CASES[name]
    config = recipe(case, dtype)
    with tempfile.TemporaryDirectory() as folder:
        given = ["--case", name, "--dtype", dtype, "--tensors", Path(folder) / "start.safetensors"]
        given += ["--repeats", repeats or case.steps]
        found = side_by_side.interleave("benchmarks.train_step", SIDES, rounds, *given)
    losses = {one: reports[0]["losses"] for one, reports in found.items()}
    return {
        "case": name,
        "backbone": config.model.backbone,
        "pixels": config.image.size[0],
        "batch": config.batch,
        "classes": case.classes,
        "dtype": dtype,
        **side_by_side.compare(found, config.batch, "pytorch"),
        "losses": losses,
        "largest_difference": max(float(np.ptp(step)) for step in zip(*losses.values(), strict=True)),
    }


if __name__ == "__main__":
    side_by_side.program(__doc__, CASES, MEASURED, SIDES, side, measure)
