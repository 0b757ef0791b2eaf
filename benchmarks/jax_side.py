"""Our side of the comparisons: training steps to call, and a model's weights written for the other side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.place_table import place_table
from data_pipelines.places import Paths, Places
from jaxvpr import build, models, weights
from jaxvpr.objectives.place_heads import Choice
from jaxvpr.objectives.places import places_objective
from jaxvpr.parallel.mesh import make_mesh, to_global
from jaxvpr.training import optimisers
from jaxvpr.training.state import TrainState, init_state
from jaxvpr.training.step import make_step


class Training(NamedTuple):
    """The training loop's step of a recipe, its first state, the devices, and how many numbers train."""

    step: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    state: TrainState
    mesh: Mesh
    trained: int


def places_training(config: ConfigDict, grad_cache: int = 1) -> Training:
    """Metric learning on places as a recipe has it, at a constant rate and without a data set.

    Args:
      config: its batch is `objective.P` places of `objective.K` images.
      grad_cache: micro-batches of a batch; 1 is the plain step.
    """
    keys, mesh, model = config.objective, make_mesh(), build.model(config)
    names = Paths.of(f"{row}.jpg" for row in range(config.batch))
    table = place_table(Places.create("noise", names, place=np.repeat(np.arange(keys.P), keys.K)), K=keys.K)
    choice = Choice(keys.loss, keys.miner, keys.loss_options.to_dict(), keys.miner_options.to_dict())
    objective = places_objective(model, table, choice, P=keys.P, steps=1)
    left_out = {"schedule"} | optimisers.SCHEDULE_OPTIONS
    options = {key: value for key, value in config.optimizer.items() if key not in left_out}
    tuners = optimisers.Optimisers.alike(optimisers.build(total=1, **options))
    frozen = (*config.frozen, *model.resting())
    state, shardings = init_state(
        model, objective, tuners, mesh, example=build.blank(config), frozen=frozen, seed=config.seed
    )
    step = make_step(objective, tuners, mesh, shardings, total=1, frozen=frozen, grad_cache=grad_cache)
    trained, _ = optimisers.split_frozen(state.params, frozen)
    return Training(step, state, mesh, sum(leaf.size for leaf in trained.values()))


def stepper(
    step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    state: TrainState,
    mesh: Mesh,
    batch: Mapping[str, np.ndarray],
) -> Callable[[], float]:
    """A call makes one step with the batch, which lies in host memory, and returns its loss.

    Raises:
      RuntimeError: by a call whose step was refused, since its loss or a gradient was not finite.
    """
    made = 0

    def one() -> float:
        nonlocal state, made
        state, metrics = step(state, {"source": to_global(mesh, dict(batch))}, np.int32(0), np.int32(made))
        made += 1
        loss = metrics["loss"].item()
        if not metrics["ok"].item():
            raise RuntimeError(f"step {made} was refused: its loss is {loss}")
        return loss

    return one


def peak_mib() -> float | None:
    """Most memory that the first device has held, in MiB; None where it does not say, as a CPU."""
    said = jax.devices()[0].memory_stats()
    return round(said["peak_bytes_in_use"] / 2**20, 1) if said else None


def export(variables: dict[str, Any], file: Path, method: str = "", **further: np.ndarray) -> None:
    """Writes a model's tensors under the originals' names, and `further` beside them.

    A published method has names for everything, and lends them to smaller models of its kind.

    CosPlace's head has no name for the batch normalisation that the embedded city's recipe adds; the peer has it as
    the fifth module of the head.
    """
    if method:
        weights.write(file, weights.to_torch(models.describe(method).family, jax.device_get(variables)))
        return
    params, stats = (dict(jax.device_get(variables.get(part, {}))) for part in ("params", "batch_stats"))
    norm = {}
    if "norm" in params["aggregator"]:
        norm = dict(params["aggregator"]["norm"]) | dict(stats["aggregator"]["norm"])
        params["aggregator"] = {name: part for name, part in params["aggregator"].items() if name != "norm"}
        stats.pop("aggregator")
    family = "cosplace" if "conv1" in params["backbone"] else "torchvision_squeezenet"
    tensors = weights.to_torch(family, {"params": params, "batch_stats": stats})
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    tensors |= {f"aggregation.4.{names[leaf]}": np.asarray(value) for leaf, value in norm.items()}
    if norm:
        tensors["aggregation.4.num_batches_tracked"] = np.zeros((), np.int64)
    weights.write(file, {**tensors, **further}, {})
