"""GeoCLIP (Vivanco Cepeda, Nayak and Shah, NeurIPS 2023): images and coordinates side by side, with a queue of past
coordinates beside those of the batch.

A batch has the normalised positions of its rows, `at`, and their images, or the `descriptor` of each.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.draws import Draw
from data_pipelines.samplers import open_passes
from jaxvpr.errors import UserError
from jaxvpr.losses.geoclip import image_to_place, own_is_best
from jaxvpr.losses.measures import mean
from jaxvpr.models.positions import Gallery, GeoCLIP, metres_apart
from jaxvpr.objectives.objective import Embedding, Objective, Plan


def geoclip_objective(
    model: Any,
    *,
    images: int,
    batch: int,
    steps: int,
    queue: int = 4096,
    noise: float = 150.0,
    queue_noise: float = 1000.0,
    near: float = 0.0,
    views: int = 1,
) -> Objective:
    """The objective of a `PlaceModel` whose head `position` is a `GeoCLIP`.

    Args:
      images: how many there are. batch: of them in a step. steps: of one plan; passes follow one another without a gap.
      queue: how many of the last batches' coordinates stand beside the batch's own; 0: none. It begins empty, where the
        original's begins with random numbers.
      noise, queue_noise: metres, standard deviation north and east of what is added to the batch's coordinates and to
        the queue's, anew in each step.
      near: metres; other candidates nearer than so to an image's own coordinates are left out. 0: none is, as in the
        original, where of images of one spot each is the wrong answer for the others.
      views: how often each image stands in a batch, each time augmented anew and with other noise, compared with the
        coordinates of its own view alone.

    Raises:
      UserError: for numbers that make no sense, or a model without such a head.
    """
    if not isinstance(model.position, GeoCLIP):
        raise UserError("objective.name='geoclip' trains the head model.position='geoclip'; this model has another")
    if min(noise, queue_noise, near, queue) < 0 or views < 1 or batch < 2:
        raise UserError(
            f"objective: queue={queue}, noise={noise:g}, queue_noise={queue_noise:g} and near={near:g} are at least 0, "
            f"views={views} at least 1 and batch={batch} at least 2"
        )
    coding = model.position.coding

    def plan(index, rng, memory, embed):
        rows, left = open_passes(memory.get("left"), images, batch * steps, rng)
        rows = rows.reshape(steps, batch)
        shown = np.repeat(rows[..., None], views, -1) if views > 1 else rows
        return Plan({"source": Draw.of_steps(shown)}), {"left": left}

    def init(key, dim):
        return {}, {"at": jnp.zeros((queue, 2)), "mask": jnp.zeros(queue, bool)} if queue else {}

    def loss(extra, aux, outputs, batches, context):
        source, logits = batches["source"], outputs["source"]
        at, mask = _at(source)[:, 0], source["mask"]
        counts = _counted(coding, at, mask, aux, near)
        views_alike = (len(logits), logits.shape[1])
        rows = jnp.broadcast_to(mask[:, None], views_alike).reshape(-1)
        metrics = {"own_best": mean(own_is_best(logits, counts).reshape(-1), rows)}
        return mean(image_to_place(logits, counts).reshape(-1), rows), _pushed(aux, at, mask), metrics

    return Objective(
        streams=("source",),
        period=steps,
        plan=plan,
        loss=loss,
        embed=_embedding(model, noise, queue_noise),
        init=init,
        images={"source": views} if views > 1 else {},
    )


def _embedding(model: Any, noise: float, queue_noise: float) -> Embedding:
    """(params, stats, aux, batch, key) -> (logits [B, views, B + queue], stats)."""
    coding = model.position.coding

    def embed(params, stats, aux, batch, key):
        noise_key, queue_key, dropout_key = jax.random.split(key, 3)
        shown, method = (
            (batch["descriptor"], "of_descriptors") if "descriptor" in batch else (batch["image"], "located")
        )
        at = _at(batch)
        kept = (*at.shape[:2],) if at.shape[1] > 1 else (len(at),)
        raw, updated = model.apply(
            {"params": params, "batch_stats": stats}, shown.reshape(-1, *shown.shape[len(kept) :]), train=True,
            mutable=["batch_stats"], rngs={"dropout": dropout_key}, method=method,
        )  # fmt: skip
        own = {"params": params["position"], "batch_stats": stats["position"]}
        candidates = [_noisy(coding, at, noise, noise_key).reshape(-1, 2)]
        if aux:
            candidates.append(_noisy(coding, aux["at"], queue_noise, queue_key))
        with jax.default_matmul_precision(model.train_precision or model.head_precision):
            places = model.position.apply(own, jnp.concatenate(candidates), method="locations")
            raw = raw.reshape(*at.shape[:2], -1)
            batch_places, queue_places = places[: at.shape[0] * at.shape[1]], places[at.shape[0] * at.shape[1] :]
            among = jnp.einsum("bpd,cpd->bpc", raw, batch_places.reshape(raw.shape))
            logits = jnp.concatenate([among, jnp.einsum("bpd,sd->bps", raw, queue_places)], -1)
        return logits, updated.get("batch_stats", stats)

    return embed


def _at(batch: Any) -> jax.Array:
    """Normalised positions float32 [B, views, 2] of a batch's rows."""
    at = batch["at"][..., :2]
    return at if at.ndim == 3 else at[:, None]


def _noisy(coding: Gallery, at: jax.Array, metres: float, key: jax.Array) -> jax.Array:
    """Normalised positions [..., 2] with a Gaussian error of so many metres north and east."""
    if not metres:
        return at
    off = metres * jax.random.normal(key, at.shape)
    return coding.moved(at, off[..., 0], off[..., 1])


def _counted(coding: Gallery, at: jax.Array, mask: jax.Array, queue: Any, near: float) -> jax.Array:
    """bool [B, B + queue]: the candidates that each image is compared with."""
    candidates, there = (at, mask) if not queue else (
        jnp.concatenate([at, queue["at"]]), jnp.concatenate([mask, queue["mask"]]),
    )  # fmt: skip
    counts = jnp.broadcast_to(there, (len(at), len(there)))
    if not near:
        return counts
    pairs = jnp.broadcast_arrays(at[:, None], candidates[None])
    return counts & (metres_apart(coding.area, *pairs) >= near)


def _pushed(queue: Any, at: jax.Array, mask: jax.Array) -> Any:
    """The queue with a batch's coordinates in front, without noise, and the oldest dropped."""
    if not queue:
        return queue
    new = {"at": at, "mask": mask}
    return {name: jnp.concatenate([new[name], old])[: len(old)] for name, old in queue.items()}
