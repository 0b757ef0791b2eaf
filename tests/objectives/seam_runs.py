"""Small runs through the real loop, for what the seam must carry beyond today's families."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from data_pipelines.draws import Draw
from data_pipelines.places import Paths
from jaxvpr.objectives.objective import Plan
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs, loop
from jaxvpr.training.recipe import Recipe

STEPS, ROWS, SIZE = 4, 24, (16, 16)


class Layer(nn.Module):
    """Means of an image, of the frames of a clip, or numbers as they are, through a linear layer."""

    dim: int = 8

    @nn.compact
    def __call__(self, x, train=False):
        if x.ndim > 3:
            x = x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1))) / 255
        return nn.Dense(self.dim)(x)


MODEL = Layer()


def apply(params, stats, aux, batch, key):
    """An `embed`: what the model makes of all that is no bookkeeping."""
    shown = {name: x for name, x in batch.items() if name not in ("label", "mask", "target")}
    return MODEL.apply({"params": params}, next(iter(shown.values())) if len(shown) == 1 else shown), stats


def random_rows(shape, **plan_of):
    def plan(index, rng, memory, embed):
        return Plan({"source": Draw.of_steps(rng.integers(0, ROWS, (STEPS, *shape)))}, **plan_of), memory

    return plan


def spread(extra, aux, outputs, batches, at):
    return jnp.square(outputs["source"].mean(0) - 1).sum(), aux, {}


def config(**keys):
    made = common.base().unlock()
    made.epochs, made.steps_per_epoch, made.batch = 2, STEPS, 8
    made.optimizer = made.optimizer_extra = common.optimizer("sgd", 1e-2)
    made.update_from_flattened_dict(keys)
    return made.lock()


def recipe(objective, source, example, embed=None, measured=(), measures=None):
    values = iter(measured)
    return Recipe(
        MODEL, objective, dict.fromkeys(objective.streams, source), example, lambda drawn: drawn,
        embed or (lambda variables: None), lambda variables, extra: next(values, {"val/R@1": 1.0}), Paths.of([]),
        measures or {},
    )  # fmt: skip


def train(folder, made, keys=None, devices=2, model=1):
    folder.mkdir(exist_ok=True)
    mesh = make_mesh(model=model, devices=jax.devices()[:devices])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return loop.train(config(**keys or {}), folder, made, mesh)


def losses(folder):
    return [record["loss"] for record in logs.read(folder) if "loss" in record]


def params(outcome):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(outcome.best["params"])])
