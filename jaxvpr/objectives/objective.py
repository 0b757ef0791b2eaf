"""The seam between the one training loop and every family of methods.

An objective is a tuple of functions. On the host, `plan` draws the batches of a period (an epoch, 1000 queries, ...).
On the devices, `embed` turns a batch into outputs and `loss` turns outputs into a scalar. Everything that changes over
a run is passed in and handed back, so that a run can be killed at any step and resumed to the bit:

- `Plan` and `memory` are NumPy arrays. Both are saved with every checkpoint, a plan in full: a resumed run does not
  mine again, it goes on with what was mined.
- `extra` holds trained heads stacked along a leading axis of `slots`; the step trains the slice of the plan's slot
  alone, so that the idle groups of CosPlace neither move nor let their optimiser state decay.
- `shared` holds trained parts that all slots have in common (a classifier of domains), with an optimiser of their own.
- `aux` holds device arrays that are carried but not trained (a cross-batch memory, a teacher's weights).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.draws import Draw
from data_pipelines.samplers import open_passes

Array = jax.Array
Memory = dict[str, np.ndarray]
Batch = Mapping[str, Array]
Embedding = Callable[[Any, Any, Any, Batch, Array], tuple[Any, Any]]


class Plan(NamedTuple):
    """The batches of one period.

    Attributes:
      draws: {stream: draws of all its steps}, `Draw.of_steps`.
      slot: the stacked head that trains.
      heads_only: in so many of its first steps the heads train alone, and the model stands still.
    """

    draws: Mapping[str, Draw]
    slot: int = 0
    heads_only: int = 0


class Embed(NamedTuple):
    """The model of the moment, for plans that look at training images.

    Attributes:
      rows: rows [n] -> descriptors float32 [n, D] on the host; zeros where an image could not be read.
      on_mesh: rows [n] -> a `retrieval.cache.Cache` of them, which stays on the devices.
    """

    rows: Callable[[np.ndarray], np.ndarray]
    on_mesh: Callable[[np.ndarray], Any]


class Context(NamedTuple):
    """Where a run stands, as traced values: `step` and `epoch` int32, `progress` float32 in [0, 1), `slot` int32; and
    `key`, random numbers of this step (and part of an accumulated batch) for the loss."""

    step: Array
    epoch: Array
    progress: Array
    slot: Array
    key: Array


Planner = Callable[[int, np.random.Generator, Memory, Embed], tuple[Plan, Memory]]
Loss = Callable[[Any, Any, dict[str, Any], dict[str, Batch], Context], tuple[Array, Any, dict[str, Array]]]


def no_heads(key: Array, dim: int) -> tuple[Any, Any]:
    """The `init` of an objective that trains the model alone."""
    return {}, {}


def passes_plan(images: int, batch: int, steps: int, stream: str = "source") -> Planner:
    """The `plan` of objectives without labels: all images in shuffled passes, `batch` a step, `steps` a plan."""

    def plan(index, rng, memory, embed):
        rows, left = open_passes(memory.get("left"), images, batch * steps, rng)
        return Plan({stream: Draw.of_steps(rows.reshape(steps, batch))}), {"left": left}

    return plan


class Objective(NamedTuple):
    """What a family draws and learns.

    Attributes:
      streams: names of the streams of data that a step reads: ("source",), or ("source", "target"). They may have
        batches of different sizes.
      period: steps that one plan lasts.
      plan: (index of the plan, NumPy generator, memory, embed) -> (plan, memory). Pure: it is called before the last
        plan has ended, with an `embed` that raises, and again when it is due if it asked that for anything.
      loss: (extra of the slot, aux, {stream: outputs}, {stream: batch}, context) -> (scalar, aux, {name: scalar}).
        The scalar is a mean over unmasked rows; where a batch is accumulated, each part weighs as its unmasked rows of
        the first stream do. The parts of `shared` stand beside those of the slot.
      embed: (params, stats, aux, batch, key) -> (outputs, stats). Called once a stream, in training mode. Outputs are
        arrays [B, ...] or scalars (a penalty, say), which are averaged where the batch is taken in parts. Or {stream:
        such a function}, where streams are not embedded alike. None: the model's descriptor of each image, also of
        those of an element that has several.
      init: (key, descriptor dimension) -> (extra with leaves [slots, ...], aux).
      slots: how many stacked heads `extra` holds; 1 where there is one or none.
      by_class: the names in `extra` whose leaves are [slots, classes, ...]: the mesh may split them by class.
      images: {stream: images of an element}, the T of its draws' rows [B, T], of the streams that have several. More
        devices than elements then share the images.
      load_aux: () -> aux from the host, which takes the place of what `init` made; for a teacher's weights, which as
        constants would be compiled into the program. Called once, before the first step.
      new_generation: (index of the plan) -> whether the model starts anew before this plan is made: its parameters and
        statistics are again those that the run started from, its optimisers fresh. None: never.
      inherited: (aux, variables) -> aux. What a new generation keeps of the last one, called with its variables.
      shared: key -> {name: trained part}, of names that `extra` has not. None: nothing.
    """

    streams: tuple[str, ...]
    period: int
    plan: Planner
    loss: Loss
    embed: Embedding | Mapping[str, Embedding] | None = None
    init: Callable[[Array, int], tuple[Any, Any]] = no_heads
    slots: int = 1
    by_class: tuple[str, ...] = ()
    images: Mapping[str, int] = MappingProxyType({})
    load_aux: Callable[[], Any] | None = None
    new_generation: Callable[[int], bool] | None = None
    inherited: Callable[[Any, Any], Any] | None = None
    shared: Callable[[Array], dict[str, Any]] | None = None

    def embedding(self, stream: str) -> Embedding:
        """How a stream is embedded."""
        embed = self.embed[stream] if isinstance(self.embed, Mapping) else self.embed
        if embed is None:
            raise ValueError("this objective leaves `embed` to the model: complete it by `embedding_with(model)`")
        return embed

    def embedding_with(self, model: Any) -> Objective:
        """The objective with an `embed`: its own, else the descriptors of this `PlaceModel`."""
        return self.embedding_by(embed_images(model))

    def embedding_by(self, embed: Embedding) -> Objective:
        """The objective with an `embed`: its own, else this one of single images, applied to all images of an element
        in the streams that have several."""
        if self.embed is not None:
            return self
        of_elements = embed_elements(embed)
        return self._replace(embed={name: of_elements if name in self.images else embed for name in self.streams})


def embed_images(model: Any, method: str | None = None) -> Embedding:
    """The `embed` of every objective that describes one image a row: a training-mode pass of a `PlaceModel`.

    `method` names another method of the model than the one that describes, such as "pooled".
    """

    def embed(params, stats, aux, batch, key):
        variables = {"params": params, "batch_stats": stats}
        descriptors, updated = model.apply(
            variables, batch["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}, method=method
        )
        return descriptors, updated.get("batch_stats", stats)

    return embed


def embed_elements(embed: Embedding) -> Embedding:
    """The `embed` of elements of several images or clips: image [B, T, ...] -> descriptors [B, T, D].

    All that has a row for each image, such as the `frames` of clips, is passed on with it.
    """

    def embed_all(params, stats, aux, batch, key):
        elements = next(x.shape[:2] for x in batch.values() if x.ndim > 3)  # of images, or of maps of them
        flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in batch.items() if x.shape[:2] == elements}
        described, stats = embed(params, stats, aux, flat, key)
        return described.reshape(*elements, *described.shape[1:]), stats

    return embed_all
