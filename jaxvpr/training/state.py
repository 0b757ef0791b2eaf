"""All that a run carries on its devices, and how it is born sharded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from jaxvpr.objectives.objective import Objective
from jaxvpr.parallel.mesh import replicated, stacked_head_shardings
from jaxvpr.training.optimisers import Optimiser, split_frozen


class TrainState(NamedTuple):
    """The device side of a run; a pytree that the step takes and returns.

    Attributes:
      step: updates made, int32 [].
      params, stats: parameters and BatchNorm statistics of the model.
      extra: trained heads of the objective, stacked, [slots, ...].
      aux: arrays that the objective carries without training them.
      opt: optimiser state of the trained parameters, by flat path.
      opt_extra: optimiser state of the heads, stacked as `extra` is, step counts too.
      key: the run's random key; what a step uses is folded in from its number.
    """

    step: jax.Array
    params: Any
    stats: Any
    extra: Any
    aux: Any
    opt: Any
    opt_extra: Any
    key: jax.Array


def init_state(
    model: Any,
    objective: Objective,
    optimiser: Optimiser,
    optimiser_extra: Optimiser,
    mesh: Mesh,
    *,
    example: np.ndarray,
    frozen: Sequence[str],
    seed: int,
) -> tuple[TrainState, TrainState]:
    """The state of step 0, each leaf made where it will live, and the tree of its shardings.

    `example` is an input of the model with a batch of one. Prototypes of millions of classes never exist on one device:
    shapes come from `eval_shape`, and the initialisation is compiled with the shardings of the mesh.
    """

    def make(key: jax.Array) -> TrainState:
        model_key, head_key, run_key = jax.random.split(key, 3)
        descriptors, variables = model.init_with_output(model_key, jnp.asarray(example))
        params, stats = variables.get("params", {}), variables.get("batch_stats", {})
        extra, aux = objective.init(head_key, descriptors.shape[-1])
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            stats=stats,
            extra=extra,
            aux=aux,
            opt=optimiser.transform.init(split_frozen(params, frozen)[0]),
            opt_extra=jax.vmap(optimiser_extra.transform.init, axis_size=objective.slots)(extra),
            key=run_key,
        )

    key = jax.random.key(seed)
    shapes = jax.eval_shape(make, key)
    for tuner, tree in ((optimiser, flatten_dict(shapes.params, sep="/")), (optimiser_extra, shapes.extra)):
        tuner.check(tree)
    shardings = state_shardings(mesh, shapes)
    return jax.jit(make, out_shardings=shardings)(key), shardings


def state_shardings(mesh: Mesh, shapes: TrainState) -> TrainState:
    """Everything replicated but the stacked heads and their optimiser state, which are split by class."""
    whole = jax.tree.map(lambda _: replicated(mesh), shapes)
    return whole._replace(
        extra=stacked_head_shardings(mesh, shapes.extra), opt_extra=stacked_head_shardings(mesh, shapes.opt_extra)
    )


def abstract(state: TrainState) -> TrainState:
    """Shapes, types and shardings of a state, to restore a checkpoint into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
