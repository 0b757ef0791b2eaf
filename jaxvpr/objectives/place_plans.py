"""What batches of places a period draws: places alone, or beside cliques of hard places that look alike by now."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from data_pipelines.cliques import Occupied, check, clique_batches, representatives
from data_pipelines.draws import Draw
from data_pipelines.near_batches import NearTable, near_batches
from data_pipelines.place_batches import PlaceBatches, place_batches
from data_pipelines.place_table import PlaceTable
from jaxvpr.objectives.objective import Plan, Planner
from jaxvpr.objectives.prototypes import head_start


class Cliques(NamedTuple):
    """The part of each batch that comes as cliques (`data_pipelines.cliques`).

    Attributes:
      table: the places that cliques are looked for among, in rows of the same data sets as the other places.
      P: how many of a batch's places are cliques.
      refresh: periods after which the places are described anew by the model of the moment.
      distance, angle, similar: as in `clique_batches`.
    """

    table: PlaceTable
    P: int
    refresh: int = 1
    distance: float = 25.0
    angle: float = 180.0
    similar: int = 15

    def check(self) -> None:
        """Raises DataError where no clique could ever be drawn."""
        check(self.table, distance=self.distance, angle=self.angle, similar=self.similar)


def places_plan(
    table: PlaceTable | NearTable,
    *,
    P: int,
    steps: int,
    min_distance: float = 0.0,
    by_city: bool = False,
    weights: Sequence[float] = (),
    cliques: Cliques | None = None,
    head_steps: int = 0,
) -> Planner:
    """The `plan` of an objective, with rows and labels [steps, P * K].

    Places stand first in a batch, cliques after them. A clique keeps its distance from all images of the batch's other
    places, so that nothing in a batch is called two places, and its label lies beyond the numbers of the places. The
    descriptors that cliques are found by stay in the memory until they are refreshed.

    Args:
      table: the places; a batch takes `table.K` images of each, and of each clique. With places by nearness there are
        no cliques.
      P: places in a batch, cliques among them.
      steps: batches of a plan. Places come in shuffled passes; each plan begins with a new one.
      min_distance, by_city, weights: as in `place_batches` or `near_batches`; no weights let all places weigh the same.
      cliques: the part of the batch that comes as cliques; None: none does.
      head_steps: so many first steps of the run train the heads alone.
    """
    alone = P - (cliques.P if cliques else 0)
    batches = partial(near_batches, table) if isinstance(table, NearTable) else partial(place_batches, table)

    def drawn_places(rng: np.random.Generator) -> PlaceBatches:
        if not alone:
            return _nothing(steps)
        shares = tuple(weights) or None
        return batches(
            P=alone, steps=steps, rng=rng, min_distance=min_distance, by_city=by_city, weights=shares, last="fill"
        )

    def plan(index, rng, memory, embed):
        places = drawn_places(rng)
        if cliques is None or isinstance(table, NearTable):
            draw = Draw.of_steps(places.rows, places.labels)
            return Plan({"source": draw}, heads_only=head_start(head_steps, index, 1)), memory
        if index % cliques.refresh == 0:
            memory = {"cliques": np.asarray(embed.rows(representatives(cliques.table, rng)), np.float32)}
        hard = clique_batches(
            cliques.table, memory["cliques"], P=cliques.P, K=table.K, steps=steps, rng=rng,
            distance=cliques.distance, angle=cliques.angle, similar=cliques.similar, occupied=_beside(table, places),
        )  # fmt: skip
        labels = np.where(hard.mask, hard.labels + len(table), -1).astype(np.int32)
        last = (index + 1) % cliques.refresh == 0  # nothing that is not used again is worth a place in checkpoints
        draw = Draw.of_steps(np.hstack([places.rows, hard.rows]), np.hstack([places.labels, labels]))
        return Plan({"source": draw}), {} if last else memory

    return plan


def _nothing(steps: int) -> PlaceBatches:
    return PlaceBatches(np.zeros((steps, 0), np.int64), np.zeros((steps, 0), np.int32), np.zeros((steps, 0), bool))


def _beside(table: PlaceTable, places: PlaceBatches) -> list[Occupied]:
    """All images of each batch's places."""
    batches = []
    for labels in places.labels[:, :: table.K]:
        chosen = labels[labels >= 0]
        frame = np.repeat(table.frame[chosen], np.diff(table.indptr)[chosen])
        batches.append(Occupied(table.positions[table.images(chosen)], frame))
    return batches
