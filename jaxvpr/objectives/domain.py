"""Domain adaptation of any objective: beside its own images it sees unlabelled ones of the domain it will be used in.

The features of both are drawn together, either by a classifier of domains whose gradient is reversed on its way back
(Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015), or by a distance between the two
samples of them (MMD: Long et al., ICML 2015; CORAL: Sun and Saenko, 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.draws import Draw
from data_pipelines.samplers import open_passes
from jaxvpr.errors import UserError
from jaxvpr.losses import domain as losses
from jaxvpr.losses.measures import mean
from jaxvpr.models.domain_classifier import DomainClassifier
from jaxvpr.models.intermediates import NotComputed, intermediates
from jaxvpr.objectives.batchnorm import TARGET
from jaxvpr.objectives.objective import Batch, Embedding, Objective, embed_images

REVERSAL = "grl"
DISTANCES = {"mmd": losses.mmd, "linear_mmd": losses.linear_mmd, "coral": losses.coral}
METHODS = (REVERSAL, *DISTANCES)
LEFT = "target_left"
Features = tuple[jax.Array, jax.Array]  # [count, width], and which count, bool [count]


class Adaptation(NamedTuple):
    """How an objective is adapted.

    Attributes:
      method: one of `METHODS`.
      weight: lambda. gamma: how fast the coefficient grows; at 0 it stays 0, and a classifier only watches.
      on: the features, "descriptor" or "map" (`models.intermediates`).
      hidden: widths of the classifier's hidden layers.
      source, target: images of each domain that are compared in a step. Those of the source are taken evenly from the
        objective's batch.
    """

    method: str = REVERSAL
    weight: float = 1.0
    gamma: float = 10.0
    on: str = "descriptor"
    hidden: tuple[int, ...] = ()
    source: int = 8
    target: int = 8


def adapted(objective: Objective, model: Any, how: Adaptation, *, images: int, width: int, epochs: int) -> Objective:
    """An objective that also makes the features of two domains alike.

    The total loss is the objective's own plus `weight` times that of the domains. What draws them together counts
    `2 / (1 + exp(-gamma p)) - 1`, where p is the share of the run's epochs that are over. So in the first epoch target
    images act through the averages of BatchNorm alone. Source and target pass the model one after the other. The
    classifier is the part "domain" of `Objective.shared`.

    Args:
      objective: any; it draws the same batches as without this.
      model: the `PlaceModel` that it trains.
      images: how many target images there are; they come in shuffled passes.
      width: of the features.
      epochs: of the whole run.

    Raises:
      UserError: for an unknown method; when the step is made, for fewer source images than wanted, or an objective
        whose own features are others.
    """
    method, weight, gamma, on, hidden, source, target = how
    if method not in METHODS:
        raise UserError(f"domain.method={method!r} does not exist; there are {METHODS}")
    classifier = DomainClassifier(hidden)

    def shared(key: jax.Array) -> dict[str, Any]:
        own = objective.shared(key) if objective.shared else {}
        if method != REVERSAL:
            return own
        return {**own, "domain": classifier.init(key, jnp.zeros((1, width), jnp.float32))["params"]}

    def plan(index, rng, memory, embed):
        own, kept = objective.plan(index, rng, {k: v for k, v in memory.items() if k != LEFT}, embed)
        rows, left = open_passes(memory.get(LEFT), images, target * objective.period, rng)
        draws = {**own.draws, TARGET: Draw.of_steps(rows.reshape(objective.period, target))}
        return own._replace(draws=draws), {**kept, LEFT: left}

    def loss(extra, aux, outputs, batches, context):
        own = {stream: outputs[stream]["own"] for stream in objective.streams}
        classify = partial(classifier.apply, {"params": extra.get("domain")})
        value, aux, metrics = objective.loss(extra, aux, own, batches, context)
        there = len(outputs[TARGET]["features"])  # fewer than `target` in a part of an accumulated batch
        domains = (
            _images(outputs, batches, objective.streams, source * there // target),
            _images(outputs, batches, (TARGET,), there),
        )
        apart, added, further = _between(method, classify, domains, losses.reversal(context.epoch / epochs, gamma))
        return value + weight * added, aux, {**metrics, "domain_loss": apart, **further}

    embeddings = {stream: objective.embedding(stream) for stream in objective.streams} | {TARGET: embed_images(model)}
    return objective._replace(
        streams=tuple(embeddings),
        plan=plan,
        embed={stream: _with_features(embed, on) for stream, embed in embeddings.items()},
        loss=loss,
        shared=shared,
    )


def _between(
    method: str, classify: Callable[[jax.Array], Any], domains: tuple[Features, Features], coefficient: jax.Array
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """The loss between the domains, what of it is added to the objective's own, and what the log says of it."""
    if method == REVERSAL:  # the coefficient is in the gradient
        value, metrics = _classified(classify, *domains, coefficient)
        return value, value, metrics
    (source, source_mask), (target, target_mask) = domains
    value = DISTANCES[method](source, target, source_mask, target_mask)
    return value, coefficient * value, {}


def _with_features(embed: Embedding, on: str) -> Embedding:
    """An `embed` that returns the features [B, images of an element, width] beside its own outputs."""

    def embed_with_features(params, stats, aux, batch, key):
        try:
            (own, stats), features = intermediates(lambda: embed(params, stats, aux, batch, key), on)
        except NotComputed as error:
            raise UserError(f"domain.on={on!r}: {error}; an objective that makes none takes domain.on=map") from error
        features = features.reshape(len(batch["image"]), -1, features.shape[-1])
        return {"own": own, "features": features}, stats

    return embed_with_features


def _images(outputs: dict[str, Any], batches: dict[str, Batch], streams: Sequence[str], count: int) -> Features:
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
    classify: Callable[[jax.Array], Any],
    source: Features,
    target: Features,
    coefficient: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The cross entropy of the domains through the reversal, of which each has half, and what the log says of it."""
    logits = classify(losses.reverse(jnp.concatenate([source[0], target[0]]), coefficient))
    parts = [(logits[: len(source[0])], source[1], -1.0), (logits[len(source[0]) :], target[1], 1.0)]
    # softplus(-z) is -log sigmoid(z); with the sign of the domain each image has its own log probability.
    entropies = [mean(jax.nn.softplus(-sign * part), mask) for part, mask, sign in parts]
    right = [mean((sign * part > 0).astype(jnp.float32), mask) for part, mask, sign in parts]
    metrics = {"domain_accuracy": 50 * (right[0] + right[1]), "reversal": coefficient}
    return (entropies[0] + entropies[1]) / 2, metrics
