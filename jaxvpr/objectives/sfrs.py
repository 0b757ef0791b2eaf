"""SFRS: a network teaches itself which parts of difficult positives show the query's place (Ge et al., ECCV 2020).

Training runs in generations. In each, the network starts anew and learns from mined triplets; from the second on, also
from the network that the last generation ended with. That one says how similar the query is to each difficult positive,
its halves and its quarters, which no label knows, and the student's similarities are drawn to its own. Negatives are
then compared by their most similar region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from jaxvpr.errors import UserError
from jaxvpr.losses.metric import options_of
from jaxvpr.losses.regions import most_similar, similarities, soft_cross_entropy
from jaxvpr.losses.triplets import LOSSES, triplet_loss
from jaxvpr.objectives.objective import Batch, Context, Objective, embed_elements, embed_images
from jaxvpr.objectives.triplet_plans import Planner


def sfrs_objective(
    model: Any,
    variables: Any,
    plan: Planner,
    *,
    steps: int,
    negatives: int,
    difficult: int,
    begins: Sequence[int],
    temperatures: Sequence[float],
    soft_weight: float = 0.5,
    loss: str = "sare_independent",
    options: Mapping[str, Any] | None = None,
) -> Objective:
    """The objective of SFRS.

    Args:
      model: a `PlaceModel` whose aggregator has regions.
      variables: shapes and types of its variables.
      plan: of `sfrs_plans.sfrs_plan`. steps: of one plan. negatives, difficult: negatives and difficult
        positives of each query.
      begins: numbers of the plans that generations begin with, the first 0, ascending.
      temperatures: of the teacher's similarities, one for each generation. The student's is always the first.
      soft_weight: of the cross entropy with the teacher, beside the loss of triplets.
      loss, options: of the triplets; as in `triplets.triplets_objective`.

    Raises:
      UserError: for a model without regions, a loss or option that does not exist, or numbers that do not fit.
    """
    _check(model, begins, temperatures, soft_weight)
    try:
        options_of("loss", LOSSES, loss, options or {})
    except ValueError as error:
        raise UserError(f"objective: {error}") from error
    compare = partial(triplet_loss, loss=loss, loss_options=options)

    def init(key, dim):
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
        return {}, {"teacher": nothing, "generation": jnp.zeros((), jnp.int32)}

    return Objective(
        streams=("source",),
        period=steps,
        plan=plan,
        loss=partial(_loss, compare, tuple(temperatures), soft_weight),
        embed=_embed(model, 2 + negatives),
        init=init,
        images={"source": 2 + negatives + difficult},
        new_generation=lambda index: index in begins[1:],
        inherited=lambda aux, last: {"teacher": last, "generation": aux["generation"] + 1},
    )


def _check(model: Any, begins: Sequence[int], temperatures: Sequence[float], soft_weight: float) -> None:
    if not hasattr(model.aggregator, "regions"):
        raise UserError(
            f"SFRS compares regions of images, which model.aggregator {type(model.aggregator).__name__} has not; "
            "netvlad has"
        )
    if not begins or begins[0] != 0 or any(b <= a for a, b in pairwise(begins)):
        raise UserError(f"generations begin at {tuple(begins)}, which must ascend from 0")
    if len(temperatures) != len(begins) or min(temperatures) <= 0:
        raise UserError(
            f"objective.temperatures={tuple(temperatures)} must be {len(begins)} numbers above 0, one a generation"
        )
    if soft_weight < 0:
        raise UserError(f"objective.soft_weight={soft_weight} must not be negative")


def _embed(model: Any, mined: int) -> Any:
    """The student's descriptors and region similarities, and the teacher's similarities.

    An element is [query, positive, negatives, difficult positives], `mined` images before the difficult ones.
    """
    student = embed_elements(embed_images(model, "regions"))

    def embed(params, stats, aux, batch, key):
        images = batch["image"]
        z, stats = student(params, stats, aux, batch, key)
        shown = jnp.concatenate([images[:, :1], images[:, mined:]], 1)
        flat = model.apply(aux["teacher"], shown.reshape(-1, *shown.shape[2:]), method="regions")
        t = jax.lax.stop_gradient(flat.reshape(*shown.shape[:2], *flat.shape[1:]))
        return {
            "query": z[:, 0, 0],
            "positive": z[:, 1, 0],
            "negatives": z[:, 2:mined],
            "student": similarities(z[:, 0, 0], z[:, mined:]),
            "teacher": similarities(t[:, 0, 0], t[:, 1:]),
        }, stats

    return embed


def _loss(
    compare: Any,
    temperatures: tuple[float, ...],
    soft_weight: float,
    extra: Any,
    aux: Any,
    outputs: dict[str, Any],
    batches: dict[str, Batch],
    context: Context,
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    z, mask, generation = outputs["source"], batches["source"]["mask"].astype(jnp.float32), aux["generation"]
    negatives, has_teacher = z["negatives"], generation > 0
    known = jnp.arange(z["teacher"].shape[1])[None] < batches["source"]["label"][:, None]
    hard = jnp.where(has_teacher, most_similar(z["query"], negatives), negatives[:, :, 0])
    soft = soft_cross_entropy(
        z["student"], z["teacher"], known,
        temperature=temperatures[0], teacher_temperature=jnp.asarray(temperatures, jnp.float32)[generation],
    )  # fmt: skip
    queries = jnp.maximum(jnp.sum(mask), 1.0)
    hard_loss = jnp.sum(compare(z["query"], z["positive"], hard) * mask) / (queries * negatives.shape[1])
    soft_loss = jnp.where(has_teacher, jnp.sum(soft * mask) / queries, 0)
    return hard_loss + soft_weight * soft_loss, aux, {"hard": hard_loss, "soft": soft_loss}
