"""Domain adaptation of any objective: beside its own images it sees unlabelled ones of the domain it will be used in.

The features of both are drawn together, either by a classifier of domains whose gradient is reversed on its way back
(Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015), or by a distance between the two
samples of them (MMD: Long et al., ICML 2015; CORAL: Sun and Saenko, 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loaders import Draw
from data_pipelines.samplers import open_passes
from jaxvpr.errors import UserError
from jaxvpr.losses import domain as losses
from jaxvpr.losses.measures import mean
from jaxvpr.models.domain_classifier import DomainClassifier
from jaxvpr.models.seen import Unseen, seen
from jaxvpr.objectives.objective import Batch, Context, Embed, Embedding, Memory, Objective, Plan, embed_images
from jaxvpr.objectives.statistics import TARGET

REVERSAL = "grl"
DISTANCES = {"mmd": losses.mmd, "linear_mmd": losses.linear_mmd, "coral": losses.coral}
METHODS = (REVERSAL, *DISTANCES)
LEFT = "target_left"


def adapted(
    objective: Objective,
    model: Any,
    *,
    images: int,
    width: int,
    epochs: int,
    method: str = REVERSAL,
    weight: float = 1.0,
    gamma: float = 10.0,
    on: str = "descriptor",
    hidden: Sequence[int] = (),
    source: int = 8,
    target: int = 8,
) -> Objective:
    """An objective whose features are to tell nothing of the domain.

    The total loss is the objective's own plus `weight` times that of the domains. What draws them together counts
    `2 / (1 + exp(-gamma p)) - 1`, where p is the share of the run's epochs that are over. So in the first epoch target
    images act through the averages of BatchNorm alone. Source and target pass the model one after the other.

    Args:
      objective: any; it draws the same batches as without this.
      model: the `PlaceModel` that it trains.
      images: how many target images there are; they come in shuffled passes.
      width: of the features, see `on`.
      epochs: of the whole run.
      method: one of `METHODS`.
      weight: lambda. gamma: how fast the coefficient grows; at 0 it stays 0, and a classifier only watches.
      on: the features, "descriptor" or "map" (`models.seen`).
      hidden: widths of the classifier's hidden layers. It rides in the part "domain" of `Objective.shared`.
      source, target: images of each domain that are compared in a step. Those of the source are taken evenly from the
        objective's batch.

    Raises:
      UserError: for an unknown method; when the step is made, for fewer source images than asked for, or an objective
        whose own features are others.
    """
    if method not in METHODS:
        raise UserError(f"domain.method={method!r} does not exist; there are {METHODS}")
    classifier = DomainClassifier(tuple(hidden))

    def shared(key: jax.Array) -> dict[str, Any]:
        own = objective.shared(key) if objective.shared else {}
        if method != REVERSAL:
            return own
        return {**own, "domain": classifier.init(key, jnp.zeros((1, width), jnp.float32))["params"]}

    def plan(index: int, rng: np.random.Generator, memory: Memory, embed: Embed) -> tuple[Plan, Memory]:
        own, kept = objective.plan(index, rng, {k: v for k, v in memory.items() if k != LEFT}, embed)
        rows, left = open_passes(memory.get(LEFT), images, target * objective.period, rng)
        return {**own, TARGET: rows.reshape(objective.period, target)}, {**kept, LEFT: left}

    def loss(
        extra: Any, aux: Any, outputs: dict[str, Any], batches: dict[str, Batch], context: Context
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        own = {stream: outputs[stream]["own"] for stream in objective.streams}
        value, aux, metrics = objective.loss(extra, aux, own, batches, context)
        there = len(outputs[TARGET]["features"])  # fewer than `target` in a part of an accumulated batch
        domains = (
            _images(outputs, batches, objective.streams, source * there // target),
            _images(outputs, batches, (TARGET,), there),
        )
        counts = losses.reversal(context.epoch / epochs, gamma)
        if method == REVERSAL:
            told = partial(classifier.apply, {"params": extra["domain"]})
            apart, said = _classified(told, *domains, counts)
            weighted = apart  # the coefficient is in the gradient
        else:
            (s, s_mask), (t, t_mask) = domains
            apart, said = DISTANCES[method](s, t, s_mask, t_mask), {}
            weighted = counts * apart
        return value + weight * weighted, aux, {**metrics, "domain_loss": apart, **said}

    return objective._replace(
        streams=(*objective.streams, TARGET),
        plan=plan,
        draw=partial(_draw, objective.draw),
        embed={
            **{stream: _watched(objective.embedding(stream), on) for stream in objective.streams},
            TARGET: _watched(embed_images(model), on),
        },
        loss=loss,
        shared=shared,
    )


def _draw(draw: Callable[[Plan, int], dict[str, Draw]], plan: Plan, step: int) -> dict[str, Draw]:
    return {**draw(plan, step), TARGET: Draw.of(plan[TARGET][step])}


def _watched(embed: Embedding, on: str) -> Embedding:
    """An `embed` that hands out the features [B, images of an element, width] beside what it gave before."""

    def embed_and_see(params: Any, stats: Any, aux: Any, batch: Batch, key: jax.Array) -> tuple[Any, Any]:
        try:
            (own, stats), features = seen(lambda: embed(params, stats, aux, batch, key), on)
        except Unseen as error:
            raise UserError(f"domain.on={on!r}: {error}; an objective that makes none takes domain.on=map") from error
        features = features.reshape(len(batch["image"]), -1, features.shape[-1])
        return {"own": own, "features": features}, stats

    return embed_and_see


def _images(
    outputs: dict[str, Any], batches: dict[str, Batch], streams: Sequence[str], count: int
) -> tuple[jax.Array, jax.Array]:
    """Features [count, width] of images taken evenly from all streams, and which of them count, bool [count]."""
    features = jnp.concatenate([outputs[s]["features"].reshape(-1, outputs[s]["features"].shape[-1]) for s in streams])
    masks = [jnp.repeat(batches[s]["mask"], outputs[s]["features"].shape[1]) for s in streams]
    if count > len(features):
        raise UserError(
            f"domain.source: {count} images of the batch are to be compared with those of the target, but it has "
            f"{len(features)}; lower it"
        )
    rows = np.arange(count) * len(features) // count
    return features[rows], jnp.concatenate(masks)[rows]


def _classified(
    told: Callable[[jax.Array], Any],
    source: tuple[jax.Array, jax.Array],
    target: tuple[jax.Array, jax.Array],
    coefficient: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The cross entropy of the domains through the reversal, of which each has half, and what the log says of it."""
    logits = told(losses.reverse(jnp.concatenate([source[0], target[0]]), coefficient))
    parts = [(logits[: len(source[0])], source[1], -1.0), (logits[len(source[0]) :], target[1], 1.0)]
    # softplus(-z) is -log sigmoid(z); with the sign of the domain each image has its own log probability.
    entropies = [mean(jax.nn.softplus(-sign * part), mask) for part, mask, sign in parts]
    right = [mean((sign * part > 0).astype(jnp.float32), mask) for part, mask, sign in parts]
    said = {"domain_accuracy": 50 * (right[0] + right[1]), "reversal": coefficient}
    return (entropies[0] + entropies[1]) / 2, said
