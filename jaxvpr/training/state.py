"""All that a run carries on its devices, and how it is born sharded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from jaxvpr.models import Variables
from jaxvpr.objectives.objective import Objective
from jaxvpr.parallel.fsdp import sized_shardings
from jaxvpr.parallel.mesh import class_shardings, replicated, whole
from jaxvpr.training.optimisers import Optimiser, join_frozen, split_frozen


class TrainState(NamedTuple):
    """The device side of a run; a pytree that the step takes and returns.

    Attributes:
      step: updates made, int32 [].
      params, stats: parameters and BatchNorm statistics of the model.
      extra: trained heads of the objective, stacked, [slots, ...].
      shared: trained parts of the objective that all slots have in common, by name.
      aux: arrays that the objective carries without training them.
      opt: {group: optimiser state}, of `optimisers.GROUPS`: of the trained parameters by flat path, of the heads,
        stacked as `extra` is (step counts too), and of the shared parts.
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
    opt: dict[str, Any]
    ema: dict[str, jax.Array]
    rate_scale: jax.Array
    key: jax.Array


def variables_of(state: TrainState) -> Variables:
    """What `model.apply` takes to describe images: the averaged parameters where the run keeps averages. They lie whole
    on every device, also where those of the state are split."""
    return whole({"params": with_averages(state.params, state.ema), "batch_stats": state.stats})


def with_averages(params: Any, ema: dict[str, jax.Array]) -> Any:
    """Nested parameters, those of them that have an average replaced by it."""
    return join_frozen(ema, flatten_dict(params, sep="/")) if ema else params


def init_state(
    model: Any,
    objective: Objective,
    optimisers: Mapping[str, Optimiser],
    mesh: Mesh,
    *,
    example: Any,
    frozen: Sequence[str],
    seed: int,
    ema: bool = False,
    fsdp_mib: float = 0.0,
) -> tuple[TrainState, TrainState]:
    """The state of step 0, each leaf made where it will live, and the tree of its shardings.

    Takes what `planned` does. Prototypes of millions of classes never exist on one device: shapes come from
    `eval_shape`, and the initialisation is compiled with the shardings of the mesh.
    """
    make, state = planned(
        model, objective, optimisers, mesh, example=example, frozen=frozen, seed=seed, ema=ema, fsdp_mib=fsdp_mib
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(make, out_shardings=shardings)(jax.random.key(seed)), shardings


def planned(
    model: Any,
    objective: Objective,
    optimisers: Mapping[str, Optimiser],
    mesh: Mesh,
    *,
    example: Any,
    frozen: Sequence[str],
    seed: int,
    ema: bool = False,
    fsdp_mib: float = 0.0,
) -> tuple[Callable[[jax.Array], TrainState], TrainState]:
    """(what makes the state of step 0 from a random key, the shapes, types and shardings of that state); nothing is
    computed.

    `example` is an input of the model with a batch of one, an array or a tree of them. `ema` says whether the run keeps
    averages of the parameters that train, `fsdp_mib` from what size on parameters are split: `sized_shardings`.

    Raises:
      UserError: for patterns that no parameter matches.
    """

    def make(key: jax.Array) -> TrainState:
        model_key, head_key, run_key = jax.random.split(key, 3)
        outputs, variables = model.init_with_output(model_key, jax.tree.map(jnp.asarray, example))
        params, stats = variables.get("params", {}), variables.get("batch_stats", {})
        extra, aux = objective.init(head_key, jax.tree.leaves(outputs)[0].shape[-1])
        shared = objective.shared(jax.random.fold_in(head_key, 1)) if objective.shared else {}
        trained, _ = split_frozen(params, frozen)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            stats=stats,
            extra=extra,
            shared=shared,
            aux=aux,
            opt={
                "model": optimisers["model"].transform.init(trained),
                "heads": jax.vmap(optimisers["heads"].transform.init, axis_size=objective.slots)(extra),
                "shared": optimisers["shared"].transform.init(shared),
            },
            ema=trained if ema else {},
            rate_scale=jnp.ones((), jnp.float32),
            key=run_key,
        )

    shapes = jax.eval_shape(make, jax.random.key(seed))
    parts = {"model": flatten_dict(shapes.params, sep="/"), "heads": shapes.extra, "shared": shapes.shared}
    for group, part in parts.items():
        optimisers[group].check(part)
    shardings = state_shardings(mesh, shapes, objective.by_class, fsdp_mib)
    return make, jax.tree.map(_laid, shapes, shardings)


def _laid(shape: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


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


def next_generation(
    state: TrainState,
    fresh: TrainState,
    shardings: TrainState,
    initial: Variables,
    inherited: Callable[[Any, Variables], Any] | None = None,
) -> TrainState:
    """The state that a new generation of the model begins with (after Furlanello et al., ICML 2018).

    It is that of step 0, but for the count of steps and the key, which go on.

    Args:
      state: that the last generation ended with.
      fresh: what `init_state` gave: new optimisers, averages, heads, and the full learning rate.
      initial: the variables that the run started from, on the host.
      inherited: (aux, variables of the last generation) -> aux, as in `Objective`; None keeps the aux that there is.
    """
    aux = inherited(state.aux, variables_of(state)) if inherited else state.aux
    aux = jax.device_put(aux, shardings.aux)
    return started(fresh, shardings, lambda _: initial)._replace(step=state.step, key=state.key, aux=aux)


def state_shardings(mesh: Mesh, shapes: TrainState, by_class: Sequence[str], fsdp_mib: float = 0.0) -> TrainState:
    """Everything replicated but the stacked heads named in `by_class` and their optimiser state, split by class, and
    the model's parameters, their optimiser state and averages, split by size: `sized_shardings`."""
    everywhere = jax.tree.map(lambda _: replicated(mesh), shapes)
    heads = class_shardings(mesh, shapes.opt["heads"], by_class)
    params, moments, ema = sized_shardings(mesh, (shapes.params, shapes.opt["model"], shapes.ema), fsdp_mib)
    return everywhere._replace(
        params=params,
        ema=ema,
        extra=class_shardings(mesh, shapes.extra, by_class),
        opt={**everywhere.opt, "model": moments, "heads": heads},
    )


def abstract(state: TrainState) -> TrainState:
    """Shapes, types and shardings of a state, to restore a checkpoint into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
