"""The seam between the one training loop and every family of methods.

An objective is a tuple of functions. On the host, `plan` decides once a period (an epoch, 1000 queries, ...) what will
be drawn, and `draw` says which rows make the batch of one step. On the devices, `embed` turns a batch into outputs and
`loss` turns outputs into a scalar. Everything that changes over a run is passed in and handed back, so that a run can
be killed at any step and resumed to the bit:

- `plan` and `memory` are flat dicts of NumPy arrays. Both are saved with every checkpoint, a plan whole: a resumed run
  does not mine again, it goes on with what was mined.
- `extra` holds trained heads stacked along a leading axis of `slots`; the step trains the slice of the plan's slot
  alone, so that the idle groups of CosPlace neither move nor let their optimiser state decay.
- `shared` holds trained parts that all slots have in common (a classifier of domains), with an optimiser of their own.
- `aux` holds device arrays that are carried but not trained (a cross-batch memory, a teacher's weights).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.loaders import Draw

Array = jax.Array
Plan = dict[str, np.ndarray]
Memory = dict[str, np.ndarray]
Batch = Mapping[str, Array]
Embedding = Callable[[Any, Any, Any, Batch, Array], tuple[Any, Any]]


class Embed(NamedTuple):
    """The model of the moment, for plans that look at training images.

    Attributes:
      rows: rows [n] -> descriptors float32 [n, D] on the host; zeros where an image could not be read.
      on_mesh: rows [n] -> a `retrieval.cache.Cache` of them, which stays on the devices.
    """

    rows: Callable[[np.ndarray], np.ndarray]
    on_mesh: Callable[[np.ndarray], Any]


class Context(NamedTuple):
    """Where a run stands, as traced scalars: `step` and `epoch` int32, `progress` float32 in [0, 1), `slot` int32."""

    step: Array
    epoch: Array
    progress: Array
    slot: Array


class Objective(NamedTuple):
    """What a recipe draws and learns.

    Attributes:
      streams: names of the image streams a step reads: ("source",), or ("source", "target"). They may have batches of
        different sizes.
      period: steps that one plan lasts.
      slots: how many stacked heads `extra` holds; 1 where there is one or none.
      init: (key, descriptor dimension) -> (extra with leaves [slots, ...], aux).
      plan: (index of the plan, NumPy generator, memory, embed) -> (plan, memory). A plan may hold `slot`, an integer.
      draw: (plan, step within the period) -> {stream: Draw} of the global batch. Pure, picklable, the same on every
        host.
      embed: (params, stats, aux, batch, key) -> (outputs, stats). Called once a stream, in training mode. Or {stream:
        such a function}, where streams are not embedded alike.
      loss: (extra of the slot, aux, {stream: outputs}, {stream: batch}, context) -> (scalar, aux, {name: scalar}).
        The scalar is a mean over unmasked rows; where a batch is accumulated, each part weighs as its unmasked rows of
        the first stream do. The parts of `shared` stand beside those of the slot.
      load_aux: () -> aux from the host, which takes the place of what `init` made; for a teacher's weights, which as
        constants would be compiled into the program. Called once, before the first step.
      new_generation: (index of the plan) -> whether the model starts anew before this plan is made: its parameters and
        statistics are again those that the run started from, its optimisers fresh. None: never.
      taught: (aux, variables) -> aux. What a new generation keeps of the one before, called with its variables.
      shared: key -> {name: trained part}, of names that `extra` has not. None: nothing.
    """

    streams: tuple[str, ...]
    period: int
    slots: int
    init: Callable[[Array, int], tuple[Any, Any]]
    plan: Callable[[int, np.random.Generator, Memory, Embed], tuple[Plan, Memory]]
    draw: Callable[[Plan, int], dict[str, Draw]]
    embed: Embedding | Mapping[str, Embedding]
    loss: Callable[[Any, Any, dict[str, Any], dict[str, Batch], Context], tuple[Array, Any, dict[str, Array]]]
    load_aux: Callable[[], Any] | None = None
    new_generation: Callable[[int], bool] | None = None
    taught: Callable[[Any, Any], Any] | None = None
    shared: Callable[[Array], dict[str, Any]] | None = None

    def embedding(self, stream: str) -> Embedding:
        """How a stream is embedded."""
        return self.embed[stream] if isinstance(self.embed, Mapping) else self.embed


def embed_images(model: Any, method: str | None = None) -> Embedding:
    """The `embed` of every objective that describes one image a row: a training-mode pass of a `PlaceModel`.

    `method` names another way through the model than to its descriptors, such as "pooled".
    """

    def embed(params: Any, stats: Any, aux: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": stats}
        descriptors, updated = model.apply(
            variables, batch["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}, method=method
        )
        return descriptors, updated.get("batch_stats", stats)

    return embed


def slot_of(plan: Plan) -> int:
    """The stacked head that a plan trains."""
    return int(plan.get("slot", 0))
