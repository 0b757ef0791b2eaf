"""Which triplets a plan holds: queries, and what the model of the moment finds hard for them.

Mining as in NetVLAD (Arandjelović et al., 2016), MSLS (Warburg et al., 2020) and the Deep VG benchmark (Berton et al.,
2022), which differ in what they look at:

- full: all database images are described. The hardest negatives come from a pool drawn for each query, and from those
  that the query had last time.
- partial: one pool is drawn for all queries; only it and the positives are described.
- random: negatives are drawn, and only the positives are described.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from data_pipelines.draws import Draw
from jaxvpr.errors import UserError
from jaxvpr.mining.hard_examples import hard_examples
from jaxvpr.mining.neighbours import Neighbours
from jaxvpr.objectives.objective import Embed, Plan, Planner
from jaxvpr.retrieval.positives import Positives, without

log = logging.getLogger(__name__)
Array = np.ndarray

MINING = ("full", "partial", "random")


class Mining(NamedTuple):
    """How triplets are mined.

    Attributes:
      mode: one of `MINING`.
      negatives: of each triplet.
      pool: database images that negatives are described for among; 0 for all. Nothing to "random".
      refresh: queries of one plan.
      batch: queries of one step; what is left of `refresh` beyond whole batches is not drawn.
      memory_mib: what the search may take on each device, beside the descriptors.
    """

    mode: str = "partial"
    negatives: int = 10
    pool: int = 1000
    refresh: int = 1000
    batch: int = 4
    memory_mib: int = 1024

    @property
    def steps(self) -> int:
        """Steps of one plan."""
        return self.refresh // self.batch

    def check(self) -> None:
        """Raises UserError for settings that make no sense."""
        if self.mode not in MINING:
            raise UserError(f"objective.mining={self.mode!r} does not exist; there are {list(MINING)}")
        if self.negatives < 1 or self.pool < 0 or self.memory_mib < 1:
            raise UserError(
                f"objective.negatives={self.negatives} and objective.memory_mib={self.memory_mib} must be at least 1, "
                f"objective.pool={self.pool} at least 0"
            )
        if self.refresh < self.batch:
            raise UserError(
                f"objective.refresh={self.refresh} queries make no batch of {self.batch}; give at least one batch"
            )
        if self.mode != "random" and 0 < self.pool < self.negatives:
            raise UserError(
                f"objective.negatives={self.negatives} cannot be found in a pool of objective.pool={self.pool} images"
            )


class Triplets(NamedTuple):
    """What was mined for some queries, as positions in the database.

    Attributes:
      positive: int64 [Q], the potential positive nearest to the query; -1 where none can be read.
      negatives: int64 [Q, n], nearest first.
      easier: share of queries whose positive is nearer than every negative; -1 where none was compared.
    """

    positive: Array
    negatives: Array
    easier: float


def mined_plan(
    grounds: Sequence[Neighbours], mining: Mining, *, turn: int = 1, name_of: Callable[[int], str] = str
) -> Planner:
    """The `plan` of an objective, with rows int64 [steps, batch, 2 + negatives]: query, positive, negatives.

    Args:
      grounds: data sets used in turn; one for all data sets as one.
      mining: how.
      turn: plans after which the next ground has its turn.
      name_of: row -> what an error calls an image.

    Raises:
      UserError: for settings that make no sense; where a ground has fewer negatives for a query than wanted.
    """
    mining.check()
    for ground in grounds:
        _require_negatives(ground, mining, name_of)
    first = np.cumsum([0] + [len(ground.queries) for ground in grounds])

    def plan(index, rng, memory, embed):
        number, began = (index // turn) % len(grounds), time.monotonic()
        ground, wanted = grounds[number], mining.steps * mining.batch
        chosen = draw_queries(ground.weights, wanted, rng)
        if mining.mode == "full" and not memory:
            memory = {"negatives": np.full((first[-1], mining.negatives), -1, np.int32)}
        previous = memory["negatives"][first[number] + chosen] if mining.mode == "full" else None
        found = mined(ground, chosen, mining, rng, embed, previous)
        _require_found(ground, chosen, found, mining, name_of)
        if previous is not None:
            kept = memory["negatives"].copy()
            kept[first[number] + chosen] = found.negatives
            memory = {"negatives": kept}
        easier = f"; {found.easier:.0%} have their positive nearer than every negative" if found.easier >= 0 else ""
        log.info("mined %d queries (%s) in %.1f s%s", wanted, mining.mode, time.monotonic() - began, easier)
        rows = np.column_stack(
            [ground.queries[chosen], ground.database[found.positive], ground.database[found.negatives]]
        )
        rows[found.positive < 0] = -1
        return Plan({"source": Draw.of_steps(rows.reshape(mining.steps, mining.batch, -1))}), memory

    return plan


def draw_queries(weights: Array, wanted: int, rng: np.random.Generator) -> Array:
    """int64 [wanted] numbers of queries: none twice, unless there are fewer, which then all come once a pass.

    Args:
      weights: float64 [Q], each query's chance; sums to one.
    """
    passes, rest = divmod(wanted, len(weights))
    every = [rng.permutation(len(weights)) for _ in range(passes)]
    return np.concatenate([*every, rng.choice(len(weights), rest, replace=False, p=weights)]).astype(np.int64)


def mined(
    ground: Neighbours, chosen: Array, mining: Mining, rng: np.random.Generator, embed: Embed, previous: Array | None
) -> Triplets:
    """The triplets of the queries with the numbers `chosen`, as the model describes them now.

    Args:
      previous: int [Q, n], the negatives they had last, -1 where they had none; for full mining.
    """
    size, positives = len(ground.database), ground.positives.take(chosen)
    near, pool = ground.near.take(chosen), mining.pool if 0 < mining.pool < size else size
    if mining.mode == "full":
        described = np.arange(size)
        candidates = None if pool == size else without(_pools(len(chosen), size, pool, rng, previous), near)
    elif mining.mode == "partial":
        drawn = np.sort(rng.choice(size, pool, replace=False))
        described = np.union1d(drawn, positives.indices)
        candidates = without(_of_every(drawn, len(chosen)), near)
    else:
        described = np.unique(positives.indices)
        candidates = None
    queries, cache = embed.rows(ground.queries[chosen]), embed.on_mesh(ground.database[described])
    search = partial(hard_examples, cache, queries, _found_in(positives, described), memory_mib=mining.memory_mib)
    if mining.mode == "random":
        found = search(k=0)
        return Triplets(_back(found.positive, described), drawn_negatives(near, size, mining.negatives, rng), -1.0)
    if candidates is None:
        found = search(k=mining.negatives, excluded=near)
    else:
        found = search(k=mining.negatives, allowed=_found_in(candidates, described))
    easier = found.positive_distances < found.negative_distances[:, 0]
    return Triplets(_back(found.positive, described), _back(found.negatives, described), float(easier.mean()))


def drawn_negatives(near: Positives, size: int, count: int, rng: np.random.Generator) -> Array:
    """int64 [Q, count] positions below `size` that are not near each query, none twice; -1 where there are too few."""
    negatives = np.full((len(near), count), -1, np.int64)
    for query in range(len(near)):
        # As many more as could turn out to be near.
        drawn = rng.choice(size, min(size, count + len(near[query])), replace=False)
        far = drawn[~np.isin(drawn, near[query])][:count]
        negatives[query, : len(far)] = far
    return negatives


def _pools(queries: int, size: int, pool: int, rng: np.random.Generator, previous: Array | None) -> Positives:
    """For each query `pool` random positions below `size`, and those it had before."""
    drawn = np.stack([rng.choice(size, pool, replace=False, shuffle=False) for _ in range(queries)])
    drawn = drawn if previous is None else np.hstack([drawn, previous])
    drawn = np.sort(drawn, axis=1)
    fresh = drawn >= 0
    fresh[:, 1:] &= drawn[:, 1:] != drawn[:, :-1]
    return Positives(np.concatenate([[0], np.cumsum(fresh.sum(axis=1))]), drawn[fresh])


def _of_every(rows: Array, queries: int) -> Positives:
    return Positives(np.arange(queries + 1) * len(rows), np.tile(rows, queries))


def _found_in(positives: Positives, described: Array) -> Positives:
    """Positions in the database as places in `described`, ascending, which holds all of them."""
    return Positives(positives.indptr, np.searchsorted(described, positives.indices))


def _back(found: Array, described: Array) -> Array:
    return np.where(found >= 0, described[found], -1)


def _require_negatives(ground: Neighbours, mining: Mining, name_of: Callable[[int], str]) -> None:
    fewest = int(np.argmax(ground.near.counts))
    left = len(ground.database) - int(ground.near.counts[fewest])
    if left < mining.negatives:
        raise UserError(
            f"{name_of(ground.queries[fewest])}: objective.negatives={mining.negatives} are wanted, but only "
            f"{left} of {len(ground.database)} database images lie beyond objective.soft of this query. Ask for fewer, "
            "or give more images"
        )


def _require_found(
    ground: Neighbours, chosen: Array, found: Triplets, mining: Mining, name_of: Callable[[int], str]
) -> None:
    lacking = np.flatnonzero((found.negatives < 0).any(axis=1))
    if len(lacking):
        query = int(lacking[0])
        raise UserError(
            f"{name_of(ground.queries[chosen[query]])}: objective.negatives={mining.negatives} are wanted, but the "
            f"pool of objective.pool={mining.pool} images held {int((found.negatives[query] >= 0).sum())} beyond "
            f"objective.soft of this query ({len(lacking)} queries lack some). Take a larger pool, or fewer negatives"
        )
    unread = int((found.positive < 0).sum())
    if unread:
        log.warning("%d queries are left out of this plan: none of their positives can be read", unread)
