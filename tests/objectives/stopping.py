"""Runs with validation, and one that is stopped before a step, to be started again."""

import jax

from jaxvpr import builders, families
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs, loop


class Stopped(Exception):
    pass


def stopping_at(number, make_step):
    """`make_step` whose step is not done when the run comes to it."""

    def make(*args, **kwargs):
        step = make_step(*args, **kwargs)

        def until(state, batches, turn):
            if turn.number == number:
                raise Stopped
            return step(state, batches, turn)

        return until

    return make


def trained(config, folder, devices=1):
    """The outcome of a recipe, on so many devices."""
    mesh = make_mesh(config.mesh.model, devices=jax.devices()[:devices])
    with jax.numpy_dtype_promotion("standard"):
        config = config.copy_and_resolve_references().lock()
        recipe = families.recipe(config, mesh, builders.benchmarks(config, config.val_data))
        folder.mkdir(exist_ok=True)
        return loop.train(config, folder, recipe, mesh)


def losses(folder):
    """Those of a run's steps."""
    return [record["loss"] for record in logs.read(folder) if "loss" in record]
