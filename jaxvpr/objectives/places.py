"""Metric learning on places: batches of P places with K images each, a miner and a loss on the global batch.

So train Conv-AP, MixVPR, SALAD and BoQ (Ali-bey et al., GSV-Cities, Neurocomputing 2022), and with cliques of hard
places CliqueMining and MegaLoc (Izquierdo and Civera, ECCV 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.near_batches import NearTable, check_distance
from data_pipelines.place_batches import shares_of
from data_pipelines.place_table import PlaceTable, check_located
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Objective
from jaxvpr.objectives.place_heads import Choice, compared_head, prototype_head
from jaxvpr.objectives.place_plans import Cliques, places_plan
from jaxvpr.objectives.prototypes import MARGIN_LOSSES, check_classes

BY_NEAR = "objective.partition.by='near' makes places anew in each batch"


def places_objective(
    table: PlaceTable | NearTable,
    choice: Choice,
    *,
    P: int,
    steps: int,
    min_distance: float = 0.0,
    by_city: bool = False,
    weights: Sequence[float] = (),
    cliques: Cliques | None = None,
    memory: int = 0,
    head_steps: int = 0,
) -> Objective:
    """The objective of place-grouped metric learning.

    Args:
      table: the places, or the images that are places by nearness; a batch takes `table.K` images of each.
      choice: loss and miner. A loss of `MARGIN_LOSSES` has a prototype of each place of the table.
      P: places in a global batch.
      steps: batches of one plan.
      min_distance: metres between the places of a batch, by nearness between any of their images.
      by_city: whether a batch stays in one city.
      weights: of the table's data sets; none lets all places weigh the same.
      cliques: the part of a batch that comes as cliques of hard places.
      memory: how many descriptors of the last batches, this one's included, the batch is compared with; 0 for itself.
      head_steps: so many first steps of the run train new prototypes alone.

    Raises:
      UserError: unknown loss, miner or option (lists those that exist), one image a place, one place, a memory
        smaller than a batch, or parts that do not go together.
      DataError: images that cliques cannot be made of, or a distance that places by nearness would overlap at.
    """
    by_prototypes = choice.loss in MARGIN_LOSSES
    try:
        choice.check()
    except ValueError as error:
        raise UserError(f"objective: {error}") from error
    _check_parts(choice, cliques is not None, memory)
    if isinstance(table, NearTable):
        _check_near(table, choice, memory, min_distance)
    elif min_distance:
        check_located(table, min_distance)
    if table.K < 2 and not (by_prototypes and choice.miner == "none"):
        raise UserError("objective.K=1 gives no image a second one of its place; pairs need at least 2")
    if by_prototypes and isinstance(table, PlaceTable):
        check_classes(np.array([len(table)]), len(table.rows))
    elif P < 2 and not memory:
        raise UserError("objective.P=1 gives no image another place to be compared with; a batch needs at least 2")
    if memory and memory < P * table.K:
        raise UserError(f"objective.memory={memory} is smaller than a batch of P x K = {P * table.K}; 0 is none")
    if len(weights):
        try:
            shares_of(table.anchors if isinstance(table, NearTable) else table, weights)
        except DataError as error:
            raise UserError(f"objective.{error}") from error
    if cliques:
        cliques.check()
    head = prototype_head(choice, len(table)) if by_prototypes else compared_head(choice, memory)
    return Objective(
        streams=("source",),
        period=steps,
        plan=places_plan(
            table, P=P, steps=steps, min_distance=min_distance, by_city=by_city, weights=weights, cliques=cliques,
            head_steps=head_steps if by_prototypes else 0,
        ),
        loss=head.loss,
        init=head.init,
        by_class=head.by_class,
    )  # fmt: skip


def _check_near(table: NearTable, choice: Choice, memory: int, min_distance: float) -> None:
    check_distance(table, min_distance)
    if choice.loss in MARGIN_LOSSES:
        raise UserError(
            f"objective.loss={choice.loss!r} has a prototype of each place of the data, but {BY_NEAR}. Take a loss "
            "that needs no prototypes, or objective.partition.by=cell"
        )
    if memory:
        raise UserError(
            f"objective.memory={memory} would hold one spot under several labels, and push them apart: {BY_NEAR}. Take "
            "objective.memory=0, or objective.partition.by=cell"
        )


def _check_parts(choice: Choice, cliques: bool, memory: int) -> None:
    if memory and choice.loss in MARGIN_LOSSES:
        raise UserError(
            f"objective.memory={memory} holds past descriptors to compare with, but objective.loss={choice.loss!r} "
            "compares with prototypes alone. Take memory=0, or another loss"
        )
    if cliques and choice.loss in MARGIN_LOSSES:
        raise UserError(
            f"objective.loss={choice.loss!r} has a prototype of each place of the data, but a clique is no such place. "
            "Take objective.cliques.share=0, or a loss that needs no prototypes"
        )
    if cliques and memory:
        raise UserError(
            f"objective.memory={memory} would hold one spot as several cliques, of several labels, and push them "
            "apart. Take memory=0, or objective.cliques.share=0"
        )
