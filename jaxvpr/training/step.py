"""One update, compiled once for all groups, over any mesh.

The step is written in the global view: it sees the whole batch, and the shardings of its arguments say which device
does what. BatchNorm statistics are therefore those of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvpr.objectives.objective import Batch, Context, Objective
from jaxvpr.parallel.mesh import DATA, batch_sharding, replicated
from jaxvpr.training.optimisers import Optimiser, join_frozen, split_frozen
from jaxvpr.training.state import TrainState

Batches = dict[str, Batch]
Metrics = dict[str, jax.Array]


def make_step(
    objective: Objective,
    optimiser: Optimiser,
    optimiser_extra: Optimiser,
    mesh: Mesh,
    shardings: TrainState,
    *,
    total: int,
    frozen: Sequence[str] = (),
    accumulate: int = 1,
) -> Callable[[TrainState, Batches, Any, Any], tuple[TrainState, Metrics]]:
    """Compiles `(state, {stream: batch}, slot, step) -> (state, metrics)`; the state's memory is reused.

    `step` is the number that the host gave this batch. Where it is not the state's own, or where the loss or a gradient
    is not finite, the state comes back as it was and `metrics["ok"]` is False. So after a bad batch the state stands
    still until the host, which reads one step behind, has seen it: no later batch moves it.

    Args:
      total: steps of the whole run.
      frozen: patterns of parameter paths that rest; no gradient is computed for them.
      accumulate: the batch is taken in this many equal parts one after the other, and their gradients are averaged by
        their unmasked rows.
    """

    def loss_of(trained: Any, extra: Any, rest: Any, carry: Any, part: Batches, key: jax.Array, at: Context) -> Any:
        stats, aux = carry
        params, outputs = join_frozen(trained, rest), {}
        for number, stream in enumerate(objective.streams):
            out, stats = objective.embed(params, stats, aux, part[stream], jax.random.fold_in(key, number))
            # The loss sees descriptors split over `data` alone, so that the prototypes' split over `model` is free.
            outputs[stream] = jax.tree.map(lambda x: _constrain(mesh, x), out)
        loss, aux, metrics = objective.loss(extra, aux, outputs, part, at)
        return loss, ((stats, aux), {"loss": loss, **metrics})

    def step(state: TrainState, batches: Batches, slot: jax.Array, number: jax.Array) -> tuple[TrainState, Metrics]:
        at = Context(
            step=state.step,
            epoch=state.step // objective.period,
            progress=state.step.astype(jnp.float32) / total,
            slot=slot,
        )
        trained, rest = split_frozen(state.params, frozen)
        extra, opt_extra = _slice((state.extra, state.opt_extra), slot)
        key = jax.random.fold_in(state.key, state.step)
        parts = jax.tree.map(lambda x: _parts(x, accumulate), batches)
        weights = _part_weights(parts[objective.streams[0]]["mask"])

        def one(carry: Any, inputs: Any) -> tuple[Any, Any]:
            index, weight, part = inputs
            differentiate = jax.grad(loss_of, argnums=(0, 1), has_aux=True)
            grads, (carry, metrics) = differentiate(
                trained, extra, rest, carry, part, jax.random.fold_in(key, index), at
            )
            return carry, jax.tree.map(lambda x: x * weight.astype(x.dtype), (grads, metrics))

        inputs, carry = (jnp.arange(accumulate), weights, parts), (state.stats, state.aux)
        if accumulate == 1:  # no loop around a single part: XLA's convolutions on a CPU are far slower inside one
            (stats, aux), scaled = one(carry, jax.tree.map(lambda x: x[0], inputs))
        else:
            (stats, aux), scaled = _sum_scan(one, carry, inputs)
        (grads, grads_extra), metrics = scaled

        norm = optax.tree.norm((grads, grads_extra))
        moved, opt = optimiser.update(grads, state.opt, trained, state.step)
        moved_extra, opt_extra = optimiser_extra.update(grads_extra, opt_extra, extra, state.step)
        new = TrainState(
            step=state.step + 1,
            params=join_frozen(moved, rest),
            stats=stats,
            extra=_write(state.extra, moved_extra, slot),
            aux=aux,
            opt=opt,
            opt_extra=_write(state.opt_extra, opt_extra, slot),
            key=state.key,
        )
        ok = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm) & (number == state.step)
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, state)
        return new, {**metrics, "grad_norm": norm, "learning_rate": optimiser.rate(state.step), "ok": ok}

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh), None, None),
        out_shardings=(shardings, replicated(mesh)),
    )


def _sum_scan(function: Callable[[Any, Any], tuple[Any, Any]], carry: Any, inputs: Any) -> tuple[Any, Any]:
    """`lax.scan` that adds up what `function` puts out instead of stacking it."""
    shapes = jax.eval_shape(function, carry, jax.tree.map(lambda x: x[0], inputs))[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(state: Any, item: Any) -> tuple[Any, None]:
        carry, more = function(state[0], item)
        return (carry, jax.tree.map(jnp.add, state[1], more)), None

    return jax.lax.scan(add, (carry, zeros), inputs)[0]


def _constrain(mesh: Mesh, outputs: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(outputs, NamedSharding(mesh, P(DATA)))


def _slice(tree: Any, slot: jax.Array) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, slot, keepdims=False), tree)


def _write(tree: Any, part: Any, slot: jax.Array) -> Any:
    return jax.tree.map(lambda x, p: jax.lax.dynamic_update_index_in_dim(x, p, slot, 0), tree, part)


def _parts(rows: jax.Array, count: int) -> jax.Array:
    """`[B, ...]` -> `[count, B / count, ...]`, every part taken evenly from every device's rows."""
    return rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]).swapaxes(0, 1)


def _part_weights(masks: jax.Array) -> jax.Array:
    """Each part's share of the unmasked rows, float32 [parts], of masks [parts, rows]."""
    rows = masks.astype(jnp.float32).sum(axis=1)
    return rows / jnp.maximum(rows.sum(), 1.0)
