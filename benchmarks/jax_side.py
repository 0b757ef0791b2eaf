"""Our side of the comparisons: training steps to call, and a model's weights written for the other side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.partitions import label_cells
from data_pipelines.place_table import place_table
from data_pipelines.places import Paths, Places
from jaxvpr import builders, models, weights
from jaxvpr.objectives.cells import cells_objective
from jaxvpr.objectives.objective import Objective
from jaxvpr.objectives.place_heads import Choice
from jaxvpr.objectives.places import places_objective
from jaxvpr.parallel.mesh import make_mesh, to_global
from jaxvpr.training import optimisers
from jaxvpr.training.state import TrainState, init_state, variables_of
from jaxvpr.training.step import Turn, make_step

if TYPE_CHECKING:
    from ml_collections import ConfigDict


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
    keys, model = config.objective, builders.model(config)
    names = Paths.of(f"{row}.jpg" for row in range(config.batch))
    table = place_table(Places.create("noise", names, place=np.repeat(np.arange(keys.P), keys.K)), K=keys.K)
    choice = Choice(keys.loss, keys.miner, keys.loss_options.to_dict(), keys.miner_options.to_dict())
    objective = places_objective(table, choice, P=keys.P, steps=1)
    constant = {key: value for key, value in config.optimizer.items() if key not in optimisers.SCHEDULE_OPTIONS}
    optimiser = optimisers.from_keys(constant | {"schedule": "constant"}, total=1)
    tuners = dict.fromkeys(optimisers.GROUPS, optimiser)
    return _training(config, model, objective, tuners, grad_cache)


def cells_training(config: ConfigDict, classes: int, scale: float, margin: float) -> Training:
    """A recipe's model under CosFace, at a constant rate of Adam, with one group of classes and without a data set."""
    model = builders.model(config)
    cells = label_cells(np.arange(classes), min_images=1)
    objective = cells_objective(cells, batch=config.batch, steps=1, scale=scale, margin=margin)
    tuners = dict.fromkeys(optimisers.GROUPS, optimisers.build("adam", rate=config.optimizer.rate, total=1))
    return _training(config, model, objective, tuners)


def _training(
    config: ConfigDict,
    model: models.PlaceModel,
    objective: Objective,
    tuners: Mapping[str, optimisers.Optimiser],
    grad_cache: int = 1,
) -> Training:
    mesh, frozen = make_mesh(), (*config.frozen, *model.frozen_paths())
    objective = objective.embedding_with(model)
    state, shardings = init_state(
        model, objective, tuners, mesh, example=builders.blank(config), frozen=frozen, seed=config.seed
    )
    step = make_step(objective, tuners, mesh, shardings, total=1, frozen=frozen, grad_cache=grad_cache)
    trained, _ = optimisers.split_frozen(state.params, frozen)
    return Training(step, state, mesh, sum(leaf.size for leaf in trained.values()))


def starter(training: Training) -> Callable[[Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """A call starts one step with a batch that lies on the mesh and returns its metrics, without waiting for them."""
    state, made = training.state, 0

    def start(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        nonlocal state, made
        state, metrics = training.step(state, {"source": dict(batch)}, Turn(np.int32(made)))
        made += 1
        return metrics

    return start


def stepper(training: Training, batch: Mapping[str, np.ndarray]) -> Callable[[], float]:
    """A call makes one step with the batch, which lies in host memory, and returns its loss.

    Raises:
      RuntimeError: by a call whose step was refused, since its loss or a gradient was not finite.
    """
    start, place = starter(training), partial(to_global, training.mesh)

    def one() -> float:
        metrics = start(place(dict(batch)))
        loss = metrics["loss"].item()
        if not metrics["ok"].item():
            raise RuntimeError(f"the step was refused: its loss is {loss}")
        return loss

    return one


def export_start(training: Training, file: Path, method: str = "", **further: np.ndarray) -> None:
    """Writes the weights that a training starts from; see `export`."""
    export(variables_of(training.state), file, method, **further)


def export(variables: dict[str, Any], file: Path, method: str = "", **further: np.ndarray) -> None:
    """Writes a model's tensors under the originals' names, and `further` beside them.

    A published method has names for everything, and lends them to smaller models of its kind.

    CosPlace's head has no name for the batch normalisation that the embedded city's recipe adds; the peer has it as
    the fifth module of the head.
    """
    if method:
        weights.write(file, weights.to_torch(models.description(method).family, jax.device_get(variables)))
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
