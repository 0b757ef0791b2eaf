"""Which images an SFRS plan holds: mined triplets, and for each query some difficult positives.

A positive is difficult (Ge et al., ECCV 2020) if it ranks higher by the neighbours that it shares with the query than
by its descriptor: it shows the place, but the descriptor does not say so yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_pipelines.draws import Draw
from jaxvpr.errors import UserError
from jaxvpr.mining.hard_examples import hard_examples
from jaxvpr.mining.neighbours import Neighbours
from jaxvpr.mining.reciprocal import reciprocal_distances, vectors
from jaxvpr.objectives.objective import Embed, Plan, Planner
from jaxvpr.objectives.triplet_plans import Mining, mined_plan
from jaxvpr.retrieval.cache import Cache, first

Array = np.ndarray


class Difficult(NamedTuple):
    """How difficult positives are found.

    Attributes:
      number: how many a query has.
      pool: nearest positives that they are chosen among.
      reciprocal: neighbours of an image that re-ranking looks at; 0 for none: the nearest positives then serve.
      begins: plan from which on positives are re-ranked; before it the nearest serve.
    """

    number: int = 10
    pool: int = 20
    reciprocal: int = 20
    begins: int = 0

    def check(self) -> None:
        """Raises UserError for settings that make no sense."""
        if self.number < 1 or self.pool < self.number or self.reciprocal < 0:
            raise UserError(
                f"objective.difficult={self.number} must be at least 1, objective.difficult_pool={self.pool} no less "
                f"than that, and objective.reciprocal={self.reciprocal} not negative"
            )


def sfrs_plan(
    ground: Neighbours, mining: Mining, difficult: Difficult, *, name_of: Callable[[int], str] = str
) -> Planner:
    """The `plan` of SFRS.

    Its rows are int64 [steps, batch, 2 + negatives + difficult]: query, positive, negatives, difficult positives; its
    labels int32 [steps, batch], how many of the last there are. Where they are fewer than wanted they come again, so
    that a batch has no blank images.

    Raises:
      UserError: for settings that make no sense; where the ground has too few negatives for a query.
    """
    difficult.check()
    if mining.mode != "full":
        raise UserError(f"objective.mining={mining.mode!r}: SFRS looks at all images, which is objective.mining='full'")
    mine = mined_plan([ground], mining, name_of=name_of)
    images = _AllImages(ground)

    def plan(index, rng, memory, embed):
        cache = embed.on_mesh(images.rows)
        triplets, memory = mine(index, rng, memory, images.embed(cache))
        rows = triplets.draws["source"].rows.reshape(-1, 2 + mining.negatives)
        kept = np.flatnonzero(rows[:, 0] >= 0)
        k = difficult.reciprocal if index >= difficult.begins else 0
        found, number = np.full((len(rows), difficult.number), -1, np.int64), np.zeros(len(rows), np.int32)
        found[kept], number[kept] = images.difficult(
            cache, rows[kept, 0], difficult._replace(reciprocal=k), mining.memory_mib
        )
        shape = mining.steps, mining.batch
        elements = np.hstack([rows, found]).reshape(*shape, -1)
        return Plan({"source": Draw.of_steps(elements, number.reshape(shape))}), memory

    return plan


class _AllImages:
    """The database of a ground and behind it the queries that are not in it, described once a plan."""

    def __init__(self, ground: Neighbours):
        self._ground = ground
        self.rows = np.concatenate([ground.database, np.setdiff1d(ground.queries, ground.database)])
        self._order = np.argsort(self.rows)
        self._query_order = np.argsort(ground.queries)

    def places(self, rows: Array) -> Array:
        """Where rows of images stand in a cache of all of them."""
        return self._order[np.searchsorted(self.rows, rows, sorter=self._order)]

    def embed(self, cache: Cache) -> Embed:
        """Answers as the model would, from the cache of all images; the only set that mining leaves on the mesh is the
        database."""
        return Embed(
            rows=lambda rows: vectors(cache, self.places(rows)),
            on_mesh=lambda rows: first(cache, len(rows)),
        )

    def difficult(self, cache: Cache, queries: Array, wanted: Difficult, memory_mib: int) -> tuple[Array, Array]:
        """Rows int64 [Q, number] of the difficult positives of queries, and how many each has; the rest is repeated."""
        ground, places = self._ground, self.places(queries)
        positives = ground.positives.take(
            self._query_order[np.searchsorted(ground.queries, queries, sorter=self._query_order)]
        )
        near = hard_examples(
            cache, vectors(cache, places), positives, k=wanted.pool, allowed=positives, memory_mib=memory_mib
        ).negatives
        if wanted.reciprocal:
            after = reciprocal_distances(cache, places, near, k=wanted.reciprocal, memory_mib=memory_mib)
        else:
            after = np.where(near >= 0, np.arange(wanted.pool, dtype=np.float32), np.inf)
        found, number = np.empty((len(queries), wanted.number), np.int64), np.empty(len(queries), np.int32)
        for query, (before, distances) in enumerate(zip(near, after, strict=True)):
            chosen = before[risen(distances[before >= 0])][: wanted.number]
            number[query] = len(chosen)
            found[query] = chosen[np.arange(wanted.number) % len(chosen)]
        return self.rows[found], number


def risen(distances: Array) -> Array:
    """Positions of what a re-ranking moved forwards, by how far, and then of what it left in its place.

    Args:
      distances: [m], after re-ranking, of what is ordered as it was before.

    Returns:
      int64 [at most m], never empty; what fell behind is left out.
    """
    after = np.argsort(distances, kind="stable")
    gain = after - np.arange(len(after))
    forwards = np.flatnonzero(gain > 0)
    forwards = forwards[np.argsort(-gain[forwards], kind="stable")]
    return after[np.concatenate([forwards, np.flatnonzero(gain == 0)])]
