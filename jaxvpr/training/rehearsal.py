"""What a run will be, without running it: its first batch, and what its step takes of a device's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_pipelines.draws import Draw
from jaxvpr.objectives.objective import Context, Embed, Objective
from jaxvpr.retrieval import cache
from jaxvpr.retrieval.extract import Described
from jaxvpr.training.feed import Feed
from jaxvpr.training.optimisers import join_frozen, split_frozen
from jaxvpr.training.state import TrainState
from jaxvpr.training.step import embed_streams, loss_of_outputs

Array = np.ndarray
STAND_IN = 8  # numbers of a descriptor that stands in for the model's


class FirstBatch(NamedTuple):
    """The batch of step 0.

    Attributes:
      draws: {stream: what the step draws}, the global batch.
      read: {stream: its rows, augmented}, as the loop reads them on a single host.
      guessed: whether the plan mines: then it was made with random descriptors in place of the model's.
    """

    draws: Mapping[str, Draw]
    read: dict[str, dict[str, Array]]
    guessed: bool


class Memory(NamedTuple):
    """Bytes on each device: of the state, of a batch, of gradients, and of what is kept to compute them, parameters
    that are gathered among it (an estimate from the traced program, before any compiler)."""

    state: int
    batch: int
    gradients: int
    kept: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def first_batch(objective: Objective, feed: Feed, mesh: Mesh, seed: int) -> FirstBatch:
    """The batch that a run begins with, to the bit, unless its plan mines.

    Raises:
      UserError, ImageError: as of the loop: for a plan that does not fit, or an image that cannot be read.
    """
    asked: list[int] = []
    embed = _stand_in(mesh, asked)
    plan, _ = objective.plan(0, np.random.default_rng([seed, 0]), {}, embed)
    feed.check(plan.draws, objective.streams, objective.period)
    with closing(feed.read(plan.draws, 0, 0, 1, whole=True)) as stream:
        _, read = next(stream)
    return FirstBatch({name: draw.at(0) for name, draw in plan.draws.items()}, read, bool(asked))


def _stand_in(mesh: Mesh, asked: list[int]) -> Embed:
    """Random unit vectors for descriptors, the same on every host; `asked` gets how many each time."""

    def rows(wanted: Array) -> Array:
        asked.append(len(wanted))
        vectors = np.random.default_rng(len(asked)).normal(size=(len(wanted), STAND_IN)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def on_mesh(wanted: Array) -> cache.Cache:
        return cache.from_host(Described(rows(wanted), np.zeros(0, np.int64)), mesh, 64 * mesh.size)

    return Embed(rows, on_mesh)


def memory(
    objective: Objective,
    mesh: Mesh,
    state: TrainState,
    batch: FirstBatch,
    *,
    frozen: Sequence[str],
    accumulate: int = 1,
    grad_cache: int = 1,
    tables: Mapping[str, Mapping[str, Array]] = MappingProxyType({}),
) -> Memory:
    """What a training step takes on each device; nothing is computed.

    What is kept for the gradients is what differentiation saves of one part of the batch. A compiler fuses some of it
    and adds buffers of its own.

    Args:
      state: shapes, types and shardings, of `state.planned`.
      frozen, accumulate, grad_cache: as of `step.make_step`.
      tables: as of the `Recipe`; all of them lie on each device.
    """
    batches = {name: _global(batch.draws[name], arrays, tables.get(name, {})) for name, arrays in batch.read.items()}
    parts = max(accumulate, grad_cache)
    part = jax.tree.map(lambda x: jax.ShapeDtypeStruct((max(x.shape[0] // parts, 1), *x.shape[1:]), x.dtype), batches)
    trained, fixed = split_frozen(state.params, frozen)
    heads = jax.eval_shape(lambda stacked: jax.tree.map(lambda x: x[0], stacked), state.extra), state.shared

    def loss(trained: Any, heads: Any, rest: Any) -> Any:
        fixed, carry, part = rest
        key = jax.random.key(0)
        outputs, _ = embed_streams(objective, join_frozen(trained, fixed), carry, part, key)
        if grad_cache > 1:  # the loss sees the whole batch, of whose images it has only these outputs
            return outputs
        at = Context(jnp.int32(0), jnp.int32(0), jnp.float32(0), jnp.int32(0), key)
        return loss_of_outputs(objective, mesh, heads, carry[1], outputs, part, at)[0]

    def backward(trained: Any, heads: Any, rest: Any) -> Any:
        return jax.vjp(lambda trained, heads: loss(trained, heads, rest), trained, heads)[1]

    kept = jax.eval_shape(backward, trained, heads, (fixed, (state.stats, state.aux), part))
    gathered = [leaf for leaf in jax.tree.leaves(state.params) if not leaf.sharding.is_fully_replicated]
    of_a_slot = _on_a_device(state.extra) // objective.slots
    return Memory(
        state=_on_a_device(state),
        batch=_total(batches) // mesh.size + _total([dict(named) for named in tables.values()]),
        gradients=_on_a_device((trained, state.shared)) + of_a_slot,
        kept=_total(kept) // mesh.size + _total(gathered),
    )


def _global(draw: Draw, local: Mapping[str, Array], tables: Mapping[str, Array]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the global batch as the objective sees it, elements of several images folded, rows of tables joined."""
    elements = len(draw.rows)
    each = local["row"].size // len(local["mask"]) if local["row"].ndim > 1 else 1
    folded = draw.each // each  # above 1 where the devices share the images of an element

    def shape(name: str, x: Array) -> jax.ShapeDtypeStruct:
        inner = (folded,) if folded > 1 and name not in ("label", "mask") else ()
        return jax.ShapeDtypeStruct((elements, *inner, *x.shape[1:]), x.dtype)

    found = {name: shape(name, x) for name, x in local.items() if name not in ("row", "bad")}
    rows = draw.rows.shape
    return found | {name: jax.ShapeDtypeStruct((*rows, *x.shape[1:]), x.dtype) for name, x in tables.items()}


def _on_a_device(tree: Any) -> int:
    return sum(_bytes(leaf, leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _total(tree: Any) -> int:
    return sum(_bytes(leaf, leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Any, shape: Sequence[int]) -> int:
    return prod(shape) * leaf.dtype.itemsize
