"""Training of a position head on kept descriptors beside the same in PyTorch, on one core.

Both learn three normalised numbers from random unit descriptors by two hidden layers as wide as the descriptor, SiLU
between them, the mean squared difference and Adam. Ours is the whole training loop as `configs/implicit.py` has it: an
epoch is one call of the devices, and every step is logged. PyTorch's is what one writes by hand: descriptors in memory,
a shuffled order, eager, and nothing logged but the losses of an epoch read at its end; with Adam as it is by default,
and fused. Neither saves between the epochs that are timed; what one save takes of ours is `save_cpu_seconds`. Both
start from the same weights. The first epoch, which compiles, has the same order on both sides, so that its losses must
agree; it is not in the rates.

`host_share` is what part of an epoch's processor time is not the compiled step's, which is measured alone in the same
process right afterwards: plans and their rows, logging. `host_share_by_the_clock` is the same by the clock.

  python -m benchmarks.position_heads --out benchmarks/results/position_heads.json

Every side takes one core, the first of those that it may use (`taskset` chooses another).
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import side_by_side
from data_pipelines.places import Paths
from data_pipelines.sources import RowSource
from jaxvpr import builders, weights
from jaxvpr.cli.recipes import load_config
from jaxvpr.families.positions import RESTS
from jaxvpr.objectives.objective import Embed, Planner
from jaxvpr.objectives.positions import AT, DESCRIPTOR, Noise, of_descriptors, positions_objective
from jaxvpr.parallel import memory
from jaxvpr.parallel.mesh import make_mesh, replicated, to_global
from jaxvpr.training import logs, loop, settings
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.host import Host
from jaxvpr.training.recipe import Recipe
from jaxvpr.training.state import init_state
from jaxvpr.training.step import Turn, make_step

if TYPE_CHECKING:
    from ml_collections import ConfigDict

PLAIN, FUSED = "pytorch", "pytorch, fused Adam"
SIDES = ("jaxvpr", PLAIN, FUSED)
EPOCHS = 5  # timed in a round
LAYERS = ("hidden_0", "hidden_1", "output")


def _unasked(rows: np.ndarray) -> Any:
    raise LookupError("plans of positions ask for no descriptors")


UNASKED = Embed(_unasked, _unasked)


class Case(NamedTuple):
    """Numbers of a descriptor and of each hidden layer, samples of a batch and of an epoch."""

    width: int
    batch: int
    samples: int


CASES = {
    "width 512, batch 256": Case(512, 256, 16384),
    "width 512, batch 1024": Case(512, 1024, 16384),
    "width 2048, batch 256": Case(2048, 256, 4096),
    "width 2048, batch 1024": Case(2048, 1024, 4096),
    "tiny": Case(32, 16, 64),
}
MEASURED = tuple(CASES)[:-1]


def data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Unit descriptors [N, width], and normalised positions [N, 3] that they say something about."""
    rng = np.random.default_rng(0)
    descriptors = rng.standard_normal((case.samples, case.width), np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    at = 0.5 + descriptors @ rng.standard_normal((case.width, 3), np.float32) / 8
    return descriptors, np.clip(at, 0, 1).astype(np.float32)


def recipe(case: Case, epochs: int) -> ConfigDict:
    """The recipe of a direct head, which is not stopped, and saves at its end."""
    config = load_config("configs/implicit.py:direct_linear").unlock()
    steps, metres = case.samples // case.batch, (0.0, 0.0, 160.0, 160.0)
    keys = {"batch": case.batch, "steps_per_epoch": steps, "epochs": epochs, "every_epochs": epochs}
    keys |= {"best.patience": 0, "best.measure": "", "plateau.factor": 0.0}
    config.update_from_flattened_dict({**keys, "model.aggregator_options.dim": case.width})
    config.model.position_options.update(area=metres, metres=True)
    return config.lock()


class Marks:
    """When plans were drawn, by the clock and in processor time: what lies between two of them is an epoch.

    The next plan is drawn while the batches of one are read, so that the third is the first that comes after compiling.
    """

    def __init__(self) -> None:
        self.seconds: list[np.ndarray] = []

    def noting(self, plan: Planner) -> Planner:
        """The same plans, each noted."""

        def noted(*given: Any) -> Any:
            self.seconds.append(now())
            return plan(*given)

        return noted

    def epochs(self) -> np.ndarray:
        """Seconds by the clock and of processor time of all epochs after compiling, [epochs, 2]."""
        return np.diff(np.asarray(self.seconds[2:]), axis=0)


def now() -> np.ndarray:
    """Seconds by the clock, and of processor time."""
    return np.array([time.perf_counter(), time.process_time()])


def to_train(config: ConfigDict, case: Case, marks: Marks) -> Recipe:
    """The head alone, on descriptors that lie on the devices."""
    model, (descriptors, at) = builders.model(config), data(case)
    objective = positions_objective(
        builders.coding_of(config),
        embed=of_descriptors(model),
        images=case.samples,
        batch=case.batch,
        steps=config.steps_per_epoch,
        loss=config.objective.loss,
        options=config.objective.loss_options.to_dict(),
        noise=Noise(),
    )
    names = Paths.of(f"{row}.jpg" for row in range(case.samples))
    return Recipe(
        model=model,
        objective=objective._replace(plan=marks.noting(objective.plan)),
        sources={"source": RowSource(names, np.zeros(case.samples, bool))},
        tables={"source": {AT: at, DESCRIPTOR: descriptors}},
        example=builders.blank(config),
        start=lambda variables: variables,
        embed=lambda variables: UNASKED,
        validate=lambda variables, extra: {},
        images=names,
        frozen=RESTS,
    )


def jaxvpr_side(case: Case, tensors: Path, epochs: int) -> side_by_side.Report:
    """Epochs of the training loop. Writes the weights and the order of the first epoch for the other sides."""
    began, marks = now(), Marks()
    config, mesh = recipe(case, epochs + 3), make_mesh()
    made, started = to_train(config, case, marks), now()
    with tempfile.TemporaryDirectory() as folder:
        outcome = loop.train(config, Path(folder), made, mesh)
        in_loop = marks.epochs()
        losses = [record["loss"] for record in logs.read(Path(folder)) if "loss" in record]
    head = outcome.initial["params"]["position"]
    start = {f"{name}.{part}": np.asarray(head[name][part]) for name in LAYERS for part in ("kernel", "bias")}
    weights.write(tensors, {**start, "order": order(config, made)})
    alone, saving = alone_and_saved(config, made, mesh, epochs)
    share = 1 - np.median(alone, axis=0) / np.median(in_loop, axis=0)
    return {
        "start_seconds": (started - began)[0],
        "first_call_seconds": (marks.seconds[2] - started)[0],
        "seconds": in_loop[:, 0].tolist(),
        "cpu_seconds": in_loop[:, 1].mean(),
        "losses": losses[: config.steps_per_epoch],
        "host_share": share[1],
        "host_share_by_the_clock": share[0],
        "save_cpu_seconds": saving[1],
    }


def order(config: ConfigDict, made: Recipe) -> np.ndarray:
    """The rows of the first epoch, int64 [steps, batch]."""
    plan, _ = made.objective.plan(0, np.random.default_rng([config.seed, 0]), {}, UNASKED)
    return plan.draws["source"].rows


def alone_and_saved(config: ConfigDict, made: Recipe, mesh: Mesh, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds, as of `now`: of each epoch of the compiled step, all that it reads on the devices already [epochs, 2],
    and of saving its state [2]."""
    settled = settings.settle(config, made, mesh)
    options = settings.state_options(config, made, settled)
    state, shardings = init_state(made.model, made.objective, settled.groups, mesh, **options)
    step_options = settings.step_options(config, settled)
    step = make_step(made.objective, settled.groups, mesh, shardings, tables=True, many=True, **step_options)
    rows = order(config, made)
    batch = {"label": np.zeros(rows.shape, np.int32), "mask": np.ones(rows.shape, bool), "row": rows.astype(np.int32)}
    batches = {"source": to_global(mesh, batch, stacked=True)}
    tables = jax.device_put(dict(made.tables), replicated(mesh))
    seconds = []
    for epoch in range(epochs + 1):
        numbers = np.arange(len(rows), dtype=np.int32) + epoch * len(rows)
        turn = Turn(numbers, np.zeros(len(rows), np.int32), np.zeros(len(rows), bool))
        began = now()
        state, metrics = step(state, batches, turn, tables)
        assert jax.device_get(metrics)["ok"].all()
        seconds.append(now() - began)
    with tempfile.TemporaryDirectory() as folder, closing(Checkpoints(Path(folder), 1)) as checkpoints:
        began = now()
        checkpoints.save(1, state, Host().arrays(), Host().meta(), None)
        checkpoints.wait()
        return np.asarray(seconds[1:]), now() - began


def pytorch_epochs(fused: bool, case: Case, tensors: Path) -> Callable[[], list[float]]:
    """A call makes an epoch and returns the losses of its steps. The first is in the order that `jaxvpr_side` wrote."""
    import torch

    torch.set_num_threads(1)
    values = {name: torch.from_numpy(np.array(value)) for name, value in weights.read(tensors).items()}
    layers = [torch.nn.Linear(case.width, len(values[f"{name}.bias"])) for name in LAYERS]
    for name, layer in zip(LAYERS, layers, strict=True):
        layer.load_state_dict({"weight": values[f"{name}.kernel"].T, "bias": values[f"{name}.bias"]})
    network = torch.nn.Sequential(layers[0], torch.nn.SiLU(), layers[1], torch.nn.SiLU(), layers[2])
    keys = recipe(case, 1).optimizer
    adam = torch.optim.Adam(
        network.parameters(), keys.rate, weight_decay=keys.weight_decay, **({"fused": True} if fused else {})
    )
    descriptors, at = map(torch.from_numpy, data(case))
    orders = itertools.chain([values["order"].reshape(-1)], (torch.randperm(case.samples) for _ in itertools.count()))

    def epoch() -> list[float]:
        losses = []
        for rows in next(orders).split(case.batch):
            loss = torch.nn.functional.mse_loss(network(descriptors.index_select(0, rows)), at.index_select(0, rows))
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()

    return epoch


def pytorch_side(fused: bool, case: Case, tensors: Path, epochs: int) -> side_by_side.Report:
    """Epochs of an ordinary loop."""
    times, [losses] = side_by_side.clock(partial(pytorch_epochs, fused, case, tensors), 1, epochs)
    return {**times, "losses": losses}


def side(name: str, case: Case, dtype: str, tensors: Path, repeats: int) -> side_by_side.Report:
    """One side's part of a round, on one core."""
    if dtype != "float32":
        raise SystemExit("position heads compute in float32")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    memory.keep_freed()
    measured = jaxvpr_side if name == SIDES[0] else partial(pytorch_side, name == FUSED)
    return {**measured(case, tensors, repeats), "on": side_by_side.device(name)}


def measure(name: str, dtype: str, rounds: int, repeats: int | None) -> side_by_side.Report:
    """Interleaved rounds of a case."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        given = ["--case", name, "--dtype", dtype, "--tensors", Path(folder) / "start.safetensors"]
        given += ["--repeats", repeats or EPOCHS]
        found = side_by_side.interleave("benchmarks.position_heads", SIDES, rounds, *given)
    ends = {one: [reports[0]["losses"][at] for at in (0, 1, -1)] for one, reports in found.items()}
    ours = found[SIDES[0]]
    shares = {
        key: round(statistics.median(report[key] for report in ours), 3)
        for key in ("host_share", "host_share_by_the_clock", "save_cpu_seconds")
    }
    return {
        "case": name,
        **case._asdict(),
        "dtype": dtype,
        **side_by_side.compare(found, case.samples, PLAIN),
        "ratio_to_the_faster_pytorch": faster(found),
        **shares,
        "losses of the first, second and last step of the first epoch": ends,
        "largest_difference": max(float(np.ptp(step)) for step in zip(*ends.values(), strict=True)),
    }


def faster(found: Mapping[str, Sequence[side_by_side.Report]]) -> float:
    """How many times as fast ours is as the faster of PyTorch's two: the median of the rounds."""
    seconds = {one: [statistics.median(report["seconds"]) for report in reports] for one, reports in found.items()}
    of_rounds = zip(seconds[SIDES[0]], seconds[PLAIN], seconds[FUSED], strict=True)
    return round(statistics.median(min(plain, fused) / ours for ours, plain, fused in of_rounds), 2)


if __name__ == "__main__":
    side_by_side.program(__doc__, CASES, MEASURED, SIDES, side, measure)
