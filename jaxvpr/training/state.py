"""All that a run carries on its devices, and how it is born sharded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from jaxvpr.models import Variables
from jaxvpr.objectives.objective import Objective
from jaxvpr.parallel.mesh import replicated, stacked_head_shardings
from jaxvpr.training.optimisers import Optimisers, join_frozen, split_frozen


class TrainState(NamedTuple):
    """The device side of a run; a pytree that the step takes and returns.

    Attributes:
      step: updates made, int32 [].
      params, stats: parameters and BatchNorm statistics of the model.
      extra: trained heads of the objective, stacked, [slots, ...].
      shared: trained parts of the objective that all slots have in common, by name.
      aux: arrays that the objective carries without training them.
      opt: optimiser state of the trained parameters, by flat path.
      opt_extra: optimiser state of the heads, stacked as `extra` is, step counts too.
      opt_shared: optimiser state of the shared parts.
      ema: averages of the trained parameters, by flat path; empty where the run keeps none.
      rate_scale: what the host multiplies all learning rates by, float32 []: the scale of a `plateau.Watch`.
      key: the run's random key; what a step uses is folded in from its number.
    """

    step: jax.Array
    params: Any
    stats: Any
    extra: Any
    shared: dict[str, Any]
    aux: Any
    opt: Any
    opt_extra: Any
    opt_shared: Any
    ema: dict[str, jax.Array]
    rate_scale: jax.Array
    key: jax.Array


def variables_of(state: TrainState) -> Variables:
    """What `model.apply` takes to describe images: the averaged parameters where the run keeps averages."""
    return {"params": with_averages(state.params, state.ema), "batch_stats": state.stats}


def with_averages(params: Any, ema: dict[str, jax.Array]) -> Any:
    """Nested parameters, those of them that have an average replaced by it."""
    return join_frozen(ema, flatten_dict(params, sep="/")) if ema else params


def init_state(
    model: Any,
    objective: Objective,
    optimisers: Optimisers,
    mesh: Mesh,
    *,
    example: np.ndarray,
    frozen: Sequence[str],
    seed: int,
    ema: bool = False,
) -> tuple[TrainState, TrainState]:
    """The state of step 0, each leaf made where it will live, and the tree of its shardings.

    `example` is an input of the model with a batch of one. Prototypes of millions of classes never exist on one device:
    shapes come from `eval_shape`, and the initialisation is compiled with the shardings of the mesh. `ema` says whether
    the run keeps averages of the parameters that train.
    """

    def make(key: jax.Array) -> TrainState:
        model_key, head_key, run_key = jax.random.split(key, 3)
        descriptors, variables = model.init_with_output(model_key, jnp.asarray(example))
        params, stats = variables.get("params", {}), variables.get("batch_stats", {})
        extra, aux = objective.init(head_key, descriptors.shape[-1])
        shared = objective.shared(jax.random.fold_in(head_key, 1)) if objective.shared else {}
        trained, _ = split_frozen(params, frozen)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            stats=stats,
            extra=extra,
            shared=shared,
            aux=aux,
            opt=optimisers.model.transform.init(trained),
            opt_extra=jax.vmap(optimisers.extra.transform.init, axis_size=objective.slots)(extra),
            opt_shared=optimisers.shared.transform.init(shared),
            ema=trained if ema else {},
            rate_scale=jnp.ones((), jnp.float32),
            key=run_key,
        )

    key = jax.random.key(seed)
    shapes = jax.eval_shape(make, key)
    for tuner, tree in zip(
        optimisers, (flatten_dict(shapes.params, sep="/"), shapes.extra, shapes.shared), strict=True
    ):
        tuner.check(tree)
    shardings = state_shardings(mesh, shapes)
    return jax.jit(make, out_shardings=shardings)(key), shardings


def started(
    state: TrainState,
    shardings: TrainState,
    start: Callable[[Variables], Variables],
    load_aux: Callable[[], Any] | None = None,
) -> TrainState:
    """The state of step 0 with the weights that the run starts from, `start` of the drawn ones, and a loaded `aux`."""
    filled = start(jax.device_get(variables_of(state)))
    flat = flatten_dict(filled["params"], sep="/")
    if load_aux:
        state = state._replace(aux=jax.device_put(load_aux(), shardings.aux))
    return state._replace(
        params=jax.device_put(filled["params"], shardings.params),
        stats=jax.device_put(filled["batch_stats"], shardings.stats),
        ema=jax.device_put({path: flat[path] for path in state.ema}, shardings.ema),
    )


def reborn(
    state: TrainState,
    fresh: TrainState,
    shardings: TrainState,
    initial: Variables,
    taught: Callable[[Any, Variables], Any] | None = None,
) -> TrainState:
    """The state of step 0 for a new generation of the model (born again: Furlanello et al., ICML 2018), in which the
    count of steps and the key go on.

    Args:
      state: that the last generation ended with.
      fresh: what `init_state` gave: new optimisers, averages, heads, and the full learning rate.
      initial: the variables that the run started from, on the host.
      taught: (aux, variables of the last generation) -> aux, as in `Objective`; None keeps the aux that there is.
    """
    aux = taught(state.aux, variables_of(state)) if taught else state.aux
    aux = jax.device_put(aux, shardings.aux)
    return started(fresh, shardings, lambda _: initial)._replace(step=state.step, key=state.key, aux=aux)


def state_shardings(mesh: Mesh, shapes: TrainState) -> TrainState:
    """Everything replicated but the stacked heads and their optimiser state, which are split by class."""
    whole = jax.tree.map(lambda _: replicated(mesh), shapes)
    return whole._replace(
        extra=stacked_head_shardings(mesh, shapes.extra), opt_extra=stacked_head_shardings(mesh, shapes.opt_extra)
    )


def abstract(state: TrainState) -> TrainState:
    """Shapes, types and shardings of a state, to restore a checkpoint into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
