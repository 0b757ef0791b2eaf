"""One update, compiled once for all groups, over any mesh.

The step is written in the global view: it sees the whole batch, and the shardings of its arguments say which device
does what. BatchNorm statistics are therefore those of the global batch, or of groups of its images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding

from jaxvpr.models.weighted import summed_in_float32
from jaxvpr.objectives.objective import Batch, Context, Objective
from jaxvpr.parallel.fsdp import gathered
from jaxvpr.parallel.mesh import batch_sharding, outputs_sharding, replicated
from jaxvpr.training.ema import averaged
from jaxvpr.training.grad_cache import cached_gradients, dealt, refuse_batch_statistics
from jaxvpr.training.optimisers import Optimiser, join_frozen, split_frozen
from jaxvpr.training.state import TrainState

Batches = dict[str, Batch]
Metrics = dict[str, jax.Array]


class Turn(NamedTuple):
    """What the host says of a step: its `number` in the run, the plan's `slot`, and whether heads train alone."""

    number: Any
    slot: Any = np.int32(0)
    heads_only: Any = np.False_


Step = Callable[..., tuple[TrainState, Metrics]]


def make_step(
    objective: Objective,
    optimisers: Mapping[str, Optimiser],
    mesh: Mesh,
    shardings: TrainState,
    *,
    total: int,
    epoch: int = 0,
    frozen: Sequence[str] = (),
    accumulate: int = 1,
    grad_cache: int = 1,
    ema: Mapping[str, Any] | None = None,
    by_image: Mapping[str, int] | None = None,
    gradient_dtype: str = "float32",
    tables: bool = False,
    many: bool = False,
) -> Step:
    """Compiles `(state, {stream: batch}, Turn) -> (state, metrics)`; the state's memory is reused.

    Where the turn's number is not the state's own, or the loss or a gradient is not finite, the state comes back as it
    was and `metrics["ok"]` is False: after a bad batch it stands still until the host, one step behind, has seen it.
    `metrics["counts"]` says whether each stream had an element that counts.

    Args:
      total: steps of the whole run.
      epoch: steps of an epoch, for the loss to count; 0 for those that a plan lasts.
      frozen: patterns of parameter paths that do not train; no gradient is computed for them.
      accumulate: the batch is taken in this many equal parts; their gradients are averaged by their unmasked rows.
      grad_cache: the batch is embedded in this many equal parts, and the loss still sees it whole.
      ema: `decay` and `warmup` of the averages in a state that has any.
      by_image: {stream: T} of the streams that come as images `[B * T, ...]`; the objective sees `[B, T, ...]`.
      gradient_dtype: what gradients of the backbone's weights are summed over devices in: "float32", or "bfloat16",
        which is the type that its products are computed in.
      tables: the step takes a fourth argument, {stream: {name: array [N, ...]}} on the devices, of which a batch gets
        the rows that it names (`row`); a step has no copy of them.
      many: several steps run in one call. Batches, turns and metrics have them along a leading axis. After a step that
        is not finite those behind it in the call change nothing: their turns are not the state's own. XLA's CPU rounds
        convolutions otherwise in a loop (losses of twelve steps of a small ResNet differed by 5e-7 of their size from
        those of single calls); products of matrices came out the same to the bit.

    Raises:
      UserError: by the first step, for a `grad_cache` above 1 of a model that normalises by its batch's statistics.
    """
    of_params = flatten_dict(shardings.params, sep="/")
    summing = partial(summed_in_float32, mesh) if gradient_dtype == "float32" else nullcontext
    gradients, count = (_cached, grad_cache) if grad_cache > 1 else (_in_parts, accumulate)

    def step(
        state: TrainState, batches: Batches, turn: Turn, of_rows: Mapping[str, Batch] | None = None
    ) -> tuple[TrainState, Metrics]:
        batches = {name: with_rows(batch, (of_rows or {}).get(name, {})) for name, batch in batches.items()}
        progress, key = state.step.astype(jnp.float32) / total, jax.random.fold_in(state.key, state.step)
        batches = _elements(batches, by_image or {})
        at = Context(state.step, state.step // (epoch or objective.period), progress, turn.slot, key)
        trained, fixed = split_frozen(state.params, frozen)
        extra, opt_heads = _slice((state.extra, state.opt["heads"]), turn.slot)
        params_of = partial(_whole, fixed=fixed, shardings=of_params)
        with summing():
            (grads, (grads_heads, grads_shared)), (stats, aux), metrics = gradients(
                objective, mesh, count, params_of, trained, (extra, state.shared), (state.stats, state.aux), batches, at
            )

        norm = optax.tree.norm((grads, grads_heads, grads_shared))
        ok = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm) & (turn.number == state.step)
        update = partial(_updated, optimisers, state)
        heads, opt_heads = update("heads", grads_heads, opt_heads, extra)
        shared, opt_shared = update("shared", grads_shared, state.opt["shared"], state.shared)
        heads, opt_heads = _write((state.extra, state.opt["heads"]), (heads, opt_heads), turn.slot)
        parts = {"step": state.step + 1, "extra": heads, "shared": shared, "aux": aux}
        new = _chosen(ok, state, parts, {"heads": opt_heads, "shared": opt_shared})
        moved, opt_model = update("model", grads, state.opt["model"], trained)
        means = averaged(state.ema, moved, state.step, **ema or {}) if state.ema else {}
        parts = {"params": join_frozen(moved, fixed), "stats": stats, "ema": means}
        new = _chosen(ok & ~turn.heads_only, new, parts, {"model": opt_model})
        rate = optimisers["model"].rate(state.step) * state.rate_scale
        counts = jnp.stack([batch["mask"].any() for batch in batches.values()]).all()
        return new, {**metrics, "grad_norm": norm, "learning_rate": rate, "ok": ok, "counts": counts}

    def steps(
        state: TrainState, batches: Batches, turns: Turn, of_rows: Mapping[str, Batch] | None = None
    ) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, one: step(state, *one, of_rows), state, (batches, turns))

    given: tuple[Any, ...] = (shardings, batch_sharding(mesh, stacked=many), None)
    given += (replicated(mesh),) if tables else ()
    returned = (shardings, replicated(mesh))
    return jax.jit(steps if many else step, donate_argnums=0, in_shardings=given, out_shardings=returned)


def _whole(trained: Mapping[str, Any], *, fixed: Mapping[str, Any], shardings: Mapping[str, NamedSharding]) -> Any:
    """Nested parameters, whole on every device, of those that train and those that do not."""
    return join_frozen(gathered(trained, shardings), gathered(fixed, shardings))


def _updated(
    optimisers: Mapping[str, Optimiser], state: TrainState, group: str, grads: Any, opt: Any, params: Any
) -> tuple[Any, Any]:
    return optimisers[group].update(grads, opt, params, step=state.step, scale=state.rate_scale)


def _chosen(condition: jax.Array, old: TrainState, new: dict[str, Any], opt: dict[str, Any]) -> TrainState:
    """The state with new parts and new optimiser states of some groups where the condition holds; else the old one."""
    before = {name: getattr(old, name) for name in new}, {group: old.opt[group] for group in opt}
    parts, groups = jax.tree.map(lambda a, b: jnp.where(condition, a, b), (new, opt), before)
    return old._replace(**parts, opt={**old.opt, **groups})


def with_rows(batch: Batch, tables: Batch) -> Batch:
    """A batch with the rows of tables that it names; without their numbers."""
    found = {name: table[batch["row"]] for name, table in tables.items()}
    return {**{name: part for name, part in batch.items() if name != "row"}, **found}


def _elements(batches: Batches, by_image: Mapping[str, int]) -> Batches:
    """Batches with the streams that come as images `[B * T, ...]` as elements `[B, T, ...]`.

    An element counts where all its images do; its label is that of each of them.
    """

    def folded(batch: Batch, images: int) -> Batch:
        parts = {name: x.reshape(-1, images, *x.shape[1:]) for name, x in batch.items()}
        return {**parts, "label": parts["label"][:, 0], "mask": parts["mask"].all(1)}

    return {name: folded(batch, by_image[name]) if name in by_image else batch for name, batch in batches.items()}


def _in_parts(
    objective: Objective, mesh: Mesh, count: int, params_of: Callable, trained: Any, heads: Any, carry: Any,
    batches: Batches, at: Context,
) -> tuple[Any, Any, Metrics]:  # fmt: skip
    """Gradients of the loss of each of `count` parts, averaged; (by trained and heads, (stats, aux), metrics).

    `heads` are those of the slot and the shared ones.
    """

    def loss_of(trained: Any, heads: Any, carry: Any, part: Batches, key: jax.Array) -> tuple[Any, Any]:
        outputs, stats = embed_streams(objective, params_of(trained), carry, part, key)
        loss, (aux, metrics) = loss_of_outputs(objective, mesh, heads, carry[1], outputs, part, at._replace(key=key))
        return loss, ((stats, aux), metrics)

    def one(carry: Any, inputs: Any) -> tuple[Any, Any]:
        index, weight, part = inputs
        differentiate = jax.grad(loss_of, argnums=(0, 1), has_aux=True)
        grads, (carry, metrics) = differentiate(trained, heads, carry, part, jax.random.fold_in(at.key, index))
        return carry, jax.tree.map(partial(_weighed, weight), (grads, metrics))

    parts = dealt(batches, count)
    inputs = jnp.arange(count), _part_weights(parts[objective.streams[0]]["mask"]), parts
    if count == 1:  # no loop around a single part: XLA's convolutions on a CPU are far slower inside one
        carry, (grads, metrics) = one(carry, jax.tree.map(lambda x: x[0], inputs))
    else:
        carry, (grads, metrics) = _sum_scan(one, carry, inputs)
    return grads, carry, metrics


def _cached(
    objective: Objective, mesh: Mesh, count: int, params_of: Callable, trained: Any, heads: Any, carry: Any,
    batches: Batches, at: Context,
) -> tuple[Any, Any, Metrics]:  # fmt: skip
    """As `_in_parts`, of the loss of the whole batch, which is embedded in `count` parts."""
    (stats, aux), parts = carry, dealt(batches, count)
    params, first = params_of(trained), jax.tree.map(lambda x: x[0], parts)
    refuse_batch_statistics(
        lambda stats, part: embed_streams(objective, params, (stats, aux), part, at.key)[1], stats, first
    )

    def embed(trained: Any, inputs: Any) -> dict[str, Any]:
        index, part = inputs
        return embed_streams(objective, params_of(trained), carry, part, jax.random.fold_in(at.key, index))[0]

    def loss(heads: Any, outputs: dict[str, Any]) -> tuple[Any, Any]:
        return loss_of_outputs(
            objective, mesh, heads, aux, outputs, batches, at._replace(key=jax.random.fold_in(at.key, count))
        )

    grads, (aux, metrics) = cached_gradients(embed, loss, trained, heads, (jnp.arange(count), parts))
    return grads, (stats, aux), metrics


def embed_streams(
    objective: Objective, params: Any, carry: Any, part: Batches, key: jax.Array
) -> tuple[dict[str, Any], Any]:
    """({stream: outputs}, BatchNorm statistics) of a part of a batch; `carry` is (statistics, aux)."""
    (stats, aux), outputs = carry, {}
    for number, stream in enumerate(objective.streams):
        embed = objective.embedding(stream)
        outputs[stream], stats = embed(params, stats, aux, part[stream], jax.random.fold_in(key, number))
    return outputs, stats


def loss_of_outputs(
    objective: Objective, mesh: Mesh, heads: Any, aux: Any, outputs: dict[str, Any], batches: Batches, at: Context
) -> tuple[Any, Any]:
    """(loss, (aux, metrics)) of a batch's outputs; `heads` are those of the slot and the shared ones."""
    outputs = jax.lax.with_sharding_constraint(outputs, outputs_sharding(mesh, outputs))
    extra, shared = heads
    at = at._replace(key=jax.random.fold_in(at.key, len(objective.streams)))  # those before it are the embeddings'
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


def _weighed(weight: jax.Array, x: jax.Array) -> jax.Array:
    # A share below 1 is 0 as an integer, so metrics that count become numbers with a fraction.
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
    return x * weight.astype(x.dtype)


def _part_weights(masks: jax.Array) -> jax.Array:
    """Each part's share of the unmasked rows, float32 [parts], of masks [parts, rows]."""
    rows = masks.astype(jnp.float32).sum(axis=1)
    return rows / jnp.maximum(rows.sum(), 1.0)
