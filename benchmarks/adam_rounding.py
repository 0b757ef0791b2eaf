"""Why a training on one device and one on eight end with other weights, although their losses agree.

The tiny recipe is trained for its eight steps on one simulated CPU device and on eight, by Adam as it stands and in the
ways that say whether rounding is to blame: gradients at equal weights, SGD, a larger `eps`, without the parameter whose
gradient is zero, and in float64.

  python -m benchmarks.adam_rounding --out benchmarks/results/adam_rounding.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import side_by_side
from data_pipelines.loaders import loading_options
from jaxvpr import families
from jaxvpr.cli.recipes import load_config
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import settings
from jaxvpr.training.feed import Feed
from jaxvpr.training.optimisers import Optimiser
from jaxvpr.training.state import TrainState, init_state
from jaxvpr.training.step import Turn, make_step

Array = np.ndarray
Arrays = dict[str, Array]
RECIPE = "configs/cosplace.py:tiny"
# Layers and losses ask for float32 by its name, which is another type before they are imported.
DOUBLE = """
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64
from jaxvpr import models
models.FLOATS = (*models.FLOATS, "float64")
from benchmarks import adam_rounding
adam_rounding.main({"model.dtype": "float64"})
"""
IDLE = "aggregator/fc/bias"  # a batch normalisation follows, which takes any bias away: its gradient is zero
FAR = 1e-3  # a weight that differs by more is looked at
EPS = ("optimizer.options.eps", "optimizer_extra.options.eps")
# What is changed in the recipe, by the name of a way to train.
WAYS: dict[str, dict[str, Any]] = {
    "Adam": {},
    "Adam, eps 1e-4": dict.fromkeys(EPS, 1e-4),
    "Adam, that bias frozen": {"frozen": (IDLE,), "frozen_random": True},
    "SGD, rate 0.002": {
        f"{group}.{key}": value
        for group in ("optimizer", "optimizer_extra")
        for key, value in {"name": "sgd", "rate": 2e-3}.items()
    },
}


class Seen(NamedTuple):
    """A run of the recipe: the loss of each step; of each step the gradients, and those of other devices at the same
    weights (empty where not asked for); the weights it ended with. Arrays by path."""

    losses: list[float]
    gradients: list[Arrays]
    elsewhere: list[Arrays]
    weights: Arrays


class Side:
    """The steps of a recipe on some devices, which tell their gradients.

    Args:
      config: has no `val_data`.
    """

    def __init__(self, config: ConfigDict, mesh: Mesh):
        self.config, self.recipe = config, families.recipe(config, mesh, [])
        settled = settings.settle(config, self.recipe, mesh)
        groups = {name: _keeping(optimiser) for name, optimiser in settled.groups.items()}
        objective, frozen = self.recipe.objective, settled.frozen
        self.first, self.shardings = init_state(
            self.recipe.model, objective, groups, mesh, example=self.recipe.example, frozen=frozen, seed=config.seed
        )
        self.total = config.epochs * config.steps_per_epoch
        self._step = make_step(
            objective, groups, mesh, self.shardings, total=self.total, epoch=config.steps_per_epoch, frozen=frozen
        )
        self._feed = Feed(self.recipe.sources, mesh, seed=config.seed, loader=loading_options(config.loader))

    def batches(self) -> Iterator[tuple[Any, Turn]]:
        """What the steps of the run are fed with, on the host."""
        period = self.recipe.objective.period
        for index in range(self.total // period):
            plan, _ = self.recipe.objective.plan(index, np.random.default_rng([self.config.seed, index]), {}, None)
            first = index * period
            with closing(self._feed.read(plan.draws, first, first, first + period)) as stream:
                for number, local in stream:
                    yield local, Turn(np.int32(number), np.int32(plan.slot))

    def step(self, state: TrainState, local: Any, turn: Turn) -> tuple[TrainState, float, Arrays]:
        """Makes a step: the new state, the loss, and the gradients by path."""
        state, metrics = self._step(state, self._feed.on_mesh(local), turn)
        heads = jax.tree.map(lambda x: x[turn.slot], state.opt["heads"][1])
        return state, metrics["loss"].item(), _flat(state.opt["model"][1], heads)

    def run(self, other: Side | None = None) -> Seen:
        """All steps; `other` makes each of them too, from the same state on its own devices."""
        seen, state = Seen([], [], [], {}), self.first
        for local, turn in self.batches():
            if other:
                moved = jax.device_put(_on_host(state), other.shardings)
                seen.elsewhere.append(other.step(moved, local, turn)[2])
            state, loss, gradients = self.step(state, local, turn)
            seen.losses.append(loss)
            seen.gradients.append(gradients)
        return seen._replace(weights=_flat(flatten_dict(state.params, sep="/"), state.extra))


def _keeping(optimiser: Optimiser) -> Optimiser:
    """The optimiser, with the last gradients beside its state."""
    inner = optimiser.transform

    def init(params: Any) -> Any:
        return inner.init(params), jax.tree.map(jnp.zeros_like, params)

    def update(grads: Any, state: Any, params: Any, **further: Any) -> Any:
        moves, new = inner.update(grads, state[0], params, **further)
        return moves, (new, grads)

    return optimiser._replace(transform=optax.GradientTransformationExtraArgs(init, update))


def _flat(model: Mapping[str, Any], heads: Any) -> Arrays:
    """All that trains, by path, on the host; not a view of memory that a step takes over."""
    parts = {**model, **{f"heads/{path}": leaf for path, leaf in flatten_dict(heads, sep="/").items()}}
    return {path: np.array(leaf) for path, leaf in parts.items()}


def _on_host(state: TrainState) -> TrainState:
    data = jax.tree.map(np.array, state._replace(key=jax.random.key_data(state.key)))
    return data._replace(key=jax.random.wrap_key_data(data.key))


def on_one_and_all(config: ConfigDict) -> tuple[Seen, Seen]:
    """The run on one device, with the gradients that all of them have at its weights, and the run on all of them."""
    one, every = Side(config, make_mesh(devices=jax.devices()[:1])), Side(config, make_mesh())
    return one.run(every), every.run()


def relative(gradients: Sequence[Arrays], others: Sequence[Arrays]) -> dict[str, float]:
    """By path, how far gradients are apart at most, as a share of the parameter's largest in that step."""
    return {
        path: max(
            float(np.abs(ours[path] - theirs[path]).max() / np.abs(ours[path]).max())
            for ours, theirs in zip(gradients, others, strict=True)
        )
        for path in gradients[0]
    }


def summary(one: Seen, every: Seen) -> dict[str, Any]:
    """What the two runs of a recipe say of the bias without a gradient, where it trains, and of all other weights."""
    apart = relative(one.gradients, one.elsewhere)

    def of(paths: Sequence[str]) -> dict[str, Any]:
        gaps = {path: np.abs(one.weights[path] - every.weights[path]) for path in paths}
        largest = {path: max(float(np.abs(step[path]).max()) for step in one.gradients) for path in paths}
        return {
            "weights differ by": float(max(gap.max() for gap in gaps.values())),
            f"weights that differ by more than {FAR}": int(sum((gap > FAR).sum() for gap in gaps.values())),
            "of": sum(gap.size for gap in gaps.values()),
            "largest gradient of the parameter with the smallest": min(largest.values()),
            "gradients at equal weights differ by": max(apart[path] for path in paths),
        }

    parts = {IDLE: [path for path in apart if path == IDLE], "all others": [path for path in apart if path != IDLE]}
    losses = max(abs(a - b) for a, b in zip(one.losses, every.losses, strict=True))
    return {"losses differ by": losses, **{name: of(paths) for name, paths in parts.items() if paths}}


def measured(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of the tiny recipe with changes."""
    config = load_config(RECIPE).unlock()
    config.val_data = {}
    for key, value in changes.items():
        *groups, last = key.split(".")
        group = config
        for name in groups:
            group = group[name]
        group[last] = value
    return summary(*on_one_and_all(config.lock()))


def main(only: Mapping[str, Any] | None = None) -> None:
    """Measures every way and writes the report; or the recipe with these changes alone, and prints its summary."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    if only is not None:
        print(json.dumps(measured(only)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; it is printed either way")
    given = parser.parse_args()
    results = {way: measured(changes) for way, changes in WAYS.items()}
    double = subprocess.run([sys.executable, "-c", DOUBLE], check=True, stdout=subprocess.PIPE)
    results["Adam, float64"] = json.loads(double.stdout.splitlines()[-1])
    facts = {"recipe": RECIPE, "devices": jax.device_count()}
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "flax", "optax"), **facts), given.out)


if __name__ == "__main__":
    main()
