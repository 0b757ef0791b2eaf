"""One update, compiled once for all groups, over any mesh.

The step is written in the global view: it sees the whole batch, and the shardings of its arguments say which device
does what. BatchNorm statistics are therefore those of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvpr.objectives.objective import Batch, Context, Objective
from jaxvpr.parallel.mesh import DATA, batch_sharding, replicated
from jaxvpr.training.ema import averaged
from jaxvpr.training.grad_cache import cached_gradients, dealt, refuse_batch_statistics
from jaxvpr.training.optimisers import Optimisers, join_frozen, split_frozen
from jaxvpr.training.state import TrainState

Batches = dict[str, Batch]
Metrics = dict[str, jax.Array]


def make_step(
    objective: Objective,
    optimisers: Optimisers,
    mesh: Mesh,
    shardings: TrainState,
    *,
    total: int,
    epoch: int = 0,
    frozen: Sequence[str] = (),
    accumulate: int = 1,
    grad_cache: int = 1,
    ema: Mapping[str, Any] | None = None,
) -> Callable[[TrainState, Batches, Any, Any], tuple[TrainState, Metrics]]:
    """Compiles `(state, {stream: batch}, slot, step) -> (state, metrics)`; the state's memory is reused.

    `step` is the number that the host gave this batch. Where it is not the state's own, or where the loss or a gradient
    is not finite, the state comes back as it was and `metrics["ok"]` is False. So after a bad batch the state stands
    still until the host, which reads one step behind, has seen it: no later batch moves it.

    Args:
      total: steps of the whole run.
      epoch: steps of an epoch, for the loss to count; 0 for those that a plan lasts.
      frozen: patterns of parameter paths that rest; no gradient is computed for them.
      accumulate: the batch is taken in this many equal parts one after the other, and their gradients are averaged by
        their unmasked rows.
      grad_cache: the batch is embedded in this many equal parts, and the loss still sees it whole.
      ema: `decay` and `warmup` of the averages in a state that has any.

    Raises:
      UserError: by the first step, for a `grad_cache` above 1 of a model that normalises by its batch's statistics.
    """
    way, count = (_cached, grad_cache) if grad_cache > 1 else (_in_parts, accumulate)

    def step(state: TrainState, batches: Batches, slot: jax.Array, number: jax.Array) -> tuple[TrainState, Metrics]:
        at = Context(
            step=state.step,
            epoch=state.step // (epoch or objective.period),
            progress=state.step.astype(jnp.float32) / total,
            slot=slot,
        )
        trained, rest = split_frozen(state.params, frozen)
        extra, opt_extra = _slice((state.extra, state.opt_extra), slot)
        key = jax.random.fold_in(state.key, state.step)
        (grads, (grads_extra, grads_shared)), (stats, aux), metrics = way(
            objective, mesh, count, partial(join_frozen, frozen=rest), trained, (extra, state.shared),
            (state.stats, state.aux), batches, key, at,
        )  # fmt: skip

        norm = optax.tree.norm((grads, grads_extra, grads_shared))
        now = {"step": state.step, "scale": state.rate_scale}
        moved, opt = optimisers.model.update(grads, state.opt, trained, **now)
        moved_extra, opt_extra = optimisers.extra.update(grads_extra, opt_extra, extra, **now)
        shared, opt_shared = optimisers.shared.update(grads_shared, state.opt_shared, state.shared, **now)
        new = state._replace(
            step=state.step + 1,
            params=join_frozen(moved, rest),
            stats=stats,
            extra=_write(state.extra, moved_extra, slot),
            shared=shared,
            aux=aux,
            opt=opt,
            opt_extra=_write(state.opt_extra, opt_extra, slot),
            opt_shared=opt_shared,
            ema=averaged(state.ema, moved, state.step, **ema or {}) if state.ema else {},
        )
        ok = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm) & (number == state.step)
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, state)
        rate = optimisers.model.rate(state.step) * state.rate_scale
        return new, {**metrics, "grad_norm": norm, "learning_rate": rate, "ok": ok}

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh), None, None),
        out_shardings=(shardings, replicated(mesh)),
    )


def _in_parts(
    objective: Objective, mesh: Mesh, count: int, params_of: Callable, trained: Any, heads: Any, carry: Any,
    batches: Batches, key: jax.Array, at: Context,
) -> tuple[Any, Any, Metrics]:  # fmt: skip
    """Gradients of the loss of each of `count` parts, averaged; (by trained and heads, (stats, aux), metrics).

    `heads` are those of the slot and the shared ones.
    """

    def loss_of(trained: Any, heads: Any, carry: Any, part: Batches, key: jax.Array) -> tuple[Any, Any]:
        outputs, stats = _embed(objective, params_of(trained), carry, part, key)
        loss, (aux, metrics) = _loss(objective, mesh, heads, carry[1], outputs, part, at)
        return loss, ((stats, aux), metrics)

    def one(carry: Any, inputs: Any) -> tuple[Any, Any]:
        index, weight, part = inputs
        differentiate = jax.grad(loss_of, argnums=(0, 1), has_aux=True)
        grads, (carry, metrics) = differentiate(trained, heads, carry, part, jax.random.fold_in(key, index))
        return carry, jax.tree.map(lambda x: x * weight.astype(x.dtype), (grads, metrics))

    parts = dealt(batches, count)
    inputs = jnp.arange(count), _part_weights(parts[objective.streams[0]]["mask"]), parts
    if count == 1:  # no loop around a single part: XLA's convolutions on a CPU are far slower inside one
        carry, (grads, metrics) = one(carry, jax.tree.map(lambda x: x[0], inputs))
    else:
        carry, (grads, metrics) = _sum_scan(one, carry, inputs)
    return grads, carry, metrics


def _cached(
    objective: Objective, mesh: Mesh, count: int, params_of: Callable, trained: Any, heads: Any, carry: Any,
    batches: Batches, key: jax.Array, at: Context,
) -> tuple[Any, Any, Metrics]:  # fmt: skip
    """As `_in_parts`, of the loss of the whole batch, which is embedded in `count` parts."""
    (stats, aux), parts = carry, dealt(batches, count)
    params, first = params_of(trained), jax.tree.map(lambda x: x[0], parts)
    refuse_batch_statistics(lambda stats, part: _embed(objective, params, (stats, aux), part, key)[1], stats, first)

    def embed(trained: Any, inputs: Any) -> dict[str, Any]:
        index, part = inputs
        return _embed(objective, params_of(trained), carry, part, jax.random.fold_in(key, index))[0]

    def loss(heads: Any, outputs: dict[str, Any]) -> tuple[Any, Any]:
        return _loss(objective, mesh, heads, aux, outputs, batches, at)

    grads, (aux, metrics) = cached_gradients(embed, loss, trained, heads, (jnp.arange(count), parts))
    return grads, (stats, aux), metrics


def _embed(objective: Objective, params: Any, carry: Any, part: Batches, key: jax.Array) -> tuple[dict[str, Any], Any]:
    (stats, aux), outputs = carry, {}
    for number, stream in enumerate(objective.streams):
        embed = objective.embedding(stream)
        outputs[stream], stats = embed(params, stats, aux, part[stream], jax.random.fold_in(key, number))
    return outputs, stats


def _loss(
    objective: Objective, mesh: Mesh, heads: Any, aux: Any, outputs: dict[str, Any], batches: Batches, at: Context
) -> tuple[Any, Any]:
    # The loss sees descriptors split over `data` alone, so that the prototypes' split over `model` is free.
    outputs = jax.lax.with_sharding_constraint(outputs, NamedSharding(mesh, P(DATA)))
    extra, shared = heads
    loss, aux, metrics = objective.loss({**extra, **shared} if shared else extra, aux, outputs, batches, at)
    return loss, (aux, {"loss": loss, **metrics})


def _sum_scan(function: Callable[[Any, Any], tuple[Any, Any]], carry: Any, inputs: Any) -> tuple[Any, Any]:
    """`lax.scan` that adds up what `function` puts out instead of stacking it."""
    shapes = jax.eval_shape(function, carry, jax.tree.map(lambda x: x[0], inputs))[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(state: Any, item: Any) -> tuple[Any, None]:
        carry, more = function(state[0], item)
        return (carry, jax.tree.map(jnp.add, state[1], more)), None

    return jax.lax.scan(add, (carry, zeros), inputs)[0]


def _slice(tree: Any, slot: jax.Array) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, slot, keepdims=False), tree)


def _write(tree: Any, part: Any, slot: jax.Array) -> Any:
    return jax.tree.map(lambda x, p: jax.lax.dynamic_update_index_in_dim(x, p, slot, 0), tree, part)


def _part_weights(masks: jax.Array) -> jax.Array:
    """Each part's share of the unmasked rows, float32 [parts], of masks [parts, rows]."""
    rows = masks.astype(jnp.float32).sum(axis=1)
    return rows / jnp.maximum(rows.sum(), 1.0)
