"""Mined triplets of images or clips from a recipe's keys: which data sets stand together, how they are mined, and the
loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.clips import Clips
from data_pipelines.places import Places
from jaxvpr import builders, models
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.mining.neighbours import Neighbours, neighbours
from jaxvpr.objectives.objective import Planner
from jaxvpr.objectives.triplet_plans import Mining, mined_plan
from jaxvpr.objectives.triplets import triplets_objective

SETS = ("merged", "in_turn")


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """Triplets of a query, its best positive and its hardest negatives, of one data set or several; queries alone are
    augmented."""
    return of_elements(config, builders.elements(config, sets))


def of_elements(config: ConfigDict, elements: Sequence[Places] | Sequence[Clips]) -> Learning:
    """As `from_config`, of data sets that are cut already."""
    keys, mining = config.objective, settings(config)
    source = builders.training_source(config, elements, queries_only=True)
    planned, summary = planner(config, elements, mining, lambda row: source.names(np.array([row]))[0])
    objective = triplets_objective(
        planned,
        steps=mining.steps,
        negatives=mining.negatives,
        loss=keys.loss,
        options=keys.loss_options.to_dict(),
    )
    return Learning(objective, sources={"source": source}, elements=elements, summary=summary)


def settings(config: ConfigDict) -> Mining:
    """How a recipe mines."""
    keys = config.objective
    return Mining(keys.mining, keys.negatives, keys.pool, keys.refresh, config.batch, keys.memory_mib)


def planner(
    config: ConfigDict, elements: Sequence[Places] | Sequence[Clips], mining: Mining, name_of: Callable[[int], str]
) -> tuple[Planner, str]:
    """The plan of a recipe whose batches are mined, and what it draws from in one line; `name_of` says what an error
    calls a row.

    Raises:
      UserError: for settings that make no sense, and for a model that describes no image alone.
    """
    if models.depends_on_batch(builders.model(config)):
        raise UserError(
            "mining describes every image once and compares all of them, but this model's descriptors depend on the "
            "other images of a batch; set model.aggregator_options.cross_image=false"
        )
    mining.check()  # before the map is looked at, which takes a while
    together = grounds(config, elements)
    turn = config.steps_per_epoch // mining.steps
    what = f"clips of {elements[0].length} frames" if isinstance(elements[0], Clips) else "images"
    return mined_plan(together, mining, turn=turn, name_of=name_of), in_words(together, what)


def in_words(together: Sequence[Neighbours], what: str = "images") -> str:
    """How many triplets can be mined, in one line."""
    queries, skipped, database = (
        sum(len(one.queries) for one in together), sum(one.skipped for one in together),
        sum(len(one.database) for one in together),
    )  # fmt: skip
    return f"triplets of {queries:,} queries ({skipped:,} more have no positive) and {database:,} database {what}"


def grounds(config: ConfigDict, sets: Sequence[Places] | Sequence[Clips]) -> list[Neighbours]:
    """The geography of all data sets as of one, or of each alone, whose turn changes with the epoch."""
    keys = config.objective
    if keys.sets not in SETS:
        raise UserError(f"objective.sets={keys.sets!r} does not exist; there are {list(SETS)}")
    firsts = [sum(map(len, sets[:number])) for number in range(len(sets))]
    alone = [(first, sets[number : number + 1]) for number, first in enumerate(firsts)]
    parts = [(0, sets)] if keys.sets == "merged" else alone
    return [neighbours(part, keys.positive, keys.soft, weighted=keys.weighted, first=first) for first, part in parts]
