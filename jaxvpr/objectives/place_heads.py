"""What is learned from a batch of places: descriptors against one another, against past ones, or against prototypes.

A head is the `init` and the `loss` of an `Objective`. With a memory the batch is also compared with the descriptors of
past batches (cross-batch memory; Wang et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.losses.compared import compare
from jaxvpr.losses.measures import References
from jaxvpr.losses.metric import LOSSES, mine, mined_weights, options_of, place_loss
from jaxvpr.losses.miners import MINERS
from jaxvpr.objectives.objective import Batch, Context
from jaxvpr.objectives.prototypes import MARGIN_LOSSES, Prototypes

Ring = dict[str, jax.Array]
Answer = tuple[jax.Array, Any, dict[str, jax.Array]]


class Head(NamedTuple):
    """`init`, `loss` and `by_class` of an objective whose stream is `source`."""

    init: Callable[[jax.Array, int], tuple[Any, Any]]
    loss: Callable[[Any, Any, dict[str, Any], dict[str, Batch], Context], Answer]
    by_class: tuple[str, ...] = ()


class Choice(NamedTuple):
    """A loss of `LOSSES` or `MARGIN_LOSSES` and a miner of `MINERS`, with the options that are not the defaults."""

    loss: str
    miner: str = "none"
    loss_options: Mapping[str, Any] | None = None
    miner_options: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Whether all of it exists.

        Raises:
          ValueError: unknown loss, miner or option; lists those that exist.
        """
        options = options_of("loss", {**LOSSES, **MARGIN_LOSSES}, self.loss, self.loss_options or {})
        if not (isinstance(options.get("sub_centers", 1), int) and options.get("sub_centers", 1) > 0):
            raise ValueError(f"loss {self.loss!r}: sub_centers={options['sub_centers']} must be a number from 1 up")
        options_of("miner", MINERS, self.miner, self.miner_options or {})


def compared_head(choice: Choice, memory: int = 0) -> Head:
    """The global batch against itself or, with `memory`, against that many descriptors of the last batches."""
    compared = partial(
        place_loss,
        loss=choice.loss,
        miner=choice.miner,
        loss_options=choice.loss_options,
        miner_options=choice.miner_options,
    )

    def init(key, dim):
        return {}, empty_ring(memory, dim) if memory else {}

    def loss(extra, aux, outputs, batches, context):
        z, source = outputs["source"], batches["source"]
        if not memory:
            return compared(z, source["label"], source["mask"]), aux, {}
        ring = pushed(aux, z, source["label"], source["mask"])
        references = References(ring["descriptor"], ring["label"], ring["mask"], own=jnp.arange(len(z)))
        return compared(z, source["label"], source["mask"], references=references), ring, {}

    return Head(init, loss)


def prototype_head(choice: Choice, classes: int) -> Head:
    """A margin softmax over a trained prototype of each place.

    A miner weighs the rows by how often they stand in its pairs, as pytorch-metric-learning has it.

    Args:
      choice: its loss is one of `MARGIN_LOSSES`.
      classes: how many places there are; labels are their numbers.
    """
    options = options_of("loss", MARGIN_LOSSES, choice.loss, choice.loss_options or {})
    head = Prototypes(np.array([classes]), choice.loss, **options)

    def init(key, dim):
        return {"prototypes": head.init(key, dim)}, {}

    def loss(extra, aux, outputs, batches, context):
        z, source, weight = outputs["source"], batches["source"], None
        if choice.miner != "none":
            batch = compare(jax.lax.stop_gradient(z), source["label"], source["mask"])
            pairs = mine(batch, miner=choice.miner, miner_options=choice.miner_options)
            weight = mined_weights(batch, pairs, choice.miner)
        return head(extra["prototypes"], z, source, context, weight=weight), aux, {}

    return Head(init, loss, ("prototypes",))


def empty_ring(size: int, dim: int) -> Ring:
    """A cross-batch memory of `size` descriptors that holds none yet."""
    return {
        "descriptor": jnp.zeros((size, dim), jnp.float32),
        "label": jnp.full(size, -1, jnp.int32),
        "mask": jnp.zeros(size, bool),
    }


def pushed(ring: Ring, descriptors: jax.Array, labels: jax.Array, mask: jax.Array) -> Ring:
    """The memory with a batch in front, and the oldest dropped; no gradient passes into it."""
    new = {"descriptor": jax.lax.stop_gradient(descriptors), "label": labels, "mask": mask}
    return {name: jnp.concatenate([new[name], old])[: len(old)] for name, old in ring.items()}
